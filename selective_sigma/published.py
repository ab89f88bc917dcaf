"""The masks of the published pack, which remember earlier steps; kept for comparison."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from .mask import resample

if TYPE_CHECKING:
    from torch import Tensor

    from .settings import Settings

EMPTY = 0.02
"""A mask whose mean does not reach this counts as empty."""


class PublishedMask:
    """``change`` and ``first`` (method.md section 2) of one latent over one run."""

    def __init__(self, settings: Settings, within: Tensor | None = None):
        self._settings = settings
        self._within = within
        self._previous: Tensor | None = None
        self._memory: Tensor | None = None
        self._frozen: Tensor | None = None

    def make(self, denoised: Tensor, x: Tensor) -> Tensor | None:
        """The mask (batch, 1, *space), float32, or None where there is nothing to compare with yet.

        Args:
            denoised: plain prediction at this step, (batch, channels, *space).
            x: noisy latent of this step, for ``first``.
        """
        s = self._settings
        if self._previous is not None and len(self._previous) != len(denoised):
            self._previous = self._memory = self._frozen = None
        previous, self._previous = self._previous, denoised.detach()
        if s.mask_source == "first":
            if self._frozen is None:
                self._frozen = x.detach().abs().mean(1, keepdim=True, dtype=torch.float32)
            return self._finish(stretch(resample(self._frozen, x.shape[2:]), s.mask_clip_percentile, self._within))
        if previous is None:
            return None
        moved = (denoised.detach() - resample(previous, denoised.shape[2:])).abs_()
        moved = moved.mean(1, keepdim=True, dtype=torch.float32)
        fresh = stretch(moved, s.mask_clip_percentile, self._within)
        memory = None if self._memory is None else resample(self._memory, fresh.shape[2:])
        # A sample in which the model said nothing usable leaves its mask as it was.
        usable = moved.sum(tuple(range(1, moved.ndim)), keepdim=True).isfinite()
        if memory is None:
            fresh = torch.where(usable, fresh, 0.0)
        else:
            fresh = torch.where(usable, torch.lerp(fresh, memory, s.ema), memory)
        self._memory = fresh
        return self._finish(fresh)

    def _finish(self, mask: Tensor) -> Tensor:
        """Coverage, which does not feed back into the memory; an empty mask is none."""
        mask = (mask + 2.0 * (self._settings.coverage - 0.5)).clamp_(0, 1)
        axes = tuple(range(1, mask.ndim))
        return mask * (mask.mean(axes, keepdim=True) >= EMPTY)


def stretch(values: Tensor, clip: float, within: Tensor | None = None) -> Tensor:
    """Stretch each sample to [0, 1] between its ``clip`` and ``1 - clip`` percentile, (batch, 1, *space).

    ``within``: (batch or 1, 1, *space); the percentiles are of the pixels where it exceeds one half.
    """
    rows = values.flatten(1)
    # quantile() would refuse half precision and more than 2^24 values.
    if within is None:
        bounds = [_percentile(row, clip) for row in rows]
    else:
        inside = (resample(within.to(values), values.shape[2:]) > 0.5).flatten(1).expand(len(rows), -1)
        bounds = [_percentile(row[keep], clip) for row, keep in zip(rows, inside, strict=True)]
    low, high = torch.stack(bounds).unbind(1)
    shape = [-1, *[1] * (values.ndim - 1)]
    return (values - low.reshape(shape)).div_((high - low + 1e-8).reshape(shape)).clamp_(0, 1)


def _percentile(values: Tensor, clip: float) -> Tensor:
    """(2,): the ``clip`` and the ``1 - clip`` percentile, linear between ranks."""
    if not values.numel():
        return values.new_tensor([torch.finfo(values.dtype).max] * 2)
    ordered = values.sort().values
    last = len(ordered) - 1
    bounds: list[Tensor] = []
    for rank in (clip * last, (1.0 - clip) * last):
        low = math.floor(rank)
        bounds.append(torch.lerp(ordered[low], ordered[min(low + 1, last)], rank - low))
    return torch.stack(bounds)
