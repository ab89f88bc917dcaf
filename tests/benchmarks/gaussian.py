"""A denoiser whose runs have an exact solution."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.models import ReferenceModel
from selective_sigma.demo.measure import high_pass

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


def gaussian(std: Tensor, seeds: Sequence[int], mean: float = 0.3) -> ReferenceModel:
    """x0 = mean + std n, ``std`` (batch, channels, H, W): D = mean + std^2 / (std^2 + sigma^2) (x - mean)."""

    def denoise(x: Tensor, sigma: float) -> Tensor:
        return mean + std.square() / (std.square() + sigma**2) * (x - mean)

    inside = std[:, :1] > std.mean()
    return ReferenceModel(tuple(std.shape), tuple(seeds), 1, denoise, inside, ~inside, high_pass)
