"""What passes between a host and the core: a call, the prediction of the model, and the output of a step."""

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
    """The input of the model; in a plain call the very tensors passed to ``step``."""
    sigma: Tensor
    """The noise level to tell the model, shaped like the one passed to ``step``."""
    kind: Literal["plain", "lied"]
    index: int
    """Index of the step in the run, from 0; -1 for a call outside the run's noise levels."""
    true_sigma: Tensor
    """The noise level passed to ``step``. Schedules of conditioning and the like must go by this level."""
    lie: Lie | None = None
    """The lie, for a host that applies it itself instead of using ``x`` and ``sigma``; None in a plain call."""
    conds: Literal["all", "positive"] = "all"
    """The conditionings that the lie is told to: all, or the positive one, which ``denoised`` is predicted from."""
    is_first_of_two: bool = False
    """Whether a second call of the same step is still to come. This call must then leave no trace in the model."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """The predictions of the model for one latent."""

    denoised: Latent
    """The predicted clean latent, shaped like ``x``; with guidance the conditional one, to which the lie is told."""
    others: Mapping[str, Latent] = field(default_factory=dict[str, Latent])
    """Other predictions of that shape that the step uses (uncond, ...), by name."""
    guided: Latent | None = None
    """In a plain call: the guided prediction; None if it is ``denoised``. The mask counts its detail as held."""
    cached: bool = False
    """Whether a cache answered in place of the model. The step then stays plain, and its dose is told later."""


@dataclass(frozen=True, slots=True)
class Output(Prediction):
    """The result of a step. A plain step returns the very tensors of its call."""

    kind: Literal["plain", "lied", "blended"] = "plain"
    """The calls that the result comes from: the plain one, the lied one, or both, blended under a mask."""
    index: int = -1
    """The step's index in the run, or -1."""
    mask: Latent | None = None
    """The mask of the step, (batch, 1, *space), float32, or one per stream; None if no lie was told."""
    effect: Latent | None = None
    """What was added to every prediction, at least float32; None if no effect was added."""


Evaluate: TypeAlias = Callable[[Call], Prediction]


def map_streams(function: Callable[..., T], *latents: Latent) -> T | list[T]:
    """Apply ``function`` to the tensors of all ``latents``. For latents of several streams, do so stream by stream."""
    if isinstance(latents[0], Tensor):
        return function(*latents)
    return [function(*streams) for streams in zip(*latents, strict=True)]


def streams(latent: Latent) -> list[Tensor]:
    """The streams of a latent; a single tensor is one stream."""
    return [latent] if isinstance(latent, Tensor) else latent


def finite_samples(*predictions: Prediction) -> Tensor:
    """Whether each sample is free of NaN and inf in all predictions, (batch,) bool."""
    latents = [latent for p in predictions for latent in (p.denoised, *p.others.values())]
    tensors = [t.detach() for latent in latents for t in streams(latent)]
    # One sum per sample is several times faster than isfinite() of every value. Half precision would overflow.
    sums = [t.flatten(1).sum(1, dtype=torch.float32) for t in tensors]
    return (sums[0] if len(sums) == 1 else torch.stack(sums).sum(0)).abs() < torch.inf


def check_latent(x: Latent) -> Tensor:
    """Check that ``x`` is a latent, and return its first stream.

    Raises:
        TypeError, ValueError: if it is not. The message says what a latent is.
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
    """Check that ``prediction`` is a ``Prediction`` shaped like ``x``, and return it.

    Raises:
        TypeError, ValueError: if it is not. The message names the latent at fault.
    """
    if not isinstance(prediction, Prediction):
        raise TypeError(f"evaluate returned a {type(prediction).__name__}: return Prediction(denoised)")
    expected_shapes = [tuple(t.shape) for t in streams(x)]
    latents: dict[str, object] = {"denoised": prediction.denoised, **prediction.others}
    if prediction.guided is not None:
        latents["guided"] = prediction.guided
    for name, latent in latents.items():
        kind, tensors = type(latent).__name__, [latent]
        if isinstance(x, list) and isinstance(latent, list):
            tensors = cast("list[object]", latent)
        shapes = [tuple(t.shape) for t in tensors if isinstance(t, Tensor) and t.is_floating_point()]
        if len(shapes) < len(tensors):
            raise TypeError(f"evaluate returned {name} as {kind}: return it as x is, floating point")
        if shapes != expected_shapes:
            raise ValueError(
                f"evaluate returned {name} of shape {shapes} for x of {expected_shapes}: return it shaped like x"
            )
    return prediction
