"""THE STEP: one run of a sampler with the lie told where the mask says so."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from .blend import blended, moved, ones, usable
from .lie import SMALLEST, Lie
from .mask import check_fits, checked_map, resample, response
from .prediction import (
    Call,
    Evaluate,
    Latent,
    Output,
    Prediction,
    check_latent,
    check_prediction,
    each,
    finite,
    streams,
)
from .published import PublishedMask, PublishedSchedule
from .report import Reason, Report
from .schedule import SLACK, Schedule, Step
from .settings import Family, Settings, check_sigmas

if TYPE_CHECKING:
    from collections.abc import Sequence

CONSTANT = {"ones": 1.0, "half": 0.5, "zeros": 0.0}


class MaskRecord(NamedTuple):
    """The mask of one step of a recorded run."""

    step: int
    sigma: float
    strength: float
    mask: Latent


class Detailer:
    """Adds detail to one run; owns all its state, so that two runs never meet.

    >>> detailer = Detailer(Settings(strength=0.1), sigmas)
    >>> output = detailer.step(evaluate, x, sigma)     # in place of evaluate(x, sigma)

    ``report`` counts what was done; ``mask`` is the latest mask, (batch, 1, *space) float32 (one
    per stream), or None before the first; ``masks`` holds a ``MaskRecord`` of every step when recording.
    """

    def __init__(
        self,
        settings: Settings,
        sigmas: Sequence[float] | Tensor,
        family: Family = "ve",
        *,
        window: tuple[float, float] | None = None,
        limit: Tensor | None = None,
        within: Tensor | None = None,
        record: bool = False,
        loops: bool = False,
    ):
        """Args:
            sigmas: the run's noise levels, descending, one more than there are steps, or any slice
                of a schedule. Steps that rise (unsampling, restarts) are left plain.
            family: ``ve`` for x = x0 + sigma n, ``flow`` for x = (1 - sigma) x0 + sigma n.
            window: noise levels (high, low) between which the lie is told, from ``start`` and ``end``
                and the model's own noise range. None takes them as shares of ``sigmas``: right
                where that is a whole schedule.
            limit: (batch or 1, 1, *space) in [0, 1], multiplies the mask: where detail may go.
            within: (batch or 1, 1, *space) in [0, 1], the part that inpainting regenerates; the mask
                compares places within it alone. Both maps are clamped to [0, 1] and resized to the
                latent; of several streams they concern the first. A black one makes the run plain.
            record: keep the mask of every step in ``masks``.
            loops: whether the sampler may run its levels more than once; else a second run is refused.

        Raises:
            TypeError, ValueError: for a bad value of any of these, naming it.
        """
        if not isinstance(settings, Settings):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"settings is a {type(settings).__name__}: give selective_sigma.Settings(...)")
        levels = check_sigmas(sigmas)
        if family not in ("ve", "flow"):
            raise ValueError(f"family is {family!r}: choose ve or flow")
        ends = None if window is None else check_sigmas(window, "window")
        if ends is not None and not (len(ends) == 2 and ends[0] >= ends[1]):
            raise ValueError(f"window is {window!r}: give two noise levels, the higher one first")
        self.settings = settings
        self.family: Family = family
        self.report = Report()
        self.mask: Latent | None = None
        self.masks: list[MaskRecord] = []
        self._limit, self._within = checked_map("limit", limit), checked_map("within", within)
        self._record = record
        override = settings.mask_override
        self._constant = CONSTANT.get(override, 1.0 if settings.coverage >= 1 else None)
        self._one_pass = settings.coverage >= 1 and override == "off" and limit is None
        self._black = override == "off" and any(m is not None and not m.any() for m in (self._limit, self._within))
        self._loops, self._at_the_end = loops, False
        self._published: list[PublishedMask] | None = None
        if settings.mask_source == "response":
            self._schedule = Schedule(levels, settings, family, None if ends is None else (ends[0], ends[1]))
        else:
            self._schedule = PublishedSchedule(levels, settings, family)
            # A constant mask has no memory that the first step would have to fill.
            self._published = [] if self._constant is None else None

    def step(self, evaluate: Evaluate, x: Latent, sigma: Tensor) -> Output:
        """One prediction, with detail where the mask says so.

        A step that is due asks the model twice: with the lie, then without it. The mask is made of both, and
        ``mask * (lied - plain)`` is added to every prediction of the step (method.md section 3). Constant and
        published masks blend each prediction with its own lied one instead.

        Args:
            evaluate: the model.
            x: noisy latent (batch, channels, *space), one to three space axes; a list of such for
                a model of several streams.
            sigma: its noise level, one for the whole batch: 0-d, or (batch,) of equal values.

        Raises:
            TypeError, ValueError: before any model call, for a latent or a sigma that cannot be; after it, for a
                prediction that does not fit them.
            RuntimeError: at the first step of a second run.
        """
        level = self._check(x, sigma)
        now = self._step_at(level, sigma)
        self._refuse_second_run(now)
        self.report.steps += 1
        self.report.e_folds += self._schedule.enter(now)
        dose = self._schedule.dose(now)
        reason = self._why_plain(now, dose, x)
        if reason is not None:
            self.report.skip(reason)
            plain = self._plain(evaluate, x, sigma, now)
            if reason is Reason.FIRST:
                self._remembered(plain, x)
            return plain
        lied, plain = self._two_calls(evaluate, x, sigma, level, now)
        if lied.cached:
            self.report.skip(Reason.CACHED)
            self.report.plain += plain is None
            # The answer of the call that leaves its trace.
            answer = lied if plain is None or self._constant == 1.0 else plain
            return Output(answer.denoised, answer.others, answer.guided, index=now.index)
        self.report.e_folds += self._schedule.carry(now)
        if plain is None:
            self.report.count_finite(finite(lied))
            self._note(each(ones, x), level, now, dose)
            return Output(lied.denoised, lied.others, lied.guided, kind="lied", index=now.index, mask=self.mask)
        mask = self._mask_of(plain, lied, x, dose)
        is_finite = finite(plain, lied)
        self.report.count_finite(is_finite)
        if self.settings.mask_override == "off":
            mask = each(partial(usable, finite=is_finite), mask)
        self._note(mask, level, now, dose)
        return (moved if self._shares_effect else blended)(plain, lied, mask, now.index)

    def again(self, evaluate: Evaluate, x: Latent, sigma: Tensor, first: Output) -> Output:
        """A further prediction of a step, for a host that calls its model several times for one ``x`` (cond, uncond).

        Args:
            first: what ``step`` returned at the first of these calls; its effect or its mask is used here too.
        """
        level = self._check(x, sigma)
        now = self._step_at(level, sigma)
        self.report.steps += 1
        if first.kind == "plain":
            return self._plain(evaluate, x, sigma, now)
        if first.effect is not None and first.mask is not None:
            return moved(self._plain(evaluate, x, sigma, now), None, first.mask, now.index, first.effect)
        lied, plain = self._two_calls(evaluate, x, sigma, level, now)
        if plain is None or first.mask is None:
            return Output(lied.denoised, lied.others, lied.guided, kind="lied", index=now.index, mask=first.mask)
        return blended(plain, lied, first.mask, now.index)

    @property
    def _shares_effect(self) -> bool:
        """Whether one effect is added to all predictions; else each is blended with its own lied one."""
        return self._published is None and self._constant is None

    def _why_plain(self, now: Step, dose: float, x: Latent) -> Reason | None:
        """Why no lie is told in this step, or None."""
        if self.settings.idle:
            return Reason.IDLE
        # A map concerns the first stream; the others go on.
        if self._black and len(streams(x)) == 1:
            return Reason.EMPTY
        if now.reason is not None or not dose:
            return now.reason or Reason.EVERY
        if self._published is None:
            return None
        if not self._published:
            parts = [self._within, *[None] * (len(streams(x)) - 1)]
            self._published = [PublishedMask(self.settings, within) for within in parts]
        return None if all(m.ready(len(streams(x)[0])) for m in self._published) else Reason.FIRST

    def _plain(self, evaluate: Evaluate, x: Latent, sigma: Tensor, now: Step) -> Output:
        plain = self._ask(evaluate, Call(x, sigma, "plain", now.index, sigma))
        return Output(plain.denoised, plain.others, plain.guided, index=now.index)

    def _two_calls(
        self, evaluate: Evaluate, x: Latent, sigma: Tensor, level: float, now: Step
    ) -> tuple[Prediction, Prediction | None]:
        """The lied and the plain prediction, which is None where the mask is one everywhere."""
        lie = Lie(max(math.exp(-self._schedule.dose(now)), SMALLEST), self.family, self.settings.lie)
        scale = lie.scale(level)
        scaled = [stream if scale == 1.0 else stream * scale for stream in streams(x)]
        lied_x = scaled[0] if isinstance(x, Tensor) else scaled
        conds = "positive" if self._shares_effect else "all"
        # Under a mask of ones it is the lied call that leaves its trace, as in one pass.
        plain_first = self.settings.mask_override == "ones"

        def lied(followed: bool) -> Prediction:
            call = Call(lied_x, lie.tell(sigma), "lied", now.index, sigma, lie, conds, followed)
            return self._ask(evaluate, call)

        def plain(followed: bool) -> Prediction:
            return self._ask(evaluate, Call(x, sigma, "plain", now.index, sigma, followed=followed))

        if self._one_pass:
            return lied(followed=False), None
        if plain_first:
            true = plain(followed=True)
            return lied(followed=False), true
        return lied(followed=True), plain(followed=False)

    def _ask(self, evaluate: Evaluate, call: Call) -> Prediction:
        prediction = check_prediction(evaluate(call), call.x)
        self.report.plain += call.kind == "plain"
        self.report.lied += call.kind == "lied" and not prediction.cached
        return prediction

    def _mask_of(self, plain: Prediction, lied: Prediction, x: Latent, dose: float) -> Latent:
        """One mask per stream, (batch, 1, *space), float32."""
        remembered = self._remembered(plain, x)
        masks: list[Tensor] = []
        held = streams(plain.denoised if plain.guided is None else plain.guided)
        for i, (true, false) in enumerate(zip(streams(plain.denoised), streams(lied.denoised), strict=True)):
            limit, within = (self._limit, self._within) if i == 0 else (None, None)
            if remembered is not None:
                mask = remembered[i]
            elif self._constant is not None:
                mask = ones(true) * self._constant
            else:
                coverage = self.settings.coverage
                mask = response(true.detach(), false.detach(), coverage, dose, within, held[i].detach())
            if limit is not None and self.settings.mask_override == "off":
                mask = mask * resample(limit.to(mask), mask.shape[2:])
            masks.append(mask)
        return masks[0] if isinstance(plain.denoised, Tensor) else masks

    def _remembered(self, plain: Prediction, x: Latent) -> list[Tensor] | None:
        """The published masks, from this plain prediction and earlier ones; None where they are not asked for."""
        if self._published is None:
            return None
        pictures = streams(plain.denoised if plain.guided is None else plain.guided)
        return [m.make(*pair) for m, *pair in zip(self._published, pictures, streams(x), strict=True)]

    def _note(self, mask: Latent, level: float, now: Step, dose: float) -> None:
        self.mask = mask
        if self._record:
            self.masks.append(MaskRecord(now.index, level, -math.expm1(-dose), mask))

    def _step_at(self, level: float, sigma: Tensor) -> Step:
        # A level that was rounded still belongs to its own step.
        return self._schedule.at(level, 1.0 + max(SLACK - 1.0, torch.finfo(sigma.dtype).eps))

    def _refuse_second_run(self, now: Step) -> None:
        first, last = (self._schedule.steps[i].index if self._schedule.steps else 0 for i in (0, -1))
        if self._at_the_end and now.index == first and not self._loops:
            raise RuntimeError("this Detailer has finished its run: make one for each run of a sampler")
        self._at_the_end = self._at_the_end or now.index == last > first

    def _check(self, x: Latent, sigma: Tensor) -> float:
        """The noise level, after checking what a host handed over; the one wait for the device."""
        lead = check_latent(x)
        if not isinstance(sigma, Tensor) or not sigma.is_floating_point():  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"sigma is {sigma!r}: give a floating-point tensor, 0-d or one value per sample")
        levels = check_sigmas(sigma, "sigma")
        if len(levels) not in (1, len(lead)):
            raise ValueError(f"sigma has {len(levels)} values for a batch of {len(lead)}: give one, or one per sample")
        if any(level != levels[0] for level in levels):
            raise ValueError(f"sigma holds several noise levels ({min(levels):g} to {max(levels):g}): give one a call")
        for name, values in (("limit", self._limit), ("within", self._within)):
            if values is not None:
                check_fits(name, values, lead.shape)
        return levels[0]
