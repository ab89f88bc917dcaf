"""WHAT: the noise level to tell the model instead of the true one, and the input to match."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from .settings import Family, Lie

SMALLEST = 1e-6
"""Least share of the noise level that is still told: a model cannot be told of none."""


class Told(NamedTuple):
    """What the model is shown: the latent (batch, channels, *space) and sigma (batch,)."""

    x: Tensor
    sigma: Tensor


def per_sample(values: Tensor, like: Tensor) -> Tensor:
    """Reshape (batch,) so that it broadcasts against a latent of any rank."""
    return values.reshape(-1, *[1] * (like.ndim - 1))


def noise_to_signal(sigma: float, family: Family) -> float:
    """sigma / alpha: in it a step has the same size on flow as on VE; finite also at sigma = 1."""
    return sigma if family == "ve" else sigma / max(1.0 - sigma, 1e-4)


def tell(x: Tensor, sigma: Tensor, strength: Tensor, family: Family = "ve", lie: Lie = "noise_to_signal") -> Told:
    """Hide the share ``strength`` of the noise from the model.

    With signal scale alpha (1 for VE, 1 - sigma for rectified flow), ``noise_to_signal``
    lies about sigma / alpha and rescales ``x`` by alpha' / alpha, so that the signal in it
    keeps its scale (method.md section 1). Written so that nothing divides by 1 - sigma.
    ``fixed_input`` multiplies sigma and leaves ``x`` as it is; on VE the two are one.

    Args:
        x: noisy latent (batch, channels, *space).
        sigma: true noise level, (batch,).
        strength: (batch,), at most 1; 0 tells the truth.
    """
    keep = (1.0 - strength).clamp(min=SMALLEST)
    if family == "ve":
        return Told(x, sigma * keep)
    if lie == "fixed_input":
        # A negative strength must not claim more noise than a flow model knows.
        return Told(x, (sigma * keep).clamp(max=1.0))
    signal = 1.0 - (1.0 - keep) * sigma
    # In the precision of sigma: rounding this factor to bf16 would shift the contrast.
    scaled = (x / per_sample(signal, x)).to(x.dtype)
    return Told(scaled, sigma * keep / signal)


def depth(strength: Tensor) -> Tensor:
    """Size of a lie in e-folds, lambda = -ln(1 - s): effects scale with it (section 1)."""
    return -(1.0 - strength).clamp(min=SMALLEST).log()
