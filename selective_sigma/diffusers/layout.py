"""The picture's own axes: a scheduler's sample as (batch, channels, *space), and back.

Which axis holds the channels is learned from the number of channels in configs, else from the number of axes and the
model's first layer; which grid tokens fill, from the position ids and sizes among the model's arguments.
"""

from __future__ import annotations

import math
from itertools import combinations
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .slots import Parts, Shape

AUTOENCODER_KEYS = ("latent_channels", "z_dim", "vq_embed_dim", "latent_dim", "decoder_input_channels")
MODEL_KEYS = ("out_channels", "out_visual_dim", "latent_dim", "in_channels")
"""Names of the number of channels in the configs of autoencoders, and in those of models."""
LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
AXES = torch.tensor([1.0, 1e3, 1e6, 1e9], dtype=torch.float64)
"""Weights that turn a position on up to four axes into one number."""


class Layout:
    """Rearranges samples (batch, *shape) for the core, whose masks are (batch, 1, *space).

    Args:
        axis: the axis of one sample that holds the channels.
        grid: (rows, columns) or (frames, rows, columns) of tokens, if a sample is (tokens, channels).
        patch: the side of the square of places that each token holds. Its values are in the order (channel, row,
            column), as in all pipelines of diffusers that were tried.
    """

    def __init__(self, axis: int, grid: Shape | None = None, patch: int = 1):
        self._axis, self._grid, self._patch = axis, grid, patch

    def to_core(self, sample: Tensor) -> Tensor:
        """(batch, *shape) to (batch, channels, *space)."""
        latent = sample.movedim(1 + self._axis, 1)
        if self._grid is None:
            return latent
        return F.pixel_shuffle(latent.unflatten(2, self._grid).movedim(1, -3), self._patch).movedim(-3, 1)

    def from_core(self, latent: Tensor) -> Tensor:
        """(batch, channels, *space) to (batch, *shape)."""
        if self._grid is not None:
            latent = F.pixel_unshuffle(latent.movedim(1, -3), self._patch).movedim(-3, 1).flatten(2)
        return latent.movedim(1, 1 + self._axis)


def learn_layout(pipe: Any, module: Any, shape: Shape, parts: Parts, start: int) -> Layout:
    """The layout of a sample.

    Args:
        pipe: the pipeline, whose autoencoder's config has the number of channels.
        module: the model. Its config may have the number of channels too.
        shape: of one sample as the scheduler has it.
        parts: those of the arguments of the model's call.
        start: where the sample begins among the model's tokens.

    Raises:
        ValueError: the sample's axes cannot be told apart.
    """
    channels = _latent_channels(pipe)
    if len(shape) == 2:
        tokens, width = shape
        by_ids, by_sizes = _grids(parts, tokens, start)
        possible = (tuple(size for size in grid if size > 1) for grid in (*by_ids, *by_sizes))
        grid = next((grid for grid in possible if len(grid) > 1 and math.prod(grid) == tokens), None)
        if grid is not None:
            return Layout(1, grid, _patch(width, channels))
        if any(sum(size > 1 for size in sizes) > 1 and max(sizes) < tokens for sizes in by_ids):
            raise ValueError("its tokens fill no grid: some of them do not belong to the picture")
    if not 2 <= len(shape) <= 4:
        raise ValueError(f"its samples have {len(shape)} axes: supported are audio, pictures and video")
    return Layout(_channel_axis(module, shape, channels))


def _patch(width: int, channels: set[int]) -> int:
    """The smallest side of patches whose ``width`` values have the channels of a latent; 1 if none fits."""
    sides = {side for side in (1, 2, 4) if width % side**2 == 0 and width // side**2 in channels}
    return min(sides, default=1)


def _latent_channels(pipe: Any) -> set[int]:
    """The number of a latent's channels, from the configs of the pipeline's autoencoders."""
    parts = getattr(pipe, "components", None) or {}
    return {size for part in parts.values() if hasattr(part, "decode") for size in _sizes(part, AUTOENCODER_KEYS)}


def _sizes(part: Any, names: tuple[str, ...]) -> set[int]:
    config = getattr(part, "config", None) or {}
    return {size for name in names if isinstance(size := config.get(name), int)}


def _channel_axis(module: Any, shape: Shape, channels: set[int]) -> int:
    """The axis of channels: the one that has their number, else by the number of axes and the model's first layer."""
    possible: list[int] = []
    for sizes in (channels, _sizes(module, MODEL_KEYS)):
        possible = possible or [axis for axis, size in enumerate(shape) if size in sizes]
    if len(possible) == 1:
        return possible[0]
    # Tokens have it last. Pictures have it first, and so have clips if the model's first layer is a 3-D convolution.
    first_layer = next((m for m in module.modules() if isinstance(m, LAYERS)), None)
    if len(shape) == 2 and not possible:
        return 1
    if (len(shape) == 3 or isinstance(first_layer, nn.Conv3d)) and (not possible or 0 in possible):
        return 0
    raise ValueError(
        f"nothing tells which axis of its latent {shape} holds the channels: change the size or the number of frames"
    )


def _grids(parts: Parts, tokens: int, start: int) -> tuple[list[Shape], list[Shape]]:
    """Grids that the model's arguments may describe: (those of position ids, those of sizes)."""
    numbers: dict[Any, list[int]] = {}
    by_ids: list[Shape] = []
    for path, part in parts.items():
        if isinstance(part, int) and not isinstance(part, bool):
            # A tuple (frames, height, width), or arguments side by side.
            numbers.setdefault(path[:-1], []).append(part)
        elif isinstance(part, Tensor) and part.ndim >= 2 and part.numel() < 16 * (tokens + start + 4096):
            by_ids += _by_ids(part, tokens, start)
    lists: dict[Any, list[list[int]]] = {}
    at_start: list[Shape] = []
    others: list[Shape] = []
    for path, sizes in numbers.items():
        # In a list of sizes, a reference picture may have as many tokens as the sample, in another shape.
        siblings = lists.setdefault(path[:-1], [])
        before = sum(math.prod(sibling) for sibling in siblings)
        siblings.append(sizes)
        possible = [grid for count in (3, 2) for grid in combinations(sizes, count)]
        (at_start if before == start else others).extend(possible)
    return by_ids, at_start + others


def _by_ids(ids: Tensor, tokens: int, start: int) -> Iterator[Shape]:
    """Sizes of the grid by position ids: (..., tokens, axes) or (..., axes, tokens), or (..., 2) of start and end."""
    if ids.ndim == 4 and ids.shape[-1] == 2:
        yield from _by_ids(ids[..., 0], tokens, start)
    while ids.ndim > 2:
        ids = ids[0] if ids.shape[0] == 1 or ids.ndim > 3 or ids.shape[-1] <= 4 or ids.shape[-2] <= 4 else ids[..., 0]
    ids = ids if ids.shape[1] <= 4 else ids.T
    if ids.shape[1] > 4 or len(ids) < tokens:
        return
    for first in dict.fromkeys((start, 0, len(ids) - tokens)):
        positions = ids[first : first + tokens]
        # If few of them differ they are not positions, but times of tokens, or ids of text.
        if 2 * len((positions.double() @ AXES[: positions.shape[1]]).unique()) > tokens:
            yield tuple(len(column.unique()) for column in positions.T)
