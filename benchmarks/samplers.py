"""The samplers under test, in VE terms; each is a function of ``predict(x, sigma)``.

Written out because the methods under test wrap ``predict`` and count its calls. ``predict``
gives ``denoised`` and ``uncond``; only the CFG++ sibling looks at the second.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor

Predict = Callable[[Tensor, float], tuple[Tensor, Tensor]]


class Noise:
    """Fresh noise with a generator for each picture, so that a picture is alike in any batch."""

    def __init__(self, seeds: Sequence[int]):
        self._generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def like(self, x: Tensor) -> Tensor:
        """Unit Gaussian noise of the shape of ``x``, (batch, channels, *space)."""
        return torch.stack([torch.randn(x.shape[1:], generator=g, dtype=x.dtype) for g in self._generators])


Sampler = Callable[[Predict, Tensor, list[float], Noise], Tensor]


def karras(steps: int, low: float, high: float, rho: float = 7.0) -> list[float]:
    """Noise levels (Karras et al. 2022, eq. 5), steps + 1 of them, ending in 0."""
    ramp = torch.linspace(0, 1, steps, dtype=torch.float64)
    root = high ** (1 / rho) + ramp * (low ** (1 / rho) - high ** (1 / rho))
    return [*(root**rho).tolist(), 0.0]


def shifted(steps: int, shift: float = 3.0, first: float = 1000.0) -> list[float]:
    """Noise-to-signal ratios of a rectified-flow run, steps + 1 of them, ending in 0.

    Evenly spaced times t, shifted as SD3 does (Esser et al. 2024, eq. 23): ratio = shift t / (1 - t).
    ``first`` (sigma = 0.999) stands in for the infinite one at t = 1, as samplers here are in VE terms.
    """
    return [first, *(shift * (steps - i) / i for i in range(1, steps)), 0.0]


def _ancestral(now: float, then: float, eta: float = 1.0) -> tuple[float, float]:
    """Split a step into its deterministic part and its fresh noise (Song et al. 2020, DDIM eq. 16)."""
    up = min(then, eta * (then**2 * (now**2 - then**2) / now**2) ** 0.5)
    return (then**2 - up**2) ** 0.5, up


def euler(predict: Predict, x: Tensor, sigmas: list[float], noise: Noise) -> Tensor:
    """Karras et al. 2022, algorithm 1 without churn."""
    for now, then in pairwise(sigmas):
        denoised, _ = predict(x, now)
        x = denoised + then / now * (x - denoised)
    return x


def euler_cfg_pp(predict: Predict, x: Tensor, sigmas: list[float], noise: Noise) -> Tensor:
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


def dpmpp_2m(predict: Predict, x: Tensor, sigmas: list[float], noise: Noise) -> Tensor:
    """Lu et al. 2022 (DPM-Solver++), algorithm 2, with one previous prediction."""
    previous, h_last = None, 0.0
    for now, then in pairwise(sigmas):
        denoised, _ = predict(x, now)
        step = denoised
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
    """Lu et al. 2022, stochastic single-step solver of order two: two predictions a step."""
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


SAMPLERS: dict[str, Sampler] = {
    "euler": euler,
    "euler_ancestral": euler_ancestral,
    "dpmpp_2m": dpmpp_2m,
    "dpmpp_sde": dpmpp_sde,
}
DETERMINISTIC = ("euler", "dpmpp_2m")
