"""Asks a scheduler how noisy its samples are, and which prediction it takes from the model.

- ``ve``: x = x0 + sigma n. With every scheduler of diffusers, the model gets x / sqrt(sigma^2 + 1). Some schedulers
  keep their sample at this scale (DDIM, DPM++, UniPC, LCM), others scale it for the call (Euler, Heun).
- ``flow``: x = (1 - sigma) x0 + sigma n. The model gets x.
"""

from __future__ import annotations

import copy
import inspect
import math
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .times import LEAST_ALPHA, TimeCurve, flow_shift, interpolate

if TYPE_CHECKING:
    from ..settings import Family

HIGHEST = 1e9
"""A level above all noise levels."""
PREDICTION_TYPES: dict[Family, tuple[str, ...]] = {
    "ve": ("epsilon", "v_prediction", "sample"),
    "flow": ("flow_prediction", "sample"),
}
"""What a model may predict. ``v_prediction``: Salimans and Ho 2022; ``flow_prediction``: noise minus clean latent."""


def input_divisor(sigma: Tensor, family: Family) -> Tensor | float:
    """What the noisy latent x is divided by to give the model's input."""
    return _vp_norm(sigma) if family == "ve" else 1.0


def to_denoised(output: Tensor, x: Tensor, sigma: Tensor, prediction: str) -> Tensor:
    """The clean latent that a model's output at (x, sigma) means."""
    of_x, of_output = output_weights(prediction, sigma)
    return of_x * x + of_output * output


def to_output(denoised: Tensor, x: Tensor, sigma: Tensor, prediction: str) -> Tensor:
    """The model's output that means this clean latent at (x, sigma); inverse of ``to_denoised``."""
    of_x, of_output = output_weights(prediction, sigma)
    return (denoised - of_x * x) / of_output


def output_weights(prediction: str, sigma: Tensor) -> tuple[Tensor | float, Tensor | float]:
    """The clean latent as a weighted sum of x and the model's output: (weight of x, weight of the output)."""
    if prediction == "sample":
        return 0.0, 1.0
    return (1 / _vp_norm(sigma) ** 2, -sigma / _vp_norm(sigma)) if prediction == "v_prediction" else (1.0, -sigma)


def _vp_norm(sigma: Tensor) -> Tensor:
    """Standard deviation of a VE sample whose data has that of 1."""
    return (sigma**2 + 1).sqrt()


class Noise:
    """The noise levels and times of one run of a scheduler, and the prediction that it takes from the model.

    Args:
        scheduler: its timesteps are set, and it has not stepped yet.

    Attributes:
        family: ``ve`` or ``flow``.
        times, sigmas: one value for each of the run's timesteps.
        curve: the time as a function of the noise level.
        prediction, sign: ``sign`` times the model's answer is this prediction (``PREDICTION_TYPES``).
        max_time: the time at full noise.
        slack: the largest difference that rounding makes between a time and its noise level, in units of time.

    Raises:
        ValueError: the scheduler adds noise or takes predictions in an unknown way. The message names the scheduler.
    """

    def __init__(self, scheduler: Any):
        check(scheduler)
        config = scheduler.config
        self.times: list[float] = scheduler.timesteps.cpu().double().tolist()
        self.max_time = float(config.get("num_train_timesteps") or 1000) if max(self.times) > 1 else 1.0
        self.slack, self._data = 0.0, 1.0
        signal, noise = _shares(scheduler)
        if _near_one(signal + noise):
            self.family: Family = "flow"
            if noise[0] < noise[-1]:
                # The sigmas of Mochi's scheduler are shares of signal.
                signal, noise = noise, signal
            self.sigmas: list[float] = noise.tolist()
            shares = [t / self.max_time for t in self.times]
            near = all(abs(s - t) * self.max_time <= 1 for s, t in zip(self.sigmas, shares, strict=True))
            if near and not scheduler.timesteps.is_floating_point():
                self.slack, shares = 1.0, self.sigmas
            self.curve = TimeCurve.of_flow(self.sigmas, shares, self.max_time, flow_shift(scheduler, self.sigmas))
        else:
            if not (_near_one(signal) or _near_one(signal**2 + noise**2)):
                raise unsupported(scheduler, "its signal and noise add up to neither a flow nor diffusion")
            if config.get("use_flow_sigmas"):
                raise unsupported(scheduler, "it steps on flow levels and adds noise by another table")
            self.family = "ve"
            signal = signal.clamp(min=LEAST_ALPHA**0.5)
            self.sigmas = (noise / signal).tolist()
            # The Euler scheduler of Stable Video Diffusion has such a config.
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
        if any(after > before * 1.001 for before, after in pairwise(self.sigmas)):
            raise unsupported(scheduler, "its noise does not fall from step to step")
        self.prediction, self.sign = _prediction_type(scheduler, self.family, signal, noise, self._data)

    def sample_std(self, step: int) -> float:
        """The standard deviation of a step's sample. VE models get the sample divided by it. 1 on flow models."""
        return 1.0 if self.family == "flow" else self._data * math.hypot(self.sigmas[step], 1.0)

    def window(self, start: float, end: float) -> tuple[float, float]:
        """Noise levels (high, low) at two shares of the model's noise range: 0 is pure noise, 1 is no noise."""
        return HIGHEST if start == 0 else self.curve.level(start), 0.0 if end == 1 else self.curve.level(end)

    def _take_levels_between(self, scheduler: Any) -> None:
        """For times between two of the scheduler's steps (DPM-Solver SDE), take the level from the training table.

        Raises:
            ValueError: most of the run's times have another level than the table says.
        """
        agree = 0
        for i, time in enumerate(self.times):
            low, level, high = (
                interpolate(t, self.curve.times, self.curve.log_levels) for t in (time - 1, time, time + 1)
            )
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
    """The error to raise for a scheduler, in one line."""
    return ValueError(f"{type(scheduler).__name__} is not supported: {' '.join(reason.split())}")


def _shares(scheduler: Any) -> tuple[Tensor, Tensor]:
    """Shares of signal and noise at each of the run's timesteps, (timesteps,) float64 on the CPU."""
    trial = _trial_copy(scheduler)
    # A sample of signal alone, and one of noise alone.
    signal, noise = torch.eye(2)[:, :1], torch.eye(2)[:, 1:]
    levels: list[Tensor] = []
    try:
        for time in trial.timesteps.split(1):
            _reset_step_index(trial)
            scale = getattr(trial, "scale_noise", None)
            levels.append(scale(signal, time, noise) if scale else trial.add_noise(signal, noise, time))
        shares = torch.stack(levels).squeeze(2).double()
    except Exception as error:
        raise unsupported(scheduler, f"asked how it adds noise, {error!r}") from error
    return shares[:, 0], shares[:, 1]


PROBE = 0.1
"""Value of the sample, or of the answer, in a trial step. Small, since some schedulers clip the denoised latent."""
NEAR = 0.15
"""How far from the next levels a trial step may end, as a share of the weight that it gives to the denoised latent.

Schedulers that round their times (DDIM over 300 steps) miss by .1; velocity read as v-prediction misses by .25.
"""


def _prediction_type(scheduler: Any, family: Family, signal: Tensor, noise: Tensor, data: float) -> tuple[str, int]:
    """The prediction that a scheduler takes from the model's answer: (prediction, sign).

    With a perfect answer, a step takes the sample ``signal x0 + noise n`` to the signal and noise of the next step. If
    the step draws new noise, there is less of ``n``. A copy of the scheduler makes a trial step. The prediction type
    under which the trial step ends at the right levels is the scheduler's.

    Args:
        scheduler: its timesteps are set, and it has not stepped yet.
        signal, noise: shares of both in the sample, (timesteps,).
        data: standard deviation of the data by which a preconditioned model is scaled.

    Raises:
        ValueError: no prediction type fits. The message says so in one line.
    """
    # The configured type comes first, since a run may have too few steps to tell two types apart.
    configured = scheduler.config.get("prediction_type")
    kinds, negatable = sorted(PREDICTION_TYPES[family], key=lambda kind: kind != configured), "flow_prediction"
    if hasattr(scheduler, "precondition_noise"):
        # In units of sigma_data, the scalings of Karras et al. 2022, table 1, are those of v_prediction, or minus them.
        kinds, negatable = ["v_prediction"], "v_prediction"
    signed = [(kind, sign) for kind in kinds for sign in (1, -1) if sign > 0 or kind == negatable]
    # Prediction types differ most at the step where signal and noise are most alike. On VE models the first step tells
    # them apart as well, and a multistep solver can take it without earlier steps.
    alike = int((noise - signal).abs().argmin())
    for trial_index in (alike, 0) if family == "ve" else (alike,):
        try:
            index, of_sample, of_answer = _trial_step(scheduler, trial_index)
        except Exception as error:
            raise unsupported(scheduler, f"asked what it makes of an answer, {error!r}") from error
        signal_here, noise_here = max(float(signal[index]), LEAST_ALPHA**0.5), float(noise[index])
        last = index + 1 == len(signal)
        next_signal, most_noise = (1.0, noise_here) if last else (float(signal[index + 1]), float(noise[index + 1]))
        near = NEAR * abs(next_signal - most_noise * signal_here / noise_here) + 1e-4
        # First element: x0 = 1 and n = 0; second element: x0 = 0 and n = 1. In the units of ``to_output``.
        denoised = torch.tensor([1.0, 0.0], dtype=torch.float64) / data
        sample = torch.tensor([signal_here, noise_here], dtype=torch.float64)
        x = sample if family == "flow" else sample / signal_here / data
        for prediction, sign in signed:
            answer = sign * to_output(denoised, x, x[1], prediction)
            signal_after, noise_after = (of_sample * sample + of_answer * answer).tolist()
            if abs(signal_after - next_signal) <= near and -near <= noise_after <= most_noise + near:
                return prediction, sign
    kind = f"prediction_type {configured!r} and " if configured else ""
    others = f"something else of a model's answer than {', '.join(PREDICTION_TYPES[family])}"
    raise unsupported(scheduler, f"with {kind}these noise levels it makes {others}")


def _trial_step(scheduler: Any, index: int) -> tuple[int, float, float]:
    """A step as a weighted sum: (its index, weight of the sample, weight of the model's answer)."""
    parameters = inspect.signature(type(scheduler).step).parameters
    needed = [name for name, p in parameters.items() if p.default is p.empty and name != "self"]
    variance = 2 if "learned" in str(scheduler.config.get("variance_type")) else 1
    ends: list[float] = []
    for sample, answer in ((0.0, 0.0), (PROBE, 0.0), (0.0, PROBE)):
        trial = _trial_copy(scheduler)
        trial.is_scale_input_called = True
        _reset_step_index(trial)
        output = torch.zeros(1, variance, 2, 2)
        output[:, 0] = answer
        arguments = {"timestep": trial.timesteps[index], "sample": torch.full((1, 1, 2, 2), sample)}
        arguments = {**dict.fromkeys(needed), **arguments, "model_output": output}
        # Each trial draws the same noise, and no generator outside moves on.
        with torch.random.fork_rng([]):
            torch.default_generator.manual_seed(0)
            if "generator" in parameters:
                arguments["generator"] = torch.Generator().manual_seed(0)
            result = type(scheduler).step(trial, **arguments)
        ends.append(float((result[0] if isinstance(result, tuple) else result.prev_sample).flatten()[0]))
    # Heun's schedulers have each time twice. When they look up a time, they take the second one.
    times = scheduler.timesteps.tolist()
    index = len(times) - 1 - times[::-1].index(times[index])
    return index, (ends[1] - ends[0]) / PROBE, (ends[2] - ends[0]) / PROBE


def _trial_copy(scheduler: Any) -> Any:
    """A copy for trial steps, on the CPU. It has its own copy of all that a step changes, and shares the config."""
    trial = copy.copy(scheduler)
    for name, value in vars(trial).items():
        if isinstance(value, (list, Tensor)):
            vars(trial)[name] = value.cpu().clone() if isinstance(value, Tensor) else list(value)
    return trial


def _reset_step_index(trial: Any) -> None:
    """Reset a copy's step index, so that its next call looks up the given timestep, as in training."""
    for name in ("_begin_index", "_step_index"):
        if hasattr(trial, name):
            setattr(trial, name, None)


def _near_one(values: Tensor) -> bool:
    return bool(((values - 1).abs() < 1e-3).all())
