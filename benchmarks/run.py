"""One sampling run of one method, with what it cost."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from selective_sigma import Detailer, Prediction
from selective_sigma.lie import per_sample

from .methods import Method, Run, plain
from .models import SIGMA_MAX, SIGMA_MIN, Model
from .samplers import SAMPLERS, Noise, Sampler, euler_cfg_pp, karras, shifted


class Result(NamedTuple):
    """Pictures (batch, channels, H, W), model calls, and the detailer where there was one."""

    picture: Tensor
    calls: int
    detailer: Detailer | None


def sample(
    model: Model, method: Method = plain, strength: float = 0.1, sampler: str = "euler", steps: int = 20
) -> Result:
    """Sample the model's batch; equal pictures start from, and add, equal noise under every method."""
    flow = model.family == "flow"
    levels = shifted(steps) if flow else karras(steps, SIGMA_MIN, SIGMA_MAX)
    calls = 0

    def evaluate(x: Tensor, sigma: Tensor) -> Prediction:
        nonlocal calls
        calls += 1
        denoised, uncond = model.guided(x, sigma)
        return Prediction(denoised, (uncond,))

    run = Run(evaluate, [v / (1 + v) for v in levels] if flow else levels, model.family, model.region)
    step = method(run, strength)
    levels = [v / (1 - v) for v in run.sigmas] if flow else run.sigmas
    noise = Noise(model.seeds)
    x = noise.like(torch.empty(model.shape)) * levels[0]

    def predict(x: Tensor, level: float) -> tuple[Tensor, Tensor]:
        told = torch.full((len(x),), level / (1 + level) if flow else level)
        prediction = step(x * per_sample(1 - told, x) if flow else x, told)
        return prediction.denoised, prediction.alike[0]

    kind: Sampler = euler_cfg_pp if sampler == "euler_cfg_pp" else SAMPLERS[sampler]
    latent = kind(predict, x, levels, noise)
    return Result(model.picture(latent), calls, run.detailer)
