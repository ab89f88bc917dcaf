"""model_options for a call at another noise level, for patches that tell steps apart by it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor


class Passes:
    """Options for each model call of one run."""

    def __init__(self) -> None:
        self._cache: Any = None

    @contextmanager
    def options(self, options: dict[str, Any], true: Tensor, told: Tensor, second: bool) -> Iterator[dict[str, Any]]:
        """What to hand the model for a call at ``told`` in place of ``true``, both (batch,).

        The true call gets ``options`` themselves. Context windows and meanflow look the level up in
        ``sample_sigmas``: a told level stands there in the true one's place. EasyCache and
        LazyCache compare a call with the one before: a step's second call has a cache of its own,
        and every call counts as one at its true level against their start and end.
        """
        inner = options.get("transformer_options")
        if told is true or inner is None:
            yield options
            return
        inner = dict(inner)
        levels = inner.get("sample_sigmas")
        if levels is not None:
            at = torch.isclose(levels, true.reshape(-1)[0].to(levels), rtol=1e-4)
            inner["sample_sigmas"] = torch.where(at, told.reshape(-1)[0].to(levels), levels)
        cache = inner.get("easycache")
        if cache is None:
            yield {**options, "transformer_options": inner}
            return
        start, end = cache.start_t, cache.end_t
        if second:
            if self._cache is None:
                self._cache = cache.clone()
            cache = inner["easycache"] = self._cache
        ratio = float(told.reshape(-1)[0] / true.reshape(-1)[0])
        cache.start_t, cache.end_t = start * ratio, end * ratio
        try:
            yield {**options, "transformer_options": inner}
        finally:
            cache.start_t, cache.end_t = start, end
