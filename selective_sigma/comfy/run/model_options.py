"""Copies of ComfyUI's ``model_options`` with something changed. The options of the caller are never written to."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from comfy.patcher_extension import WrappersMP

if TYPE_CHECKING:
    from collections.abc import Callable

KEY = "selective_sigma"
"""The key of our wrappers."""
EASYCACHE = "easycache"
"""The key under which EasyCache and LazyCache keep their state, and EasyCache its wrappers."""


def with_wrappers(options: dict[str, Any], wrappers: dict[str, Callable[..., Any]]) -> dict[str, Any]:
    """Options with these wrappers, by wrapper type. They are added last, and so run innermost."""
    transformer_options = dict(options.get("transformer_options") or {})
    transformer_options["wrappers"] = dict(transformer_options.get("wrappers") or {})
    for kind, wrapper in wrappers.items():
        transformer_options["wrappers"][kind] = {**transformer_options["wrappers"].get(kind, {}), KEY: [wrapper]}
    return {**options, "transformer_options": transformer_options}


def has_easycache(options: dict[str, Any]) -> bool:
    """Whether EasyCache may answer in place of the network. (LazyCache skips whole steps, above guidance.)"""
    transformer_options = options.get("transformer_options") or {}
    return EASYCACHE in transformer_options and EASYCACHE in (transformer_options.get("wrappers") or {}).get(
        WrappersMP.DIFFUSION_MODEL, {}
    )


def with_easycache_ended(options: dict[str, Any]) -> dict[str, Any]:
    """Options under which EasyCache neither answers a call nor keeps anything of it, as after its end percent."""
    transformer_options = dict(options["transformer_options"])
    transformer_options[EASYCACHE] = transformer_options[EASYCACHE].clone()
    transformer_options[EASYCACHE].end_t = math.inf
    return {**options, "transformer_options": transformer_options}


def with_our_wrapper_only(options: dict[str, Any]) -> dict[str, Any]:
    """Options under which other packs have no function between ``calc_cond_batch`` and our ``apply_model`` wrapper."""
    transformer_options = dict(options["transformer_options"])
    wrappers = dict(transformer_options["wrappers"])
    wrappers[WrappersMP.APPLY_MODEL] = {KEY: wrappers[WrappersMP.APPLY_MODEL][KEY]}
    transformer_options["wrappers"] = wrappers
    options = {**options, "transformer_options": transformer_options}
    options.pop("model_function_wrapper", None)
    return options


class ContextHandlerStandIn:
    """Takes the place of a handler of context windows. Only ``execute`` is replaced."""

    def __init__(self, handler: Any, execute: Callable[..., Any]):
        """``execute(handler, calc_cond_batch, model, conds, x, timestep, model_options)``."""
        self._handler, self._execute = handler, execute

    def should_use_context(self, *args: Any) -> bool:
        """Always true: a clip that is too short for windows has to come to ``execute`` too."""
        del args
        return True

    def execute(self, calc: Any, model: Any, conds: Any, x: Any, timestep: Any, options: dict[str, Any]) -> Any:
        return self._execute(self._handler, calc, model, conds, x, timestep, options)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._handler, name)
