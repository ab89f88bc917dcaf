"""What a model says, as a prediction of the clean latent, and back.

In VE terms ``x = x0 + sigma n``: every scheduler of diffusers shows a UNet
``x / sqrt(sigma^2 + 1)``, whether it keeps its latent so (DDIM, DPM++, UniPC, LCM) or scales
it for the call (Euler, Heun). In flow terms ``x = (1 - sigma) x0 + sigma n`` is shown as it is.
Tensors are (batch, channels, *space), ``sigma`` one value.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from ..settings import Family


def from_input(shown: Tensor, sigma: Tensor, family: Family) -> Tensor:
    """The noisy latent behind what a model is shown."""
    return shown * _unit(sigma) if family == "ve" else shown


def to_input(x: Tensor, sigma: Tensor, family: Family) -> Tensor:
    """What a model is shown of a noisy latent."""
    return x / _unit(sigma) if family == "ve" else x


def to_denoised(output: Tensor, x: Tensor, sigma: Tensor, prediction: str) -> Tensor:
    """The clean latent that a model's output at (x, sigma) means.

    ``prediction``: ``epsilon``, ``v_prediction`` (Salimans and Ho 2022), ``sample`` or
    ``flow_prediction`` (noise minus clean latent).
    """
    if prediction == "sample":
        return output
    if prediction == "v_prediction":
        return x / _unit(sigma) ** 2 - sigma / _unit(sigma) * output
    return x - sigma * output


def to_output(denoised: Tensor, x: Tensor, sigma: Tensor, prediction: str) -> Tensor:
    """The model output that means this clean latent at (x, sigma); inverse of ``to_denoised``."""
    if prediction == "sample":
        return denoised
    if prediction == "v_prediction":
        return (x / _unit(sigma) ** 2 - denoised) * _unit(sigma) / sigma
    return (x - denoised) / sigma


def _unit(sigma: Tensor) -> Tensor:
    return (sigma**2 + 1).sqrt()
