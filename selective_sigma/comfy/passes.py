"""model_options for a call at another noise level, for patches that tell steps apart by it."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

INPAINT = "denoise_mask_function"


class Passes:
    """Options for each model call of one run."""

    def __init__(self) -> None:
        self._cache: Any = None

    @contextmanager
    def options(
        self, options: dict[str, Any], true: Tensor, told: Tensor, second: bool
    ) -> Generator[dict[str, Any], None, None]:
        """What to hand the model for a call at ``told`` in place of ``true``, both (batch,) or one value.

        The true call gets ``options`` themselves. For the others:

        - context windows and meanflow look the level up in ``sample_sigmas``, where the told level
          then stands in the true one's place;
        - Differential Diffusion chooses what to regenerate by the level, and chooses by the true one;
        - EasyCache and LazyCache compare a call with the one before: a step's second call has a
          cache of its own, and each call meets their start and end as the true one would.
        """
        if told is true:
            yield options
            return
        options = dict(options)
        if INPAINT in options:
            options[INPAINT] = _at(true, options[INPAINT])
        inner = options["transformer_options"] = dict(options.get("transformer_options") or {})
        ours, theirs = told.reshape(-1)[0], true.reshape(-1)[0]
        levels = inner.get("sample_sigmas")
        if levels is not None:
            here = torch.isclose(levels, theirs.to(levels), rtol=1e-4)
            inner["sample_sigmas"] = torch.where(here, ours.to(levels), levels)
        cache = inner.get("easycache")
        if cache is None:
            yield options
            return
        start, end = cache.start_t, cache.end_t
        if second:
            if self._cache is None:
                self._cache = cache.clone()
            cache = inner["easycache"] = self._cache
        ratio = float(ours / theirs)
        cache.start_t, cache.end_t = start * ratio, end * ratio
        try:
            yield options
        finally:
            cache.start_t, cache.end_t = start, end


def _at(true: Tensor, function: Any) -> Any:
    """``function`` of (sigma, denoise_mask, ...), asked at the true level."""

    def mask(_: Tensor, *args: Any, **named: Any) -> Any:
        return function(true, *args, **named)

    return mask
