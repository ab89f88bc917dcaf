"""The denoisers under test: two mixtures with exact denoisers, and the photograph network."""

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from selective_sigma import Prediction
from selective_sigma.demo import network, photos, truth
from selective_sigma.demo.measure import high_pass
from selective_sigma.settings import Family

Conds = Literal["all", "positive"]


@dataclass(frozen=True)
class ReferenceModel:
    """A denoiser of one batch of pictures, and the truth about them."""

    shape: tuple[int, ...]
    """(batch, channels, H, W)."""
    seeds: tuple[int, ...]
    """The seed of each picture's noise, (batch,)."""
    groups: int
    """Number of groups of seeds. The spread over them is the error bar."""
    denoise: Callable[[Tensor, float], Tensor]
    """The conditional prediction of ``x0`` from ``x = x0 + sigma n`` and ``sigma``."""
    inside: Tensor
    """(batch, 1, H, W) bool: where detail belongs."""
    outside: Tensor
    """(batch, 1, H, W) bool: where detail does not belong."""
    fine: Callable[[Tensor], Tensor]
    """The fine detail of pictures, shaped like them."""
    guidance: float = 1.0
    uncond: Callable[[Tensor, float], Tensor] | None = None
    """The unconditional prediction, for guidance; None without guidance."""
    photographs: Tensor | None = None
    """What the network redraws, (batch, 3, H, W); None on mixtures."""

    def predict(self, x: Tensor, sigma: float, conds: Conds = "all", family: Family = "ve") -> Prediction:
        """The predictions of the model; with ``positive`` the conditional one alone."""
        if family == "flow":  # Rectified flow is the same denoiser of x / (1 - sigma).
            x, sigma = x / (1 - sigma), sigma / (1 - sigma)
        cond = self.denoise(x, sigma)
        if self.uncond is None or conds == "positive":
            return Prediction(cond)
        uncond = self.uncond(x, sigma)
        return Prediction(cond, {"uncond": uncond}, uncond + self.guidance * (cond - uncond))


@cache
def dct_basis(size: int) -> Tensor:
    """The orthonormal cosine basis of size x size tiles, (size^2 pixels, size^2 coefficients)."""
    indices = torch.arange(size, dtype=torch.float64)
    waves = torch.cos(math.pi * (indices[:, None] + 0.5) * indices / size) * math.sqrt(2 / size)
    waves[:, 0] /= math.sqrt(2)
    return torch.kron(waves, waves).float()


@dataclass(frozen=True)
class Tiles:
    """Exact denoiser of pictures whose tiles are either smooth or textured, Gaussian in both cases.

    D = sum_k p(k | x) C_k (C_k + sigma^2)^-1 x, diagonal in the cosine basis.
    """

    size: int
    smooth: Tensor
    """Variances of a smooth tile's coefficients, (size^2,)."""
    textured: Tensor
    """Variances of a textured tile's coefficients, (size^2,)."""
    is_detail: Tensor
    """(size^2,) bool: which coefficients are fine detail and not shading."""
    prior: Tensor | float = 0.0
    """Prior log odds that a tile is textured, (tiles,), or one number for all."""

    def denoise(self, x: Tensor, sigma: float) -> Tensor:
        coefficients = self._coefficients(x)
        smooth, textured = self.smooth + sigma**2, self.textured + sigma**2
        # All channels of a tile have the same class.
        evidence = coefficients.square() * (1 / smooth - 1 / textured) - (textured / smooth).log()
        probability = torch.sigmoid(0.5 * evidence.sum((-1, -2)) + self.prior)[..., None, None]
        gain = probability * self.textured / textured + (1 - probability) * self.smooth / smooth
        return self._picture(coefficients * gain, x)

    def fine(self, picture: Tensor) -> Tensor:
        """What a tile holds beyond shading. Jumps between tiles, which are independent, do not count."""
        return self._picture(self._coefficients(picture) * self.is_detail, picture)

    def _coefficients(self, x: Tensor) -> Tensor:
        """(batch, tiles, channels, size^2)."""
        tiles = F.unfold(x, self.size, stride=self.size).transpose(1, 2)
        return tiles.unflatten(2, (x.shape[1], self.size**2)) @ dct_basis(self.size)

    def _picture(self, coefficients: Tensor, like: Tensor) -> Tensor:
        tiles = (coefficients @ dct_basis(self.size).T).flatten(2).transpose(1, 2)
        return F.fold(tiles, like.shape[2:], self.size, stride=self.size)


def _mixture(
    tiles: Tiles, textured: float, shape: tuple[int, ...], seeds: Sequence[int], groups: int, guidance: float = 1.0
) -> ReferenceModel:
    """A model whose right half has the share ``textured`` of textured tiles, and its left half of smooth ones.

    The unconditional prediction does not know which half is which.
    """
    inside = (torch.arange(shape[3]) >= shape[3] // 2).expand(shape[0], 1, *shape[2:])
    is_right = inside[0, 0, :: tiles.size, :: tiles.size].flatten()
    prior = torch.where(is_right, 1.0, -1.0) * math.log(textured / (1 - textured))
    cond, uncond = replace(tiles, prior=prior).denoise, None if guidance == 1 else tiles.denoise
    return ReferenceModel(shape, tuple(seeds), groups, cond, inside, ~inside, tiles.fine, guidance, uncond)


def mixture8(seeds: Sequence[int], groups: int = 1, guidance: float = 1.0, size: int = 64) -> ReferenceModel:
    """8x8 tiles, one channel: brightness of std .5, two gradients of .25, texture of .02 or .3; prior .02 and .98."""
    frequency = (torch.arange(8)[:, None] + torch.arange(8)).flatten()
    coarse = 0.5**2 * 64 * torch.where(frequency > 0, 1 / 4, 1.0)
    smooth, textured = (torch.where(frequency > 1, std**2, coarse) for std in (0.02, 0.3))
    tiles = Tiles(8, smooth, textured, frequency > 1)
    return _mixture(tiles, 0.98, (len(seeds), 1, size, size), seeds, groups, guidance)


def mixture4(seeds: Sequence[int], groups: int = 1, size: int = 64) -> ReferenceModel:
    """4x4 tiles, four channels: shading with a variance of .75 a pixel in both halves; prior .05 and .95."""
    frequency = torch.arange(4) / 4
    f = ((frequency[:, None].square() + frequency.square()) / 2).sqrt().flatten()  # The frequency radius.
    low = (-(f / 0.08).square()).exp()
    low *= 0.75 * 16 / low.sum()
    texture = 0.35 / (1 + (f / 0.35).square())
    tiles = Tiles(4, low + 1e-4, low + texture, f > 0)
    return _mixture(tiles, 0.95, (len(seeds), 4, size, size), seeds, groups)


WINDOWS = [("astronaut", 0, 96), ("astronaut", 96, 128), ("chelsea", 64, 112)]
WINDOWS += [("coffee", 112, 16), ("rocket", 112, 16), ("camera", 0, 48)]
"""Photographs, and the top left corners of the windows that are redrawn. docs/evidence.md says how they were chosen."""
HELD_OUT = ("budgie-canyon-wren", "budgie-roman-colosseum", "budgie-perched-osprey", "budgie-oakland-zoo-otters")
HELD_OUT += ("aitzgorri",)
HELD_OUT_FOLDER = os.environ.get("PHOTOGRAPHS")
"""Folder of these photographs, which the network was not trained on. They are not part of the repository."""


def windows() -> Tensor:
    """The windows of photographs of 192x192, (pictures, 3, 64, 64)."""
    return torch.cat([photos.photograph(name, 192)[..., y : y + 64, x : x + 64] for name, y, x in WINDOWS])


def photographs(whole: bool = False, defocused: bool = False, guidance: float = 1.0) -> ReferenceModel:
    """The network that redraws photographs from their thumbnails; pictures in [-1, 1].

    Inside and outside are the upper and the lower third of the photograph's own smoothed fine detail (``truth``).
    The unconditional prediction is made without a thumbnail.

    Args:
        whole: redraw the held-out photographs at 192x192, with one seed, instead of ``windows`` with three seeds.
        defocused: put the thumbnails out of focus, so that detail belongs nowhere.
    """
    held_out = (photos.photograph(f"{HELD_OUT_FOLDER}/{name}.jpg", 192) for name in HELD_OUT)
    picture = torch.cat(list(held_out)) if whole else windows()
    groups, factor = (1, photos.FACTOR) if whole else (3, 4.0)
    seeds = tuple(1000 * group + i for group in range(groups) for i in range(len(picture)))
    picture, net = picture.repeat(groups, 1, 1, 1), network.load()
    thumbnail = photos.thumbnail(photos.defocused(picture) if defocused else picture, factor)
    inside, outside = (region > 0.5 for region in truth.measured(picture))
    cond, uncond = partial(net.denoise, thumbnail=thumbnail), None if guidance == 1 else net.denoise
    shape = tuple(picture.shape)
    return ReferenceModel(shape, seeds, groups, cond, inside, outside, high_pass, guidance, uncond, picture)


WHOLE_PHOTOGRAPHS = "whole photographs"
MODELS: dict[str, Callable[[], ReferenceModel]] = {
    "photographs": cache(photographs),
    "defocused": cache(partial(photographs, defocused=True)),
    "mixture 8x8": cache(partial(mixture8, range(12), 3)),
    **{f"mixture 8x8, guidance {scale}": cache(partial(mixture8, range(12), 3, guidance=scale)) for scale in (2, 4)},
    WHOLE_PHOTOGRAPHS: cache(partial(photographs, whole=True)),
    "photographs, guidance 4": cache(partial(photographs, guidance=4.0)),
    "mixture 4x4": cache(partial(mixture4, range(12), 3)),
}
"""Models by their name in the rows. Photographs have three seeds each, mixtures three groups of four seeds."""
