"""Finds the time (timestep) among a model's arguments, and moves it for the lied pass.

1. ``find_times``, when calls are learned: the scheduler's ``step`` is called with the time. Every argument of the model
   that equals it in one of the ``units`` is a ``TimeArgument``. No argument is identified by its name.
2. ``next_step``, at later calls: the arguments say which of the steps to come a call belongs to. ``telling`` then drops
   the arguments and units that do not tell the time of this step (``run.py``).
3. ``TimeCurve``, in the lied pass: the time of any noise level, by the scheduler's table or formula. ``evaluate.py``
   takes the difference between the times of the lied and the true level, and ``TimeArgument.moved`` adds it.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .slots import thinned

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .slots import Parts, Path

Unit = tuple[float, float]
"""(slope, offset): the argument is slope * time + offset."""

LEAST_ALPHA = 2.0**-24
"""The value that diffusers sets in ``alphas_cumprod`` in place of 0 (rescale_betas_zero_snr)."""


def units(max_time: float) -> list[Unit]:
    """The units in which a model may get the time. ``max_time`` is the scheduler's time at full noise.

    In order: the time itself, as a share of ``max_time``, in thousandths of ``max_time``, 1 - share, max_time - time,
    and time - 1.
    """
    possible = [
        (1.0, 0.0),
        (1 / max_time, 0.0),
        (1000 / max_time, 0.0),
        (-1 / max_time, 1.0),
        (-1.0, max_time),
        (1.0, -1.0),
    ]
    return list(dict.fromkeys(possible))


@dataclass(frozen=True)
class TimeArgument:
    """One argument that tells the time."""

    path: Path
    """Where it is among the arguments."""
    units: list[Unit]
    """The possible units. After the first call there may be several."""
    slack: float
    """How far the scheduler's times may be rounded. A model may get exact times instead (Cosmos 2.5)."""

    def units_at(self, parts: Parts, time: float) -> list[Unit]:
        """The units in which the argument tells ``time``: some elements do, and all others have one common value.

        With one time for each token, the others are clean tokens.
        """
        value = parts.get(self.path)
        if value is None:
            return []
        tensor = torch.as_tensor(value).cpu()
        masks = {unit: self._is_time(tensor, time, unit) for unit in self.units}
        return [unit for unit, at in masks.items() if at.any() and (tensor[~at] == tensor[~at][:1]).all()]

    def moved(self, value: Any, time: float, change: float) -> Tensor:
        """The argument with ``time`` moved by ``change``. Elements that do not tell ``time`` stay as they are.

        Schedulers round their times, so the change is added to the rounded time of each element.
        """
        tensor = torch.as_tensor(value)
        # On the CPU, since some devices have no float64.
        true = tensor.cpu()
        moved = true.double() + self.units[0][0] * change
        # Integers become float32: at low noise, a tenth of sigma is less than one timestep.
        dtype = true.dtype if true.is_floating_point() else torch.float32
        return torch.where(self._is_time(true, time, self.units[0]), moved, true.double()).to(dtype).to(tensor.device)

    def noisy_tokens(self, value: Any, time: float, tokens: int) -> Tensor | None:
        """Which tokens are at ``time``, (batch, tokens, 1) bool on the CPU; None if they have no time of their own."""
        tensor = torch.as_tensor(value).cpu()
        if tensor.ndim < 2 or tensor[0].numel() != tokens:
            return None
        return self._is_time(tensor, time, self.units[0]).reshape(-1, tokens, 1)

    def _is_time(self, value: Tensor, time: float, unit: Unit) -> Tensor:
        """Which elements are ``time``, but for rounding."""
        slope, offset = unit
        expected = slope * time + offset
        rounding = torch.finfo(value.dtype).eps if value.is_floating_point() else 0.0
        # Half precision keeps two or three digits of a share, and of ``offset`` in ``offset - share``.
        tolerance = 2 * rounding * max(abs(expected), abs(offset))
        tolerance += abs(slope) * max(1e-5 * max(abs(time), 1.0), self.slack)
        return (value.double() - expected).abs() <= tolerance


def find_times(parts: Parts, time: float, max_time: float, slack: float) -> list[TimeArgument]:
    """The arguments of a call that may tell ``time``: point 1 above. For ``max_time`` see ``units``."""
    possible: list[TimeArgument] = []
    for path, part in parts.items():
        if isinstance(part, Tensor):
            # One time, or two: that of noisy tokens beside that of clean ones.
            is_time = part.dtype != torch.bool and not part.is_complex() and 1 <= len(thinned(part, 64).unique()) <= 2
        else:
            is_time = isinstance(part, (int, float)) and not isinstance(part, bool)
        if is_time:
            possible.append(TimeArgument(path, units(max_time), slack))
    return telling(possible, parts, time)


def telling(arguments: list[TimeArgument], parts: Parts, time: float) -> list[TimeArgument]:
    """Those of the arguments that tell ``time`` in a call, with the units in which they do."""
    return [replace(a, units=now) for a in arguments if (now := a.units_at(parts, time))]


def next_step(times: Sequence[float], arguments: list[TimeArgument], parts: Parts, after: int) -> int | None:
    """The first step after ``after`` whose time a call tells, by any of its arguments; None if there is none."""
    return next((i for i in range(after + 1, len(times)) if telling(arguments, parts, times[i])), None)


def index_of(times: Sequence[float], time: float, after: int = -1) -> int:
    """The index of the step whose time is nearest. Of equal times, it is the first one after ``after``, if any."""
    nearest = min(times, key=lambda t: abs(t - time))
    indices = [i for i, t in enumerate(times) if t == nearest]
    return next((i for i in indices if i > after), indices[0])


class TimeCurve:
    """The scheduler's time as a function of the noise level, by interpolation.

    Args:
        log_levels: ascending. On VE models log sigma; on flow models the log odds of sigma.
        times: one for each level. On VE models the scheduler's times; on flow models the log odds of time / max_time.
        max_time: the time at full noise on flow models; None on VE models.
        shift: of a flow schedule (``flow_shift``).
    """

    def __init__(self, log_levels: list[float], times: list[float], max_time: float | None = None, shift: float = 1.0):
        self.log_levels, self.times, self._max_time, self._shift = log_levels, times, max_time, shift

    @classmethod
    def of_table(cls, scheduler: Any) -> TimeCurve:
        """The curve of the noise levels that the model was trained on."""
        alphas = scheduler.alphas_cumprod.cpu().double().clamp(min=LEAST_ALPHA, max=1 - 1e-12)
        return cls((((1 - alphas) / alphas).log() / 2).tolist(), [float(t) for t in range(len(alphas))])

    @classmethod
    def of_formula(cls, scheduler: Any, sigmas: list[float]) -> TimeCurve:
        """The curve of the scheduler's formula for a preconditioned model, over sigma in units of ``sigma_data``.

        Args:
            sigmas: the run's noise levels. The curve ends at them if the scheduler's config gives no ends.
        """
        config = scheduler.config
        ends = [config.get("sigma_min") or min(sigmas), config.get("sigma_max") or max(sigmas)]
        logs = torch.linspace(math.log(ends[0]), math.log(ends[1]), 1000, dtype=torch.float64)
        # The Euler scheduler of Stable Video Diffusion has the formula in its set_timesteps().
        formula = getattr(scheduler, "precondition_noise", lambda sigma: 0.25 * sigma.log())
        return cls((logs - math.log(config.get("sigma_data") or 1.0)).tolist(), formula(logs.exp()).tolist())

    @classmethod
    def of_flow(cls, sigmas: list[float], shares: list[float], max_time: float, shift: float) -> TimeCurve:
        """The curve through the run's own levels. In log odds, every shift of a flow schedule is a straight line."""
        within = [(s, t) for s, t in zip(sigmas, shares, strict=True) if 0 < s < 1 and 0 < t < 1]
        pairs = sorted({logit(s): logit(t) for s, t in within}.items())
        if len(pairs) < 2:
            x, y = pairs[0] if pairs else (0.0, 0.0)
            pairs = [(x - 1, y - 1), (x + 1, y + 1)]
        return cls([x for x, _ in pairs], [y for _, y in pairs], max_time, shift)

    def time(self, sigma: float) -> float:
        """The time at a noise level."""
        if self._max_time is None:
            return interpolate(math.log(sigma), self.log_levels, self.times)
        return self._max_time / (1 + math.exp(-interpolate(logit(sigma), self.log_levels, self.times)))

    def level(self, share: float) -> float:
        """The noise level at a share of the model's noise range, from the highest (0) to the lowest (1)."""
        left = 1 - share
        if self._max_time is not None:
            # Evenly spaced levels, shifted like those of the run.
            return self._shift * left / (1 + (self._shift - 1) * left)
        # Each level of the curve takes an equal part of the range.
        ranks = range(len(self.log_levels))
        return math.exp(interpolate(left * ranks[-1], ranks, self.log_levels))


def flow_shift(scheduler: Any, sigmas: list[float]) -> float:
    """The factor by which a flow schedule multiplies the odds of its evenly spaced levels.

    Args:
        sigmas: the noise levels of the run.
    """
    if not scheduler.config.get("use_dynamic_shifting"):
        static = (getattr(scheduler, "shift", None), *map(scheduler.config.get, ("flow_shift", "shift")))
        return float(next((value for value in static if value), 1.0))
    # A dynamic shift is computed from the levels. Pipelines space n levels evenly from 1 to 1 / n before the shift.
    log_ratios = sorted(logit(sigmas[i]) - logit(1 - i / len(sigmas)) for i in range(1, len(sigmas)))
    return math.exp(log_ratios[len(log_ratios) // 2]) if log_ratios else 1.0


def logit(share: float) -> float:
    """Log odds of a share, which is clamped to a little above 0 and a little below 1."""
    share = min(max(share, 1e-9), 1 - 1e-9)
    return math.log(share / (1 - share))


def interpolate(x: float, xs: Sequence[float], ys: Sequence[float]) -> float:
    """Interpolate linearly between ascending ``xs``, and extrapolate beyond their ends."""
    right = min(max(bisect_left(xs, x), 1), len(xs) - 1)
    share = (x - xs[right - 1]) / (xs[right] - xs[right - 1])
    return ys[right - 1] + share * (ys[right] - ys[right - 1])
