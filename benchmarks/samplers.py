"""The samplers and schedules under test.

A sampler is a function of ``predict(x, sigma) -> (denoised, uncond)`` in VE terms; with guidance ``denoised`` is the
guided prediction. Levels of flow models are converted to noise-to-signal ratios. Written out here, since the methods
wrap the model and count its calls.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor

from selective_sigma import Detailer, Prediction
from selective_sigma.demo.levels import log_sigma_table, to_log_sigma
from selective_sigma.demo.sample import noise_levels
from selective_sigma.settings import Family

from .models import ReferenceModel

Predict = Callable[[Tensor, float], tuple[Tensor, Tensor]]
Step = Callable[[Tensor, Tensor], Prediction]
Noise = Callable[[], Tensor]
Sampler = Callable[[Predict, Tensor, list[float], Noise], Tensor]


def noise(seeds: Sequence[int], shape: Sequence[int]) -> Noise:
    """Unit Gaussian (batch, channels, *space), by a generator for each picture: it is the same in any batch."""
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    return lambda: torch.stack([torch.randn(shape[1:], generator=generator) for generator in generators])


@dataclass(frozen=True)
class NoiseSchedule:
    """Noise levels of a run of any length, and the model's own range."""

    family: Family
    levels: Callable[[int], list[float]]
    """steps -> noise-to-signal ratios, steps + 1 of them, descending to 0."""
    at: Callable[[float], float]
    """Share of the model's noise range in (0, 1) -> noise-to-signal ratio."""

    def to_sigma(self, ratio: float) -> float:
        """The model's own sigma for a noise-to-signal ratio."""
        return ratio if self.family == "ve" else ratio / (1 + ratio)

    def window(self, start: float, end: float) -> tuple[float, float]:
        """Noise levels (high, low) for shares of the model's range, as ComfyUI's percent_to_sigma has them."""
        high, low = (1e9 if s <= 0 else 0.0 if s >= 1 else self.to_sigma(self.at(s)) for s in (start, end))
        return high, low


def stable_diffusion(share: float) -> float:
    """Noise level at a share of Stable Diffusion's range (Rombach et al. 2022), which is even in timesteps."""
    return float(to_log_sigma(torch.tensor(999 * (1 - share)), log_sigma_table()).exp())


SCHEDULES = {
    # Karras et al. 2022, eq. 5.
    "VE Karras": NoiseSchedule("ve", lambda steps: noise_levels(steps, 14.61, 0.0292).tolist(), stable_diffusion),
    "VE normal": NoiseSchedule(
        "ve", lambda steps: [*(stable_diffusion(i / (steps - 1)) for i in range(steps)), 0.0], stable_diffusion
    ),
    # Even times of rectified flow, shifted (Esser et al. 2024, eq. 23); 1000 (sigma = 0.999) stands for infinity.
    **{
        f"flow, shift {shift}": NoiseSchedule(
            "flow",
            lambda steps, shift=shift: [1000.0, *(shift * (steps - i) / i for i in range(1, steps)), 0.0],
            lambda share, shift=shift: shift * (1 - share) / share,
        )
        for shift in (1, 3, 7)
    },
}


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


def _ancestral(x: Tensor, denoised: Tensor, now: float, then: float, noise: Noise) -> Tensor:
    """Euler to a lower level, then fresh noise back up (Song et al. 2020, DDIM eq. 16)."""
    up = min(then, (then**2 * (now**2 - then**2) / now**2) ** 0.5)
    down = (then**2 - up**2) ** 0.5
    return denoised + down / now * (x - denoised) + up * noise()


def euler_ancestral(predict: Predict, x: Tensor, sigmas: list[float], noise: Noise) -> Tensor:
    """Euler with fresh noise at every step."""
    for now, then in pairwise(sigmas):
        x = _ancestral(x, predict(x, now)[0], now, then, noise)
    return x


def dpmpp_2m(predict: Predict, x: Tensor, sigmas: list[float], _: Noise) -> Tensor:
    """Lu et al. 2022 (DPM-Solver++), algorithm 2, with one previous prediction."""
    previous, h_last = x, math.inf
    for now, then in pairwise(sigmas):
        denoised = predict(x, now)[0]
        if then == 0:
            return denoised
        h = math.log(now / then)
        half = h / (2 * h_last)
        x = then / now * x + (1 - then / now) * ((1 + half) * denoised - half * previous)
        previous, h_last = denoised, h
    return x


def dpmpp_sde(predict: Predict, x: Tensor, sigmas: list[float], noise: Noise) -> Tensor:
    """Lu et al. 2022, stochastic single-step solver of order two: two predictions a step but the last."""
    for now, then in pairwise(sigmas):
        denoised = predict(x, now)[0]
        if then == 0:
            return denoised
        middle = (now * then) ** 0.5
        inner = _ancestral(x, denoised, now, middle, noise)
        x = _ancestral(x, predict(inner, middle)[0], now, then, noise)
    return x


SAMPLERS: dict[str, Sampler] = {f.__name__: f for f in (euler, euler_ancestral, dpmpp_2m, dpmpp_sde, euler_cfg_pp)}


@dataclass
class MethodRun:
    """One run of a method: what it is given, its detailer, and the result."""

    model: ReferenceModel
    schedule: NoiseSchedule
    sigmas: list[float]
    """In the model's own terms (VE or flow), steps + 1."""
    detailer: Detailer | None = None
    calls: int = 0
    rows: int = 0
    """Rows of the network's batch over all calls; with guidance, a call of all conditionings counts two."""
    picture: Tensor = field(init=False)
    """The result, (batch, channels, H, W)."""

    def evaluate(self, x: Tensor, sigma: Tensor, conds: Literal["all", "positive"] = "all") -> Prediction:
        """The model in its own terms, ``sigma`` of shape (1,)."""
        level = float(sigma[0])
        # Rectified flow is the same denoiser of x / (1 - sigma).
        alpha = 1.0 if self.schedule.family == "ve" else 1 - level
        prediction = self.model.predict(x / alpha, level / alpha, conds)
        self.calls, self.rows = self.calls + 1, self.rows + 1 + len(prediction.others)
        return prediction


Method = Callable[[MethodRun, float], Step]


@torch.no_grad()
def sample(
    model: ReferenceModel,
    method: Method,
    strength: float,
    sampler: str = "euler",
    schedule: str = "VE Karras",
    steps: int = 20,
) -> MethodRun:
    """Sample the model's batch; equal pictures start from, and add, equal noise under every method."""
    chosen = SCHEDULES[schedule]
    flow = chosen.family == "flow"
    # Noise levels in single precision, as in hosts.
    sigmas = torch.tensor([chosen.to_sigma(ratio) for ratio in chosen.levels(steps)]).tolist()
    run = MethodRun(model, chosen, sigmas)
    step = method(run, strength)
    levels = [s / (1 - s) for s in run.sigmas] if flow else run.sigmas
    sigma_of = dict(zip(levels, run.sigmas, strict=True))

    def predict(x: Tensor, level: float) -> tuple[Tensor, Tensor]:
        # A sampler may ask between the run's levels.
        sigma = torch.tensor([sigma_of.get(level, chosen.to_sigma(level))])
        prediction = step(x * (1 - float(sigma)) if flow else x, sigma)
        picture = prediction.denoised if prediction.guided is None else prediction.guided
        return picture, prediction.others.get("uncond", picture)  # type: ignore[return-value]

    fresh = noise(model.seeds, model.shape)
    run.picture = SAMPLERS[sampler](predict, fresh() * levels[0], levels, fresh)
    return run
