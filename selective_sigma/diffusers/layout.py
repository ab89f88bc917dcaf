"""The picture's own axes: a scheduler's sample as (batch, channels, *space), and back."""

from __future__ import annotations

import inspect
import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from . import tokens

if TYPE_CHECKING:
    from .regions import Shape


LATENT = ("latent_channels", "z_dim", "vq_embed_dim", "latent_dim", "decoder_input_channels")
PREDICTED = ("out_channels", "out_visual_dim", "latent_dim")
TAKEN = ("in_channels",)
"""What configs of autoencoders and models call the size of the axis that is neither space nor time."""


class Layout:
    """Rearranges a sample (batch, *shape) for the core, whose masks are (batch, 1, *space)."""

    def __init__(self, shape: Shape, axis: int, grid: Shape | None, order: Tensor | None = None):
        """Args:
        shape: of one sample as the scheduler has it.
        axis: which of its axes holds the channels.
        grid: rows and columns (and frames before them) of tokens, where shape is (tokens, channels).
        order: for tokens that hold several pixels each: (1, channels, *space) of indices into them.
        """
        self.shape = shape
        self._lead = _lead(shape)
        self._grid = grid
        self._order = order
        self._axis = axis - self._lead
        self.axis = axis if grid is None else None
        """Where a sample that is no tokens has its channels."""

    def core(self, sample: Tensor) -> Tensor:
        """(batch, *shape) to (batch, channels, *space)."""
        if self._order is not None:
            return sample.flatten(1)[:, self._order.flatten().to(sample.device)].reshape(
                len(sample), *self._order.shape
            )
        moved = sample.flatten(0, self._lead).movedim(1 + self._axis, 1)
        return moved if self._grid is None else moved.reshape(*moved.shape[:2], *self._grid)

    def back(self, latent: Tensor) -> Tensor:
        """(batch, channels, *space) to (batch, *shape)."""
        if self._order is not None:
            flat = torch.empty_like(latent.reshape(len(latent), -1))
            flat[:, self._order.flatten().to(latent.device)] = latent.reshape(len(latent), -1)
            return flat.reshape(len(latent), *self.shape)
        latent = latent if self._grid is None else latent.flatten(2)
        return latent.movedim(1, 1 + self._axis)[(slice(None), *(None,) * self._lead)]


def learn(
    pipe: Any,
    module: Any,
    shape: Shape,
    arguments: Any,
    start: int,
    shown: Shape | None = None,
    said: Shape | None = None,
) -> Layout:
    """The layout of a sample, from its shape and what the model is told of its tokens.

    Args:
        pipe: knows how many channels its autoencoder has, and how it packs them.
        module: the model; knows channels where there is no autoencoder.
        arguments: of the model's call, whose position ids or sizes lay out the tokens.
        start: where the sample begins among the model's tokens.
        shown, said: of what holds it in the model's arguments and in its answer, along the sample's axes.

    ``ValueError`` where its axes cannot be told apart.
    """
    latent = _latent(pipe)
    if len(shape) == 2:
        count, width = shape
        placed, counted = tokens.grids(arguments, count, start)
        found = (tuple(size for size in grid if size > 1) for grid in (*placed, *counted))
        grid = next((grid for grid in found if len(grid) > 1 and math.prod(grid) == count), None)
        if grid is not None:
            # Several pixels of the latent to a token, unless it has the channels of one.
            packed = width not in latent
            return Layout(shape, 1, grid, tokens.unpacked(pipe, grid, shape, latent) if packed else None)
        if any(sum(size > 1 for size in sizes) > 1 and max(sizes) < count for sizes in placed):
            raise ValueError("its tokens fill no grid: some of them are not the picture's own")
    if not len(shape) >= 2 or sum(size > 1 for size in shape[:-4]):
        raise ValueError(f"its samples have {len(shape)} axes: supported are audio, pictures and video")
    packed = len(shape) == 3 and bool(latent) and latent.isdisjoint(shape)
    axis = _channels(pipe, module, shape, latent, shown or shape, said or shape)
    return Layout(shape, axis, None, tokens.unpacked(pipe, shape[1:], shape, latent) if packed else None)


def _latent(pipe: Any) -> set[int]:
    """How many channels a latent has, by the autoencoder; empty where there is none."""
    parts = getattr(pipe, "components", None)
    return _sizes([part for part in (parts or {}).values() if hasattr(part, "decode")], LATENT)


def _lead(shape: Shape) -> int:
    """Batch axes of the pipeline's own, before those of a clip."""
    return next((i for i, size in enumerate(shape) if size > 1 or len(shape) - i <= 4), 0)


def _channels(pipe: Any, module: Any, shape: Shape, latent: set[int], shown: Shape, said: Shape) -> int:
    """The axis of channels: the one of their number; the first where none has it."""
    own = range(_lead(shape), len(shape))
    known = [(latent, shape), (_sizes([module], PREDICTED), said), (_sizes([module], TAKEN), shown)]
    if not any(sizes for sizes, _ in known):
        # By its weights: a layer that mixes channels has as many of them, and space of any size.
        known = [({n for weight in module.parameters() if weight.ndim > 1 for n in weight.shape[:2]}, shape)]
    rows = [[axis for axis in own if row[axis] in sizes] for sizes, row in known]
    axes: list[int] = next((found for found in rows if found), [])
    if len(axes) == 1:
        return axes[0]
    # Several of that size: as the pipe makes a latent, or where a condition or a variance lies beside it.
    made = _made(pipe, len(shape))
    wider = [axis for axis in axes if shown[axis] > shape[axis] or said[axis] > shape[axis]]
    if made is not None and made in (axes or own):
        return made
    if len(wider) == 1:
        return wider[0]
    # Or by what else tells of channels: sound's autoencoder may have as many as the clip has frames.
    for found in rows:
        axes = [axis for axis in axes if axis in found] or axes
    if len(axes) == 1:
        return axes[0]
    # Pictures have them first; clips have any order, but first where they go through a convolution as they are.
    whole = any(weight.ndim == 5 and weight.shape[1] == shown[own[0]] for weight in module.parameters())
    if not axes or (own[0] in axes and (len(own) == 3 or whole)):
        return own[0]
    sizes = dict.fromkeys(shape[axis] for axis in axes)
    raise ValueError(
        f"its latent {shape} has several axes of {' or '.join(str(n) for n in sizes)}, the number of channels: "
        "change the size or the number of frames"
    )


def _made(pipe: Any, axes: int) -> int | None:
    """The axis along which the pipe makes latents of more channels wider, if it can be asked."""
    make = getattr(pipe, "prepare_latents", None)
    if not callable(make):
        return None
    taken = inspect.signature(make).parameters
    given = {"batch_size": 1, "num_frames": 9, "video_length": 9, "height": 64, "width": 64}
    given |= {"dtype": torch.float32, "device": torch.device("cpu")}
    shapes = []
    for channels in (4, 8):
        # A generator of its own, so that nothing else draws other numbers.
        more = {"num_channels_latents": channels, "generator": torch.Generator().manual_seed(0)}
        try:
            latent = make(**{name: value for name, value in {**given, **more}.items() if name in taken})
        except Exception:
            return None
        latent = latent[0] if isinstance(latent, tuple) else latent
        if not isinstance(latent, Tensor):
            return None
        shapes.append(tuple(latent.shape[1:]))
    one, two = shapes
    differ = [i for i, (a, b) in enumerate(zip(one, two, strict=False)) if a != b]
    return differ[0] if len(one) == len(two) == axes and len(differ) == 1 else None


def _sizes(parts: list[Any], names: tuple[str, ...]) -> set[int]:
    configs = [getattr(part, "config", None) or {} for part in parts]
    return {size for config in configs for name in names if isinstance(size := config.get(name), int)}
