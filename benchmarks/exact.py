"""Denoisers that are known exactly: a Gaussian, and a mixture that can hallucinate texture."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from selective_sigma.lie import per_sample
from selective_sigma.settings import Family

from .models import as_ratio

PATCH = 8
COARSE, FINE, FLAT = 0.5, 0.3, 0.02
"""Standard deviations a pixel of light and shade, of texture, and of what a smooth patch has of it."""
PRIOR = 0.02
"""Share of the patches that are textured in the smooth half, and smooth in the textured half."""


class Gaussian:
    """x0 = mean + std(pixel) n, so that D = mean + std^2 / (std^2 + sigma^2) (x - mean)."""

    def __init__(self, std: Tensor, seeds: Sequence[int], mean: float = 0.3, family: Family = "ve"):
        """``std``: (batch, channels, H, W)."""
        self.std, self.mean, self.family, self.seeds = std, mean, family, seeds
        self.shape = tuple(std.shape)
        self.region = (std[:, :1] > std.mean()).to(std)
        self.evaluations = 0

    def guided(self, x: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        x, sigma = as_ratio(x, sigma, self.family)
        variance = self.std.square()
        denoised = self.mean + variance / (variance + per_sample(sigma, x).square()) * (x - self.mean)
        return denoised, denoised

    def picture(self, latent: Tensor) -> Tensor:
        return latent


def dct_basis(size: int) -> Tensor:
    """The orthonormal cosine basis of size x size patches, (size^2 pixels, size^2 coefficients)."""
    k = torch.arange(size, dtype=torch.float64)
    wave = torch.cos(math.pi * (k[:, None] + 0.5) * k[None] / size) * math.sqrt(2 / size)
    wave[:, 0] /= math.sqrt(2)
    return torch.einsum("yu,xv->yxuv", wave, wave).reshape(size**2, size**2).float()


class Mixture:
    """Every patch is smooth or textured, Gaussian either way; left half mostly smooth, right mostly textured.

    The posterior-weighted mean is exact: D = sum_k p(k | x) C_k (C_k + sigma^2)^-1 x, diagonal in the
    cosine basis. A lie makes the noise look like more than noise, which speaks for the textured
    component; where the patch should be smooth, texture is then made up.
    """

    def __init__(self, seeds: Sequence[int], size: int = 64, family: Family = "ve"):
        self.family, self.seeds = family, seeds
        self.evaluations = 0
        self.shape = (len(seeds), 1, size, size)
        self.region = torch.zeros(self.shape)
        self.region[..., size // 2 :] = 1
        self._basis = dct_basis(PATCH)
        textured = self._cut(self.region)[..., :1].squeeze(-1) > 0.5
        self._logit = torch.where(textured, 1.0, -1.0) * math.log((1 - PRIOR) / PRIOR)
        u, v = torch.meshgrid(torch.arange(PATCH), torch.arange(PATCH), indexing="ij")
        self.fine = (u + v > 1).flatten()
        """(patch^2,) bool: coefficients finer than a gradient across the patch."""
        coarse = torch.full((PATCH**2,), COARSE**2 * PATCH**2 / 4)
        coarse[0] = COARSE**2 * PATCH**2
        self._smooth = torch.where(self.fine, FLAT**2, coarse)
        self._textured = torch.where(self.fine, FINE**2, coarse)

    def guided(self, x: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        x, sigma = as_ratio(x, sigma, self.family)
        c = self._cut(x) @ self._basis
        noise = sigma.square().reshape(-1, 1, 1)
        smooth, textured = self._smooth + noise, self._textured + noise
        evidence = 0.5 * (c.square() * (1 / smooth - 1 / textured) - (textured / smooth).log()).sum(-1)
        share = torch.sigmoid(evidence + self._logit)[..., None]
        gain = share * self._textured / textured + (1 - share) * self._smooth / smooth
        denoised = self._join(c * gain @ self._basis.T)
        return denoised, denoised

    def picture(self, latent: Tensor) -> Tensor:
        return latent

    def made_up(self, picture: Tensor) -> Tensor:
        """Share of the smooth half's patches that came out textured, (batch,)."""
        energy = (self._cut(picture) @ self._basis)[..., self.fine].square().mean(-1)
        smooth = self._cut(self.region)[..., 0] < 0.5
        return ((energy > FINE**2 / 4) & smooth).sum(1) / smooth.sum(1)

    def _cut(self, x: Tensor) -> Tensor:
        """(batch, 1, H, W) to (batch, patches, patch^2)."""
        return torch.nn.functional.unfold(x, PATCH, stride=PATCH).transpose(1, 2)

    def _join(self, patches: Tensor) -> Tensor:
        return torch.nn.functional.fold(patches.transpose(1, 2), self.shape[2:], PATCH, stride=PATCH)
