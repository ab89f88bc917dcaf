"""THE STEP: one run of a sampler with the lie told where the mask says so."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from .lie import e_folds, factors, rescale
from .mask import check_goes, check_map, resample, response
from .prediction import Call, Evaluate, Latent, Output, Prediction, each, finite, streams
from .published import PublishedMask, PublishedSchedule
from .report import Report
from .schedule import SLACK, Schedule, Step
from .settings import Family, Settings, check_sigmas

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

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
        stream_sigma: Sequence[Callable[[float], float]] | None = None,
        record: bool = False,
    ):
        """Args:
            sigmas: the run's noise levels, descending, one more than there are steps, or any slice
                of a schedule; an ascending run (unsampling) is left plain.
            family: ``ve`` for x = x0 + sigma n, ``flow`` for x = (1 - sigma) x0 + sigma n.
            window: noise levels (high, low) between which the lie is told, from ``start`` and ``end``
                and the model's own noise range. None takes them as shares of ``sigmas``: right
                where that is a whole schedule.
            limit: (batch or 1, 1, *space) in [0, 1], multiplies the mask: where detail may go.
            within: (batch or 1, 1, *space) in [0, 1], the part that inpainting regenerates; the mask
                compares places within it alone. Both are resized to the latent; of several streams
                they concern the first.
            stream_sigma: for latents in several streams, each stream's noise level as a function of
                the first one's; None where all share it.
            record: keep the mask of every step in ``masks``.

        Raises:
            ValueError: for a bad value of any of these, naming it.
        """
        levels = _floats(sigmas) if isinstance(sigmas, Tensor) else [float(sigma) for sigma in sigmas]
        check_sigmas(levels)
        if family not in ("ve", "flow"):
            raise ValueError(f"family is {family!r}: choose ve or flow")
        if window is not None and not window[0] >= window[1] >= 0:
            raise ValueError(f"window is {window!r}: give two noise levels, the higher one first")
        for name, values in (("limit", limit), ("within", within)):
            if values is not None:
                check_map(name, values)
        self.settings = settings
        self.family: Family = family
        self.report = Report()
        self.mask: Latent | None = None
        self.masks: list[MaskRecord] = []
        self._limit, self._within = limit, within
        self._stream_sigma = stream_sigma
        self._record = record
        self._constant = CONSTANT.get(settings.mask_override, 1.0 if settings.coverage >= 1 else None)
        self._one_pass = settings.coverage >= 1 and settings.mask_override == "off" and limit is None
        self._published: list[PublishedMask] | None = None
        if settings.mask_source == "response":
            self._schedule = Schedule(levels, settings, family, window)
        else:
            self._schedule = PublishedSchedule(levels, settings, family)
            # A mask that coverage or override decide has no first step without one.
            self._published = [] if self._constant is None else None

    def step(self, evaluate: Evaluate, x: Latent, sigma: Tensor, mask: Latent | None = None) -> Output:
        """One prediction, with detail where the mask says so.

        Args:
            evaluate: the model; called once, or at a step that is due twice: plain, then lied.
            x: noisy latent (batch, channels, *space), one to three space axes; a list of such for
                a model of several streams.
            sigma: its noise level, one for the whole batch: 0-d, or (batch,) of equal values.
            mask: a mask to blend under in place of one made here, as where a host calls its model
                several times for one prediction (cond, then uncond): hand on ``Output.mask``. Where
                the mask is one everywhere by the settings, it is that one.

        Raises:
            TypeError, ValueError: before any model call, for latents or a sigma that cannot be.
        """
        level = self._check(x, sigma, mask)
        # A level that was rounded is still its own step's.
        now = self._schedule.at(level, 1.0 + max(SLACK - 1.0, torch.finfo(sigma.dtype).eps))
        self.report.steps += 1
        if self.settings.idle or not now.strength:
            self.report.skip("idle" if self.settings.idle else now.reason)
            return self._plain(evaluate, x, sigma, now)
        call = self._lied(x, sigma, level, now)
        if self._one_pass:
            lied = self._call(evaluate, call)
            self.report.count_finite(finite(lied))
            mask = each(_ones, x)
            self._show(mask, level, now)
            return Output(lied.denoised, lied.others, "lied", now.index, mask)
        plain = self._call(evaluate, Call(x, sigma, "plain", now.index, sigma))
        remembered = self._remembered(plain.denoised, x) if mask is None else []
        if remembered is None:
            self.report.skip("first")
            return Output(plain.denoised, plain.others, "plain", now.index, each(torch.zeros_like, each(_ones, x)))
        lied = self._call(evaluate, call)
        made = self._mask(plain, lied, now, remembered) if mask is None else mask
        usable = finite(plain) & finite(lied)
        self.report.count_finite(usable)
        made = each(partial(_only, usable=usable), made)
        if mask is None:
            self._show(made, level, now)
        others = {name: each(_blend, value, lied.others[name], made) for name, value in plain.others.items()}
        return Output(each(_blend, plain.denoised, lied.denoised, made), others, "blended", now.index, made)

    def _plain(self, evaluate: Evaluate, x: Latent, sigma: Tensor, now: Step) -> Output:
        plain = self._call(evaluate, Call(x, sigma, "plain", now.index, sigma))
        return Output(plain.denoised, plain.others, "plain", now.index)

    def _call(self, evaluate: Evaluate, call: Call) -> Prediction:
        prediction = evaluate(call)
        if call.kind == "plain":
            self.report.plain += 1
        else:
            self.report.lied += 1
        return prediction

    def _lied(self, x: Latent, sigma: Tensor, level: float, now: Step) -> Call:
        """The call that hides some of the noise, of every stream by the noise that is in it."""
        lie = self.settings.lie
        of_sigma, of_x = factors(level, now.strength, self.family, lie)
        scales = [of_x] * len(streams(x))
        if self._stream_sigma is not None:
            scales[1:] = [
                rescale(own(level), own(level * of_sigma), self.family, lie) for own in self._stream_sigma[1:]
            ]
        shown = [s if scale == 1.0 else s * scale for s, scale in zip(streams(x), scales, strict=True)]
        return Call(shown[0] if isinstance(x, Tensor) else shown, sigma * of_sigma, "lied", now.index, sigma)

    def _mask(self, plain: Prediction, lied: Prediction, now: Step, remembered: list[Tensor]) -> Latent:
        """One mask per stream, (batch, 1, *space), float32."""
        masks: list[Tensor] = []
        for i, (true, said) in enumerate(zip(streams(plain.denoised), streams(lied.denoised), strict=True)):
            limit, within = (self._limit, self._within) if i == 0 else (None, None)
            if remembered:
                made = remembered[i]
            elif self._constant is not None:
                made = _ones(true) * self._constant
            else:
                made = response(true.detach(), said.detach(), self.settings.coverage, e_folds(now.strength), within)
            if limit is not None and self.settings.mask_override == "off":
                made = made * resample(limit.to(made), made.shape[2:])
            masks.append(made)
        return masks[0] if isinstance(plain.denoised, Tensor) else masks

    def _remembered(self, denoised: Latent, x: Latent) -> list[Tensor] | None:
        """The published masks, or none where they are not asked for; None at a step too early for them."""
        if self._published is None:
            return []
        if not self._published:
            inside = [self._within, *[None] * (len(streams(x)) - 1)]
            self._published = [PublishedMask(self.settings, within) for within in inside]
        made = [m.make(*pair) for m, *pair in zip(self._published, streams(denoised), streams(x), strict=True)]
        known = [mask for mask in made if mask is not None]
        return known if len(known) == len(made) else None

    def _show(self, mask: Latent, level: float, now: Step) -> None:
        self.mask = mask
        if self._record:
            self.masks.append(MaskRecord(now.index, level, now.strength, mask))

    def _check(self, x: Latent, sigma: Tensor, mask: Latent | None) -> float:
        """The noise level, after checking what a host handed over; the one wait for the device."""
        for stream in streams(x):
            if not stream.is_floating_point():
                raise TypeError(f"x is {stream.dtype}: latents are floating point; convert them first")
            if not 3 <= stream.ndim <= 5:
                raise ValueError(
                    f"x has shape {tuple(stream.shape)}: give (batch, channels, *space) with one to three space axes"
                )
        lead = streams(x)[0]
        if self._stream_sigma is not None and len(self._stream_sigma) != len(streams(x)):
            raise ValueError(f"stream_sigma has {len(self._stream_sigma)} functions for {len(streams(x))} streams")
        wanted = [(len(stream), 1, *stream.shape[2:]) for stream in streams(x)]
        if mask is not None and [tuple(m.shape) for m in streams(mask)] != wanted:
            raise ValueError(f"mask has shape {[tuple(m.shape) for m in streams(mask)]}: hand on Output.mask, {wanted}")
        if not isinstance(sigma, Tensor) or not sigma.is_floating_point():  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"sigma is {sigma!r}: give a floating-point tensor, 0-d or one value per sample")
        levels = _floats(sigma)
        if len(levels) not in (1, len(lead)):
            raise ValueError(f"sigma has {len(levels)} values for a batch of {len(lead)}: give one, or one per sample")
        check_sigmas(levels, "sigma")
        if any(level != levels[0] for level in levels):
            raise ValueError(f"sigma holds several noise levels ({min(levels):g} to {max(levels):g}): give one a call")
        for name, values in (("limit", self._limit), ("within", self._within)):
            if values is not None:
                check_goes(name, values, lead.shape)
        return levels[0]


def _floats(values: Tensor) -> list[float]:
    """Values as floats, in one transfer from the device."""
    return [float(v) for v in values.detach().reshape(-1).cpu()]


def _ones(like: Tensor) -> Tensor:
    return like.new_ones((len(like), 1, *like.shape[2:]), dtype=torch.float32)


def _only(mask: Tensor, usable: Tensor) -> Tensor:
    """The mask, zero in samples of which a prediction was not finite: they stay as they are."""
    return torch.where(usable.reshape(-1, *[1] * (mask.ndim - 1)), mask, 0.0)


def _blend(plain: Tensor, lied: Tensor, mask: Tensor) -> Tensor:
    """n (1 - m) + l m: exact at both ends, which lerp is not; in float32, rounded once."""
    # Finite also where the mask is zero because the lied prediction is not: no NaN from 0 * NaN.
    return (lied * mask).nan_to_num_(0.0, 0.0, 0.0).addcmul_(plain, 1.0 - mask).to(plain.dtype)
