"""Restores what the extra pass of a step must not change.

Restored are:

- random generators, always;
- where other packs wrap the network: attributes that hold data on the network itself (TeaCache, first block cache),
  and what the packs' functions keep in closures, containers and small tensors (DeepCache, WaveSpeed).

Attributes of other objects are never written to. If the pass changed weights or hooks of the network, only the
generators are restored. What the packs keep may then belong to the changed weights.
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

from .model_options import EASYCACHE, KEY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

DATA = (type(None), bool, int, float, complex, str, Tensor)
CONTAINERS = (dict, list, set, deque)
LAYER_PATCHES = frozenset({"patches", "patches_replace", "wrappers", "callbacks", "sample_sigmas", EASYCACHE})
"""Keys of ``transformer_options`` that are not searched. Patches of layers come in hundreds and keep no state."""
MODULE_ATTRIBUTES = frozenset(vars(nn.Module()))
MOST_VALUES, MOST_DEPTH, MOST_ELEMENTS = 2000, 6, 4096
"""Limits of the search: values visited, depth of nesting, and elements of a tensor that is copied."""
SAMPLED_PLACES = (0.0, 0.37, 0.81)
"""Places in each weight, as shares of its length, that are compared to see whether weights changed."""


@contextmanager
def restoring_state(options: dict[str, Any], network: nn.Module, device: torch.device) -> Iterator[None]:
    """Restore, at the end of the block, what a call of the model in it changed.

    Args:
        options: ``model_options`` of the call.
        network: the ``diffusion_model``.
        device: the device whose random generator is restored, in addition to that of the CPU.
    """
    restore_generators = saved_generators(device)
    pack_values = values_of_other_packs(options)
    snapshot = StateSnapshot(network, pack_values) if pack_values else None
    try:
        yield
    finally:
        restore_generators()
        if snapshot is not None:
            snapshot.restore()


def saved_generators(device: torch.device) -> Callable[[], None]:
    """A function that restores the global random generators of torch, Python and NumPy to where they are now."""
    of_torch, of_python, of_numpy = torch.get_rng_state(), random.getstate(), np.random.get_state()
    module = None if device.type == "cpu" else torch.get_device_module(device)
    of_device = module.get_rng_state(device) if module is not None and hasattr(module, "get_rng_state") else None

    def restore() -> None:
        torch.set_rng_state(of_torch)
        random.setstate(of_python)
        np.random.set_state(of_numpy)
        if module is not None and of_device is not None:
            module.set_rng_state(of_device, device)

    return restore


def values_of_other_packs(options: dict[str, Any]) -> list[Any]:
    """Other packs' wrappers and further values in the options that may keep state; empty if nobody wraps the network.

    Patches of layers and plain data are left out.
    """
    transformer_options = options.get("transformer_options") or {}
    values = [value for name, value in transformer_options.items() if name not in LAYER_PATCHES]
    values.append(options.get("model_function_wrapper"))
    for by_key in (transformer_options.get("wrappers") or {}).values():
        values += [wrapper for key, wrappers in by_key.items() if key not in (KEY, EASYCACHE) for wrapper in wrappers]
    return [value for value in values if not isinstance(value, DATA)]


class StateSnapshot:
    """The data that a network and other packs' functions hold, as it is now."""

    def __init__(self, network: nn.Module, pack_values: list[Any]):
        self._network = network
        self._weights_and_hooks = sampled_weights_and_hooks(network)
        self._visited: dict[int, Any] = {}
        self._restorers: list[Callable[[], object]] = [self._save_attributes()]
        for value in (*vars(network).values(), *pack_values):
            self._save(value, MOST_DEPTH)

    def restore(self) -> None:
        """Write the data back, unless weights or hooks of the network changed."""
        if same_weights_and_hooks(self._weights_and_hooks, sampled_weights_and_hooks(self._network)):
            for restore in self._restorers:
                restore()

    def _save_attributes(self) -> Callable[[], None]:
        """Save the network's own attributes that hold data; returns the function that restores them."""
        network = self._network

        def data() -> dict[str, Any]:
            attributes = ((name, value) for name, value in vars(network).items() if name not in MODULE_ATTRIBUTES)
            return {name: value for name, value in attributes if isinstance(value, (*DATA, *CONTAINERS))}

        before = data()

        def restore() -> None:
            for name in data():
                if name not in before:
                    delattr(network, name)
            for name, value in before.items():
                if vars(network).get(name, before) is not value:
                    setattr(network, name, value)

        return restore

    def _save(self, value: Any, depth: int) -> None:
        """Save ``value`` and, down to ``depth``, what it refers to."""
        if id(value) in self._visited or not depth or len(self._visited) > MOST_VALUES or isinstance(value, nn.Module):
            return
        if isinstance(value, Tensor):
            if type(value) is Tensor and 0 < value.numel() <= MOST_ELEMENTS and value.device.type != "meta":
                self._visited[id(value)] = value
                self._restorers.append(functools.partial(value.detach().copy_, value.detach().clone()))
            return
        if isinstance(value, DATA):
            return
        self._visited[id(value)] = value
        for inner in self._save_references(value):
            self._save(inner, depth - 1)

    def _save_references(self, value: Any) -> list[Any]:
        """Save which objects a container or a closure refers to; returns the objects that ``value`` refers to."""
        inside: list[Any] = []
        if isinstance(value, CONTAINERS):
            self._restorers.append(saved_items(value))
            inside += value.values() if isinstance(value, dict) else value
        elif isinstance(value, functools.partial):
            inside += [value.func, *value.args, *value.keywords.values()]
        elif isinstance(value, types.MethodType):
            inside += [value.__self__, value.__func__]
        elif isinstance(value, types.FunctionType):
            cells = [cell for cell in value.__closure__ or () if is_filled(cell)]
            self._restorers += [functools.partial(restore_cell, cell, cell.cell_contents) for cell in cells]
            inside += [cell.cell_contents for cell in cells]
        elif isinstance(value, tuple):
            inside += value
        elif type(value).__module__.partition(".")[0] not in {"comfy", "torch", "builtins"}:
            inside += [
                item for item in getattr(value, "__dict__", {}).values() if isinstance(item, (*CONTAINERS, Tensor))
            ]
        return inside


def restore_cell(cell: types.CellType, value: Any) -> None:
    """Write ``value`` back into a closure's cell, if it is data."""
    if cell.cell_contents is not value and isinstance(value, (*DATA, *CONTAINERS, tuple)):
        cell.cell_contents = value


def saved_items(container: Any) -> Callable[[], None]:
    """A function that restores the items of a container to those that it has now."""
    items = dict(container) if isinstance(container, dict) else list(container)

    def restore() -> None:
        # Compared by identity: ``==`` of tensors has no truth value.
        if [id(item) for item in keys_and_values(container)] != [id(item) for item in keys_and_values(items)]:
            container.clear()
            container.update(items) if isinstance(container, (dict, set)) else container.extend(items)

    return restore


def keys_and_values(items: Any) -> list[Any]:
    """Keys and values of a dict; the items of another container."""
    return [*items, *items.values()] if isinstance(items, dict) else list(items)


def sampled_weights_and_hooks(network: nn.Module) -> tuple[list[Tensor], list[int]]:
    """A few values of each weight, one tensor for each device and dtype, and the keys of all forward hooks."""
    parts: dict[Any, list[Tensor]] = {}
    for weight in network.parameters():
        if type(weight.data) is Tensor and weight.numel() and weight.device.type != "meta":
            values = weight.detach().reshape(-1)
            sampled = parts.setdefault((weight.device, weight.dtype), [])
            indices = [int(share * values.numel()) for share in SAMPLED_PLACES]
            sampled += [values[index : index + 1] for index in indices]
    kinds = ("_forward_hooks", "_forward_pre_hooks")
    hooks = [key for module in network.modules() for kind in kinds for key in getattr(module, kind)]
    return [torch.cat(values) for values in parts.values()], hooks


def same_weights_and_hooks(a: tuple[list[Tensor], list[int]], b: tuple[list[Tensor], list[int]]) -> bool:
    return a[1] == b[1] and len(a[0]) == len(b[0]) and all(torch.equal(x, y) for x, y in zip(a[0], b[0], strict=True))


def is_filled(cell: types.CellType) -> bool:
    """Whether a closure's cell has a value. An empty one raises when it is read."""
    try:
        return cell.cell_contents is not cell
    except ValueError:
        return False
