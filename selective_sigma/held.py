"""The lie's effect, held from step to step: two passes for little more than one."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from .lie import depth, per_sample
from .prediction import Prediction

GROWTH = 2.0
"""Times that a lie may outgrow the one whose effect is held: the effect's error grows with it."""


class Held:
    """The lie's effect as last measured (method.md section 4); each sample is on its own."""

    def __init__(self, refresh: float):
        """``refresh``: e-folds of the noise-to-signal ratio for which an effect may be held."""
        self._refresh = refresh
        self._at: list[tuple[float, float] | None] = []
        self.effect: Prediction | None = None
        self._energy = torch.empty(0)
        self._per_depth = torch.empty(0)

    def serves(self, x: Tensor, mask: Tensor | None, ratios: list[float], strengths: list[float]) -> list[bool]:
        """The samples of ``x`` for which the effect is still good."""
        if (
            self.effect is None
            or mask is None
            or self.effect.denoised.shape != x.shape
            or mask.shape[2:] != x.shape[2:]
        ):
            return [False] * len(x)
        return [
            at is not None
            and strength != 0
            and abs(math.log(at[0] / ratio)) < self._refresh
            and 0 < strength / at[1] <= GROWTH
            for at, ratio, strength in zip(self._at, ratios, strengths, strict=True)
        ]

    def mean(self, mask: Tensor) -> Tensor:
        """(batch,): mean of the mask (batch, 1, *space) where the lie acts."""
        tiny = torch.finfo(torch.float32).tiny
        return (mask * self._energy).flatten(1).sum(1) / self._energy.flatten(1).sum(1).clamp(min=tiny)

    def grown(self, strength: Tensor) -> Tensor:
        """(batch,): size of a lie of ``strength`` beside the one whose effect is held."""
        return depth(strength) * self._per_depth

    def store(
        self,
        true: Prediction,
        lied: Prediction,
        sound: Tensor,
        strength: Tensor,
        measured: list[bool],
        ratios: list[float],
        strengths: list[float],
        served: list[bool],
    ) -> None:
        """Hold lied - true for the samples ``measured``, keep what is held for those ``served``.

        Args:
            sound: (batch,) bool; of the others an effect of zero is held.
            strength: (batch,), of the lie told.
        """
        rows = torch.tensor(measured, device=strength.device)
        effect = true.join(_difference, lied)
        energy = effect.denoised.float().square().sum(1, keepdim=True) * per_sample(sound, true.denoised)
        per_depth = (sound / depth(strength)).masked_fill(~rows, 0.0)
        if self.effect is not None and any(served):

            def choose(new: Tensor, old: Tensor) -> Tensor:
                return torch.where(per_sample(rows, new), new, old)

            effect = effect.join(choose, self.effect)
            energy = choose(energy, self._energy)
            per_depth = torch.where(rows, per_depth, self._per_depth)
        self.effect, self._energy, self._per_depth = effect, energy, per_depth
        before = self._at if any(served) else [None] * len(measured)
        now = zip(ratios, strengths, strict=True)
        self._at = [
            new if fresh else old if kept else None
            for new, fresh, old, kept in zip(now, measured, before, served, strict=True)
        ]


class Correction(NamedTuple):
    """Turns a call at the mean lie into the blend, for the samples served; leaves the rest alone.

    With c the mean mask, e the held effect and g = lambda / lambda_held: the call is at c e g,
    so that call - c g e is the true prediction, and call + (m - c) g e the blend.
    """

    effect: Prediction
    mean: Tensor
    """(batch,): c, 0 in samples not served."""
    grown: Tensor
    """(batch,): g, 0 in samples not served."""

    def true(self, denoised: Tensor) -> Tensor:
        """What the true pass would have said, about."""
        return torch.addcmul(denoised, self.effect.denoised, per_sample(-self.mean * self.grown, denoised))

    def apply(self, call: Prediction, mask: Tensor, sound: Tensor) -> Prediction:
        """The blend under ``mask`` (batch, 1, *space); samples not ``sound`` (batch,) bool stay as they are."""
        grown = per_sample(self.grown * sound, mask)
        share = (mask - per_sample(self.mean, mask)).mul_(grown)

        def correct(base: Tensor, change: Tensor) -> Tensor:
            return torch.addcmul(base, change, share).to(base.dtype)

        return call.join(correct, self.effect)


def _difference(true: Tensor, lied: Tensor) -> Tensor:
    # Finite even in samples that are not sound, whose share is zero: zero times NaN would be NaN.
    return (lied.detach() - true.detach()).nan_to_num_(0.0, 0.0, 0.0)
