"""How noisy a pipeline's latent is, asked of the scheduler itself."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from . import curves, predictions, tree
from .curves import interpolate, logit, sigmoid
from .streams import SchedulerStep

if TYPE_CHECKING:
    from ..settings import Family
    from .streams import DenoiserCall
    from .times import TimeArgument


HIGHEST = 1e9
"""A noise level above any."""


class Noise:
    """The noise levels of one run of a scheduler, and its measure of time.

    ``family`` is "ve" (sigma is noise to signal) or "flow" (sigma is the share of noise).
    ``prediction`` and ``sign`` say what the scheduler makes of the model's output, as a copy of it
    does when it steps (``predictions.learned``); ``sign`` is -1 where that is negated first.
    ``times`` and ``sigmas`` hold one value for each of the run's timesteps.
    """

    def __init__(self, scheduler: Any, mu: float | None = None):
        """Args:
            scheduler: with its timesteps set, and not stepped yet.
            mu: what its dynamic shift was set with; None takes the shift from the run's own levels.

        Raises:
            ValueError: its noise is of another kind; names the scheduler.
        """
        self.family: Family
        self.name = type(scheduler).__name__
        check(scheduler)
        config = scheduler.config
        self.times: list[float] = scheduler.timesteps.cpu().double().tolist()
        self.signal, noise = _probe(scheduler)
        self.count = float(config.get("num_train_timesteps") or 1000) if max(self.times) > 1 else 1.0
        """Time at full noise."""
        self._data = 1.0
        self.rounded = False
        """Whether times are whole numbers, and the noise levels lie less than one beside them."""
        if _near(self.signal + noise):
            self.family = "flow"
            if noise[0] < noise[-1]:
                # Mochi's scheduler counts signal where others count noise.
                self.signal, noise = noise, self.signal
            self.sigmas: list[float] = noise.tolist()
            shares = [t / self.count for t in self.times]
            near = all(abs(s - t) * self.count <= 1 for s, t in zip(self.sigmas, shares, strict=True))
            self.rounded = near and not scheduler.timesteps.is_floating_point()
            shares = self.sigmas if self.rounded else shares
            self._curve = curves.log_odds(self.sigmas, shares)
            self._shift = curves.shift(scheduler, self.sigmas, mu)
        else:
            if not (_near(self.signal) or _near(self.signal**2 + noise**2)):
                raise ValueError(
                    f"{self.name} is not supported: its signal and noise add up to neither a flow nor diffusion"
                )
            if config.get("use_flow_sigmas"):
                raise ValueError(
                    f"{self.name} is not supported: it steps on flow levels and adds noise by another table"
                )
            self.family = "ve"
            self.sigmas = (noise / self.signal.clamp(min=curves.LEAST_ALPHA**0.5)).tolist()
            if hasattr(scheduler, "precondition_noise"):
                self._data = config.sigma_data
                self.sigmas = [sigma / self._data for sigma in self.sigmas]
                self._curve = curves.preconditioned(scheduler)
            else:
                self._curve = curves.straight(config, self.sigmas, self.times) or curves.table(scheduler)
                self._agree()
        # As the core reads a list of them, so that a step's own level is found in it.
        self.sigmas = torch.tensor(self.sigmas).tolist()
        if any(after > before * 1.001 for before, after in pairwise(self.sigmas)):
            raise ValueError(f"{self.name} is not supported: its noise does not fall from step to step")
        if self.family == "ve":
            self.signal = self.signal.clamp(min=curves.LEAST_ALPHA**0.5)
            noise = torch.tensor(self.sigmas, dtype=torch.float64) * self.signal * self._data
        self.prediction, self.sign = predictions.learned(scheduler, self.family, self.signal, noise, self._data)

    def time(self, sigma: float) -> float:
        """The scheduler's time at a noise level, between its own."""
        if self.family == "ve":
            return interpolate(math.log(sigma), *self._curve)
        return self.count * sigmoid(interpolate(logit(sigma), *self._curve))

    last = 0.0
    """Noise level that a whole run ends at."""

    def unit(self, index: int) -> float:
        """Standard deviation of a step's sample, by which a model off the flow path is shown it."""
        return 1.0 if self.family == "flow" else self._data * math.hypot(self.sigmas[index], 1.0)

    def nearest(self, time: float) -> int:
        """The step whose time is nearest."""
        return min(range(len(self.times)), key=lambda i: abs(self.times[i] - time))

    def locate(self, arguments: list[TimeArgument], call: Any, expected: int) -> int | None:
        """The step that a call belongs to, by the times among its arguments; None where they are of none."""
        pairs = [(argument, tree.at(call, argument.path)) for argument in arguments]
        pairs = [(argument, value) for argument, value in pairs if value is not None]
        near = [self.nearest(time) for argument, value in pairs for time in argument.times(value)]
        for index in [expected, expected - 1, *near]:
            if 0 <= index < len(self.times) and any(a.tells(value, self.times[index]) for a, value in pairs):
                return index
        return None

    def step_of(self, calls: list[DenoiserCall], arguments: Any, expected: int) -> int | None:
        """The step that a call of the model belongs to; None where its time is none of the run's, or not certain."""
        index = self.locate([argument for call in calls for argument in call.times], arguments, expected)
        if index is None:
            return None
        for call in calls:
            call.times = [a for a in call.times if a.agrees(tree.at(arguments, a.path), self.times[index])]
        certain = all(call.times and all(len(a.agreed) > 1 for a in call.times) for call in calls)
        return index if certain else None

    def step(self, scheduler: Any, given: dict[str, Any]) -> SchedulerStep | None:
        """What a scheduler's step is called with; None where it is of several noise levels."""
        if any(name not in given for name in ("model_output", "timestep", "sample")):
            raise ValueError("its scheduler's step does not take model_output, timestep and sample")
        time = torch.as_tensor(given["timestep"]).detach().cpu().double()
        if time.numel() != 1:
            return None
        return SchedulerStep(scheduler, given["model_output"], float(time), given["sample"])

    def index_of(self, given: dict[str, Any]) -> int:
        """The step that a scheduler is called for."""
        return self.nearest(float(torch.as_tensor(given["timestep"]).detach().flatten()[0]))

    def window(self, start: float, end: float) -> tuple[float, float]:
        """Noise levels at two shares of the model's own range, 0 pure noise and 1 none."""
        if self.family == "flow":
            # Evenly spaced levels, shifted as the run's are.
            high, low = (self._shift * (1 - share) / (1 + (self._shift - 1) * (1 - share)) for share in (start, end))
        else:
            # The model's levels, one for each share of its range, as it was trained on them.
            logs, _ = self._curve
            ranks = [float(rank) for rank in range(len(logs))]
            high, low = (math.exp(interpolate((1 - share) * ranks[-1], ranks, logs)) for share in (start, end))
        return (HIGHEST if start == 0 else high), (0.0 if end == 1 else low)

    def _agree(self) -> None:
        """Hold the run's noise levels against the model's table, which knows time as the model does.

        ``ValueError`` where they have little to do with each other.
        """
        logs, times = self._curve
        known = []
        for i, time in enumerate(self.times):
            low, here, high = (interpolate(t, times, logs) for t in (time - 1, time, time + 1))
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
    if not any(hasattr(scheduler, name) for name in ("scale_noise", "alphas_cumprod", "precondition_noise")):
        raise ValueError(
            f"{type(scheduler).__name__} is not supported: it has no training noise levels (alphas_cumprod)"
        )


def _adder(scheduler: Any) -> Any:
    return getattr(scheduler, "scale_noise", None) or getattr(scheduler, "add_noise", None)


def _probe(scheduler: Any) -> tuple[Tensor, Tensor]:
    """Shares of signal and noise, (timesteps,) float64 on the CPU, at each of the run's timesteps."""
    asked = predictions.plain_copy(scheduler)
    # Signal alone, and noise alone.
    signal = torch.eye(2, device=asked.timesteps.device)[:, :1]
    noise = 1 - signal
    levels: list[Tensor] = []
    try:
        for time in asked.timesteps.split(1):
            # As at training time, when any timestep may be asked for.
            for name in ("_begin_index", "_step_index"):
                if hasattr(asked, name):
                    setattr(asked, name, None)
            if hasattr(asked, "scale_noise"):
                levels.append(asked.scale_noise(signal, time, noise))
            else:
                levels.append(asked.add_noise(signal, noise, time))
        shares = torch.stack(levels).squeeze(2).cpu().double()
    except Exception as error:
        raise ValueError(
            f"{type(scheduler).__name__} is not supported: asked how it adds noise, {predictions.one_line(error)}"
        ) from error
    return shares[:, 0], shares[:, 1]


def _near(values: Tensor) -> bool:
    return bool(((values - 1).abs() < 1e-3).all())
