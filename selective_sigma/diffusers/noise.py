"""How noisy a pipeline's latent is, asked of the scheduler itself."""

from __future__ import annotations

import copy
import math
from bisect import bisect_left
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from . import tree

if TYPE_CHECKING:
    from ..settings import Family
    from .clock import Clock

PREDICTIONS = ("epsilon", "v_prediction", "sample")
"""What a model off the flow path may predict."""

# diffusers' own stand-in for a signal of exactly zero (rescale_betas_zero_snr).
_LEAST_ALPHA = 2.0**-24


class Noise:
    """The noise levels of one run of a scheduler, and its measure of time.

    ``family`` is "ve" (sigma is noise to signal) or "flow" (sigma is the share of noise).
    ``prediction`` is what the scheduler takes for the model's output: one of ``PREDICTIONS``,
    or ``flow_prediction``; ``sign`` is -1 where it counts velocity from noise to data.
    ``times`` and ``sigmas`` hold one value for each of the run's timesteps.
    """

    def __init__(self, scheduler: Any):
        """``ValueError`` names the scheduler where its noise is of another kind."""
        self.family: Family
        self.name = type(scheduler).__name__
        check(scheduler)
        config = scheduler.config
        self.times: list[float] = scheduler.timesteps.double().tolist()
        self.signal, noise = _probe(scheduler)
        self.count = float(config.get("num_train_timesteps") or 1000) if max(self.times) > 1 else 1.0
        """Time at full noise."""
        self.sign = 1
        if _near(self.signal + noise):
            self.family, self.prediction = "flow", "flow_prediction"
            if noise[0] < noise[-1]:
                # Mochi's scheduler counts signal where others count noise.
                self.sign, self.signal, noise = -1, noise, self.signal
            self.sigmas: list[float] = noise.tolist()
            self._curve = _logit_curve(self.sigmas, [t / self.count for t in self.times])
        else:
            if not (_near(self.signal) or _near(self.signal**2 + noise**2)):
                raise ValueError(
                    f"{self.name} is not supported: its signal and noise add up to neither a flow nor diffusion"
                )
            self.family, self.prediction = "ve", str(config.get("prediction_type", "epsilon"))
            if self.prediction not in PREDICTIONS:
                raise ValueError(f"{self.name} has prediction_type {self.prediction!r}: give {', '.join(PREDICTIONS)}")
            self.sigmas = (noise / self.signal.clamp(min=_LEAST_ALPHA**0.5)).tolist()
            self._curve = _table(scheduler)
            self._agree()
        # As the core reads a list of them, so that a step's own level is found in it.
        self.sigmas = torch.tensor(self.sigmas).tolist()
        if any(after > before * 1.001 for before, after in pairwise(self.sigmas)):
            raise ValueError(f"{self.name} is not supported: its noise does not fall from step to step")

    def time(self, sigma: float) -> float:
        """The scheduler's time at a noise level, between its own."""
        if self.family == "ve":
            logs, _ = self._curve
            return _interpolate(math.log(sigma), logs, self._curve[1])
        return self.count * _sigmoid(_interpolate(_logit(sigma), *self._curve))

    last = 0.0
    """Noise level that a whole run ends at."""

    def nearest(self, time: float) -> int:
        """The step whose time is nearest."""
        return min(range(len(self.times)), key=lambda i: abs(self.times[i] - time))

    def locate(self, clocks: list[Clock], arguments: Any, expected: int) -> int | None:
        """The step that a call belongs to, by what the model is told; None where it tells of none."""
        told = [(clock, tree.at(arguments, clock.path)) for clock in clocks]
        told = [(clock, value) for clock, value in told if value is not None]
        near = [self.nearest(time) for clock, value in told for time in clock.times(value)]
        for index in [expected, expected - 1, *near]:
            if 0 <= index < len(self.times) and any(clock.tells(value, self.times[index]) for clock, value in told):
                return index
        return None

    def window(self, start: float, end: float) -> tuple[float, float]:
        """Noise levels at two shares of the model's own range, 0 pure noise and 1 none."""
        if self.family == "flow":
            # The run's list from end to end holds the shift that its model wants.
            levels = [*self.sigmas, 0.0]
            last = len(levels) - 1
            shares = [i / last for i in range(len(levels))]
            high, low = (_interpolate(share, shares, levels) for share in (start, end))
        else:
            logs, times = self._curve
            high, low = (math.exp(_interpolate((1 - share) * times[-1], times, logs)) for share in (start, end))
        return (math.inf if start == 0 else high), (0.0 if end == 1 else low)

    def _agree(self) -> None:
        """Hold the run's noise levels against the model's table, which knows time as the model does.

        ``ValueError`` where they have little to do with each other.
        """
        logs, times = self._curve
        known = []
        for i, time in enumerate(self.times):
            low, here, high = (_interpolate(t, times, logs) for t in (time - 1, time, time + 1))
            known.append(low - 1e-3 <= math.log(max(self.sigmas[i], 1e-12)) <= high + 1e-3)
            if not known[-1]:
                # A time between two levels (DPM-Solver SDE) is not in the scheduler's list.
                self.sigmas[i] = math.exp(here)
        if sum(known) < 0.4 * len(known):
            raise ValueError(f"{self.name} is not supported: its timesteps are not those of its training noise levels")


def check(scheduler: Any) -> None:
    """Refuse what can be known before a run: ``ValueError`` in one line."""
    if not callable(getattr(scheduler, "step", None)) or not hasattr(scheduler, "set_timesteps"):
        raise ValueError(f"{type(scheduler).__name__} is not supported: the pipe needs a scheduler with step()")
    if _adder(scheduler) is None:
        raise ValueError(f"{type(scheduler).__name__} is not supported: it does not say how noise is added (add_noise)")


def _adder(scheduler: Any) -> Any:
    return getattr(scheduler, "scale_noise", None) or getattr(scheduler, "add_noise", None)


def _probe(scheduler: Any) -> tuple[Tensor, Tensor]:
    """Shares of signal and noise, (timesteps,) float64 on the CPU, at each of the run's timesteps."""
    asked = copy.deepcopy(scheduler)
    device = asked.timesteps.device
    zero, one = torch.zeros(1, 1, device=device), torch.ones(1, 1, device=device)

    def add(signal: Tensor, noise: Tensor) -> Tensor:
        mixed = []
        for time in asked.timesteps.split(1):
            # As at training time, when any timestep may be asked for.
            for name in ("_begin_index", "_step_index"):
                if hasattr(asked, name):
                    setattr(asked, name, None)
            if hasattr(asked, "scale_noise"):
                mixed.append(asked.scale_noise(signal, time, noise))
            else:
                mixed.append(asked.add_noise(signal, noise, time))
        return torch.cat(mixed).double().flatten().cpu()

    try:
        return add(one, zero), add(zero, one)
    except Exception as error:
        raise ValueError(f"{type(scheduler).__name__} is not supported: asked how it adds noise, {error}") from error


def _near(values: Tensor) -> bool:
    return bool(((values - 1).abs() < 1e-3).all())


def _table(scheduler: Any) -> tuple[list[float], list[float]]:
    """(log sigma, time) of the noise levels that the model was trained on."""
    alphas = getattr(scheduler, "alphas_cumprod", None)
    if alphas is None:
        raise ValueError(
            f"{type(scheduler).__name__} is not supported: it has no training noise levels (alphas_cumprod)"
        )
    alphas = alphas.double().cpu().clamp(min=_LEAST_ALPHA, max=1 - 1e-12)
    return (((1 - alphas) / alphas).log() / 2).tolist(), [float(t) for t in range(len(alphas))]


def _logit_curve(sigmas: list[float], times: list[float]) -> tuple[list[float], list[float]]:
    """Time over noise level, both as log odds: there every shift of a flow schedule is a straight line."""
    pairs = sorted(
        {_logit(s): _logit(t) for s, t in zip(sigmas, times, strict=True) if 0 < s < 1 and 0 < t < 1}.items()
    )
    if len(pairs) < 2:
        pairs = [(-1.0, -1.0), (1.0, 1.0)] if not pairs else [(x + d, y + d) for x, y in pairs for d in (-1.0, 1.0)]
    return [x for x, _ in pairs], [y for _, y in pairs]


def _logit(share: float) -> float:
    share = min(max(share, 1e-9), 1 - 1e-9)
    return math.log(share / (1 - share))


def _sigmoid(odds: float) -> float:
    return 1 / (1 + math.exp(-odds))


def _interpolate(x: float, xs: list[float], ys: list[float]) -> float:
    """Linear between ascending ``xs``, and beyond their ends."""
    right = min(max(bisect_left(xs, x), 1), len(xs) - 1)
    share = (x - xs[right - 1]) / (xs[right] - xs[right - 1])
    return ys[right - 1] + share * (ys[right] - ys[right - 1])
