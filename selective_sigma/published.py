"""The schedule and the masks of the published pack, for comparison. Its masks depend on earlier steps."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from .lie import to_e_folds, to_strength
from .mask import resample
from .schedule import LEVEL_TOLERANCE, Schedule, Step

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from .settings import Family, Settings

EMPTY_MEAN = 0.02
"""A mask whose mean is lower than this counts as empty."""
TAPER = 0.15
"""Share of the run over which the strength fades to zero before ``end``."""


class PublishedSchedule(Schedule):
    """The published schedule: strength by position in the run. At ``every`` 1 it is linear between two levels."""

    def __init__(self, sigmas: Sequence[float], settings: Settings, family: Family = "ve"):
        super().__init__(sigmas, settings, family)
        # The dose of a group must be the same in all calls of its step.
        self._interpolates = settings.every == 1

    def _strength_shares(
        self, levels: Sequence[float], settings: Settings, window: tuple[float, float] | None
    ) -> list[float]:
        del window
        return strength_shares(len(levels) - 1, settings.start, settings.end)

    def at(self, sigma: float, tolerance: float = LEVEL_TOLERANCE) -> Step:
        """As ``Schedule.at``, with the strength linear between two levels at ``every`` 1."""
        step = super().at(sigma, tolerance)
        if not self._interpolates or step.index < 0 or step is self.steps[-1] or sigma >= step.high / tolerance:
            return step
        next_step = self.steps[step.index + 1 - self.steps[0].index]
        share = (step.high - sigma) / (step.high - step.low)
        strength, next_strength = (to_strength(end.scheduled_dose) for end in (step, next_step))
        strength += share * (next_strength - strength)
        reason = None if strength else step.reason
        return replace(step, reason=reason, scheduled_dose=to_e_folds(strength))

    def dose(self, step: Step) -> float:
        """As ``Schedule.dose``; with ``every`` 1, a missed dose is not passed on."""
        return step.scheduled_dose if self._interpolates else super().dose(step)

    def mark_told(self, step: Step) -> float:
        """As ``Schedule.mark_told``."""
        return step.scheduled_dose if self._interpolates else super().mark_told(step)


def strength_shares(steps: int, start: float, end: float) -> list[float]:
    """The share of the strength at each step: 1 from ``start`` on, then a straight line to 0 at ``end``.

    The first and the last step of the run have 0.
    """
    last = steps - 1
    first_active, last_active = max(1, round(start * last)), min(last - 1, round(end * last))
    taper_start = min(max(first_active + 1, round((end - TAPER) * last)), last_active)
    shares = [0.0] * steps
    if last_active > first_active:
        for i in range(first_active, last_active + 1):
            shares[i] = 1.0 if i < taper_start else (last_active - i) / max(last_active - taper_start, 1)
    return shares


class PublishedMask:
    """The masks ``change`` and ``first`` (method.md section 2) of one latent in one run."""

    def __init__(self, settings: Settings, within: Tensor | None = None):
        self._settings = settings
        self._within = within
        self._previous: Tensor | None = None
        self._memory: Tensor | None = None
        self._frozen: Tensor | None = None

    def ready(self, batch: int) -> bool:
        """Whether a mask can be made. ``change`` needs an earlier prediction of this batch size."""
        return self._settings.mask_source == "first" or (self._previous is not None and len(self._previous) == batch)

    def make(self, denoised: Tensor, x: Tensor) -> Tensor:
        """The mask, (batch, 1, *space), float32; zeros if there is no earlier prediction to compare with.

        Args:
            denoised: the plain prediction of this step, (batch, channels, *space).
            x: the noisy latent of this step, for ``first``.
        """
        settings = self._settings
        if self._previous is not None and len(self._previous) != len(denoised):
            self._previous = self._memory = self._frozen = None
        previous, self._previous = self._previous, denoised.detach()
        if settings.mask_source == "first":
            if self._frozen is None:
                self._frozen = x.detach().abs().mean(1, keepdim=True, dtype=torch.float32)
            frozen = resample(self._frozen, x.shape[2:])
            return self._apply_coverage(stretch(frozen, settings.mask_clip_percentile, self._within))
        if previous is None:
            return denoised.new_zeros((len(denoised), 1, *denoised.shape[2:]), dtype=torch.float32)
        difference = (denoised.detach() - resample(previous, denoised.shape[2:])).abs_()
        difference = difference.mean(1, keepdim=True, dtype=torch.float32)
        change = stretch(difference, settings.mask_clip_percentile, self._within)
        memory = None if self._memory is None else resample(self._memory, change.shape[2:])
        # A sample whose prediction is not finite keeps its mask.
        is_finite = difference.sum(tuple(range(1, difference.ndim)), keepdim=True).isfinite()
        if memory is None:
            self._memory = torch.where(is_finite, change, 0.0)
        else:
            self._memory = torch.where(is_finite, torch.lerp(change, memory, settings.ema), memory)
        return self._apply_coverage(self._memory)

    def _apply_coverage(self, mask: Tensor) -> Tensor:
        """Shift ``mask`` by coverage, without changing the memory. A mask that is almost empty becomes zeros."""
        mask = (mask + 2.0 * (self._settings.coverage - 0.5)).clamp_(0, 1)
        axes = tuple(range(1, mask.ndim))
        return mask * (mask.mean(axes, keepdim=True) >= EMPTY_MEAN)


def stretch(values: Tensor, clip: float, within: Tensor | None = None) -> Tensor:
    """Stretch each sample so that its ``clip`` percentile becomes 0 and its ``1 - clip`` percentile becomes 1.

    Args:
        values: (batch, 1, *space). Values beyond the percentiles are clamped to [0, 1].
        within: (batch or 1, 1, *space). The percentiles are taken over the pixels where it exceeds one half.
    """
    rows = values.flatten(1)
    # torch.quantile() refuses half precision, and more than 2^24 values.
    if within is None:
        bounds = [_percentiles(row, clip) for row in rows]
    else:
        inside = (resample(within.to(values), values.shape[2:]) > 0.5).flatten(1).expand(len(rows), -1)
        bounds = [_percentiles(row[row_inside], clip) for row, row_inside in zip(rows, inside, strict=True)]
    low, high = torch.stack(bounds).unbind(1)
    shape = [-1, *[1] * (values.ndim - 1)]
    return (values - low.reshape(shape)).div_((high - low + 1e-8).reshape(shape)).clamp_(0, 1)


def _percentiles(values: Tensor, clip: float) -> Tensor:
    """The ``clip`` and the ``1 - clip`` percentile, (2,), linear between ranks."""
    if not values.numel():
        return values.new_tensor([torch.finfo(values.dtype).max] * 2)
    ordered = values.sort().values
    last = len(ordered) - 1
    bounds: list[Tensor] = []
    for rank in (clip * last, (1.0 - clip) * last):
        low = math.floor(rank)
        bounds.append(torch.lerp(ordered[low], ordered[min(low + 1, last)], rank - low))
    return torch.stack(bounds)
