"""An analytic denoiser and plain sampler loops to run the core in."""

import itertools

import torch

from selective_sigma import Detailer, Prediction, Settings


def sigmas(steps: int, top: float = 10.0, low: float = 0.05) -> torch.Tensor:
    levels = torch.linspace(1, 0, steps) * (top ** (1 / 7) - low ** (1 / 7)) + low ** (1 / 7)
    return torch.cat([levels**7, torch.zeros(1)])


def each(sigma: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    return sigma.reshape(-1, *[1] * (like.ndim - 1))


class Denoiser:
    """Exact for a Gaussian prior whose variance differs from pixel to pixel: smooth in x and sigma."""

    def __init__(self, shape: tuple[int, ...], dtype: torch.dtype = torch.float64, seed: int = 0):
        draw = torch.Generator().manual_seed(seed)
        self.variance = torch.rand(shape[1:], generator=draw, dtype=torch.float64) ** 2 + 0.01
        self.mean = torch.randn(shape[1:], generator=draw, dtype=torch.float64)
        self.dtype = dtype
        self.calls = 0
        self.seen: list[tuple[torch.Tensor, torch.Tensor]] = []

    def __call__(self, x: torch.Tensor, sigma: torch.Tensor) -> Prediction:
        self.calls += 1
        self.seen.append((x, sigma))
        noise = each(sigma.double(), x) ** 2
        gain = self.variance / (self.variance + noise)
        denoised = self.mean + gain * (x.double() - self.mean)
        return Prediction(denoised.to(self.dtype), ((denoised * 0.5).to(self.dtype),))


def start(shape: tuple[int, ...], dtype: torch.dtype = torch.float64, seed: int = 1, top: float = 10.0) -> torch.Tensor:
    return (torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * top).to(dtype)


def euler(step, x: torch.Tensor, levels: torch.Tensor) -> torch.Tensor:
    """``step(x, sigma)`` gives denoised."""
    for now, then in itertools.pairwise(levels):
        denoised = step(x, now)
        x = denoised + (x - denoised) * (then / now).to(x.dtype)
    return x


def detailed(model, x, levels, settings: Settings, **more) -> tuple[torch.Tensor, Detailer]:
    detailer = Detailer(settings, levels, **more)
    return euler(lambda x, sigma: detailer.step(model, x, sigma).denoised, x, levels), detailer


def plain(model, x, levels) -> torch.Tensor:
    return euler(lambda x, sigma: model(x, sigma).denoised, x, levels)
