"""One sampling run of one method, with what it cost."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from selective_sigma import Detailer, Prediction
from selective_sigma.demo.network import LATENT_SCALE
from selective_sigma.lie import per_sample

from .methods import Method, Run, plain
from .models import SIGMA_MAX, SIGMA_MIN, Model
from .samplers import SAMPLERS, Sampler, euler_cfg_pp, karras

FLOW_MAX = 200.0
"""Noise-to-signal ratio at which flow runs begin: sigma = 0.995."""


class Result(NamedTuple):
    """Latents (batch, channels, H, W), model calls, and the detailer where there was one."""

    latent: Tensor
    calls: int
    detailer: Detailer | None

    @property
    def picture(self) -> Tensor:
        """In [0, 1], not clamped: clipping would hide drift."""
        return self.latent / LATENT_SCALE / 2 + 0.5


def sample(
    model: Model, method: Method = plain, strength: float = 0.1, sampler: str = "euler", steps: int = 20, seed: int = 0
) -> Result:
    """Sample the model's batch; equal seeds start from, and add, equal noise."""
    flow = model.family == "flow"
    levels = karras(steps, SIGMA_MIN, FLOW_MAX if flow else SIGMA_MAX)
    calls = 0

    def evaluate(x: Tensor, sigma: Tensor) -> Prediction:
        nonlocal calls
        calls += 1
        denoised, uncond = model.guided(x, sigma)
        return Prediction(denoised, (uncond,))

    run = Run(evaluate, [v / (1 + v) for v in levels] if flow else levels, model.family)
    step = method(run, strength)
    levels = [v / (1 - v) for v in run.sigmas] if flow else run.sigmas
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(model.shape, generator=generator) * levels[0]

    def predict(x: Tensor, level: float) -> tuple[Tensor, Tensor]:
        told = torch.full((len(x),), level / (1 + level) if flow else level)
        prediction = step(x * per_sample(1 - told, x) if flow else x, told)
        return prediction.denoised, prediction.alike[0]

    kind: Sampler = euler_cfg_pp if sampler == "euler_cfg_pp" else SAMPLERS[sampler]
    latent = kind(predict, x, levels, generator)
    return Result(latent, calls, run.detailer)
