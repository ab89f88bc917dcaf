"""Denoisers to compare methods on: the embedded network, and exact ones.

A ``Model`` is a denoiser ``model(x, sigma)`` with its family and the truth about its pictures.
Samplers here run in VE terms; a flow model is reached through x = (1 - sigma) x_ve (``Flow``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from selective_sigma.demo.levels import log_sigma_table, to_timestep
from selective_sigma.demo.network import NULL_CLASS, NULL_REGION, SceneUNet
from selective_sigma.demo.pipeline import load
from selective_sigma.demo.scenes import KINDS, draw
from selective_sigma.lie import per_sample
from selective_sigma.settings import Family

SIGMA_MAX, SIGMA_MIN = 14.6, 0.03


class Model(Protocol):
    """A denoiser of one batch of pictures."""

    family: Family
    region: Tensor
    """(batch, 1, H, W) in [0, 1], where detail belongs."""
    shape: tuple[int, ...]

    def guided(self, x: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """``denoised`` and ``uncond`` of a latent in the model's own terms, sigma (batch,)."""
        ...


@dataclass
class Embedded:
    """The embedded network on a batch of scenes, with classifier-free guidance if asked for."""

    unet: SceneUNet
    labels: Tensor
    region: Tensor
    family: Family = "ve"
    guidance: float = 1.0

    def __post_init__(self) -> None:
        self.shape = (len(self.labels), 3, *self.region.shape[2:])
        self._table = log_sigma_table()
        self.evaluations = 0

    @classmethod
    def scenes(
        cls, count: int, seed: int, family: Family = "ve", guidance: float = 1.0, kinds: tuple[str, ...] = KINDS
    ) -> Embedded:
        """``count`` pictures of each kind, the regions drawn from ``seed``."""
        region = torch.cat([draw(kind, count, seed).region for kind in kinds])
        labels = torch.tensor([KINDS.index(kind) for kind in kinds]).repeat_interleave(count)
        return cls(_unet(), labels, region, family, guidance)

    def guided(self, x: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        self.evaluations += 1
        if self.family == "flow":
            signal = (1 - sigma).clamp(min=1e-4)
            x, sigma = x / per_sample(signal, x), sigma / signal
        cond = self._denoised(x, sigma, self.labels, self.region)
        if self.guidance == 1:
            return cond, cond
        nothing = torch.full_like(self.labels, NULL_CLASS), torch.full_like(self.region, NULL_REGION)
        uncond = self._denoised(x, sigma, *nothing)
        return uncond + self.guidance * (cond - uncond), uncond

    @torch.no_grad()
    def _denoised(self, x: Tensor, sigma: Tensor, labels: Tensor, region: Tensor) -> Tensor:
        s = per_sample(sigma, x)
        scale = (s.square() + 1).rsqrt()
        v = self.unet(x * scale, to_timestep(sigma.log(), self._table), labels, region, return_dict=False)[0]
        return scale * (x * scale - s * v)


_CACHE: dict[str, SceneUNet] = {}


def _unet() -> SceneUNet:
    if "unet" not in _CACHE:
        _CACHE["unet"] = load().unet
    return _CACHE["unet"]


@dataclass
class Gaussian:
    """Exact denoiser of a Gaussian field with a power spectrum and a busy and a quiet half.

    x0 = mean + std(pixel) * noise: D = mean + std^2 / (std^2 + sigma^2) (x - mean).
    """

    std: Tensor
    """(batch, channels, H, W)"""
    region: Tensor
    mean: float = 0.3
    family: Family = "ve"

    def __post_init__(self) -> None:
        self.shape = tuple(self.std.shape)
        self.evaluations = 0

    def guided(self, x: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        self.evaluations += 1
        if self.family == "flow":
            signal = (1 - sigma).clamp(min=1e-4)
            x, sigma = x / per_sample(signal, x), sigma / signal
        variance = self.std.square()
        denoised = self.mean + variance / (variance + per_sample(sigma, x).square()) * (x - self.mean)
        return denoised, denoised
