"""The schedule and the masks of the published pack, kept for comparison. The masks depend on earlier steps."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from .lie import to_e_folds
from .mask import resample
from .schedule import LEVEL_TOLERANCE, Schedule, Step

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from .settings import Family, Settings

EMPTY = 0.02
"""A mask whose mean does not reach this counts as empty."""
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
        strength, next_strength = (-math.expm1(-end.scheduled_dose) for end in (step, next_step))
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
    """Share of the strength at each step: 1 from ``start``, then a line to 0 at ``end``; 0 at first and last step."""
    last = steps - 1
    first, stop = max(1, round(start * last)), min(last - 1, round(end * last))
    fade = min(max(first + 1, round((end - TAPER) * last)), stop)
    shares = [0.0] * steps
    if stop > first:
        for i in range(first, stop + 1):
            shares[i] = 1.0 if i < fade else (stop - i) / max(stop - fade, 1)
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
        """Whether a mask can be made: ``change`` needs an earlier prediction of this batch size."""
        return self._settings.mask_source == "first" or (self._previous is not None and len(self._previous) == batch)

    def make(self, denoised: Tensor, x: Tensor) -> Tensor:
        """The mask, (batch, 1, *space), float32; zeros if there is no earlier prediction to compare with.

        Args:
            denoised: plain prediction of this step, (batch, channels, *space).
            x: noisy latent of this step, for ``first``.
        """
        settings = self._settings
        if self._previous is not None and len(self._previous) != len(denoised):
            self._previous = self._memory = self._frozen = None
        previous, self._previous = self._previous, denoised.detach()
        if settings.mask_source == "first":
            if self._frozen is None:
                self._frozen = x.detach().abs().mean(1, keepdim=True, dtype=torch.float32)
            return self._finish(
                stretch(resample(self._frozen, x.shape[2:]), settings.mask_clip_percentile, self._within)
            )
        if previous is None:
            return denoised.new_zeros((len(denoised), 1, *denoised.shape[2:]), dtype=torch.float32)
        moved = (denoised.detach() - resample(previous, denoised.shape[2:])).abs_()
        moved = moved.mean(1, keepdim=True, dtype=torch.float32)
        fresh = stretch(moved, settings.mask_clip_percentile, self._within)
        memory = None if self._memory is None else resample(self._memory, fresh.shape[2:])
        # A sample whose prediction is not finite keeps its mask.
        usable = moved.sum(tuple(range(1, moved.ndim)), keepdim=True).isfinite()
        if memory is None:
            fresh = torch.where(usable, fresh, 0.0)
        else:
            fresh = torch.where(usable, torch.lerp(fresh, memory, settings.ema), memory)
        self._memory = fresh
        return self._finish(fresh)

    def _finish(self, mask: Tensor) -> Tensor:
        """Apply coverage, which does not feed back into the memory; an almost empty mask becomes zeros."""
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
