"""What the hidden pass of a step must not change: taken down before it, and put back after it.

Random generators, what the network itself keeps (TeaCache, first block cache), and what functions around the network
keep in their closures (DeepCache, WaveSpeed). Attributes of other objects are never written to, and nothing is put
back for a function that moved weights or exchanged hooks meanwhile, as what it keeps mirrors them.
"""

from __future__ import annotations

import random
from collections import deque
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from .seams import EASYCACHE, KEY

if TYPE_CHECKING:
    import types
    from collections.abc import Callable, Iterator

DATA = (type(None), bool, int, float, complex, str, Tensor)
LAYER_PATCHES = frozenset({"patches", "patches_replace", "wrappers", "callbacks", EASYCACHE})
"""Of ``transformer_options``: patches of layers keep nothing from call to call, and there are hundreds."""
OF_MODULES = frozenset(vars(nn.Module()))
SAMPLES = 64
"""Values of each weight that tell whether it was moved."""


@contextmanager
def untouched(options: dict[str, Any], network: nn.Module, device: torch.device) -> Iterator[None]:
    """What a call of the model within changes is put back.

    Args:
        options: ``model_options`` of the call.
        network: the ``diffusion_model``, whose own attributes count.
        device: whose random generator counts beside the CPU's.
    """
    put_back = [generators(device), attributes(network), *map(closure, around_the_network(options))]
    try:
        yield
    finally:
        for put in put_back:
            put()


def generators(device: torch.device) -> Callable[[], None]:
    """The random generators that everybody draws from."""
    of_torch, of_python, of_numpy = torch.get_rng_state(), random.getstate(), np.random.get_state()
    module = None if device.type == "cpu" else torch.get_device_module(device)
    of_device = module.get_rng_state(device) if module is not None and hasattr(module, "get_rng_state") else None

    def put() -> None:
        torch.set_rng_state(of_torch)
        random.setstate(of_python)
        np.random.set_state(of_numpy)
        if module is not None and of_device is not None:
            module.set_rng_state(of_device, device)

    return put


def attributes(network: nn.Module) -> Callable[[], None]:
    """The network's own attributes that hold data, and the contents of its containers."""

    def data() -> dict[str, Any]:
        return {n: v for n, v in vars(network).items() if n not in OF_MODULES and isinstance(v, (*DATA, *CONTAINERS))}

    before = data()
    contents = [container(value) for value in before.values() if isinstance(value, CONTAINERS)]

    def put() -> None:
        for name in data():
            if name not in before:
                delattr(network, name)
        for name, value in before.items():
            if vars(network).get(name, before) is not value:
                setattr(network, name, value)
        for put_contents in contents:
            put_contents()

    return put


def around_the_network(options: dict[str, Any]) -> list[Any]:
    """Other packs' wrappers, and functions in the options, but for patches of layers."""
    inner = options.get("transformer_options") or {}
    values = [value for name, value in inner.items() if name not in LAYER_PATCHES]
    values.append(options.get("model_function_wrapper"))
    for kinds in (inner.get("wrappers") or {}).values():
        values += [wrapper for key, wrappers in kinds.items() if key not in (KEY, EASYCACHE) for wrapper in wrappers]
    return values


def cells_of(function: Any, seen: set[int]) -> Iterator[tuple[types.CellType, Any]]:
    """The cells of a function's closure with their contents, and those of the functions in them."""
    for cell in getattr(function, "__closure__", None) or ():
        if id(cell) not in seen and filled(cell):
            seen.add(id(cell))
            yield cell, cell.cell_contents
            yield from cells_of(cell.cell_contents, seen)


def closure(function: Any) -> Callable[[], None]:
    """What a function keeps in its closure: the cells, the containers in them, and those of objects in them."""
    cells = list(cells_of(function, set()))
    modules = [module for _, value in cells if (module := module_of(value)) is not None]
    before = [prints(module) for module in modules]
    contents = [container(held) for _, value in cells for held in containers(value)]

    def put() -> None:
        if any(not same(prints(module), earlier) for module, earlier in zip(modules, before, strict=True)):
            return
        for cell, value in cells:
            if cell.cell_contents is not value and isinstance(value, DATA):
                cell.cell_contents = value
        for put_contents in contents:
            put_contents()

    return put


CONTAINERS = (dict, list, set, deque)


def container(held: Any) -> Callable[[], None]:
    """The items of a container, as they are now."""
    items = dict(held) if isinstance(held, dict) else list(held)

    def put() -> None:
        # By identity, as tensors have no truth value to compare by.
        if [id(item) for item in flat(held)] != [id(item) for item in flat(items)]:
            held.clear()
            held.update(items) if isinstance(held, (dict, set)) else held.extend(items)

    return put


def flat(items: Any) -> list[Any]:
    """Keys and values of a dict, or the items of another container."""
    return [*items, *items.values()] if isinstance(items, dict) else list(items)


def containers(value: Any) -> Iterator[Any]:
    """A container and those within it, or those that an object of another pack holds directly."""
    if isinstance(value, CONTAINERS):
        yield value
        for item in value.values() if isinstance(value, dict) else value:
            if isinstance(item, CONTAINERS):
                yield item
    elif type(value).__module__.partition(".")[0] not in {"comfy", "torch", "builtins"}:
        yield from (held for held in getattr(value, "__dict__", {}).values() if isinstance(held, CONTAINERS))


def module_of(value: Any) -> nn.Module | None:
    """The module whose weights and hooks a closure can reach through ``value``: itself, or a MODEL's."""
    if isinstance(value, nn.Parameter):
        return nn.ParameterList([value])
    model = getattr(value, "model", value)
    return model if isinstance(model, nn.Module) else None


def prints(module: nn.Module) -> tuple[list[Tensor], list[int]]:
    """Samples of all weights, and the hooks, by which a change is known."""
    weights = [p.detach().reshape(-1)[:: max(1, p.numel() // SAMPLES)].clone() for p in module.parameters()]
    kinds = ("_forward_hooks", "_forward_pre_hooks")
    return weights, [key for part in module.modules() for kind in kinds for key in getattr(part, kind)]


def same(a: tuple[list[Tensor], list[int]], b: tuple[list[Tensor], list[int]]) -> bool:
    return a[1] == b[1] and all(torch.equal(x, y) for x, y in zip(a[0], b[0], strict=True))


def filled(cell: types.CellType) -> bool:
    try:
        return cell.cell_contents is not cell
    except ValueError:
        return False
