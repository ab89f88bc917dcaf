"""What the hidden pass of a step must not change: taken down before it, and put back after it.

Random generators always. Where other packs stand around the network: what the network itself keeps (TeaCache, first
block cache), and what their functions keep (DeepCache, WaveSpeed), in closures, containers and small tensors. No
attribute of another object is written to. If weights of the network moved meanwhile, or hooks were exchanged, nothing
but the generators is put back, as what is kept may mirror them.
"""

from __future__ import annotations

import functools
import random
import types
from collections import deque
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from .seams import EASYCACHE, KEY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

DATA = (type(None), bool, int, float, complex, str, Tensor)
CONTAINERS = (dict, list, set, deque)
LAYER_PATCHES = frozenset({"patches", "patches_replace", "wrappers", "callbacks", "sample_sigmas", EASYCACHE})
"""Of ``transformer_options``: patches of layers keep nothing from call to call, and there are hundreds."""
OF_MODULES = frozenset(vars(nn.Module()))
MOST_THINGS, DEEPEST, MOST_ELEMENTS = 2000, 6, 4096
"""Of what is followed: how many, how deep, and the elements of a tensor that is copied in case it changes in place."""
WHERE = (0.0, 0.37, 0.81)
"""Places in a weight at which a move shows."""


@contextmanager
def untouched(options: dict[str, Any], network: nn.Module, device: torch.device) -> Iterator[None]:
    """What a call of the model within changes is put back.

    Args:
        options: ``model_options`` of the call.
        network: the ``diffusion_model``, whose own attributes count.
        device: whose random generator counts beside the CPU's.
    """
    generators = generators_of(device)
    around = around_the_network(options)
    # Nobody stands at the network who could keep anything: nothing to look for.
    kept = Kept(network, around) if around else None
    try:
        yield
    finally:
        generators()
        if kept is not None:
            kept.put_back()


def generators_of(device: torch.device) -> Callable[[], None]:
    """The random generators that everybody draws from."""
    of_torch, of_python, of_numpy = torch.get_rng_state(), random.getstate(), np.random.get_state()
    module = None if device.type == "cpu" else torch.get_device_module(device)
    of_device = module.get_rng_state(device) if module is not None and hasattr(module, "get_rng_state") else None

    def put_back() -> None:
        torch.set_rng_state(of_torch)
        random.setstate(of_python)
        np.random.set_state(of_numpy)
        if module is not None and of_device is not None:
            module.set_rng_state(of_device, device)

    return put_back


def around_the_network(options: dict[str, Any]) -> list[Any]:
    """Other packs' wrappers, and what else stands in the options, but for patches of layers and plain data."""
    inner = options.get("transformer_options") or {}
    values = [value for name, value in inner.items() if name not in LAYER_PATCHES]
    values.append(options.get("model_function_wrapper"))
    for kinds in (inner.get("wrappers") or {}).values():
        values += [wrapper for key, wrappers in kinds.items() if key not in (KEY, EASYCACHE) for wrapper in wrappers]
    return [value for value in values if not isinstance(value, DATA)]


class Kept:
    """What the network and those around it keep, as it is now."""

    def __init__(self, network: nn.Module, around: list[Any]):
        self._network = network
        self._prints = prints(network)
        self._seen: dict[int, Any] = {}
        self._put: list[Callable[[], object]] = [self._attributes()]
        for value in (*vars(network).values(), *around):
            self._follow(value, DEEPEST)

    def put_back(self) -> None:
        """Unless weights or hooks changed, which what is kept may mirror."""
        if same(self._prints, prints(self._network)):
            for put in self._put:
                put()

    def _attributes(self) -> Callable[[], None]:
        """The network's own attributes that hold data."""
        network = self._network

        def data() -> dict[str, Any]:
            kinds = (*DATA, *CONTAINERS)
            return {n: v for n, v in vars(network).items() if n not in OF_MODULES and isinstance(v, kinds)}

        before = data()

        def put() -> None:
            for name in data():
                if name not in before:
                    delattr(network, name)
            for name, value in before.items():
                if vars(network).get(name, before) is not value:
                    setattr(network, name, value)

        return put

    def _follow(self, value: Any, depth: int) -> None:
        """Take down ``value`` and what it leads to."""
        if id(value) in self._seen or not depth or len(self._seen) > MOST_THINGS or isinstance(value, nn.Module):
            return
        if isinstance(value, Tensor):
            if type(value) is Tensor and 0 < value.numel() <= MOST_ELEMENTS and value.device.type != "meta":
                self._seen[id(value)] = value
                self._put.append(functools.partial(value.detach().copy_, value.detach().clone()))
            return
        if isinstance(value, DATA):
            return
        self._seen[id(value)] = value
        for found in self._inside(value):
            self._follow(found, depth - 1)

    def _inside(self, value: Any) -> list[Any]:
        inside: list[Any] = []
        if isinstance(value, CONTAINERS):
            self._put.append(container(value))
            inside += value.values() if isinstance(value, dict) else value
        elif isinstance(value, functools.partial):
            inside += [value.func, *value.args, *value.keywords.values()]
        elif isinstance(value, types.MethodType):
            inside += [value.__self__, value.__func__]
        elif isinstance(value, types.FunctionType):
            cells = [cell for cell in value.__closure__ or () if filled(cell)]
            self._put += [functools.partial(put_cell, cell, cell.cell_contents) for cell in cells]
            inside += [cell.cell_contents for cell in cells]
        elif isinstance(value, tuple):
            inside += value
        elif type(value).__module__.partition(".")[0] not in {"comfy", "torch", "builtins"}:
            inside += [
                item for item in getattr(value, "__dict__", {}).values() if isinstance(item, (*CONTAINERS, Tensor))
            ]
        return inside


def put_cell(cell: types.CellType, value: Any) -> None:
    if cell.cell_contents is not value and isinstance(value, (*DATA, *CONTAINERS, tuple)):
        cell.cell_contents = value


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


def prints(network: nn.Module) -> tuple[list[Tensor], list[int]]:
    """A few values of each weight, by device and type, and the hooks: by these a change is known."""
    parts: dict[Any, list[Tensor]] = {}
    for weight in network.parameters():
        if type(weight.data) is Tensor and weight.numel() and weight.device.type != "meta":
            values = weight.detach().reshape(-1)
            places = parts.setdefault((weight.device, weight.dtype), [])
            places += [values[(at := int(share * values.numel())) : at + 1] for share in WHERE]
    kinds = ("_forward_hooks", "_forward_pre_hooks")
    hooks = [key for module in network.modules() for kind in kinds for key in getattr(module, kind)]
    return [torch.cat(values) for values in parts.values()], hooks


def same(a: tuple[list[Tensor], list[int]], b: tuple[list[Tensor], list[int]]) -> bool:
    return a[1] == b[1] and len(a[0]) == len(b[0]) and all(torch.equal(x, y) for x, y in zip(a[0], b[0], strict=True))


def filled(cell: types.CellType) -> bool:
    try:
        return cell.cell_contents is not cell
    except ValueError:
        return False
