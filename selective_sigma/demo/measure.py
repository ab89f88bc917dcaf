"""How much detail a method added where it belongs, and where it does not."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

_TAPS = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0]) / 16


class Added(NamedTuple):
    """RMS of the added fine detail inside and outside the region, (batch,) each.

    NaN where a picture has no such part.
    """

    inside: Tensor
    outside: Tensor


def low_pass(picture: Tensor) -> Tensor:
    """Binomial 5x5 blur (Burt & Adelson 1983) of (batch, channels, H, W), edges repeated."""
    channels = picture.shape[1]
    kernel = torch.outer(_TAPS, _TAPS).to(picture).expand(channels, 1, 5, 5)
    return F.conv2d(F.pad(picture, (2, 2, 2, 2), mode="replicate"), kernel, groups=channels)


def high_pass(picture: Tensor) -> Tensor:
    return picture - low_pass(picture)


def split(region: Tensor, margin: int = 2) -> tuple[Tensor, Tensor]:
    """Weights of the pixels inside the region, and of those clear of it by ``margin`` pixels."""
    wide = F.max_pool2d(region, 2 * margin + 1, 1, margin)
    return (region > 0.5).to(region), (wide < 0.1).to(region)


def rms(values: Tensor, weight: Tensor) -> Tensor:
    """Root mean square over channels and weighted pixels, (batch,)."""
    energy = (values.square().mean(1, keepdim=True) * weight).flatten(1).sum(1)
    return (energy / weight.flatten(1).sum(1)).sqrt()


def added(detailed: Tensor, plain: Tensor, region: Tensor) -> Added:
    """Fine detail that separates two pictures (batch, channels, H, W) of the same seed.

    Args:
        region: (batch, 1, H, W) in [0, 1], where detail belongs.
    """
    fine = high_pass(detailed - plain)
    inside, outside = split(region)
    return Added(rms(fine, inside), rms(fine, outside))
