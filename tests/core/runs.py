"""An analytic denoiser and plain sampler loops to run the core in."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch
from hypothesis import strategies as st

from selective_sigma import Call, Detailer, Prediction, Settings
from selective_sigma.schedule import LEVEL_TOLERANCE, LONG_STEP

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

IMAGE = (2, 4, 12, 12)
SHAPES = [(2, 3, 24), (2, 4, 8, 10), (2, 3, 3, 6, 8)]
DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
levels_above_zero = (
    st.lists(st.floats(0.01, 100), min_size=2, max_size=30, unique=True)
    .map(lambda values: sorted(values, reverse=True))
    # Two levels that are nearer to each other than this are one to the lookup.
    .filter(lambda levels: all(high > low * LEVEL_TOLERANCE**2 for high, low in pairwise(levels)))
)
"""Noise levels of a run that descends to a level above zero."""


def karras(steps: int, top: float = 10.0, low: float = 0.05) -> Tensor:
    """(steps + 1,) float32, descending to zero."""
    levels = torch.linspace(1, 0, steps) * (top ** (1 / 7) - low ** (1 / 7)) + low ** (1 / 7)
    return torch.cat([levels**7, torch.zeros(1)])


def short_steps(steps: int, family: str = "ve", top: float = 10.0) -> Tensor:
    """(steps + 1,) float32 to zero, in even steps of noise to signal short enough to lend their dose."""
    ratios = top * torch.exp(-0.5 * LONG_STEP * torch.arange(steps))
    return torch.cat([ratios if family == "ve" else ratios / (1 + ratios), torch.zeros(1)])


def levels_of(family: str, steps: int) -> Tensor:
    return karras(steps) if family == "ve" else torch.linspace(1, 0, steps + 1)


class Denoiser:
    """Exact for a Gaussian prior whose variance differs from pixel to pixel: smooth in x and sigma."""

    def __init__(self, shape: Sequence[int], dtype: torch.dtype = torch.float64, family: str = "ve", seed: int = 0):
        draw = torch.Generator().manual_seed(seed)
        self.variance = torch.rand(shape[1:], generator=draw, dtype=torch.float64) ** 2 + 0.01
        self.mean = torch.randn(shape[1:], generator=draw, dtype=torch.float64)
        self.dtype, self.family = dtype, family
        self.seen: list[Call] = []

    def __call__(self, call: Call) -> Prediction:
        self.seen.append(call)
        assert isinstance(call.x, torch.Tensor)
        denoised = self.denoise(call.x, call.sigma)
        return Prediction(denoised, {"half": denoised * 0.5})

    def denoise(self, x: Tensor, sigma: Tensor) -> Tensor:
        s = sigma.double().reshape(-1, *[1] * (x.ndim - 1))
        alpha = 1.0 if self.family == "ve" else 1.0 - s
        gain = self.variance * alpha / (self.variance * alpha**2 + s**2)
        return (self.mean + gain * (x.double() - alpha * self.mean)).to(self.dtype)


def start(shape: Sequence[int], dtype: torch.dtype = torch.float64, seed: int = 1, top: float = 10.0) -> Tensor:
    return (torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * top).to(dtype)


def euler(step: Callable[[Tensor, Tensor], Any], x: Tensor, levels: Tensor) -> Tensor:
    """``step(x, sigma)`` gives denoised. The same on both families."""
    for sigma, next_sigma in pairwise(levels):
        denoised = step(x, sigma)
        x = denoised + (x - denoised) * (next_sigma / sigma).to(x.dtype)
    return x


def bare(model: Denoiser, x: Tensor, levels: Tensor, sampler: Callable[..., Tensor] = euler) -> Tensor:
    return sampler(model.denoise, x, levels)


def detailed(
    model: Any, x: Tensor, levels: Tensor, settings: Settings, sampler: Callable[..., Tensor] = euler, **more: Any
) -> tuple[Tensor, Detailer]:
    detailer = Detailer(settings, levels, getattr(model, "family", "ve"), **more)
    return sampler(lambda x, sigma: detailer.step(model, x, sigma).denoised, x, levels), detailer
