"""What passes between a host and the core: a call, the model's answer, and what a step returns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeAlias, TypeVar, cast

import torch
from torch import Tensor

if TYPE_CHECKING:
    from .lie import Lie

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
    lie: Lie | None = None
    """The lie itself, for a host that tells it at a place of its own; None in a plain call."""
    conds: Literal["all", "positive"] = "all"
    """Which conditionings the lie is told to: all, or the positive one, which ``denoised`` is predicted from."""
    followed: bool = False
    """Whether another call of the same step follows, so that this one must leave no trace in the model."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """What the model predicts of one latent."""

    denoised: Latent
    """The prediction of the clean latent that the lie is told about, shaped like ``x``; with guidance the
    conditional one."""
    others: Mapping[str, Latent] = field(default_factory=dict[str, Latent])
    """Whatever else of that shape the step uses (uncond, ...), by name."""
    guided: Latent | None = None
    """In a plain call: the guided prediction, whose detail the mask counts as held; None where it is ``denoised``."""
    cached: bool = False
    """Whether a cache answered in place of the model: the step then stays plain, and its dose is told later."""


@dataclass(frozen=True, slots=True)
class Output(Prediction):
    """What a step came to; the very tensors of the plain call where there was nothing to do."""

    kind: Literal["plain", "lied", "blended"] = "plain"
    """Which calls it is made of: the plain one, the lied one, or both under a mask."""
    index: int = -1
    """The step's index in the run, or -1."""
    mask: Latent | None = None
    """(batch, 1, *space), float32, per stream; None in a step that no lie is told in."""
    effect: Latent | None = None
    """What was added to every prediction, float32; None where each was blended with its own lied one, or none was."""


Evaluate: TypeAlias = Callable[[Call], Prediction]


def map_streams(function: Callable[..., T], *latents: Latent) -> T | list[T]:
    """``function`` of the tensors, stream by stream where they are lists."""
    if isinstance(latents[0], Tensor):
        return function(*latents)
    return [function(*streams) for streams in zip(*latents, strict=True)]


def streams(latent: Latent) -> list[Tensor]:
    """The latent's streams; a single tensor is one."""
    return [latent] if isinstance(latent, Tensor) else latent


def finite_samples(*predictions: Prediction) -> Tensor:
    """(batch,) bool: samples in which no prediction holds NaN or inf."""
    latents = [latent for p in predictions for latent in (p.denoised, *p.others.values())]
    tensors = [t.detach() for latent in latents for t in streams(latent)]
    # One sum for each sample: several times faster than isfinite() on all of it. In float32, as
    # half precision would overflow.
    sums = [t.flatten(1).sum(1, dtype=torch.float32) for t in tensors]
    return (sums[0] if len(sums) == 1 else torch.stack(sums).sum(0)).abs() < torch.inf


def check_latent(x: Latent) -> Tensor:
    """The first stream of ``x``.

    Raises:
        TypeError, ValueError: it is no latent, saying what is one.
    """
    if not isinstance(x, Tensor | list) or not streams(x):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"x is {x!r}: give a tensor (batch, channels, *space), or a list of such")
    for stream in streams(x):
        if not stream.is_floating_point():
            raise TypeError(f"x is {stream.dtype}: latents are floating point; convert them first")
        if not 3 <= stream.ndim <= 5:
            shape = tuple(stream.shape)
            raise ValueError(f"x has shape {shape}: give (batch, channels, *space) with one to three space axes")
    return streams(x)[0]


def check_prediction(prediction: object, x: Latent) -> Prediction:
    """``prediction``, if it is one and shaped like ``x``.

    Raises:
        TypeError, ValueError: naming what is not.
    """
    if not isinstance(prediction, Prediction):
        raise TypeError(f"evaluate returned a {type(prediction).__name__}: return Prediction(denoised)")
    wanted = [tuple(t.shape) for t in streams(x)]
    parts: dict[str, object] = {"denoised": prediction.denoised, **prediction.others}
    if prediction.guided is not None:
        parts["guided"] = prediction.guided
    for name, latent in parts.items():
        kind, tensors = type(latent).__name__, [latent]
        if isinstance(x, list) and isinstance(latent, list):
            tensors = cast("list[object]", latent)
        shapes = [tuple(t.shape) for t in tensors if isinstance(t, Tensor) and t.is_floating_point()]
        if len(shapes) < len(tensors):
            raise TypeError(f"evaluate returned {name} as {kind}: return it as x is, floating point")
        if shapes != wanted:
            raise ValueError(f"evaluate returned {name} of shape {shapes} for x of {wanted}: return it shaped like x")
    return prediction
