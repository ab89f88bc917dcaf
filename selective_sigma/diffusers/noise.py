"""How noisy a pipeline's latent is, and what its model's answers mean, asked of the scheduler itself.

In VE terms (``ve``) x = x0 + sigma n: every scheduler of diffusers shows a UNet x / sqrt(sigma^2 + 1), whether it
keeps its sample so (DDIM, DPM++, UniPC, LCM) or scales it for the call (Euler, Heun). In flow terms (``flow``)
x = (1 - sigma) x0 + sigma n is shown as it is.
"""

from __future__ import annotations

import copy
import inspect
import math
from itertools import pairwise, product
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from .times import LEAST_ALPHA, TimeCurve, flow_shift, interpolate

if TYPE_CHECKING:
    from ..settings import Family

HIGHEST = 1e9
"""A noise level above any."""
READINGS: dict[Family, tuple[str, ...]] = {
    "ve": ("epsilon", "v_prediction", "sample"),
    "flow": ("flow_prediction", "sample"),
}
"""What a model may predict. ``v_prediction``: Salimans and Ho 2022; ``flow_prediction``: noise minus clean latent."""


def input_scale(sigma: Tensor, family: Family) -> Tensor | float:
    """The factor by which the noisy latent x is divided for the model."""
    return _unit(sigma) if family == "ve" else 1.0


def to_denoised(output: Tensor, x: Tensor, sigma: Tensor, prediction: str) -> Tensor:
    """The clean latent that a model's output at (x, sigma) means."""
    of_x, of_output = output_weights(prediction, sigma)
    return of_x * x + of_output * output


def to_output(denoised: Tensor, x: Tensor, sigma: Tensor, prediction: str) -> Tensor:
    """The model's output that means this clean latent at (x, sigma); inverse of ``to_denoised``."""
    of_x, of_output = output_weights(prediction, sigma)
    return (denoised - of_x * x) / of_output


def output_weights(prediction: str, sigma: Tensor) -> tuple[Tensor | float, Tensor | float]:
    """The clean latent as a weighted sum: (weight of x, weight of the model's output)."""
    if prediction == "sample":
        return 0.0, 1.0
    return (1 / _unit(sigma) ** 2, -sigma / _unit(sigma)) if prediction == "v_prediction" else (1.0, -sigma)


def _unit(sigma: Tensor) -> Tensor:
    return (sigma**2 + 1).sqrt()


class Noise:
    """The noise levels of one run of a scheduler, its measure of time, and its reading of the model's answers.

    Args:
        scheduler: its timesteps are set, and it has not stepped yet.

    Attributes:
        family: ``ve`` or ``flow``.
        times, sigmas: one value for each of the run's timesteps.
        curve: the time as a function of the noise level.
        prediction, sign: the scheduler reads ``sign`` times the model's answer as this prediction (``READINGS``).
        count: the time at full noise.
        slack: how far the times are rounded, compared with the noise levels.

    Raises:
        ValueError: the scheduler adds noise, or reads an answer, in a way that is not known. Names the scheduler.
    """

    def __init__(self, scheduler: Any):
        check(scheduler)
        config = scheduler.config
        self.times: list[float] = scheduler.timesteps.cpu().double().tolist()
        self.count = float(config.get("num_train_timesteps") or 1000) if max(self.times) > 1 else 1.0
        self.slack, self._data = 0.0, 1.0
        signal, noise = _shares(scheduler)
        if _near_one(signal + noise):
            self.family: Family = "flow"
            if noise[0] < noise[-1]:
                # Mochi's scheduler counts signal where others count noise.
                signal, noise = noise, signal
            self.sigmas: list[float] = noise.tolist()
            shares = [t / self.count for t in self.times]
            near = all(abs(s - t) * self.count <= 1 for s, t in zip(self.sigmas, shares, strict=True))
            if near and not scheduler.timesteps.is_floating_point():
                self.slack, shares = 1.0, self.sigmas
            self.curve = TimeCurve.of_flow(self.sigmas, shares, self.count)
            self.curve.shift = flow_shift(scheduler, self.sigmas)
        else:
            if not (_near_one(signal) or _near_one(signal**2 + noise**2)):
                raise unsupported(scheduler, "its signal and noise add up to neither a flow nor diffusion")
            if config.get("use_flow_sigmas"):
                raise unsupported(scheduler, "it steps on flow levels and adds noise by another table")
            self.family = "ve"
            signal = signal.clamp(min=LEAST_ALPHA**0.5)
            self.sigmas = (noise / signal).tolist()
            formula = config.get("timestep_type") == "continuous" and config.get("prediction_type") == "v_prediction"
            if formula or hasattr(scheduler, "precondition_noise"):
                # Karras et al. 2022, table 1: sigma in units of the data's standard deviation.
                self._data = float(config.get("sigma_data") or 1.0)
                self.curve = TimeCurve.of_formula(scheduler, self.sigmas)
                self.sigmas = [sigma / self._data for sigma in self.sigmas]
            else:
                self.curve = TimeCurve.of_table(scheduler)
                self._take_levels_between(scheduler)
            noise = torch.tensor(self.sigmas, dtype=torch.float64) * signal * self._data
        # In float32, as the core reads a list of them, so that it finds a step by its level.
        self.sigmas = torch.tensor(self.sigmas).tolist()
        if any(after > before * 1.001 for before, after in pairwise(self.sigmas)):
            raise unsupported(scheduler, "its noise does not fall from step to step")
        self.prediction, self.sign = _reading(scheduler, self.family, signal, noise, self._data)

    def unit(self, step: int) -> float:
        """The standard deviation of a step's sample, by which it is divided for VE models; 1 on flow models."""
        return 1.0 if self.family == "flow" else self._data * math.hypot(self.sigmas[step], 1.0)

    def window(self, start: float, end: float) -> tuple[float, float]:
        """Noise levels (high, low) at two shares of the model's noise range: 0 is pure noise, 1 is no noise."""
        return HIGHEST if start == 0 else self.curve.level(start), 0.0 if end == 1 else self.curve.level(end)

    def _take_levels_between(self, scheduler: Any) -> None:
        """Take the level from the table where a time lies between two of the scheduler's (DPM-Solver SDE).

        Raises:
            ValueError: most of the run's times have another level than the table says.
        """
        agree = 0
        for i, time in enumerate(self.times):
            low, level, high = (interpolate(t, self.curve.times, self.curve.levels) for t in (time - 1, time, time + 1))
            if low - 1e-3 <= math.log(max(self.sigmas[i], 1e-12)) <= high + 1e-3:
                agree += 1
            else:
                self.sigmas[i] = math.exp(level)
        if agree < 0.4 * len(self.times):
            raise unsupported(scheduler, "its timesteps are not those of its training noise levels")


def check(scheduler: Any) -> None:
    """Raise ``ValueError``, in one line, for a scheduler that is refused before a run."""
    if not callable(getattr(scheduler, "step", None)) or not hasattr(scheduler, "set_timesteps"):
        raise unsupported(scheduler, "the pipe needs a scheduler with step()")
    if not any(getattr(scheduler, name, None) for name in ("scale_noise", "add_noise")):
        raise unsupported(scheduler, "it does not say how noise is added (add_noise)")
    if not any(hasattr(scheduler, name) for name in ("scale_noise", "alphas_cumprod", "precondition_noise")):
        raise unsupported(scheduler, "it has no training noise levels (alphas_cumprod)")


def unsupported(scheduler: Any, reason: str) -> ValueError:
    """The error to raise, in one line."""
    return ValueError(f"{type(scheduler).__name__} is not supported: {' '.join(reason.split())}")


def _shares(scheduler: Any) -> tuple[Tensor, Tensor]:
    """Shares of signal and noise at each of the run's timesteps, (timesteps,) float64 on the CPU."""
    trial = _trial_copy(scheduler)
    # Signal alone, and noise alone.
    signal, noise = torch.eye(2)[:, :1], torch.eye(2)[:, 1:]
    levels: list[Tensor] = []
    try:
        for time in trial.timesteps.split(1):
            _look_up_time(trial)
            scale = getattr(trial, "scale_noise", None)
            levels.append(scale(signal, time, noise) if scale else trial.add_noise(signal, noise, time))
        shares = torch.stack(levels).squeeze(2).double()
    except Exception as error:
        raise unsupported(scheduler, f"asked how it adds noise, {error!r}") from error
    return shares[:, 0], shares[:, 1]


PROBE = 0.1
"""Size of a trial step's picture and noise: small, since some schedulers clip the clean picture."""
NEAR = 0.15
"""How far from the next levels a trial step may end, as a share of what it takes of the clean picture.

Schedulers that round their times (DDIM over 300 steps) miss by .1; velocity read as v-prediction misses by .25.
"""


class _TrialStep(NamedTuple):
    """How a step weighs its sample and the model's answer."""

    at: int
    """Its index."""
    of_sample: float
    of_answer: float


def _reading(scheduler: Any, family: Family, signal: Tensor, noise: Tensor, data: float) -> tuple[str, int]:
    """What a scheduler makes of a model's answer: (prediction, sign).

    A perfect answer takes the sample ``signal x0 + noise n`` to the next step's signal and noise, whatever ``x0`` and
    ``n`` are, or to less of ``n`` where the step draws noise of its own. A copy of the scheduler steps known samples
    and answers; the reading of the answers under which it ends there is the scheduler's.

    Args:
        scheduler: with its timesteps set, and not stepped yet.
        signal, noise: (timesteps,), shares of both in its sample.
        data: standard deviation of the data that a preconditioned model is scaled by.

    Raises:
        ValueError: no reading fits; in one line.
    """
    # Readings differ most where signal and noise are alike. Off the flow path the first step tells as well, and every
    # solver can take it from a standing start.
    alike = min(range(len(signal)), key=lambda i: abs(float(noise[i]) - float(signal[i])))
    try:
        steps = [_trial_step(scheduler, index) for index in ((alike, 0) if family == "ve" else (alike,))]
    except Exception as error:
        raise unsupported(scheduler, f"asked what it makes of an answer, {error!r}") from error
    # The configured one comes first: it is right where a run has too few steps to tell two readings apart.
    configured = scheduler.config.get("prediction_type")
    kinds = sorted(READINGS[family], key=lambda kind: kind != configured)
    if preconditioned := hasattr(scheduler, "precondition_noise"):
        # In units of sigma_data the scalings of Karras et al. 2022, table 1, are those of v_prediction.
        kinds = ["v_prediction"]
    for step, prediction, sign in product(steps, kinds, (1, -1)):
        # What diffusers calls epsilon is there the negative, and velocity may point either way; no other is negated.
        if sign < 0 and not preconditioned and prediction != "flow_prediction":
            continue
        here, level = max(float(signal[step.at]), LEAST_ALPHA**0.5), float(noise[step.at])
        after = step.at + 1
        next_signal, most_noise = (float(signal[after]), float(noise[after])) if after < len(signal) else (1.0, level)
        # Clean picture and noise, one of them 1 and the other 0, in the units that the conversions work in.
        picture = torch.tensor([1.0, 0.0], dtype=torch.float64) / data
        sample = torch.tensor([here, level], dtype=torch.float64)
        x = sample if family == "flow" else sample / here / data
        sigma = torch.tensor(level if family == "flow" else level / here / data, dtype=torch.float64)
        answer = sign * to_output(picture, x, sigma, prediction)
        held, left = (step.of_sample * sample + step.of_answer * answer).tolist()
        near = NEAR * abs(next_signal - most_noise * here / level) + 1e-4
        if abs(held - next_signal) <= near and -near <= left <= most_noise + near:
            return prediction, sign
    kind = f"prediction_type {configured!r} and " if configured else ""
    others = f"something else of a model's answer than {', '.join(READINGS[family])}"
    raise unsupported(scheduler, f"with {kind}these noise levels it makes {others}")


def _trial_step(scheduler: Any, index: int) -> _TrialStep:
    """Steps copies of the scheduler: from zeros, from a sample alone and with an answer alone."""
    times = scheduler.timesteps.tolist()
    parameters = inspect.signature(type(scheduler).step).parameters
    needed = [name for name, p in parameters.items() if p.default is p.empty and name != "self"]
    variance = 2 if "learned" in str(scheduler.config.get("variance_type")) else 1
    ends: list[float] = []
    for sample, answer in ((0.0, 0.0), (PROBE, 0.0), (0.0, PROBE)):
        trial = _trial_copy(scheduler)
        trial.is_scale_input_called = True
        _look_up_time(trial)
        output = torch.zeros(1, variance, 2, 2)
        output[:, 0] = answer
        arguments = {"timestep": trial.timesteps[index], "sample": torch.full((1, 1, 2, 2), sample)}
        arguments = {**dict.fromkeys(needed), **arguments, "model_output": output}
        # The same draws each time, and nobody's generator moves on.
        with torch.random.fork_rng([]):
            torch.default_generator.manual_seed(0)
            if "generator" in parameters:
                arguments["generator"] = torch.Generator().manual_seed(0)
            result = type(scheduler).step(trial, **arguments)
        ends.append(float((result[0] if isinstance(result, tuple) else result.prev_sample).flatten()[0]))
    still, of_sample, of_answer = ends
    # Where one time stands twice (Heun) a scheduler that looks it up takes the second.
    index = len(times) - 1 - times[::-1].index(times[index])
    return _TrialStep(index, (of_sample - still) / PROBE, (of_answer - still) / PROBE)


def _trial_copy(scheduler: Any) -> Any:
    """A copy to try things with, on the CPU: what a step changes is the copy's own, the config is shared."""
    trial = copy.copy(scheduler)
    for name, value in vars(trial).items():
        if isinstance(value, (list, Tensor)):
            vars(trial)[name] = value.cpu().clone() if isinstance(value, Tensor) else list(value)
    return trial


def _look_up_time(trial: Any) -> None:
    """Have a copy look up the timestep of its next call, as in training, when any may be asked for."""
    for name in ("_begin_index", "_step_index"):
        if hasattr(trial, name):
            setattr(trial, name, None)


def _near_one(values: Tensor) -> bool:
    return bool(((values - 1).abs() < 1e-3).all())
