"""The denoisers under test: two mixtures with exact denoisers, and the photograph network.

All are VE denoisers of one batch; ``samplers.sample`` turns them into rectified flow for flow schedules.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from selective_sigma import Prediction
from selective_sigma.demo import network, photos, truth
from selective_sigma.demo.measure import high_pass


@dataclass(frozen=True)
class ReferenceModel:
    """A denoiser of one batch of pictures, and the truth about them."""

    shape: tuple[int, ...]
    """(batch, channels, H, W)."""
    seeds: tuple[int, ...]
    """Seed of each picture's noise, (batch,)."""
    groups: int
    """Number of groups of seeds. The spread over groups is the error bar."""
    denoise: Callable[[Tensor, float], Tensor]
    """The conditional prediction of ``x0`` from ``x = x0 + sigma n`` and ``sigma``."""
    inside: Tensor
    """(batch, 1, H, W) bool: where detail belongs."""
    outside: Tensor
    """(batch, 1, H, W) bool: where detail does not belong."""
    fine: Callable[[Tensor], Tensor]
    """The fine detail in a picture, shaped like it."""
    guidance: float = 1.0
    uncond: Callable[[Tensor, float], Tensor] | None = None
    """The unconditional prediction, for guidance; None without guidance."""
    picture: Tensor | None = None
    """The photographs themselves, shaped like the pictures; None on mixtures."""

    def predict(self, x: Tensor, sigma: float, conds: Literal["all", "positive"] = "all") -> Prediction:
        """The predictions of the model; with ``positive`` the conditional one alone."""
        cond = self.denoise(x, sigma)
        if self.uncond is None or conds == "positive":
            return Prediction(cond)
        uncond = self.uncond(x, sigma)
        return Prediction(cond, {"uncond": uncond}, uncond + self.guidance * (cond - uncond))


@cache
def dct_basis(size: int) -> Tensor:
    """The orthonormal cosine basis of size x size tiles, (size^2 pixels, size^2 coefficients)."""
    k = torch.arange(size, dtype=torch.float64)
    wave = torch.cos(math.pi * (k[:, None] + 0.5) * k[None] / size) * math.sqrt(2 / size)
    wave[:, 0] /= math.sqrt(2)
    return torch.einsum("yu,xv->yxuv", wave, wave).reshape(size**2, size**2).float()


@dataclass(frozen=True)
class Tiles:
    """Exact denoiser of pictures whose tiles are either smooth or textured, Gaussian in both cases.

    D = sum_k p(k | x) C_k (C_k + sigma^2)^-1 x, diagonal in the cosine basis.
    """

    size: int
    smooth: Tensor
    """(size^2,) variances of a smooth tile's coefficients."""
    textured: Tensor
    detail: Tensor
    """(size^2,) bool: coefficients that are fine detail and not shading."""
    logit: Tensor
    """(tiles,) prior log odds that a tile is textured."""

    def denoise(self, x: Tensor, sigma: float) -> Tensor:
        c = self._coefficients(x)
        smooth, textured = self.smooth + sigma**2, self.textured + sigma**2
        # All channels of a tile have the same class.
        evidence = 0.5 * (c.square() * (1 / smooth - 1 / textured) - (textured / smooth).log()).sum((-1, -2))
        share = torch.sigmoid(evidence + self.logit)[..., None, None]
        gain = share * self.textured / textured + (1 - share) * self.smooth / smooth
        return self._picture(c * gain, x)

    def fine(self, picture: Tensor) -> Tensor:
        """What a tile holds beyond shading. Jumps between tiles, which are independent, do not count."""
        return self._picture(self._coefficients(picture) * self.detail, picture)

    def _coefficients(self, x: Tensor) -> Tensor:
        """(batch, tiles, channels, size^2)."""
        tiles = F.unfold(x, self.size, stride=self.size).transpose(1, 2)
        return tiles.unflatten(2, (x.shape[1], self.size**2)) @ dct_basis(self.size)

    def _picture(self, c: Tensor, like: Tensor) -> Tensor:
        tiles = (c @ dct_basis(self.size).T).flatten(2).transpose(1, 2)
        return F.fold(tiles, like.shape[2:], self.size, stride=self.size)


def _log_odds(textured: float, side: int) -> Tensor:
    """Prior log odds of side x side tiles, (tiles,): the share ``textured`` on the right, one minus it on the left."""
    right = (torch.arange(side) >= side // 2).repeat(side)
    return torch.where(right, 1.0, -1.0) * math.log(textured / (1 - textured))


def _halves(
    tiles: Tiles, shape: tuple[int, ...], seeds: Sequence[int], groups: int, guidance: float = 1.0
) -> ReferenceModel:
    """A model with textured tiles in the right half. Its unconditional prediction does not know the halves."""
    inside = (torch.arange(shape[3]) >= shape[3] // 2).expand(shape[0], 1, *shape[2:])
    uncond = None if guidance == 1 else replace(tiles, logit=torch.zeros_like(tiles.logit)).denoise
    return ReferenceModel(shape, tuple(seeds), groups, tiles.denoise, inside, ~inside, tiles.fine, guidance, uncond)


def mixture8(seeds: Sequence[int], groups: int = 1, guidance: float = 1.0, size: int = 64) -> ReferenceModel:
    """8x8 tiles, one channel: light and shade of .5, texture of .3 beyond a gradient, prior .02 and .98."""
    u, v = torch.meshgrid(torch.arange(8), torch.arange(8), indexing="ij")
    detail = (u + v > 1).flatten()
    coarse = 0.5**2 * 64 * torch.where(u + v > 0, 1 / 4, 1.0).flatten()
    smooth, textured = (torch.where(detail, std**2, coarse) for std in (0.02, 0.3))
    tiles = Tiles(8, smooth, textured, detail, _log_odds(0.98, size // 8))
    return _halves(tiles, (len(seeds), 1, size, size), seeds, groups, guidance)


def mixture4(seeds: Sequence[int], groups: int = 1, size: int = 64) -> ReferenceModel:
    """4x4 tiles, four channels, shading in both halves; prior .05 and .95.

    Variances over the frequency radius f: ``low + 1e-4`` and ``low + 0.35 / (1 + (f / 0.35)^2)``,
    ``low = exp(-(f / 0.08)^2)`` scaled to a pixel's variance of 0.75.
    """
    k = torch.arange(4) / 4
    f = ((k[:, None].square() + k[None].square()) / 2).sqrt().flatten()
    low = (-(f / 0.08).square()).exp()
    low *= 0.75 * 16 / low.sum()
    texture = 0.35 / (1 + (f / 0.35).square())
    tiles = Tiles(4, low + 1e-4, low + texture, f > 0, _log_odds(0.95, size // 4))
    return _halves(tiles, (len(seeds), 4, size, size), seeds, groups)


WINDOW = 64
WINDOWS = [("astronaut", 0, 96), ("astronaut", 96, 128), ("chelsea", 64, 112)]
WINDOWS += [("coffee", 112, 16), ("rocket", 112, 16), ("camera", 0, 48)]
"""Photographs at 192x192, and top left corners of the windows that are redrawn. docs/evidence.md says how chosen."""


def windows() -> Tensor:
    """The photographs' windows, (pictures, 3, WINDOW, WINDOW)."""
    return torch.cat([photos.photograph(n, 192)[..., y : y + WINDOW, x : x + WINDOW] for n, y, x in WINDOWS])


HELD_OUT = ("budgie-canyon-wren", "budgie-roman-colosseum", "budgie-perched-osprey", "budgie-oakland-zoo-otters")
HELD_OUT += ("aitzgorri",)
FOLDER = os.environ.get("PHOTOGRAPHS")
"""Folder of these photographs, which the network was not trained on. They are not part of the repository."""


def whole() -> Tensor:
    """The photographs in ``FOLDER``, (pictures, 3, 192, 192)."""
    assert FOLDER is not None
    return torch.cat([photos.photograph(Path(FOLDER) / f"{name}.jpg", 192) for name in HELD_OUT])


def photographs(
    pictures: Callable[[], Tensor] = windows, seeds: int = 3, smooth: bool = False, guidance: float = 1.0
) -> ReferenceModel:
    """The network that redraws photographs from a four times smaller thumbnail; pictures in [-1, 1].

    Inside and outside are the upper and the lower third of the photograph's own smoothed fine detail (``truth``).
    With ``smooth`` the photographs are out of focus, and detail belongs nowhere. The unconditional prediction is the
    one without a thumbnail.
    """
    picture = pictures()
    small = photos.thumbnail(photos.defocused(picture) if smooth else picture, 4).repeat(seeds, 1, 1, 1)
    inside, outside = (region.repeat(seeds, 1, 1, 1) > 0.5 for region in truth.measured(picture))
    net = network.load()
    numbers = tuple(1000 * seed + i for seed in range(seeds) for i in range(len(picture)))
    denoise, uncond = partial(net.denoise, thumbnail=small), None if guidance == 1 else net.denoise
    picture = picture.repeat(seeds, 1, 1, 1)
    shape = tuple(small.shape)
    return ReferenceModel(shape, numbers, seeds, denoise, inside, outside, high_pass, guidance, uncond, picture)


WHOLE = "whole photographs"
MODELS: dict[str, Callable[[], ReferenceModel]] = {
    "photographs": cache(photographs),
    "defocused": cache(partial(photographs, smooth=True)),
    "mixture 8x8": cache(partial(mixture8, range(12), 3)),
    **{f"mixture 8x8, guidance {g}": cache(partial(mixture8, range(12), 3, guidance=g)) for g in (2, 4)},
    WHOLE: cache(partial(photographs, whole, 1)),
    "photographs, guidance 4": cache(partial(photographs, guidance=4.0)),
    "mixture 4x4": cache(partial(mixture4, range(12), 3)),
}
"""Models by their name in the rows. Photographs have three seeds each, mixtures three groups of four seeds."""
