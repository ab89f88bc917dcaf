"""WHAT: the noise level to tell the model instead of the true one, and the input to match."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .settings import Family, Lie

SMALLEST = 1e-6
"""Least share of the noise level that is still told: a model cannot be told of none."""


def noise_to_signal(sigma: float, family: Family) -> float:
    """sigma / alpha: in it a step has the same size on flow as on VE; finite also at sigma = 1."""
    return sigma if family == "ve" else sigma / max(1.0 - sigma, 1e-4)


def e_folds(strength: float) -> float:
    """Size of a lie, -ln(1 - strength): doses add in it, and effects scale with it."""
    return -math.log(max(1.0 - strength, SMALLEST))


def factors(sigma: float, strength: float, family: Family = "ve", lie: Lie = "noise_to_signal") -> tuple[float, float]:
    """What to multiply sigma and the latent by, to hide the share ``strength`` of the noise.

    With signal scale alpha (1 for VE, 1 - sigma for rectified flow), ``noise_to_signal`` lies about
    sigma / alpha and rescales the latent by alpha' / alpha, so that the signal in it keeps its scale
    (method.md section 1). Written so that nothing divides by 1 - sigma. ``fixed_input`` multiplies
    sigma and leaves the latent as it is; on VE the two are one.
    """
    keep = max(1.0 - strength, SMALLEST)
    if family == "ve":
        return keep, 1.0
    if lie == "fixed_input":
        # A negative strength must not claim more noise than a flow model knows.
        return min(keep, 1.0 / sigma) if sigma > 0 else keep, 1.0
    signal = 1.0 - (1.0 - keep) * sigma
    return keep / signal, 1.0 / signal


def rescale(sigma: float, lied: float, family: Family, lie: Lie) -> float:
    """alpha' / alpha for a latent that is at ``sigma`` and said to be at ``lied``."""
    if family == "ve" or lie == "fixed_input":
        return 1.0
    return (1.0 - lied) / max(1.0 - sigma, SMALLEST)
