"""WHERE: the response mask, from the plain and the lied prediction of one step."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Sequence

POWER = 4.0
"""How sharply the mask turns from dark to bright."""
TRUST = 0.5
"""Power of E / E0 in the response: how much a place that holds much detail is favoured."""
ROUNDS = 3
"""Times that a map of energy is blurred."""
FLOOR = 0.1
"""Least ratio of detail held to detail added, of a whole picture, that speaks of any detail in it.

Linear theory has 1/4 where a picture holds nothing finer than its noise; a network that would draw
texture into a smooth picture lies far below.
"""
CHUNK = 2**20
"""Values that ``detail`` processes at once, in whole channels: on a clip a third of the time, and far less memory."""
TINY = 1e-12
"""Energy of fine detail that counts as none."""

_MODE = {1: "linear", 2: "bilinear", 3: "trilinear"}


def odds(coverage: float) -> float:
    """The odds k of ``response`` at a coverage: 0 at coverage 1, 1 at 0.5, infinite at 0.

    With these powers the mean of the mask rises evenly along the slider, without a jump at either end. With
    ((1 - c) / c)^1.5 nearly half of the rise would fall into the last tenth on photographs (VE), most of which is dark
    at 0.5.
    """
    return (2.0 * (1.0 - coverage)) ** 2.5 / math.sqrt(2.0 * coverage) if coverage > 0 else math.inf


def response(
    plain: Tensor,
    lied: Tensor,
    coverage: float,
    e_folds: float,
    within: Tensor | None = None,
    guided: Tensor | None = None,
) -> Tensor:
    """The response mask: bright where the picture holds much fine detail and the lie adds little beside it.

    With E the fine detail in the picture that the effect is added to, G that in ``lied - plain``, E0 and G0 their means
    over the sample (over the whole clip for video): R = E / G says how little the lie adds,
    q = (E / E0)^TRUST (R / R0) and m = 1 / (1 + (k / q)^POWER), k the odds of coverage (method.md section 2).
    R0 is at least ``FLOOR``, so that a picture without any detail stays dark.

    Args:
        plain, lied: predictions of one step, (batch, channels, *space).
        guided: the picture that the effect is added to, shaped like ``plain``; None if it is ``plain``.
        coverage: at 0 the mask is exactly 0, at 1 exactly 1.
        e_folds: size of the lie, -ln(1 - strength).
        within: (batch or 1, 1, *space) in [0, 1], the part over which the means are taken.

    Returns:
        (batch, 1, *space), float32; NaN in a sample whose predictions are not finite.
    """
    held = detail(plain if guided is None else guided).clamp_(min=TINY)
    added = detail(lied, plain).clamp_(min=TINY)
    held0, added0 = (mean(energy, within).clamp_(min=TINY) for energy in (held, added))
    # k / q = k G / E^(1 + TRUST) * E0^(1 + TRUST) / G0 * max(1, FLOOR / R0): one factor a sample for the means.
    floor = (FLOOR / e_folds**2) * added0 / held0
    scale = odds(coverage) * held0.pow(1.0 + TRUST) / added0 * floor.clamp_(min=1.0)
    ratio = added.mul_(scale).div_(held.pow_(1.0 + TRUST))
    return ratio.pow_(POWER).add_(1.0).reciprocal_().float()


def detail(values: Tensor, beside: Tensor | None = None) -> Tensor:
    """Energy of fine detail, smoothed: mean over channels of (z - blur(z))^2; (batch, 1, *space), at least float32.

    z is ``values``, minus ``beside`` if that is given.
    """
    kind = torch.promote_types(values.dtype, torch.float32)
    batch, channels, *space = values.shape
    energy = values.new_zeros((batch, 1, *space), dtype=kind)
    size = max(1, CHUNK // max(1, energy.numel()))
    for first in range(0, channels, size):
        z = values[:, first : first + size].to(kind)
        if beside is not None:
            z = z - beside[:, first : first + size]
        energy.add_(blur(z).sub_(z).square_().sum(1, keepdim=True))
    energy.div_(channels)
    for _ in range(ROUNDS):
        energy = blur(energy)
    return energy


def mean(values: Tensor, within: Tensor | None = None) -> Tensor:
    """Mean over space, (batch, 1, 1, ...), weighted by ``within``."""
    axes = tuple(range(1, values.ndim))
    if within is None:
        return values.mean(axes, keepdim=True)
    weights = resample(within.to(values), values.shape[2:])
    # If the part is empty in a sample, take the mean over the whole sample.
    weights = torch.where(weights.sum(axes, keepdim=True) > 0, weights, 1.0)
    return (values * weights).sum(axes, keepdim=True) / weights.sum(axes, keepdim=True).clamp(min=TINY)


def blur(values: Tensor) -> Tensor:
    """Mean over each pixel and its direct neighbours in one to three space axes, (batch, channels, *space).

    Values at the border are repeated outwards. Works axis by axis, many times faster on a CPU than avg_pool.
    """
    axes = values.ndim - 2
    total = F.pad(values, [1, 1] * axes, mode="replicate")
    for axis, size in enumerate(values.shape[2:], start=2):
        before, here, after = (total.narrow(axis, i, size) for i in range(3))
        total = (before + here).add_(after)
    return total.mul_(3.0**-axes)


def resample(values: Tensor, space: Sequence[int]) -> Tensor:
    """Resize (batch, channels, *space) to another spatial size, linearly. The result is float32 if the size differs."""
    if tuple(values.shape[2:]) == tuple(space):
        return values
    return F.interpolate(values.float(), tuple(space), mode=_MODE[values.ndim - 2], align_corners=False)


def checked_map(name: str, values: Tensor | None) -> Tensor | None:
    """Check a (batch or 1, 1, *space) map, and clamp it to [0, 1]: resized and blurred masks may exceed it by rounding.

    Raises:
        TypeError: if it is not a tensor.
        ValueError: if it has another shape, or holds NaN.
    """
    if values is None:
        return None
    if not isinstance(values, Tensor):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"{name} is a {type(values).__name__}: give a torch tensor (batch or 1, 1, *space)")
    if not 3 <= values.ndim <= 5 or values.shape[1] != 1 or not values.numel():
        raise ValueError(f"{name} has shape {tuple(values.shape)}: give (batch or 1, 1, *space)")
    if values.isnan().any():
        raise ValueError(f"{name} holds NaN: give numbers from 0 to 1")
    return values.to(torch.promote_types(values.dtype, torch.float16)).clamp(0, 1)


def check_fits(name: str, values: Tensor, latent: Sequence[int]) -> None:
    """Raise ``ValueError`` unless a map fits a latent of this shape, after resizing."""
    if values.ndim != len(latent) or len(values) not in (1, latent[0]):
        raise ValueError(
            f"{name} has shape {tuple(values.shape)} for a latent of {tuple(latent)}: "
            f"give ({latent[0]} or 1, 1, *space) with {len(latent) - 2} space axes"
        )
