"""How much fine detail a method added where it belongs, and where it does not."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F

if TYPE_CHECKING:
    from torch import Tensor

_TAPS = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0]) / 16


class Detail(NamedTuple):
    """RMS of fine detail, (batch,) each; NaN where a picture has no such part."""

    inside: Tensor
    outside: Tensor


def low_pass(picture: Tensor) -> Tensor:
    """Binomial 5x5 blur (Burt & Adelson 1983) of (batch, channels, h, w), edges repeated."""
    channels = picture.shape[1]
    kernel = torch.outer(_TAPS, _TAPS).to(picture).expand(channels, 1, 5, 5)
    return F.conv2d(F.pad(picture, (2, 2, 2, 2), mode="replicate"), kernel, groups=channels)


def high_pass(picture: Tensor) -> Tensor:
    return picture - low_pass(picture)


def luma(picture: Tensor) -> Tensor:
    """Brightness (Rec. 601) of (batch, 3, h, w): (batch, 1, h, w)."""
    weights = picture.new_tensor([0.299, 0.587, 0.114]).reshape(1, 3, 1, 1)
    return (picture * weights).sum(1, keepdim=True)


def rms(values: Tensor, weight: Tensor) -> Tensor:
    """Root mean square over channels and weighted pixels, (batch,)."""
    energy = (values.square().mean(1, keepdim=True) * weight).flatten(1).sum(1)
    return (energy / weight.flatten(1).sum(1)).sqrt()


def detail(picture: Tensor, inside: Tensor, outside: Tensor) -> Detail:
    """Fine detail of ``picture`` (batch, channels, h, w) in two regions (batch, 1, h, w) of weights in [0, 1]."""
    fine = high_pass(picture)
    return Detail(rms(fine, inside), rms(fine, outside))


def added(detailed: Tensor, plain: Tensor, inside: Tensor, outside: Tensor) -> Detail:
    """Fine detail that separates two pictures of the same seed: what moved, for better or worse."""
    return detail(detailed - plain, inside, outside)
