"""The samplers and schedules under test.

A sampler is a function of ``predict(x, sigma) -> (denoised, uncond)`` in VE terms, where sigma is the noise-to-signal
ratio; flow models are converted to it. With guidance ``denoised`` is the guided prediction. The samplers are written
out here, since the methods wrap the model and count its calls.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor

from selective_sigma import Detailer, Prediction
from selective_sigma.demo.levels import log_sigma_table, to_log_sigma
from selective_sigma.demo.sample import noise_levels
from selective_sigma.lie import noise_to_signal
from selective_sigma.settings import Family

from .models import Conds, ReferenceModel

Predict = Callable[[Tensor, float], tuple[Tensor, Tensor]]
Step = Callable[[Tensor, Tensor], Prediction]
DrawNoise = Callable[[], Tensor]
Sampler = Callable[[Predict, Tensor, list[float], DrawNoise], Tensor]


def seeded_noise(seeds: Sequence[int], shape: Sequence[int]) -> DrawNoise:
    """Draws unit Gaussian noise (batch, channels, *space), with one generator per picture: the same in any batch."""
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    return lambda: torch.stack([torch.randn(shape[1:], generator=generator) for generator in generators])


def stable_diffusion_sigma(share: float) -> float:
    """Noise level at a share of Stable Diffusion's range (Rombach et al. 2022), which is even in timesteps."""
    return float(to_log_sigma(torch.tensor(999 * (1 - share)), log_sigma_table()).exp())


@dataclass(frozen=True)
class NoiseSchedule:
    """Noise levels of a run of any length, and the model's own range."""

    ratios: Callable[[int], list[float]]
    """Number of steps -> noise-to-signal ratios, one more than there are steps, descending to 0."""
    ratio_at: Callable[[float], float] = stable_diffusion_sigma
    """Share of the model's noise range in (0, 1) -> noise-to-signal ratio."""
    family: Family = "ve"

    def to_sigma(self, ratio: float) -> float:
        """The model's own sigma for a noise-to-signal ratio."""
        return ratio if self.family == "ve" else ratio / (1 + ratio)

    def window(self, start: float, end: float) -> tuple[float, float]:
        """Noise levels (high, low) for shares of the model's range, like ComfyUI's ``percent_to_sigma``."""
        high, low = (1e9 if s <= 0 else 0.0 if s >= 1 else self.to_sigma(self.ratio_at(s)) for s in (start, end))
        return high, low


def flow_schedule(shift: int) -> NoiseSchedule:
    """Even times of rectified flow, shifted (Esser et al. 2024, eq. 23); 1000 (sigma = 0.999) stands for infinity."""
    return NoiseSchedule(
        ratios=lambda steps: [1000.0, *(shift * (steps - i) / i for i in range(1, steps)), 0.0],
        ratio_at=lambda share: shift * (1 - share) / share,
        family="flow",
    )


VE, FLOW = "VE Karras", "flow, shift 3"
SCHEDULES = {
    # Karras et al. 2022, eq. 5.
    VE: NoiseSchedule(lambda steps: noise_levels(steps, 14.61, 0.0292).tolist()),
    "VE normal": NoiseSchedule(lambda steps: [*(stable_diffusion_sigma(i / (steps - 1)) for i in range(steps)), 0.0]),
    **{f"flow, shift {shift}": flow_schedule(shift) for shift in (1, 3, 7)},
}


def euler(predict: Predict, x: Tensor, sigmas: list[float], _: DrawNoise, cfg_pp: bool = False) -> Tensor:
    """Karras et al. 2022, algorithm 1 without churn; with ``cfg_pp`` Chung et al. 2024, algorithm 1, in VE terms."""
    for sigma, next_sigma in pairwise(sigmas):
        denoised, uncond = predict(x, sigma)
        x = denoised + next_sigma / sigma * (x - (uncond if cfg_pp else denoised))
    return x


def _ancestral_step(x: Tensor, denoised: Tensor, sigma: float, next_sigma: float, draw_noise: DrawNoise) -> Tensor:
    """Euler to below ``next_sigma``, then fresh noise up to it (Song et al. 2020, DDIM eq. 16)."""
    up = min(next_sigma, (next_sigma**2 * (sigma**2 - next_sigma**2) / sigma**2) ** 0.5)
    down = (next_sigma**2 - up**2) ** 0.5
    return denoised + down / sigma * (x - denoised) + up * draw_noise()


def euler_ancestral(predict: Predict, x: Tensor, sigmas: list[float], draw_noise: DrawNoise) -> Tensor:
    """Euler with fresh noise at every step."""
    for sigma, next_sigma in pairwise(sigmas):
        x = _ancestral_step(x, predict(x, sigma)[0], sigma, next_sigma, draw_noise)
    return x


def dpmpp_2m(predict: Predict, x: Tensor, sigmas: list[float], _: DrawNoise) -> Tensor:
    """Lu et al. 2022 (DPM-Solver++), algorithm 2, with one previous prediction."""
    previous, previous_h = x, math.inf
    for sigma, next_sigma in pairwise(sigmas):
        denoised = predict(x, sigma)[0]
        if next_sigma == 0:
            return denoised
        h = math.log(sigma / next_sigma)
        rho = h / (2 * previous_h)
        x = next_sigma / sigma * x + (1 - next_sigma / sigma) * ((1 + rho) * denoised - rho * previous)
        previous, previous_h = denoised, h
    return x


def dpmpp_sde(predict: Predict, x: Tensor, sigmas: list[float], draw_noise: DrawNoise) -> Tensor:
    """Lu et al. 2022, stochastic single-step solver of order two: two predictions a step but the last."""
    for sigma, next_sigma in pairwise(sigmas):
        denoised = predict(x, sigma)[0]
        if next_sigma == 0:
            return denoised
        middle_sigma = (sigma * next_sigma) ** 0.5
        middle_x = _ancestral_step(x, denoised, sigma, middle_sigma, draw_noise)
        x = _ancestral_step(x, predict(middle_x, middle_sigma)[0], sigma, next_sigma, draw_noise)
    return x


SAMPLERS: dict[str, Sampler] = {f.__name__: f for f in (euler, euler_ancestral, dpmpp_2m, dpmpp_sde)}
SAMPLERS["euler_cfg_pp"] = partial(euler, cfg_pp=True)


@dataclass
class MethodRun:
    """One run of a method: its inputs, its detailer, and its result."""

    model: ReferenceModel
    schedule: NoiseSchedule
    sigmas: list[float]
    """In the model's own terms (VE or flow), steps + 1."""
    detailer: Detailer | None = None
    calls: int = 0
    rows: int = 0
    """Rows of the network's batch over all calls. With guidance, a call of all conditionings has two."""
    picture: Tensor = field(init=False)
    """The result, (batch, channels, H, W)."""

    def evaluate(self, x: Tensor, sigma: Tensor, conds: Conds = "all") -> Prediction:
        """The model in its own terms, ``sigma`` of shape (1,)."""
        prediction = self.model.predict(x, float(sigma[0]), conds, self.schedule.family)
        self.calls, self.rows = self.calls + 1, self.rows + 1 + len(prediction.others)
        return prediction


Method = Callable[[MethodRun, float], Step]


@torch.no_grad()
def sample(
    model: ReferenceModel, method: Method, strength: float, sampler: str = "euler", schedule: str = VE, steps: int = 20
) -> MethodRun:
    """Sample the model's batch. A picture has the same noise, at the start and later, under every method."""
    noise_schedule = SCHEDULES[schedule]
    # Noise levels in single precision, as in hosts.
    sigmas = torch.tensor([noise_schedule.to_sigma(ratio) for ratio in noise_schedule.ratios(steps)]).tolist()
    run = MethodRun(model, noise_schedule, sigmas)
    step = method(run, strength)

    def predict(x: Tensor, ratio: float) -> tuple[Tensor, Tensor]:
        sigma = torch.tensor([noise_schedule.to_sigma(ratio)])
        prediction = step(x * (1 - float(sigma)) if noise_schedule.family == "flow" else x, sigma)
        picture = prediction.denoised if prediction.guided is None else prediction.guided
        return picture, prediction.others.get("uncond", picture)  # type: ignore[return-value]

    ratios = [noise_to_signal(sigma, noise_schedule.family) for sigma in sigmas]
    draw_noise = seeded_noise(model.seeds, model.shape)
    run.picture = SAMPLERS[sampler](predict, draw_noise() * ratios[0], ratios, draw_noise)
    return run
