"""What passes between a host and the core: a call, the model's answer, and what a step returns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias, TypeVar

import torch
from torch import Tensor

Latent: TypeAlias = Tensor | list[Tensor]
"""(batch, channels, *space) with one to three space axes, or one such per stream (video and audio)."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Call:
    """One call of the model, as ``evaluate`` gets it."""

    x: Latent
    """What to show the model; in a plain call the very tensors that ``step`` got."""
    sigma: Tensor
    """What to tell it, shaped as the host gave it."""
    kind: Literal["plain", "lied"]
    index: int
    """Which step of the run this is, from 0; -1 for a call outside the run's noise levels."""
    true_sigma: Tensor
    """The noise level of ``x``, by which schedules of conditioning and the like must go."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """What the model says of one latent."""

    denoised: Latent
    """The prediction of the clean latent, shaped like ``x``."""
    others: Mapping[str, Latent] = field(default_factory=dict[str, Latent])
    """Whatever else of that shape is to be blended with the same mask (uncond, ...), by name."""


@dataclass(frozen=True, slots=True)
class Output(Prediction):
    """What a step came to; the very tensors of the plain call where there was nothing to do."""

    kind: Literal["plain", "lied", "blended"] = "plain"
    """Which calls it is made of: the plain one, the lied one, or both under a mask."""
    index: int = -1
    """The step's index in the run, or -1."""
    mask: Latent | None = None
    """(batch, 1, *space), float32, per stream; None in a step that no lie is told in."""


Evaluate: TypeAlias = Callable[[Call], Prediction]


def each(function: Callable[..., T], *latents: Latent) -> T | list[T]:
    """``function`` of the tensors, stream by stream where they are lists."""
    if isinstance(latents[0], Tensor):
        return function(*latents)
    return [function(*streams) for streams in zip(*latents, strict=True)]


def streams(latent: Latent) -> list[Tensor]:
    """The latent's streams; a single tensor is one."""
    return [latent] if isinstance(latent, Tensor) else latent


def finite(prediction: Prediction) -> Tensor:
    """(batch,) bool: samples in which nothing is NaN or inf."""
    tensors = [t.detach() for latent in (prediction.denoised, *prediction.others.values()) for t in streams(latent)]
    # One sum for each sample: several times faster than isfinite() on all of it. In float32, as
    # half precision would overflow.
    sums = [t.flatten(1).sum(1, dtype=torch.float32) for t in tensors]
    return (sums[0] if len(sums) == 1 else torch.stack(sums).sum(0)).abs() < torch.inf
