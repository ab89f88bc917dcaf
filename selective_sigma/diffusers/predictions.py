"""What a model says, as a prediction of the clean latent, and back.

In VE terms ``x = x0 + sigma n``: every scheduler of diffusers shows a UNet
``x / sqrt(sigma^2 + 1)``, whether it keeps its latent so (DDIM, DPM++, UniPC, LCM) or scales
it for the call (Euler, Heun). In flow terms ``x = (1 - sigma) x0 + sigma n`` is shown as it is.
Tensors are (batch, channels, *space), ``sigma`` one value.
"""

from __future__ import annotations

import copy
import inspect
from itertools import product
from typing import TYPE_CHECKING, Any

import torch

from . import curves

if TYPE_CHECKING:
    from torch import Tensor

    from ..settings import Family


def from_input(shown: Tensor, sigma: Tensor, family: Family) -> Tensor:
    """The noisy latent behind what a model is shown."""
    return shown * _unit(sigma) if family == "ve" else shown


def to_input(x: Tensor, sigma: Tensor, family: Family) -> Tensor:
    """What a model is shown of a noisy latent."""
    return x / _unit(sigma) if family == "ve" else x


def to_denoised(output: Tensor, x: Tensor, sigma: Tensor, prediction: str) -> Tensor:
    """The clean latent that a model's output at (x, sigma) means.

    ``prediction``: ``epsilon``, ``v_prediction`` (Salimans and Ho 2022), ``sample`` or
    ``flow_prediction`` (noise minus clean latent).
    """
    if prediction == "sample":
        return output
    if prediction == "v_prediction":
        return x / _unit(sigma) ** 2 - sigma / _unit(sigma) * output
    return x - sigma * output


def to_output(denoised: Tensor, x: Tensor, sigma: Tensor, prediction: str) -> Tensor:
    """The model output that means this clean latent at (x, sigma); inverse of ``to_denoised``."""
    if prediction == "sample":
        return denoised
    if prediction == "v_prediction":
        return (x / _unit(sigma) ** 2 - denoised) * _unit(sigma) / sigma
    return (x - denoised) / sigma


def plain_copy(scheduler: Any) -> Any:
    """A copy to try things with: what a step changes is its own, and its config the scheduler's."""
    trial = copy.copy(scheduler)
    for name, value in vars(trial).items():
        if isinstance(value, (list, torch.Tensor)):
            vars(trial)[name] = value.clone() if isinstance(value, torch.Tensor) else list(value)
    return trial


def one_line(error: Exception) -> str:
    """What an error says, or its kind where it says nothing."""
    return " ".join(str(error).split()) or type(error).__name__


def _unit(sigma: Tensor) -> Tensor:
    return (sigma**2 + 1).sqrt()


def slope(prediction: str, sigma: Tensor) -> Tensor:
    """By how much the denoised latent moves with the model's output."""
    if prediction == "sample":
        return torch.ones_like(sigma)
    return -sigma / _unit(sigma) if prediction == "v_prediction" else -sigma


PREDICTIONS: dict[Family, tuple[str, ...]] = {
    "ve": ("epsilon", "v_prediction", "sample"),
    "flow": ("flow_prediction", "sample"),
}
"""What a model may predict, so that a scheduler's use of it can be followed."""
PROBE = 0.1
"""Size of a probe's picture and noise: small, so that a scheduler which clips the clean picture leaves it."""
NEAR = 0.15
"""How far from the next levels a step may end, as a share of what it takes of the clean picture.

Schedulers that round their times (DDIM over 300 steps) miss by .1; velocity read as v-prediction misses by .25.
"""


def learned(scheduler: Any, family: Family, signal: Tensor, noise: Tensor, data: float = 1.0) -> tuple[str, int]:
    """What a scheduler makes of a model's answer: (prediction, sign), as a copy of it steps.

    A perfect answer takes the sample ``signal x0 + noise n`` to the next step's signal and noise, whatever ``x0``
    and ``n`` are, or to less of ``n`` where the step draws noise of its own. So one step is made of known samples
    and answers, and the reading of the answers under which it ends there is the scheduler's.

    Args:
        scheduler: with its timesteps set, and not stepped yet.
        signal, noise: (timesteps,), shares of both in its sample.
        data: standard deviation of the data that a preconditioned model is scaled by.

    Raises:
        ValueError: no reading in ``PREDICTIONS`` fits; in one line.
    """
    name = type(scheduler).__name__
    # Readings differ most where signal and noise are alike; off the flow path the first step tells as well, and
    # is the one that every solver can take from a standing start.
    alike = min(range(len(signal)), key=lambda i: abs(float(noise[i]) - float(signal[i])))
    try:
        steps = [_stepped(scheduler, index) for index in ((alike, 0) if family == "ve" else (alike,))]
    except Exception as error:
        raise ValueError(f"{name} is not supported: asked what it makes of an answer, {one_line(error)}") from error
    configured = scheduler.config.get("prediction_type")
    # What the config says comes first: where a run has too few steps to tell two readings apart, it is right.
    kinds = sorted(PREDICTIONS[family], key=lambda kind: kind != configured)
    if scaled := hasattr(scheduler, "precondition_noise"):
        # Karras et al. 2022, table 1: in units of sigma_data its scalings are those of v_prediction.
        kinds = ["v_prediction"]
    further = _further_signals(scheduler)
    for step, prediction, sign in product(steps, kinds, (1, -1)):
        # What diffusers calls epsilon there is the negative, and velocity may point either way; nothing else is turned.
        if sign < 0 and not scaled and prediction != "flow_prediction":
            continue
        if _ends_well(step, family, signal, noise, data, prediction, sign, further[step[0]] if further else None):
            return prediction, sign
    kind = f"prediction_type {configured!r} and " if configured else ""
    raise ValueError(
        f"{name} is not supported: with {kind}these noise levels it makes something else of a model's answer "
        f"than {', '.join(PREDICTIONS[family])}"
    )


def _ends_well(
    step: tuple[int, float, float],
    family: Family,
    signal: Tensor,
    noise: Tensor,
    data: float,
    prediction: str,
    sign: int,
    further: float | None = None,
) -> bool:
    """Whether a step (index, weight of its sample, weight of the answer) ends at the next levels in this reading.

    ``further``: a signal's share that the scheduler steps to where that is not its own next one.
    """
    index, of_sample, of_answer = step
    here, level = max(float(signal[index]), curves.LEAST_ALPHA**0.5), float(noise[index])
    ends = index + 1 == len(signal)
    next_signal, most_noise = (1.0, level) if ends else (float(signal[index + 1]), float(noise[index + 1]))
    sigma = torch.tensor(level if family == "flow" else level / here / data, dtype=torch.float64)
    # Clean picture and noise, one of them 1 and the other 0, in the units that the conversions work in.
    picture = torch.tensor([1.0, 0.0], dtype=torch.float64)
    sample = torch.tensor([here, level], dtype=torch.float64)
    x = sample if family == "flow" else sample / here
    answer = sign * to_output(picture / data, x / data, sigma, prediction)
    held, left = (of_sample * sample + of_answer * answer).tolist()
    near = NEAR * abs(next_signal - most_noise * here / level) + 1e-4
    if further is not None and abs(held - further) <= near and abs(left - (1 - further**2) ** 0.5) <= near:
        return True
    return abs(held - next_signal) <= near and -near <= left <= most_noise + near


def _further_signals(scheduler: Any) -> list[float] | None:
    """Shares of the signal that DDIM and its kin step to: a fixed stride down the noise table, not their next timestep.

    The two differ where timesteps are spaced by ``linspace``.
    """
    table, steps = getattr(scheduler, "alphas_cumprod", None), getattr(scheduler, "num_inference_steps", None)
    if table is None or not steps:
        return None
    stride = len(table) // steps
    final = float(getattr(scheduler, "final_alpha_cumprod", 1.0))
    at = [int(time) - stride for time in scheduler.timesteps.tolist()]
    return [(float(table[time]) if time >= 0 else final) ** 0.5 for time in at]


def _stepped(scheduler: Any, index: int) -> tuple[int, float, float]:
    """How a step at ``index`` weighs its sample and the model's answer: (index, of sample, of answer)."""
    time = scheduler.timesteps[index]
    # Where one time stands twice (Heun) a scheduler that looks it up takes the second.
    index = len(scheduler.timesteps) - 1 - scheduler.timesteps.tolist()[::-1].index(time.item())
    taken = inspect.signature(type(scheduler).step).parameters
    needed = [name for name, argument in taken.items() if argument.default is argument.empty and name != "self"]
    variance = 2 if "learned" in str(scheduler.config.get("variance_type")) else 1
    ends = []
    for sample, answer in ((0.0, 0.0), (PROBE, 0.0), (0.0, PROBE)):
        trial = plain_copy(scheduler)
        trial.is_scale_input_called = True
        for name in ("_begin_index", "_step_index"):
            if hasattr(trial, name):
                setattr(trial, name, None)
        given = dict.fromkeys(needed) | {
            "timestep": time,
            "sample": time.new_full((1, 1, 2, 2), sample, dtype=torch.float32),
        }
        given["model_output"] = time.new_zeros((1, variance, 2, 2), dtype=torch.float32)
        given["model_output"][:, 0] = answer
        # The same numbers each time, and nobody's generator is further for them.
        with torch.random.fork_rng([time.device] if time.device.type == "cuda" else []):
            torch.default_generator.manual_seed(0)
            if time.device.type == "cuda":
                torch.cuda.default_generators[time.device.index or 0].manual_seed(0)
            if "generator" in taken:
                given["generator"] = torch.Generator().manual_seed(0)
            stepped = type(scheduler).step(trial, **given)
        ends.append(stepped[0] if isinstance(stepped, tuple) else stepped.prev_sample)
    still, of_sample, of_answer = (float(end.flatten()[0]) for end in ends)
    return index, (of_sample - still) / PROBE, (of_answer - still) / PROBE
