"""Percentiles of a map, cheap enough for every step, and the stretch between them."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from .lie import per_sample

SAMPLES = 4096
"""Pixels that percentiles are taken from; more would move a mask by less than 0.01."""


class Places(NamedTuple):
    """Pixels to take percentiles from, (batch, count) each: where they are, and which are real."""

    at: Tensor
    real: Tensor


def places(within: Tensor, samples: int | None = SAMPLES) -> Places:
    """About ``samples`` pixels of each sample, spread evenly over those where ``within`` exceeds one half.

    Args:
        within: (batch, 1, *space).
        samples: None for all of them.
    """
    inside = within.flatten(1) > 0.5
    width = inside.shape[1] if samples is None else min(samples, inside.shape[1])
    order = inside.cumsum(1)
    stride = (order[:, -1:] + width - 1).div(width, rounding_mode="floor").clamp(min=1)
    chosen = inside & ((order - 1) % stride == 0)
    index = chosen.int().argsort(dim=1, descending=True, stable=True)[:, :width]
    return Places(index, chosen.gather(1, index))


def percentiles(
    values: Tensor, clip: float, among: Places | None = None, samples: int | None = SAMPLES
) -> tuple[Tensor, Tensor]:
    """The ``clip`` and ``1 - clip`` percentile of each sample, (batch,) each, linear between ranks.

    Args:
        values: (batch, 1, *space), float32.
        among: only these pixels count.
        samples: otherwise, an even stride of about this many pixels; None for all of them. A
            full sort is most of what the published method spends.
    """
    flat = values.flatten(1)
    if among is not None:
        return _percentiles_among(flat, clip, among)
    ordered = flat[:, :: _stride(flat.shape[1], samples)].sort(dim=1).values
    bounds: list[Tensor] = []
    for rank in (clip * (ordered.shape[1] - 1), (1.0 - clip) * (ordered.shape[1] - 1)):
        low = math.floor(rank)
        high = min(low + 1, ordered.shape[1] - 1)
        bounds.append(torch.lerp(ordered[:, low], ordered[:, high], rank - low))
    return bounds[0], bounds[1]


def variance(values: Tensor, among: Places | None = None, samples: int | None = SAMPLES) -> Tensor:
    """Variance over space, mean over channels, (batch,); 0 where it is not finite.

    ``values``: (batch, channels, *space); see ``percentiles`` for the rest.
    """
    flat = values.flatten(2)
    if among is None:
        found = flat[..., :: _stride(flat.shape[2], samples)].float().var(-1, correction=0)
    else:
        at = among.at.expand(len(flat), -1).unsqueeze(1).expand(-1, flat.shape[1], -1)
        weight = among.real.unsqueeze(1).float()
        weight = weight / weight.sum(-1, keepdim=True).clamp(min=1)
        chosen = flat.gather(2, at).float()
        mean = (chosen * weight).sum(-1, keepdim=True)
        found = ((chosen - mean).square_() * weight).sum(-1)
    return found.mean(1).nan_to_num_(0.0, 0.0, 0.0)


def _stride(count: int, samples: int | None) -> int:
    stride = 1 if samples is None else max(1, count // samples)
    # A stride that shares no factor with the pixel count visits every row and column alike.
    while math.gcd(stride, count) > 1:
        stride += 1
    return stride


def _percentiles_among(flat: Tensor, clip: float, among: Places) -> tuple[Tensor, Tensor]:
    rows = among.real.expand(len(flat), -1)
    count = rows.sum(1, keepdim=True).clamp(min=1)
    # Sorted to the end; a sample without a single place is left with a mask of zero.
    absent = torch.finfo(flat.dtype).max
    ordered = flat.gather(1, among.at.expand(len(flat), -1)).masked_fill(~rows, absent).sort(dim=1).values
    rank = torch.cat([clip * (count - 1), (1.0 - clip) * (count - 1)], dim=1)
    low = rank.floor().long()
    high = (low + 1).minimum(count - 1)
    bounds = torch.lerp(ordered.gather(1, low), ordered.gather(1, high), rank - low)
    return bounds[:, 0], bounds[:, 1]


def stretch(
    values: Tensor,
    clip: float,
    among: Places | None = None,
    samples: int | None = SAMPLES,
    least: Tensor | None = None,
) -> Tensor:
    """Stretch each sample to [0, 1] between its two percentiles, over the whole clip for video.

    ``values``: (batch, 1, *space); ``least``: (batch,), the smallest span that is stretched to 1,
    so that a map without contrast stays dark; see ``percentiles`` for the rest.
    """
    low, high = percentiles(values, clip, among, samples)
    span = high - low if least is None else torch.maximum(high - low, least)
    return (values - per_sample(low, values)).mul_(per_sample(1.0 / (span + 1e-8), values)).clamp_(0, 1)
