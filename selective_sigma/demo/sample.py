"""A sampler loop in plain torch, the smallest that ``Detailer`` works in."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import torch

from ..detailer import Detailer
from ..prediction import Call, Prediction
from ..settings import Settings
from .network import SIGMA_MAX, SIGMA_MIN

if TYPE_CHECKING:
    from torch import Tensor

    from ..report import Report
    from .network import Network

RHO = 7.0


class Sample(NamedTuple):
    """A picture drawn by ``redraw``."""

    picture: Tensor
    """(batch, 3, h, w) in [-1, 1]."""
    mask: Tensor
    """Mean mask of the steps that told the lie, (batch, 1, h, w); zeros where none did."""
    report: Report


def noise_levels(steps: int, high: float = SIGMA_MAX, low: float = SIGMA_MIN) -> Tensor:
    """(steps + 1,) noise levels from ``high`` to 0 (Karras et al. 2022, eq. 5)."""
    shares = torch.linspace(0, 1, steps)
    levels = (high ** (1 / RHO) + shares * (low ** (1 / RHO) - high ** (1 / RHO))) ** RHO
    return torch.cat([levels, levels.new_zeros(1)])


@torch.inference_mode()
def redraw(
    network: Network, thumbnail: Tensor, settings: Settings | None = None, steps: int = 20, seed: int = 0
) -> Sample:
    """A picture drawn from its thumbnail with Euler steps.

    Args:
        thumbnail: (batch, 3, h, w), enlarged, as ``photos.thumbnail`` makes it.
        settings: of the detailer; None for the plain sampler.
    """
    sigmas = noise_levels(steps)
    detailer = Detailer(settings or Settings(strength=0.0), sigmas, record=True)

    def evaluate(call: Call) -> Prediction:
        assert isinstance(call.x, torch.Tensor)
        return Prediction(network.denoise(call.x, call.sigma, thumbnail))

    noise = torch.randn(thumbnail.shape, generator=torch.Generator().manual_seed(seed))
    x = thumbnail + sigmas[0] * noise.to(thumbnail)
    for sigma, following in pairwise(sigmas):
        denoised = detailer.step(evaluate, x, sigma).denoised
        assert isinstance(denoised, torch.Tensor)
        x = denoised + (following / sigma) * (x - denoised)
    masks = [record.mask for record in detailer.masks if isinstance(record.mask, torch.Tensor)]
    mean = torch.stack(masks).mean(0) if masks else torch.zeros_like(x[:, :1])
    return Sample(x.clamp(-1, 1), mean, detailer.report)
