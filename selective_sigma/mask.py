"""WHERE: from predictions to a mask in [0, 1], one value per pixel and sample."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from .lie import per_sample
from .percentile import SAMPLES, Places, places, stretch, variance
from .prediction import finite
from .settings import Settings

FLOOR = 0.02
"""A mask that nowhere exceeds this, or (published) whose mean does not, counts as empty."""

_OVERRIDES = {"ones": 1.0, "half": 0.5, "zeros": 0.0}
_MODE = {1: "linear", 2: "bilinear", 3: "trilinear"}


def resample(values: Tensor, space: Sequence[int]) -> Tensor:
    """Resize (batch, channels, *space) to another spatial size, linearly; then in float32."""
    if tuple(values.shape[2:]) == tuple(space):
        return values
    return F.interpolate(values.float(), tuple(space), mode=_MODE[values.ndim - 2], align_corners=False)


def blur(values: Tensor) -> Tensor:
    """Mean over each pixel and its direct neighbours in one to three space axes, (batch, channels, *space).

    Borders are repeated outwards. Axis by axis: many times cheaper on a CPU than avg_pool.
    """
    axes = values.ndim - 2
    total = F.pad(values, [1, 1] * axes, mode="replicate")
    for axis, size in enumerate(values.shape[2:], start=2):
        before, here, after = (total.narrow(axis, i, size) for i in range(3))
        total = (before + here).add_(after)
    return total.mul_(3.0**-axes)


def change(denoised: Tensor, previous: Tensor) -> Tensor:
    """How much the prediction moved: mean over channels of |D_i - D_(i-1)|, (batch, 1, *space)."""
    return (denoised - previous).abs_().mean(1, keepdim=True, dtype=torch.float32)


def structure(denoised: Tensor) -> Tensor:
    """How much the prediction varies from pixel to pixel: its gradient energy, (batch, 1, *space).

    Sum over space axes and over both neighbours of the squared difference, mean over channels.
    """
    values = denoised.float()
    energy = torch.zeros_like(values[:, :1])
    for axis in range(2, values.ndim):
        size = values.shape[axis]
        if size < 2:
            continue
        step = values.diff(dim=axis).square_().mean(1, keepdim=True)
        energy.narrow(axis, 0, size - 1).add_(step)
        energy.narrow(axis, 1, size - 1).add_(step)
    return energy


def check_map(name: str, values: Tensor) -> None:
    """Raise ``ValueError`` unless ``values`` is a (batch or 1, 1, *space) map in [0, 1]."""
    if not 3 <= values.ndim <= 5 or values.shape[1] != 1:
        raise ValueError(f"{name} has shape {tuple(values.shape)}: give (batch or 1, 1, *space)")
    low, high = float(values.min()), float(values.max())
    if not (low >= 0 and high <= 1):
        raise ValueError(f"{name} holds values from {low:g} to {high:g}: give numbers from 0 to 1")


class Mask:
    """The mask of one run of one latent; carries what it remembers from step to step."""

    def __init__(self, settings: Settings, within: Tensor | None = None, limit: Tensor | None = None):
        """``within`` and ``limit``: (batch or 1, 1, *space), see ``Detailer``; resized as needed."""
        self._settings = settings
        self._within = within
        self._limit = limit
        self._published = settings.mask_source == "change_published"
        self._structure = settings.mask_source == "structure"
        self._samples = None if self._published else SAMPLES
        self._constant = _OVERRIDES.get(settings.mask_override, 1.0 if settings.coverage >= 1 else None)
        self._places: tuple[torch.Size, Places] | None = None
        self.forget()

    def forget(self) -> None:
        """Forget all predictions and masks, as when another batch comes."""
        self._previous: Tensor | None = None
        self._memory: Tensor | None = None
        self._frozen: Tensor | None = None

    def check(self, x: Tensor) -> None:
        """Raise ``ValueError`` where ``within`` or ``limit`` do not fit a latent like ``x``."""
        for name, values in (("within", self._within), ("limit", self._limit)):
            if values is not None and (values.ndim != x.ndim or len(values) not in (1, len(x))):
                raise ValueError(
                    f"{name} has shape {tuple(values.shape)} for a latent of {tuple(x.shape)}: "
                    f"give ({len(x)} or 1, 1, *space) with {x.ndim - 2} space axes"
                )

    def decay(self, e_folds: float) -> float:
        """Weight of the remembered mask after a step of ``e_folds`` of noise to signal."""
        s = self._settings
        if self._published:
            return s.ema
        # Counted in e-folds, the memory is alike at every step count (method.md section 2).
        return math.exp(-e_folds / s.memory) if s.memory > 0 else 0.0

    def observe(self, denoised: Tensor) -> None:
        """See a prediction of a step without detail; ``change`` compares with it, the published method does not."""
        if self._settings.mask_source == "change":
            self._previous = denoised.detach()

    def make(self, denoised: Tensor, x: Tensor, decay: Tensor) -> Tensor | None:
        """The mask (batch, 1, *space), float32, or None where there is nothing to go by yet.

        Args:
            denoised: true prediction at this step, (batch, channels, *space), any float type.
            x: noisy latent of this step, for ``first``.
            decay: (batch,), weight of the remembered mask; 1 leaves it as it is.
        """
        s = self._settings
        space = denoised.shape[2:]
        if self._constant is not None:
            mask = denoised.new_full((len(denoised), 1, *space), self._constant, dtype=torch.float32)
            return mask if s.mask_override != "off" else self._limited(mask)
        raw = self._raw(denoised.detach(), x.detach())
        if raw is None:
            return None
        # What the model could not say leaves the sample's mask as it was.
        usable = finite(raw.flatten(1).sum(1))
        raw = raw.nan_to_num_(0.0, 0.0, 0.0)
        if not self._published:
            raw = blur(raw)
        # Measured against the prediction's own scale: where the busy part does not vary by as much
        # as the picture does as a whole, there is nothing to light up (docs/evidence.md, mask truth).
        among = self._among(raw)
        least = variance(denoised.detach(), among, self._samples) if self._structure else None
        mask = stretch(raw, s.mask_clip_percentile, among, self._samples, least)
        if not self._structure:
            mask = self._remember(mask, decay.masked_fill(~usable, 1.0))
        if s.coverage != 0.5:
            mask = (mask + 2.0 * (s.coverage - 0.5)).clamp_(0, 1)
        return self._limited(mask)

    def lights(self, masks: list[Tensor], sound: Tensor) -> Tensor:
        """(batch,) bool: whether a mask (one per packed part) lights anything worth a call.

        Args:
            sound: (batch,) bool; in samples with NaN or inf there is nothing to light.
        """
        if self._settings.mask_override != "off":
            return torch.ones_like(sound)
        lit = torch.zeros_like(sound)
        for values in (mask.flatten(1) for mask in masks):
            lit |= values.mean(1) >= FLOOR if self._published else values.amax(1) > FLOOR
        return lit & sound

    def _remember(self, mask: Tensor, decay: Tensor) -> Tensor:
        """The mask averaged with those before it; what coverage adds later does not feed back."""
        memory = torch.zeros_like(mask) if self._memory is None else resample(self._memory, mask.shape[2:])
        self._memory = torch.lerp(mask, memory, per_sample(decay, mask))
        return self._memory

    def _limited(self, mask: Tensor) -> Tensor:
        return mask if self._limit is None else mask * resample(self._limit.to(mask), mask.shape[2:])

    def _among(self, raw: Tensor) -> Places | None:
        """The pixels of ``within``, found once for each size of the latent."""
        if self._within is None:
            return None
        if self._places is None or self._places[0] != raw.shape[2:]:
            within = resample(self._within.to(raw), raw.shape[2:])
            self._places = (raw.shape[2:], places(within, self._samples))
        return self._places[1]

    def _raw(self, denoised: Tensor, x: Tensor) -> Tensor | None:
        source = self._settings.mask_source
        if source == "structure":
            return structure(denoised)
        if source == "first":
            if self._frozen is None:
                self._frozen = x.abs().mean(1, keepdim=True, dtype=torch.float32)
            # A copy: what is made of it is written in place.
            return resample(self._frozen, denoised.shape[2:]).clone()
        previous, self._previous = self._previous, denoised
        if previous is None:
            return None
        return change(denoised, resample(previous, denoised.shape[2:]))
