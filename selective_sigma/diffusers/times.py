"""Finds the time (timestep) among a model's arguments, and moves it for the lied pass.

1. ``find_times``, when calls are learned: the scheduler's ``step`` is called with the time. Every argument of the model
   that equals it in one of the ``units`` is a ``TimeArgument``. No argument is identified by its name.
2. ``step_of``, at later steps: the arguments say which of the scheduler's timesteps a call belongs to. Units that
   disagree are dropped. A step begins only if all of them have been right at two different times.
3. ``TimeCurve``, in the lied pass: the time of any noise level, by the scheduler's table or formula. ``evaluate.py``
   takes the difference between the times of the lied and the true level, and ``TimeArgument.moved`` adds it.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .slots import at, leaves, thinned

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .slots import Arguments, Path, Shape

Unit = tuple[float, float]
"""(slope, offset): the argument is slope * time + offset."""

LEAST_ALPHA = 2.0**-24
"""The value that diffusers sets in ``alphas_cumprod`` in place of 0 (rescale_betas_zero_snr)."""


def units(max_time: float) -> list[Unit]:
    """The units in which a model may get the time. ``max_time`` is the scheduler's time at full noise.

    In order: the time itself, as a share of ``max_time``, in thousandths of ``max_time``, the share that is left, the
    time that is left, and the time less one.
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


class TimeArgument:
    """One argument that tells the time.

    After the first call, several units may be possible. Each later call drops those in which the argument is wrong.

    Args:
        path: where the argument is in (args, kwargs).
        units: the units that are possible.
        slack: how far the scheduler's times may be rounded. A model may get exact times instead (Cosmos 2.5).
    """

    def __init__(self, path: Path, units: list[Unit], slack: float):
        self.path, self.units, self.slack = path, units, slack
        self.confirmed: set[float] = set()
        """The times at which the argument was right."""

    def possible_times(self, value: Any) -> list[float]:
        """The times that the argument may tell, the most likely first."""
        tensor = torch.as_tensor(value).detach().cpu().double().flatten()
        # With one time for each token, some may be those of clean tokens, which are 0 or the unit's end.
        values = dict.fromkeys([float(tensor[0]), float(tensor[-1]), float(tensor.max()), float(tensor.min())])
        return [(v - offset) / slope for slope, offset in self.units for v in values]

    def tells(self, value: Any, time: float) -> bool:
        """Whether the argument tells ``time`` in one of its units."""
        return any(self._tells(value, time, unit) for unit in self.units)

    def confirm(self, value: Any, time: float) -> bool:
        """Whether the argument tells ``time``; drops the units in which it does not."""
        self.units = [unit for unit in self.units if self._tells(value, time, unit)]
        self.confirmed.add(time)
        return bool(self.units)

    def moved(self, value: Any, time: float, change: float) -> Tensor:
        """The argument with ``time`` moved by ``change``. Elements that do not tell ``time`` stay as they are.

        Schedulers round their times, so that the change is added to the rounded time of each element.
        """
        tensor = torch.as_tensor(value)
        # On the CPU, since some devices have no float64.
        true = tensor.cpu()
        moved = true.double() + self.units[0][0] * change
        # Integers become float32: at low noise, a tenth of sigma is less than one timestep.
        dtype = true.dtype if true.is_floating_point() else torch.float32
        return torch.where(self._is_time(true, time, self.units[0]), moved, true.double()).to(dtype).to(tensor.device)

    def noisy(self, value: Any, time: float, shape: Shape) -> Tensor | None:
        """Which tokens are at ``time``, if the argument has one time for each token.

        Args:
            shape: shape of the sample of one row.

        Returns:
            (batch, ...) bool on the CPU, which broadcasts to the rows; None if the argument has no time for each
            token, or if all tokens are at ``time``.
        """
        tensor = torch.as_tensor(value).cpu()
        if tensor.ndim < 2:
            return None
        at_time = self._is_time(tensor, time, self.units[0]).flatten(1)
        tokens = at_time.shape[1]
        axis = next((i for i, size in enumerate(shape) if size == tokens > 1), None)
        if axis is None or bool(at_time.all()):
            return None
        return at_time.reshape(-1, *(tokens if i == axis else 1 for i in range(len(shape))))

    def _tells(self, value: Any, time: float, unit: Unit) -> bool:
        """Whether some elements are ``time`` and all others have one common value, that of clean tokens."""
        tensor = torch.as_tensor(value).cpu()
        at_time = self._is_time(tensor, time, unit)
        rest = tensor[~at_time]
        return bool(at_time.any()) and bool((rest == rest[:1]).all())

    def _is_time(self, value: Tensor, time: float, unit: Unit) -> Tensor:
        """Which elements are ``time``, but for rounding."""
        slope, offset = unit
        expected = slope * time + offset
        rounding = torch.finfo(value.dtype).eps if value.is_floating_point() else 0.0
        # Half precision keeps two or three digits of a share, and of ``offset`` in ``offset - share``.
        tolerance = 2 * rounding * max(abs(expected), abs(offset))
        tolerance += abs(slope) * max(1e-5 * max(abs(time), 1.0), self.slack)
        return (value.double() - expected).abs() <= tolerance


def find_times(arguments: Arguments, time: float, max_time: float, slack: float) -> list[TimeArgument]:
    """The arguments of a call that may tell ``time``: point 1 above. For ``max_time`` see ``units``."""
    matches: list[TimeArgument] = []
    for path, leaf in leaves(arguments):
        if isinstance(leaf, bool) or not isinstance(leaf, (int, float, Tensor)):
            continue
        if isinstance(leaf, Tensor):
            if leaf.dtype == torch.bool or leaf.is_complex() or leaf.numel() == 0:
                continue
            # One time, or two: that of noisy tokens beside that of clean ones.
            if len(thinned(leaf, 64).unique()) > 2:
                continue
        argument = TimeArgument(path, units(max_time), slack)
        if argument.confirm(leaf, time):
            matches.append(argument)
    return matches


def nearest(times: Sequence[float], time: float) -> int:
    """The index of the step whose time is nearest."""
    return min(range(len(times)), key=lambda i: abs(times[i] - time))


def step_of(
    times: Sequence[float], candidates: list[list[TimeArgument]], arguments: Arguments, expected: int
) -> int | None:
    """The index of the step that a call of the model belongs to: point 2 above.

    Args:
        times: the scheduler's times, one for each step.
        candidates: for each stream, the arguments that may tell its time. Those that are wrong are removed.
        arguments: those of the call.
        expected: the index of the step after the latest one.

    Returns:
        The index; None if the arguments tell none of ``times``, or if an argument has been right at one time only.
    """
    values = [(a, value) for each in candidates for a in each if (value := at(arguments, a.path)) is not None]
    near = [nearest(times, time) for argument, value in values for time in argument.possible_times(value)]
    steps = [i for i in (expected, expected - 1, *near) if 0 <= i < len(times)]
    step = next((i for i in steps if any(argument.tells(value, times[i]) for argument, value in values)), None)
    if step is None:
        return None
    for each in candidates:
        each[:] = [
            argument
            for argument in each
            if (value := at(arguments, argument.path)) is not None and argument.confirm(value, times[step])
        ]
    return step if all(each and all(len(a.confirmed) > 1 for a in each) for each in candidates) else None


class TimeCurve:
    """The scheduler's time as a function of the noise level, by interpolation.

    Args:
        levels: ascending. On VE models log sigma; on flow models the log odds of sigma.
        times: one for each level. On VE models the scheduler's times; on flow models the log odds of time / max_time.
        max_time: the time at full noise on flow models; None on VE models.
        shift: of a flow schedule (``flow_shift``).
    """

    def __init__(self, levels: list[float], times: list[float], max_time: float | None = None, shift: float = 1.0):
        self.levels, self.times, self._max_time, self._shift = levels, times, max_time, shift

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
            return interpolate(math.log(sigma), self.levels, self.times)
        return self._max_time / (1 + math.exp(-interpolate(logit(sigma), self.levels, self.times)))

    def level(self, share: float) -> float:
        """The noise level at a share of the model's noise range: 0 is pure noise, 1 is no noise."""
        left = 1 - share
        if self._max_time is not None:
            # Evenly spaced levels, shifted like those of the run.
            return self._shift * left / (1 + (self._shift - 1) * left)
        # Each level of the curve takes an equal part of the range.
        ranks = [float(rank) for rank in range(len(self.levels))]
        return math.exp(interpolate(left * ranks[-1], ranks, self.levels))


def flow_shift(scheduler: Any, sigmas: list[float]) -> float:
    """The factor by which a flow schedule multiplies the odds of its evenly spaced levels.

    Args:
        sigmas: the noise levels of the run.
    """
    if not scheduler.config.get("use_dynamic_shifting"):
        static = (getattr(scheduler, "shift", None), *map(scheduler.config.get, ("flow_shift", "shift")))
        return float(next((value for value in static if value), 1.0))
    # A dynamic shift is computed from the levels. Pipelines space n levels evenly from 1 to 1 / n before the shift.
    ratios = sorted(logit(sigmas[i]) - logit(1 - i / len(sigmas)) for i in range(1, len(sigmas)))
    return math.exp(ratios[len(ratios) // 2]) if ratios else 1.0


def logit(share: float) -> float:
    """Log odds of a share, which is clamped to a little above 0 and a little below 1."""
    share = min(max(share, 1e-9), 1 - 1e-9)
    return math.log(share / (1 - share))


def interpolate(x: float, xs: list[float], ys: list[float]) -> float:
    """Interpolate linearly between ascending ``xs``, and extrapolate beyond their ends."""
    right = min(max(bisect_left(xs, x), 1), len(xs) - 1)
    share = (x - xs[right - 1]) / (xs[right] - xs[right - 1])
    return ys[right - 1] + share * (ys[right] - ys[right - 1])
