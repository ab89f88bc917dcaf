"""THE STEP: one run of a sampler with the lie told where the mask says so."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from .lie import Told, depth, per_sample, tell
from .mask import Mask
from .report import Report
from .schedule import Schedule, flat
from .settings import Family, Settings, check_sigmas
from .streams import Streams


class Prediction(NamedTuple):
    """What the model says of one latent.

    ``denoised`` is the prediction of the clean latent; ``alike`` holds whatever else of its
    shape the host needs blended with the same mask (uncond, cond, the raw output).
    """

    denoised: Tensor
    alike: tuple[Tensor, ...] = ()

    def join(self, combine: Callable[..., Tensor], *others: Prediction) -> Prediction:
        """Combine predictions tensor by tensor."""
        denoised = combine(self.denoised, *(o.denoised for o in others))
        rows = zip(self.alike, *(o.alike for o in others), strict=True)
        return Prediction(denoised, tuple(combine(*row) for row in rows))

    def sound(self) -> Tensor:
        """(batch,) bool: samples without NaN or inf."""
        sums = [t.detach().flatten(1).sum(1, dtype=torch.float32) for t in (self.denoised, *self.alike)]
        return torch.stack(sums).isfinite().all(0)


Evaluate: TypeAlias = Callable[[Tensor, Tensor], Prediction]
"""``evaluate(x, sigma)``: latent (batch, channels, *space) and sigma (batch,) to a prediction."""


class _Held(NamedTuple):
    """The lie's effect as last measured."""

    effect: Prediction
    depth: Tensor
    sigma: list[float]


class Detailer:
    """Adds detail to one run; owns all its state, so that two runs never meet.

    >>> detailer = Detailer(Settings(strength=0.1), sigmas)
    >>> prediction = detailer.step(evaluate, x, sigma)     # in place of evaluate(x, sigma)
    """

    def __init__(
        self,
        settings: Settings,
        sigmas: Sequence[float] | Tensor,
        family: Family = "ve",
        *,
        limit: Tensor | None = None,
        within: Tensor | None = None,
        shapes: Sequence[Sequence[int]] | None = None,
        weights: Sequence[float] | None = None,
        record: bool = False,
    ):
        """Args:
        sigmas: the run's noise levels, descending, one more than there are steps.
        family: ``ve`` for x = x0 + sigma n, ``flow`` for x = (1 - sigma) x0 + sigma n.
        limit: (batch or 1, 1, *space) in [0, 1], multiplies the mask: where detail may go.
        within: (batch or 1, 1, *space), the part that inpainting regenerates; the mask is
            normalised over it alone.
        shapes: shapes of several latents packed into one (batch, 1, N), each with its own mask.
        weights: one weight per step in place of the flat schedule, for comparisons.
        record: keep the mask of every step in ``masks``.
        """
        levels = [float(v) for v in torch.as_tensor(sigmas).tolist()]
        check_sigmas(levels)
        if weights is None:
            weights = flat(max(len(levels) - 1, 0), settings.start, settings.end)
        if family not in ("ve", "flow"):
            raise ValueError(f"family is {family!r}: choose ve or flow")
        self.settings = settings
        self.family: Family = family
        self.report = Report()
        self.mask: Tensor | None = None
        self.masks: list[tuple[float, Tensor]] = []
        self._schedule = Schedule(levels, list(weights))
        self._streams = Streams(shapes)
        self._parts = [Mask(settings, within, limit)]
        self._parts += [Mask(settings) for _ in range(1, len(self._streams))]
        self._one_pass = settings.coverage >= 1 and settings.mask_override == "off" and limit is None
        self._economy = settings.passes == "economy" and settings.mask_override == "off"
        self._record = record
        self._seen: list[float] = []
        self._held: _Held | None = None

    def step(self, evaluate: Evaluate, x: Tensor, sigma: Tensor) -> Prediction:
        """One prediction, with detail where the mask says so.

        Args:
            evaluate: the model; called once or twice.
            x: noisy latent (batch, channels, *space), one to three space axes.
            sigma: its noise level, (batch,) or a single value.
        """
        levels = _levels(x, sigma)
        self.report.steps += 1
        strengths = [self.settings.strength * self._schedule.at(level) for level in levels]
        if not any(strengths):
            self.report.skip("schedule" if any(map(self._schedule.covers, levels)) else "range")
            return self._plain(evaluate, x, sigma)
        strength = torch.tensor(strengths, dtype=torch.float32, device=x.device)
        if self._one_pass:
            self._show(x.new_ones((len(x), 1, *x.shape[2:]), dtype=torch.float32), levels)
            self.report.lied += 1
            return self._call(evaluate, *self._tell(x, sigma, strength))[0]
        if self._may_hold(x, levels, strengths):
            return self._reuse(evaluate, x, sigma, levels, strength)
        return self._measure(evaluate, x, sigma, levels, strength)

    def _plain(self, evaluate: Evaluate, x: Tensor, sigma: Tensor) -> Prediction:
        self.report.true += 1
        true, _ = self._call(evaluate, x, sigma)
        for part, view in zip(self._parts, self._streams.split(true.denoised), strict=True):
            part.observe(view)
        return true

    def _measure(
        self, evaluate: Evaluate, x: Tensor, sigma: Tensor, levels: list[float], strength: Tensor
    ) -> Prediction:
        """Both passes, the true one first: where the mask is empty, the lied one is not needed."""
        self.report.true += 1
        true, true_sound = self._call(evaluate, x, sigma)
        mask = self._mask(true.denoised, x, levels, strength, may_skip=True)
        if mask is None:
            return true
        self.report.lied += 1
        lied, lied_sound = self._call(evaluate, *self._tell(x, sigma, strength))
        sound = true_sound & lied_sound

        def blend(n: Tensor, d: Tensor) -> Tensor:
            m = mask.to(n.dtype)
            # Exact at both ends, which lerp is not.
            return torch.where(per_sample(sound, n), n * (1 - m) + d * m, n)

        def effect(n: Tensor, d: Tensor) -> Tensor:
            return torch.where(per_sample(sound, n), d - n, 0.0)

        if self._economy and bool(strength.all()):
            self._held = _Held(true.join(effect, lied), depth(strength), levels)
        return true.join(blend, lied)

    def _reuse(self, evaluate: Evaluate, x: Tensor, sigma: Tensor, levels: list[float], strength: Tensor) -> Prediction:
        """One call at the mean lie; the held effect corrects the mask's deviation from that mean.

        What is stale in the held effect then costs |m - c| and not m. (method.md section 4)
        """
        assert self._held is not None
        assert self.mask is not None
        held = self._held.effect
        weight = held.denoised.float().square()
        tiny = torch.finfo(torch.float32).tiny
        mean = (self.mask * weight).flatten(1).sum(1) / weight.flatten(1).sum(1).clamp(min=tiny)
        grown = depth(strength) / self._held.depth
        self.report.held += 1
        call, sound = self._call(evaluate, *self._tell(x, sigma, mean * strength))
        middle = per_sample(mean * grown, x)
        true = call.denoised - (middle * held.denoised).to(x.dtype)
        mask = self._mask(true, x, levels, strength, may_skip=False)
        share = -middle if mask is None else mask * per_sample(grown, x) - middle

        def correct(base: Tensor, effect: Tensor) -> Tensor:
            return torch.where(per_sample(sound, base), base + (share * effect).to(base.dtype), base)

        return call.join(correct, held)

    def _may_hold(self, x: Tensor, levels: list[float], strengths: list[float]) -> bool:
        held = self._held
        if held is None or self.mask is None or held.effect.denoised.shape != x.shape or not all(strengths):
            return False
        return all(
            abs(math.log(then / now)) < self.settings.refresh for then, now in zip(held.sigma, levels, strict=True)
        )

    def _call(self, evaluate: Evaluate, x: Tensor, sigma: Tensor) -> tuple[Prediction, Tensor]:
        prediction = evaluate(x, sigma)
        sound = prediction.sound()
        self.report.count_unsound(sound)
        return prediction, sound

    def _tell(self, x: Tensor, sigma: Tensor, strength: Tensor) -> Told:
        return tell(x, sigma.reshape(-1).expand(len(x)), strength, self.family, self.settings.lie)

    def _mask(
        self, denoised: Tensor, x: Tensor, levels: list[float], strength: Tensor, may_skip: bool
    ) -> Tensor | None:
        """The mask, or None where it lights nothing in any sample; keeps and records it."""
        steps = [abs(math.log(then / now)) for then, now in zip(self._seen or levels, levels, strict=True)]
        e_folds = torch.tensor(steps, dtype=torch.float32, device=x.device)
        self._seen = levels
        views = zip(self._parts, self._streams.split(denoised), self._streams.split(x), strict=True)
        masks = [part.make(view, seen, e_folds) for part, view, seen in views]
        made = [m for m in masks if m is not None]
        if len(made) < len(masks):
            self.report.skip("first")
            return None
        lit = self._parts[0].lights(made)
        mask = self._streams.join(made) * per_sample(lit & (strength != 0), x)
        self._show(mask, levels)
        # One question to the device for each model call: sigma before the true pass, and here,
        # where the answer can save the lied one.
        if may_skip and not bool(lit.any()):
            self.report.skip("empty")
            return None
        return mask

    def _show(self, mask: Tensor, levels: list[float]) -> None:
        self.mask = mask
        if self._record:
            self.masks.append((levels[0], mask))


def _levels(x: Tensor, sigma: Tensor) -> list[float]:
    """The noise level of each sample, after checking what a host handed over."""
    if not x.is_floating_point():
        raise TypeError(f"x is {x.dtype}: latents are floating point; convert them first")
    if not 3 <= x.ndim <= 5:
        raise ValueError(f"x has shape {tuple(x.shape)}: give (batch, channels, *space) with one to three space axes")
    if sigma.numel() not in (1, len(x)):
        raise ValueError(f"sigma has {sigma.numel()} values for a batch of {len(x)}: give one, or one per sample")
    levels = [float(v) for v in sigma.reshape(-1).tolist()]
    check_sigmas(levels, "sigma")
    return levels if len(levels) == len(x) else levels * len(x)
