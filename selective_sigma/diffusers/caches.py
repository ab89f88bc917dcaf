"""Caches that compare one model call with the one before: a cache of its own for the lied pass."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from diffusers.hooks.hooks import StateManager

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn

SHAREABLE = ("FBCHeadBlockHook", "FBCBlockHook")
"""First Block Cache keeps all it knows in a state named by the cache context."""


def find(module: nn.Module) -> list[StateManager]:
    """State managers of the cache hooks on a model.

    ``ValueError`` for caches that count model calls (PAB, FasterCache, MagCache, TaylorSeer and
    others): a second call in a step would shift what they count.
    """
    found: dict[int, StateManager] = {}
    for part in module.modules():
        for hook in getattr(getattr(part, "_diffusers_hook", None), "hooks", {}).values():
            if type(hook).__name__ in SHAREABLE:
                found.update((id(v), v) for v in vars(hook).values() if isinstance(v, StateManager))
            elif hook._is_stateful:
                raise ValueError(
                    f"{type(hook).__name__} counts model calls, which the lied pass would upset: "
                    "call disable_cache() first, or use FirstBlockCacheConfig"
                )
    return list(found.values())


@contextmanager
def lied(managers: list[StateManager]) -> Iterator[None]:
    """Within, caches see another context than the true pass has."""
    before: list[tuple[StateManager, Any]] = [(m, m._context) for m in managers if m._context is not None]
    for manager, context in before:
        manager.set_context(replace(context, name=f"{context.name} lied"))
    try:
        yield
    finally:
        for manager, context in before:
            manager.set_context(context)
