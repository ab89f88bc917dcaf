"""What a further call of a model would leave in it, and what must not be there for one: caches, counters, draws."""

from __future__ import annotations

import random
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from diffusers.hooks.hooks import StateManager

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn

SHAREABLE = ("FBCHeadBlockHook", "FBCBlockHook")
"""First Block Cache keeps all it knows in a state named by the cache context."""
ACCELERATORS = {
    "DeepCache": "DeepCache",
    "tgate": "T-GATE",
    "cache_dit.caching.cache_": "cache-dit",
    "para_attn": "ParaAttention",
}
"""What looks up a call's time, or counts calls, in parts that it puts on a model: by how their modules' names begin."""
NUMBERS = (bool, int, float)


def caches(module: nn.Module) -> list[StateManager]:
    """State managers of the cache hooks on a model.

    Raises:
        ValueError: for caches that count model calls (PAB, FasterCache, MagCache, TaylorSeer and others), and for
            accelerators that do so or look up the time: a second call in a step, at another time, is wrong for them.
    """
    managers: dict[int, StateManager] = {}
    for part in module.modules():
        names = (name for kind in _kinds(part) for start, name in ACCELERATORS.items() if kind.startswith(start))
        if name := next(names, None):
            raise ValueError(
                f"{name} on {type(module).__name__} counts model calls or looks up their time, "
                "which the lied pass would upset: take it off first, or use FirstBlockCacheConfig"
            )
        for hook in getattr(getattr(part, "_diffusers_hook", None), "hooks", {}).values():
            if type(hook).__name__ in SHAREABLE:
                managers.update((id(v), v) for v in vars(hook).values() if isinstance(v, StateManager))
            elif hook._is_stateful:
                raise ValueError(
                    f"{type(hook).__name__} counts model calls, which the lied pass would upset: "
                    "call disable_cache() first, or use FirstBlockCacheConfig"
                )
    return list(managers.values())


def _kinds(part: nn.Module) -> Iterator[str]:
    """Modules of Python that a part, its attention processor and what stands for its forward come from."""
    yield type(part).__module__
    for name in ("processor", "forward"):
        there = vars(part).get(name)
        if there is not None:
            yield getattr(there, "__module__", None) or type(there).__module__


class Traces:
    """What calls leave in a model, during one run of a pipeline."""

    def __init__(self, managers: list[StateManager]):
        self._managers = managers
        self._parts: dict[int, nn.Module] = {}
        self._owners: list[dict[str, Any]] = []
        self._sliceable = True
        self.whole = False
        """Whether the model was seen to count on all rows."""

    def watch(self, module: nn.Module) -> None:
        """Note a module whose traces are to be removed: a denoiser or a ControlNet.

        Raises:
            ValueError: an accelerator or a cache has come upon it since the run began.
        """
        if id(module) in self._parts:
            return
        caches(module)
        self._parts[id(module)] = module
        for part in module.modules():
            processor = vars(part).get("processor")
            self._owners += [vars(part)] if processor is None else [vars(part), getattr(processor, "__dict__", {})]
            # What somebody put in place of a forward or a processor may know how many copies there are (PAG does).
            forward = getattr(vars(part).get("forward"), "__func__", vars(part).get("forward"))
            hooked = forward in (None, type(part).forward) or {"_hf_hook", "_diffusers_hook"} & vars(part).keys()
            kind = type(processor)
            foreign = processor is not None and (not kind.__module__.startswith("diffusers.") or "PAG" in kind.__name__)
            self._sliceable &= bool(hooked) and not foreign

    def sliceable(self, copies: int) -> bool:
        """Whether one of so many copies of the sample may be given to the model alone."""
        return copies == 2 and self._sliceable and not self.whole

    @contextmanager
    def removed(self, followed: bool) -> Iterator[None]:
        """Within, a call that another one follows leaves nothing behind.

        That is: draws from the global generators, plain numbers that modules and their attention processors keep,
        and what First Block Cache compares with.
        """
        if not followed:
            yield
            return
        contexts = [(manager, manager._context) for manager in self._managers if manager._context is not None]
        parameters = (p for part in self._parts.values() for p in part.parameters() if p.device.type == "cuda")
        with ExitStack() as stack:
            for owner in self._owners:
                numbers = {name: value for name, value in owner.items() if type(value) in NUMBERS}
                stack.callback(owner.update, numbers)
            stack.callback(random.setstate, random.getstate())
            stack.callback(np.random.set_state, np.random.get_state())
            stack.enter_context(torch.random.fork_rng([parameter.device for parameter in islice(parameters, 1)]))
            for manager, context in contexts:
                manager.set_context(replace(context, name=f"{context.name} lied"))
                stack.callback(manager.set_context, context)
            yield
