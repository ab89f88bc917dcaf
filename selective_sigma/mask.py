"""WHERE: the response mask, from the plain and the lied prediction of one step."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Sequence

POWER = 6.0
"""Exponent of k / q in the mask. A higher one turns the mask from dark to bright more sharply."""
HALF_LIT = 0.8
"""The q of a place whose mask is 0.5 at coverage 0.5."""
HELD_POWER = 0.5
"""Exponent of E / E0 in q. A higher one favours places that hold much detail more strongly."""
BLUR_ROUNDS = 6
"""How many times a map of energy is blurred."""
FLOOR = 0.12
"""Value of V, below which the whole mask darkens.

V is the variation of the detail held, relative to the detail that the lie adds. In a picture with a subject the detail
varies. In a picture without any, the detail is equally small everywhere.
"""
MEAN_FLOOR = 0.03
"""Value of R0, below which the whole mask darkens.

R0 is the detail held in the whole picture, relative to the detail that the lie adds. Early in a run it is small, and
without this floor the mask is bright where the lie adds next to nothing, as in the sky behind a small subject.
"""
CHUNK_VALUES = 2**20
"""Number of values that ``detail_energy`` processes at once, in whole channels.

Compared with all channels at once, a clip takes a third of the time and far less memory.
"""
TINY_ENERGY = 1e-12
"""Energy of fine detail that counts as none."""

_INTERPOLATION = {1: "linear", 2: "bilinear", 3: "trilinear"}


def odds(coverage: float) -> float:
    """The odds k of ``response`` at a coverage: 0 at coverage 1, ``HALF_LIT`` at 0.5, infinite at 0.

    With these exponents the mean of the mask rises without a jump along the slider, up to its last tenth. That one
    lights what holds nothing, up to half of a photograph (method.md section 2).
    """
    return HALF_LIT * (2.0 * (1.0 - coverage)) ** 2 / math.sqrt(2.0 * coverage) if coverage > 0 else math.inf


def response(
    plain: Tensor,
    lied: Tensor,
    coverage: float,
    dose: float,
    within: Tensor | None = None,
    guided: Tensor | None = None,
) -> Tensor:
    """The response mask: bright where the picture holds much fine detail and the lie adds little beside it.

    The formula is that of method.md, section 2::

        m = 1 / (1 + (k / q)^POWER)
        q = (E / E0)^HELD_POWER (R / R0) min(1, V / FLOOR) min(1, R0 / MEAN_FLOOR)
        R = dose^2 E / G,  R0 = dose^2 E0 / G0,  V = dose^2 S / G0

    - E: energy of fine detail in the picture that the effect is added to.
    - G: energy of fine detail in ``lied - plain``.
    - E0, G0: means of E and G over the sample; for video, over the whole clip.
    - S: standard deviation of E over the sample.
    - k: ``odds`` of coverage.
    - V: small in a picture without a subject. Such a picture stays dark.

    Args:
        plain, lied: predictions of one step, (batch, channels, *space).
        guided: the picture that the effect is added to, shaped like ``plain``; None if it is ``plain``.
        coverage: at 0 the mask is exactly 0, at 1 exactly 1.
        dose: size of the lie in e-folds, -ln(1 - strength).
        within: (batch or 1, 1, *space) in [0, 1], the part over which the means are taken.

    Returns:
        (batch, 1, *space), float32; NaN in a sample whose predictions are not finite.
    """
    held = detail_energy(plain if guided is None else guided).clamp_(min=TINY_ENERGY)
    added = detail_energy(lied, minus=plain).clamp_(min=TINY_ENERGY)
    mean_held, mean_added = (mean(energy, within).clamp_(min=TINY_ENERGY) for energy in (held, added))
    variation = mean((held - mean_held).square_(), within).sqrt_().clamp_(min=TINY_ENERGY)
    # k / q = scale * G / E^(1 + HELD_POWER), where scale is k E0^(1 + HELD_POWER) / G0, times max(1, FLOOR / V) and
    # max(1, MEAN_FLOOR / R0).
    offered = mean_added / dose**2
    floor_factors = (FLOOR * offered / variation).clamp_(min=1.0) * (MEAN_FLOOR * offered / mean_held).clamp_(min=1.0)
    scale = odds(coverage) * mean_held.pow(1.0 + HELD_POWER) / mean_added * floor_factors
    ratio = added.mul_(scale).div_(held.pow_(1.0 + HELD_POWER))
    return ratio.pow_(POWER).add_(1.0).reciprocal_().float()


def detail_energy(values: Tensor, minus: Tensor | None = None) -> Tensor:
    """Energy of fine detail, smoothed: the blurred mean over channels of (z - blur(z))^2.

    Args:
        values: z, (batch, channels, *space).
        minus: shaped like ``values``; if given, z is ``values - minus``.

    Returns:
        (batch, 1, *space), at least float32.
    """
    dtype = torch.promote_types(values.dtype, torch.float32)
    batch, channels, *space = values.shape
    energy = values.new_zeros((batch, 1, *space), dtype=dtype)
    chunk = max(1, CHUNK_VALUES // max(1, energy.numel()))
    for start in range(0, channels, chunk):
        z = values[:, start : start + chunk].to(dtype)
        if minus is not None:
            z = z - minus[:, start : start + chunk]
        energy.add_(blur(z).sub_(z).square_().sum(1, keepdim=True))
    energy.div_(channels)
    for _ in range(BLUR_ROUNDS):
        energy = blur(energy)
    return energy


def mean(values: Tensor, within: Tensor | None = None) -> Tensor:
    """Mean over space, (batch, 1, 1, ...), weighted by ``within``."""
    axes = tuple(range(1, values.ndim))
    if within is None:
        return values.mean(axes, keepdim=True)
    weights = resample(within.to(values), values.shape[2:])
    # Where ``within`` is empty, the mean is taken over the whole sample.
    weights = torch.where(weights.sum(axes, keepdim=True) > 0, weights, 1.0)
    return (values * weights).sum(axes, keepdim=True) / weights.sum(axes, keepdim=True).clamp(min=TINY_ENERGY)


def blur(values: Tensor) -> Tensor:
    """Mean over each pixel and its direct neighbours along one to three space axes, (batch, channels, *space).

    Values at the border are repeated outwards. The sum is taken axis by axis, which is many times faster on a CPU than
    ``avg_pool``.
    """
    axes = values.ndim - 2
    total = F.pad(values, [1, 1] * axes, mode="replicate")
    for axis, size in enumerate(values.shape[2:], start=2):
        previous, current, following = (total.narrow(axis, offset, size) for offset in range(3))
        total = (previous + current).add_(following)
    return total.mul_(3.0**-axes)


def resample(values: Tensor, space: Sequence[int]) -> Tensor:
    """Resize (batch, channels, *space) to another spatial size, linearly. The result is float32 if the size changes."""
    if tuple(values.shape[2:]) == tuple(space):
        return values
    return F.interpolate(values.float(), tuple(space), mode=_INTERPOLATION[values.ndim - 2], align_corners=False)


def checked_map(name: str, values: Tensor | None) -> Tensor | None:
    """Check a map, (batch or 1, 1, *space), and clamp it to [0, 1].

    Resized and blurred masks may exceed this range by rounding.

    Raises:
        TypeError: if the map is not a tensor.
        ValueError: if it has another shape or holds NaN.
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
