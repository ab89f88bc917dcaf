"""THE STEP: the predictions of one run, with the effect of the lie added where the mask says so."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal, NamedTuple

import torch
from torch import Tensor

from .blend import add_effect, blend
from .lie import Lie, to_strength
from .mask_maker import MaskMaker, ones
from .prediction import (
    Call,
    Evaluate,
    Latent,
    Output,
    Prediction,
    check_latent,
    check_prediction,
    finite_samples,
    map_streams,
    streams,
)
from .published import PublishedSchedule
from .report import Reason, Report
from .schedule import LEVEL_TOLERANCE, Schedule, Step
from .settings import Family, Settings, check_sigmas

if TYPE_CHECKING:
    from collections.abc import Sequence


class MaskRecord(NamedTuple):
    """The mask of one step of a recorded run."""

    step: int
    """Index of the step in the run."""
    sigma: float
    """The true noise level."""
    strength: float
    """The strength that was told in the step. It includes the doses of the other steps of the group."""
    mask: Latent
    """(batch, 1, *space), float32, or one per stream."""


class Detailer:
    """Adds detail to one run of a sampler. Make one for each run: it holds the state of that run.

    >>> detailer = Detailer(Settings(strength=0.1), sigmas)
    >>> output = detailer.step(evaluate, x, sigma)     # in place of evaluate(x, sigma)

    Args:
        sigmas: the run's noise levels, descending, one more than there are steps, or any slice
            of a schedule. Steps that rise (unsampling, restarts) are left plain.
        family: ``ve`` for x = x0 + sigma n, ``flow`` for x = (1 - sigma) x0 + sigma n.
        window: noise levels (high, low) between which the lie is told: ``start`` and ``end`` of the model's
            own noise range. None takes ``start`` and ``end`` as shares of ``sigmas``, which is right if
            ``sigmas`` is a whole schedule.
        limit: where detail may go, (batch or 1, 1, *space) in [0, 1]. The mask is multiplied by it.
        within: the part that inpainting regenerates, (batch or 1, 1, *space) in [0, 1]. The mask compares places
            within this part only. Both maps are clamped to [0, 1] and resized to the latent. They apply to the
            first stream. If there is only one stream, a map of zeros leaves the run plain.
        record: whether to keep the mask of every step in ``masks``.
        allow_restart: whether the sampler may run through its levels more than once. If not, a second run raises.

    Attributes:
        report: what the run did, and what it cost.
        mask: the latest mask, (batch, 1, *space), float32, or a list of one per stream; None before the first.
        masks: a ``MaskRecord`` for every step in which the lie was told; empty unless ``record`` is set.

    Raises:
        TypeError, ValueError: if an argument is invalid. The message names it.
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
        allow_restart: bool = False,
    ):
        if not isinstance(settings, Settings):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"settings is a {type(settings).__name__}: give selective_sigma.Settings(...)")
        levels = check_sigmas(sigmas)
        if family not in ("ve", "flow"):
            raise ValueError(f"family is {family!r}: choose ve or flow")
        if window is not None:
            bounds = check_sigmas(window, "window")
            if len(bounds) != 2 or bounds[0] < bounds[1]:
                raise ValueError(f"window is {window!r}: give two noise levels, the higher one first")
            window = bounds[0], bounds[1]
        self.settings = settings
        self.family: Family = family
        self.report = Report()
        self.mask: Latent | None = None
        self.masks: list[MaskRecord] = []
        self._mask_maker = MaskMaker(settings, limit, within)
        self._records_masks = record
        self._one_pass = settings.one_pass and limit is None
        self._allow_restart, self._is_finished = allow_restart, False
        if settings.mask_source == "response":
            self._schedule = Schedule(levels, settings, family, window)
        else:
            self._schedule = PublishedSchedule(levels, settings, family)

    def step(self, evaluate: Evaluate, x: Latent, sigma: Tensor) -> Output:
        """The prediction of one step, with detail where the mask says so.

        A step in which the lie is due calls the model twice: with the lie, then without it. The mask is computed from
        both predictions, and ``mask * (lied - plain)`` is added to every prediction of the step (method.md section 3).
        Constant and published masks blend each prediction with its own lied one instead.

        Args:
            evaluate: calls the model.
            x: noisy latent (batch, channels, *space), one to three space axes; a list of such tensors for
                a model of several streams.
            sigma: the noise level of ``x``: 0-d, or (batch,) of equal values.

        Raises:
            TypeError, ValueError: before any model call, if ``x`` or ``sigma`` is invalid; after a call, if the
                prediction does not fit ``x``.
            RuntimeError: at the first step of a second run.
        """
        level = self._check(x, sigma)
        step = self._step_at(level, sigma)
        self._refuse_second_run(step)
        self.report.steps += 1
        self.report.e_folds += self._schedule.enter(step)
        dose = self._schedule.dose(step)
        reason = self._why_plain(step, dose, x)
        if reason is not None:
            self.report.skip(reason)
            plain = self._call_plain(evaluate, x, sigma, step)
            if reason is Reason.FIRST:
                self._mask_maker.remember(plain, x)
            return _output(plain, "plain", step)
        lied, plain = self._call_both(evaluate, x, sigma, level, step)
        if lied.cached:
            self.report.skip(Reason.CACHED)
            # The cached call was not counted. If it is the only call of the step, count it as plain.
            self.report.plain += plain is None
            # The model keeps the state of its last call, so return the prediction of that call.
            return _output(lied if plain is None or self._lied_call_is_last else plain, "plain", step)
        self.report.e_folds += self._schedule.mark_told(step)
        if plain is None:
            self.report.count_finite(finite_samples(lied))
            self._keep_mask(map_streams(ones, x), level, step, dose)
            return _output(lied, "lied", step, self.mask)
        is_finite = finite_samples(plain, lied)
        self.report.count_finite(is_finite)
        mask = self._mask_maker.only_finite(self._mask_maker.make(plain, lied, x, dose), is_finite)
        self._keep_mask(mask, level, step, dose)
        combine = add_effect if self._mask_maker.is_response else blend
        return combine(plain, lied, mask, step.index)

    def again(self, evaluate: Evaluate, x: Latent, sigma: Tensor, first: Output) -> Output:
        """Another prediction of a step, for a host that calls its model several times for one ``x`` (cond, uncond).

        Args:
            first: the output of ``step`` for the first of these calls. Its effect, or else its mask, is used again.
        """
        level = self._check(x, sigma)
        step = self._step_at(level, sigma)
        self.report.steps += 1
        if first.kind == "plain":
            return _output(self._call_plain(evaluate, x, sigma, step), "plain", step)
        if first.effect is not None and first.mask is not None:
            plain = self._call_plain(evaluate, x, sigma, step)
            return add_effect(plain, None, first.mask, step.index, first.effect)
        lied, plain = self._call_both(evaluate, x, sigma, level, step)
        if plain is None or first.mask is None:
            return _output(lied, "lied", step, first.mask)
        return blend(plain, lied, first.mask, step.index)

    @property
    def _lied_call_is_last(self) -> bool:
        """Whether the lied call is the second one. This is so under ``mask_override`` ones only.

        The model must then be left in the same state as on the one-pass path, which makes the lied call alone.
        """
        return self.settings.mask_override == "ones"

    def _why_plain(self, step: Step, dose: float, x: Latent) -> Reason | None:
        """The reason why the step is plain; None if the lie is told."""
        if self.settings.idle:
            return Reason.IDLE
        if self._mask_maker.is_black(x):
            return Reason.EMPTY
        if step.reason is not None or not dose:
            return step.reason or Reason.EVERY
        return None if self._mask_maker.ready(x) else Reason.FIRST

    def _call_plain(self, evaluate: Evaluate, x: Latent, sigma: Tensor, step: Step) -> Prediction:
        return self._call_model(evaluate, Call(x, sigma, "plain", step.index, sigma))

    def _call_both(
        self, evaluate: Evaluate, x: Latent, sigma: Tensor, level: float, step: Step
    ) -> tuple[Prediction, Prediction | None]:
        """The lied and the plain prediction of a step; the plain one is None on the one-pass path."""
        lie = Lie.of_dose(self._schedule.dose(step), self.family, self.settings.lie)
        scale = lie.scale(level)
        scaled = [stream if scale == 1.0 else stream * scale for stream in streams(x)]
        lied_x = scaled[0] if isinstance(x, Tensor) else scaled
        conds = "positive" if self._mask_maker.is_response else "all"
        lied_call = Call(lied_x, lie.tell(sigma), "lied", step.index, sigma, lie, conds)
        plain_call = Call(x, sigma, "plain", step.index, sigma)
        if self._one_pass:
            return self._call_model(evaluate, lied_call), None
        if self._lied_call_is_last:
            plain = self._call_model(evaluate, replace(plain_call, is_first_of_two=True))
            return self._call_model(evaluate, lied_call), plain
        lied = self._call_model(evaluate, replace(lied_call, is_first_of_two=True))
        return lied, self._call_model(evaluate, plain_call)

    def _call_model(self, evaluate: Evaluate, call: Call) -> Prediction:
        prediction = check_prediction(evaluate(call), call.x)
        self.report.plain += call.kind == "plain"
        self.report.lied += call.kind == "lied" and not prediction.cached
        return prediction

    def _keep_mask(self, mask: Latent, level: float, step: Step, dose: float) -> None:
        self.mask = mask
        if self._records_masks:
            self.masks.append(MaskRecord(step.index, level, to_strength(dose), mask))

    def _step_at(self, level: float, sigma: Tensor) -> Step:
        # A level that was rounded to the dtype of sigma still belongs to its own step.
        return self._schedule.at(level, 1.0 + max(LEVEL_TOLERANCE - 1.0, torch.finfo(sigma.dtype).eps))

    def _refuse_second_run(self, step: Step) -> None:
        first, last = (self._schedule.steps[i].index if self._schedule.steps else 0 for i in (0, -1))
        if self._is_finished and step.index == first and not self._allow_restart:
            raise RuntimeError("this Detailer has finished its run: make one for each run of a sampler")
        self._is_finished = self._is_finished or step.index == last > first

    def _check(self, x: Latent, sigma: Tensor) -> float:
        """Check ``x`` and ``sigma``, and return the noise level. This waits for the device once."""
        first_stream = check_latent(x)
        if not isinstance(sigma, Tensor) or not sigma.is_floating_point():  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"sigma is {sigma!r}: give a floating-point tensor, 0-d or one value per sample")
        levels = check_sigmas(sigma, "sigma")
        if len(levels) not in (1, len(first_stream)):
            raise ValueError(
                f"sigma has {len(levels)} values for a batch of {len(first_stream)}: give one, or one per sample"
            )
        if any(level != levels[0] for level in levels):
            raise ValueError(f"sigma holds several noise levels ({min(levels):g} to {max(levels):g}): give one a call")
        self._mask_maker.check_fits(first_stream)
        return levels[0]


def _output(prediction: Prediction, kind: Literal["plain", "lied"], step: Step, mask: Latent | None = None) -> Output:
    """The output of a step that returns the very tensors of one call."""
    return Output(prediction.denoised, prediction.others, prediction.guided, kind=kind, index=step.index, mask=mask)
