"""WHERE: from predictions to a mask in [0, 1], one value per pixel and sample."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from .lie import per_sample
from .settings import Settings

SAMPLES = 4096
"""Pixels that percentiles are taken from; more would move a mask by less than 0.01."""
FLOOR = 0.02
"""A mask that nowhere exceeds this, or (published) whose mean does not, counts as empty."""

_OVERRIDES = {"ones": 1.0, "half": 0.5, "zeros": 0.0}
_POOL: dict[int, Callable[..., Tensor]] = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}
_MODE = {1: "linear", 2: "bilinear", 3: "trilinear"}


def resample(values: Tensor, space: Sequence[int]) -> Tensor:
    """Resize (batch, channels, *space) to another spatial size, linearly."""
    if tuple(values.shape[2:]) == tuple(space):
        return values
    return F.interpolate(values, tuple(space), mode=_MODE[values.ndim - 2], align_corners=False)


def blur(values: Tensor) -> Tensor:
    """Mean over each pixel and its direct neighbours, in one to three space axes."""
    return _POOL[values.ndim - 2](values, 3, 1, 1, count_include_pad=False)


def change(denoised: Tensor, previous: Tensor) -> Tensor:
    """How much the prediction moved: mean over channels of |D_i - D_(i-1)|, (batch, 1, *space)."""
    return (denoised - previous).abs_().mean(1, keepdim=True, dtype=torch.float32)


def structure(denoised: Tensor) -> Tensor:
    """How much the prediction varies from pixel to pixel: its gradient's length, (batch, 1, *space)."""
    values = denoised.float()
    energy = torch.zeros_like(values[:, :1])
    for axis in range(2, values.ndim):
        size = values.shape[axis]
        if size < 2:
            continue
        step = values.diff(dim=axis).square_().mean(1, keepdim=True)
        energy.narrow(axis, 0, size - 1).add_(step)
        energy.narrow(axis, 1, size - 1).add_(step)
    return energy.sqrt_()


def percentiles(values: Tensor, clip: float, within: Tensor | None = None, samples: int | None = SAMPLES) -> Tensor:
    """The ``clip`` and ``1 - clip`` percentile of each sample, (batch, 2), linear between ranks.

    Args:
        values: (batch, 1, *space), float32.
        within: (batch or 1, 1, *space); only pixels where it exceeds one half count.
        samples: take an even stride of about this many pixels; None for all of them. A full
            sort is most of what the published method spends.
    """
    flat = values.flatten(1)
    # An odd stride visits every column of a latent whose width is a power of two.
    stride = 1 if samples is None else (flat.shape[1] // samples) | 1
    ordered = flat[:, ::stride]
    count = torch.full((len(flat), 1), ordered.shape[1], device=flat.device)
    if within is not None:
        keep = (within.expand_as(values).flatten(1)[:, ::stride] > 0.5).expand_as(ordered)
        count = keep.sum(1, keepdim=True).clamp(min=1)
        ordered = torch.where(keep, ordered, torch.inf)
    ordered = ordered.sort(dim=1).values
    rank = torch.tensor([clip, 1.0 - clip], device=flat.device) * (count - 1)
    low = rank.floor().long()
    high = (low + 1).minimum(count - 1)
    return torch.lerp(ordered.gather(1, low), ordered.gather(1, high), rank - low)


def stretch(values: Tensor, clip: float, within: Tensor | None = None, samples: int | None = SAMPLES) -> Tensor:
    """Stretch each sample to [0, 1] between its two percentiles, over the whole clip for video."""
    bounds = percentiles(values, clip, within, samples)
    low, high = (per_sample(bounds[:, i], values) for i in (0, 1))
    return ((values - low) / (high - low + 1e-8)).clamp_(0, 1)


class Mask:
    """The mask of one run of one latent; carries what it remembers from step to step."""

    def __init__(self, settings: Settings, within: Tensor | None = None, limit: Tensor | None = None):
        """``within`` and ``limit``: (batch or 1, 1, *space), see ``Detailer``; resized as needed."""
        self._settings = settings
        self._within = within
        self._limit = limit
        self._published = settings.mask_source == "change_published"
        self._previous: Tensor | None = None
        self._memory: Tensor | None = None
        self._frozen: Tensor | None = None

    def observe(self, denoised: Tensor) -> None:
        """See a prediction of a step without detail; the published method does not look."""
        if not self._published:
            self._previous = denoised.detach()

    def make(self, denoised: Tensor, x: Tensor, e_folds: Tensor) -> Tensor | None:
        """The mask (batch, 1, *space), float32, or None where there is nothing to go by yet.

        Args:
            denoised: true prediction at this step, (batch, channels, *space), any float type.
            x: noisy latent of this step, for ``first``.
            e_folds: (batch,), size of the step since the last mask in log-sigma.
        """
        s = self._settings
        if s.mask_override != "off":
            return denoised.new_full(
                (len(denoised), 1, *denoised.shape[2:]), _OVERRIDES[s.mask_override], dtype=torch.float32
            )
        raw = self._raw(denoised.detach(), x)
        if raw is None:
            return None
        # What the model could not say must not spread to where it could.
        raw = raw.nan_to_num_(0.0, 0.0, 0.0) if self._published else blur(raw.nan_to_num_(0.0, 0.0, 0.0))
        within = None if self._within is None else resample(self._within.float(), raw.shape[2:])
        mask = stretch(raw, s.mask_clip_percentile, within, None if self._published else SAMPLES)
        if self._memory is not None:
            decay = self._decay(e_folds, mask)
            mask = decay * resample(self._memory, mask.shape[2:]) + (1.0 - decay) * mask
        # Stored before the shift, so that coverage does not feed back.
        self._memory = mask
        mask = (mask + 2.0 * (s.coverage - 0.5)).clamp(0, 1)
        return mask if self._limit is None else mask * resample(self._limit.to(mask), mask.shape[2:])

    def lights(self, masks: list[Tensor]) -> Tensor:
        """(batch,) bool: whether a mask (one per packed part) lights anything worth a call."""
        if self._settings.mask_override != "off":
            return torch.ones(len(masks[0]), dtype=torch.bool, device=masks[0].device)
        flat = [m.flatten(1) for m in masks]
        lit = [m.mean(1) >= FLOOR if self._published else m.amax(1) > FLOOR for m in flat]
        return torch.stack(lit).any(0)

    def _decay(self, e_folds: Tensor, like: Tensor) -> Tensor | float:
        s = self._settings
        if self._published:
            return s.ema
        # Counted in log-sigma, the memory is alike at every step count (method.md section 2).
        return per_sample(torch.exp(-e_folds / s.memory), like) if s.memory > 0 else 0.0

    def _raw(self, denoised: Tensor, x: Tensor) -> Tensor | None:
        source = self._settings.mask_source
        if source == "structure":
            return structure(denoised)
        if source == "first":
            if self._frozen is None:
                self._frozen = x.detach().abs().mean(1, keepdim=True, dtype=torch.float32)
            return resample(self._frozen, denoised.shape[2:])
        previous, self._previous = self._previous, denoised
        if previous is None:
            return None
        return change(denoised, resample(previous, denoised.shape[2:]))
