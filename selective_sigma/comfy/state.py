"""What a call of the model advances outside of its result: taken down, and put back.

Guidance with momentum, caches, counters and random draws change from call to call, and a second
call a step must not be seen in them. They live in closures, attributes and containers that the
options and the guider lead to, and in the random generators.
"""

from __future__ import annotations

import functools
import logging
import random
import threading
import types
from collections import deque
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    PutBack = Callable[[], object]

logger = logging.getLogger(__name__)
MOST_OBJECTS = 20_000
MOST_BYTES = 2**26
"""Of tensors that are copied, in case they are changed in place; larger ones are only put back whole."""
OF_GUIDERS = frozenset({"model_patcher", "inner_model", "loaded_models", "original_conds", "conds", "model_options"})
"""What every guider has, and no call changes; the controls in its conds are followed, and the options as given."""
# Machinery with state that is nobody's guidance, or shared with other threads.
LEFT_ALONE = frozenset(
    (
        "comfy",
        "comfy_api",
        "comfy_execution",
        "execution",
        "server",
        "app",
        "api_server",
        "folder_paths",
        "nodes",
        "latent_preview",
        "torch",
        "torchvision",
        "numpy",
        "PIL",
        "tqdm",
        "logging",
        "threading",
        "asyncio",
        "aiohttp",
        "socket",
        "concurrent",
        "multiprocessing",
        "queue",
        "weakref",
        "selectors",
    )
)
OURS = __name__.rpartition(".comfy.")[0]
OF_MODULES = frozenset(vars(nn.Module()))
warned: set[str] = set()


class States:
    """A point in a run, between two calls, that can be gone back to."""

    def __init__(self, options: dict[str, Any], guider: Any, device: torch.device):
        """Args:
        options: what the sampler hands the model; all that hooks, patches and wrappers in it hold.
        guider: its own attributes, and those of the network (not of its layers), count too.
        device: whose random generator counts beside the CPU's.
        """
        self._put: list[PutBack] = list(generators(device))
        self._seen: dict[int, Any] = {}
        self._bytes = 0
        network = getattr(getattr(guider, "inner_model", None), "diffusion_model", None)
        found: list[Any] = [options, *controls(guider)]
        for holder, known in ((guider, OF_GUIDERS), (network, OF_MODULES)):
            attributes = getattr(holder, "__dict__", {})
            self._keep_attributes(attributes)
            found += [value for name, value in attributes.items() if name not in known]
        self._walk(found)

    def put_back(self) -> None:
        for put in self._put:
            put()

    def _walk(self, found: list[Any]) -> None:
        while found:
            thing = found.pop()
            if id(thing) in self._seen or isinstance(thing, PLAIN):
                continue
            if len(self._seen) > MOST_OBJECTS:
                warn("more than this follows", "the model's patches")
                return
            self._seen[id(thing)] = thing
            found.extend(self._keep(thing))

    def _keep(self, thing: Any) -> Iterator[Any]:
        """Take one thing down; what it leads to."""
        if isinstance(thing, Tensor):
            self._keep_tensor(thing)
        elif isinstance(thing, dict):
            self._keep_attributes(thing)
            yield from thing.values()
        elif isinstance(thing, (list, deque, set)):
            self._keep_items(thing)
            yield from thing
        elif isinstance(thing, (tuple, frozenset)):
            yield from thing
        elif isinstance(thing, types.FunctionType):
            yield from (thing.__defaults__ or (), thing.__kwdefaults__, thing.__dict__, thing.__closure__ or ())
        elif isinstance(thing, types.CellType):
            yield from self._keep_cell(thing)
        elif isinstance(thing, types.MethodType):
            yield from (thing.__self__, thing.__func__)
        elif isinstance(thing, functools.partial):
            yield from (thing.func, thing.args, thing.keywords)
        elif isinstance(thing, (torch.Generator, random.Random, np.random.Generator, np.random.RandomState)):
            self._put.append(of_generator(thing))
        elif isinstance(thing, types.GeneratorType) or type(thing).__module__ == "itertools":
            warn("an iterator cannot be put back", type(thing).__qualname__)
        elif not isinstance(thing, nn.Module) and not left_alone(type(thing)):
            yield from self._keep_object(thing)

    def _keep_tensor(self, tensor: Tensor) -> None:
        size = tensor.numel() * tensor.element_size()
        # Not where elements may share memory, or a subclass keeps them elsewhere.
        if type(tensor) is Tensor and tensor.is_contiguous() and self._bytes + size <= MOST_BYTES:
            self._bytes += size
            self._put.append(functools.partial(put_tensor, tensor, tensor.detach().clone()))

    def _keep_attributes(self, holder: dict[Any, Any]) -> None:
        self._put.append(functools.partial(put_dict, holder, dict(holder)))

    def _keep_items(self, holder: Any) -> None:
        self._put.append(functools.partial(put_items, holder, list(holder)))

    def _keep_cell(self, cell: types.CellType) -> Iterator[Any]:
        try:
            content = cell.cell_contents
        except ValueError:  # Not filled yet.
            return
        self._put.append(functools.partial(setattr, cell, "cell_contents", content))
        yield content

    def _keep_object(self, thing: Any) -> Iterator[Any]:
        attributes = getattr(thing, "__dict__", None)
        if isinstance(attributes, dict):
            if any(isinstance(value, SHARED) for value in attributes.values()):
                return
            yield attributes
        for kind in type(thing).__mro__:
            slots = kind.__dict__.get("__slots__", ())
            for name in (slots,) if isinstance(slots, str) else slots:
                if name not in ("__dict__", "__weakref__") and hasattr(thing, name):
                    value = getattr(thing, name)
                    self._put.append(functools.partial(object.__setattr__, thing, name, value))
                    yield value


PLAIN = (type(None), bool, int, float, complex, str, bytes, type, types.ModuleType, types.BuiltinFunctionType)
SHARED = (type(threading.Lock()), type(threading.RLock()), threading.Thread)
"""Who holds one of these is shared with other threads, and is left alone."""
PLAIN += (torch.dtype, torch.device, torch.Size)


def left_alone(kind: type) -> bool:
    """Whether a class is of ``LEFT_ALONE``, or of this package."""
    return kind.__module__.partition(".")[0] in LEFT_ALONE or kind.__module__.startswith(OURS)


def controls(guider: Any) -> Iterator[Any]:
    """The ControlNets of a guider's conditioning."""
    for conds in (getattr(guider, "conds", None) or {}).values():
        for cond in conds or ():
            yield cond.get("control")


def put_tensor(tensor: Tensor, was: Tensor) -> None:
    with torch.inference_mode(tensor.is_inference()):
        tensor.data.copy_(was)


def put_dict(holder: dict[Any, Any], was: dict[Any, Any]) -> None:
    # Never empty in between: it may be the attributes of an object that others look at.
    for key in [key for key in holder if key not in was]:
        del holder[key]
    for key, value in was.items():
        if holder.get(key, was) is not value:
            holder[key] = value


def put_items(holder: Any, was: list[Any]) -> None:
    if len(holder) != len(was) or any(a is not b for a, b in zip(holder, was, strict=True)):
        holder.clear()
        holder.update(was) if isinstance(holder, set) else holder.extend(was)


def generators(device: torch.device) -> Iterator[PutBack]:
    """The random generators that everybody draws from."""
    yield functools.partial(torch.set_rng_state, torch.get_rng_state())
    yield functools.partial(random.setstate, random.getstate())
    yield functools.partial(np.random.set_state, np.random.get_state())
    if device.type == "cuda":
        yield functools.partial(torch.cuda.set_rng_state, torch.cuda.get_rng_state(device), device)
    elif device.type != "cpu" and hasattr(module := torch.get_device_module(device), "get_rng_state"):
        yield functools.partial(module.set_rng_state, module.get_rng_state())


def of_generator(generator: Any) -> PutBack:
    """A generator of somebody's own."""
    if isinstance(generator, torch.Generator):
        return functools.partial(generator.set_state, generator.get_state())
    if isinstance(generator, random.Random):
        return functools.partial(generator.setstate, generator.getstate())
    if isinstance(generator, np.random.RandomState):
        return functools.partial(generator.set_state, generator.get_state())
    return functools.partial(setattr, generator.bit_generator, "state", generator.bit_generator.state)


def warn(what: str, where: str) -> None:
    """Once for each: what the second call of a step leaves changed."""
    if what + where not in warned:
        warned.add(what + where)
        logger.warning("Selective Sigma calls the model twice at some steps: %s (%s)", what, where)
