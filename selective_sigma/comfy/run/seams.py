"""Copies of ``model_options`` with something of ours in them; what came in stays as it is."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from comfy.patcher_extension import WrappersMP

if TYPE_CHECKING:
    from collections.abc import Callable

KEY = "selective_sigma"
EASYCACHE = "easycache"
"""Where EasyCache and LazyCache keep what they answer from, and the key of EasyCache's wrappers."""


def with_wrappers(options: dict[str, Any], wrappers: dict[str, Callable[..., Any]]) -> dict[str, Any]:
    """Options with these wrappers, by type; added last, so innermost."""
    inner = dict(options.get("transformer_options") or {})
    inner["wrappers"] = dict(inner.get("wrappers") or {})
    for kind, wrapper in wrappers.items():
        inner["wrappers"][kind] = {**inner["wrappers"].get(kind, {}), KEY: [wrapper]}
    return {**options, "transformer_options": inner}


def cache_is_on(options: dict[str, Any]) -> bool:
    """Whether EasyCache stands at the network, and may answer in place of it. (LazyCache skips whole steps above.)"""
    inner = options.get("transformer_options") or {}
    return EASYCACHE in inner and EASYCACHE in (inner.get("wrappers") or {}).get(WrappersMP.DIFFUSION_MODEL, {})


def past_its_end(options: dict[str, Any]) -> dict[str, Any]:
    """Options under which EasyCache neither answers a call nor learns from it."""
    inner = dict(options["transformer_options"])
    inner[EASYCACHE] = inner[EASYCACHE].clone()
    inner[EASYCACHE].end_t = math.inf
    return {**options, "transformer_options": inner}


def without_hooks(options: dict[str, Any]) -> dict[str, Any]:
    """Options under which no function of another pack stands between ``calc_cond_batch`` and the network."""
    inner = dict(options["transformer_options"])
    wrappers = dict(inner["wrappers"])
    wrappers[WrappersMP.APPLY_MODEL] = {KEY: wrappers[WrappersMP.APPLY_MODEL][KEY]}
    inner["wrappers"] = wrappers
    options = {**options, "transformer_options": inner}
    options.pop("model_function_wrapper", None)
    return options


class ContextHandler:
    """Stands in for a handler of context windows: ``execute`` is ours, all else the handler's own."""

    def __init__(self, handler: Any, execute: Callable[..., Any]):
        """``execute(handler, calc_cond_batch, model, conds, x, timestep, model_options)``."""
        self._handler, self._execute = handler, execute

    def should_use_context(self, *args: Any) -> bool:
        """Always: a clip too short for windows is a request too."""
        del args
        return True

    def execute(self, calc: Any, model: Any, conds: Any, x: Any, timestep: Any, options: dict[str, Any]) -> Any:
        return self._execute(self._handler, calc, model, conds, x, timestep, options)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._handler, name)
