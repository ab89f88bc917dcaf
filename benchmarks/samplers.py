"""The samplers and schedules under test, written out because the methods wrap the model and count its calls.

Samplers are functions of ``predict(x, sigma) -> (denoised, uncond)`` in VE terms; flow is told as noise to signal.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from selective_sigma import Detailer, Prediction
from selective_sigma.demo.levels import log_sigma_table, to_log_sigma
from selective_sigma.demo.sample import noise_levels

if TYPE_CHECKING:
    from selective_sigma.settings import Family

    from .models import Model

Predict = Callable[[Tensor, float], tuple[Tensor, Tensor]]
Step = Callable[[Tensor, Tensor], Prediction]
SIGMA_MAX, SIGMA_MIN = 14.61, 0.0292


class Noise:
    """Fresh noise with a generator for each picture, so that a picture is the same in any batch."""

    def __init__(self, seeds: Sequence[int]):
        self._generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def like(self, x: Tensor) -> Tensor:
        """Unit Gaussian noise of the shape of ``x``, (batch, channels, *space)."""
        return torch.stack([torch.randn(x.shape[1:], generator=g, dtype=x.dtype) for g in self._generators])


Sampler = Callable[[Predict, Tensor, list[float], Noise], Tensor]


@dataclass(frozen=True)
class Schedule:
    """Noise levels of a run of any length, and the model's own range."""

    name: str
    family: Family
    levels: Callable[[int], list[float]]
    """steps -> noise-to-signal ratios, steps + 1 of them, descending to 0."""
    at: Callable[[float], float]
    """Share of the model's noise range in (0, 1) -> noise-to-signal ratio."""

    def own(self, ratio: float) -> float:
        """A noise-to-signal ratio in the model's own terms."""
        return ratio if self.family == "ve" else ratio / (1 + ratio)

    def window(self, start: float, end: float) -> tuple[float, float]:
        """Noise levels (high, low) for shares of the model's range, as ComfyUI's percent_to_sigma has them."""
        high, low = (math.inf if s <= 0 else 0.0 if s >= 1 else self.own(self.at(s)) for s in (start, end))
        return high, low


_TABLE = log_sigma_table()


def _at(t: float) -> float:
    """Stable Diffusion's noise level (Rombach et al. 2022) at a timestep; linear in log sigma between its table's."""
    return float(to_log_sigma(torch.tensor(t), _TABLE).exp())


def karras(steps: int) -> list[float]:
    """Noise levels (Karras et al. 2022, eq. 5), steps + 1 of them, ending in 0."""
    return noise_levels(steps, SIGMA_MAX, SIGMA_MIN).tolist()


def normal(steps: int) -> list[float]:
    """Even timesteps from the last to the first, then 0."""
    return [*(_at(999 * (1 - i / (steps - 1))) for i in range(steps)), 0.0]


def shifted(steps: int, shift: float = 3.0, first: float = 1000.0) -> list[float]:
    """Noise-to-signal ratios of a rectified-flow run: even times, shifted (Esser et al. 2024, eq. 23).

    ``first`` (sigma = 0.999) stands in for the infinite one at t = 1, as samplers here are in VE terms.
    """
    return [first, *(shift * (steps - i) / i for i in range(1, steps)), 0.0]


def _flow(shift: float) -> Schedule:
    name = f"flow, shift {shift:g}"
    return Schedule(name, "flow", lambda n: shifted(n, shift), lambda share: shift * (1 - share) / share)


def _ve(name: str, levels: Callable[[int], list[float]]) -> Schedule:
    return Schedule(name, "ve", levels, lambda share: _at(999 * (1 - share)))


SCHEDULES = {
    s.name: s for s in (_ve("VE Karras", karras), _ve("VE normal", normal), _flow(1.0), _flow(3.0), _flow(7.0))
}


def _ancestral(now: float, then: float) -> tuple[float, float]:
    """Split a step into its deterministic part and its fresh noise (Song et al. 2020, DDIM eq. 16)."""
    up = min(then, (then**2 * (now**2 - then**2) / now**2) ** 0.5)
    return (then**2 - up**2) ** 0.5, up


def euler(predict: Predict, x: Tensor, sigmas: list[float], _: Noise) -> Tensor:
    """Karras et al. 2022, algorithm 1 without churn."""
    for now, then in pairwise(sigmas):
        denoised = predict(x, now)[0]
        x = denoised + then / now * (x - denoised)
    return x


def euler_cfg_pp(predict: Predict, x: Tensor, sigmas: list[float], _: Noise) -> Tensor:
    """Chung et al. 2024 (CFG++), algorithm 1 in VE terms."""
    for now, then in pairwise(sigmas):
        denoised, uncond = predict(x, now)
        x = denoised + then / now * (x - uncond)
    return x


def euler_ancestral(predict: Predict, x: Tensor, sigmas: list[float], noise: Noise) -> Tensor:
    """Euler to a lower level, then fresh noise back up."""
    for now, then in pairwise(sigmas):
        denoised, _ = predict(x, now)
        down, up = _ancestral(now, then)
        x = denoised + down / now * (x - denoised) + up * noise.like(x)
    return x


def dpmpp_2m(predict: Predict, x: Tensor, sigmas: list[float], _: Noise) -> Tensor:
    """Lu et al. 2022 (DPM-Solver++), algorithm 2, with one previous prediction."""
    previous, h_last = None, 0.0
    for now, then in pairwise(sigmas):
        step = denoised = predict(x, now)[0]
        if then > 0:
            h = math.log(now / then)
            if previous is not None:
                half = h / (2 * h_last)
                step = (1 + half) * denoised - half * previous
            h_last = h
        x = then / now * x + (1 - then / now) * step
        previous = denoised
    return x


def dpmpp_sde(predict: Predict, x: Tensor, sigmas: list[float], noise: Noise) -> Tensor:
    """Lu et al. 2022, stochastic single-step solver of order two: two predictions a step but the last."""
    for now, then in pairwise(sigmas):
        denoised, _ = predict(x, now)
        if then == 0:
            return denoised
        middle = (now * then) ** 0.5
        down, up = _ancestral(now, middle)
        inner = denoised + down / now * (x - denoised) + up * noise.like(x)
        halfway, _ = predict(inner, middle)
        down, up = _ancestral(now, then)
        x = halfway + down / now * (x - halfway) + up * noise.like(x)
    return x


SAMPLERS: dict[str, Sampler] = {f.__name__: f for f in (euler, euler_ancestral, dpmpp_2m, dpmpp_sde, euler_cfg_pp)}


@dataclass
class Run:
    """What a method may know of one run; it may replace ``sigmas``, and ours leaves its detailer."""

    evaluate: Step
    """The model in its own terms: (x, sigma of shape (1,)) -> prediction."""
    sigmas: list[float]
    schedule: Schedule
    inside: Tensor
    """The truth, (batch, 1, H, W) bool: for the perfect mask alone."""
    detailer: Detailer | None = field(default=None)


Method = Callable[[Run, float], Step]


@dataclass(frozen=True)
class Result:
    """Pictures (batch, channels, H, W), model calls, and the detailer where there was one."""

    picture: Tensor
    calls: int
    detailer: Detailer | None


@torch.no_grad()
def sample(
    model: Model, method: Method, strength: float, sampler: str = "euler", schedule: str = "VE Karras", steps: int = 20
) -> Result:
    """Sample the model's batch; equal pictures start from, and add, equal noise under every method."""
    kind = SCHEDULES[schedule]
    flow, calls = kind.family == "flow", 0

    def evaluate(x: Tensor, sigma: Tensor) -> Prediction:
        nonlocal calls
        calls += 1
        level = float(sigma[0])
        # Rectified flow is the same denoiser of x / (1 - sigma).
        return model.denoise(x / (1 - level), level / (1 - level)) if flow else model.denoise(x, level)

    # As hosts have them: noise levels in single precision.
    levels = torch.tensor([kind.own(v) for v in kind.levels(steps)]).tolist()
    run = Run(evaluate, levels, kind, model.inside)
    step = method(run, strength)
    levels = [s / (1 - s) for s in run.sigmas] if flow else run.sigmas

    def predict(x: Tensor, level: float) -> tuple[Tensor, Tensor]:
        sigma = torch.tensor([min(run.sigmas, key=lambda s: abs(s - kind.own(level)))])
        if not math.isclose(float(sigma), kind.own(level), rel_tol=1e-5):
            sigma = torch.tensor([kind.own(level)])
        prediction = step(x * (1 - float(sigma)) if flow else x, sigma)
        return prediction.denoised, prediction.others["uncond"]  # type: ignore[return-value]

    noise = Noise(model.seeds)
    x = noise.like(torch.empty(model.shape)) * levels[0]
    return Result(SAMPLERS[sampler](predict, x, levels, noise), calls, run.detailer)
