"""The picture's own axes: a scheduler's sample as (batch, channels, *space), and back.

Which axis holds the channels, which grid tokens fill and which pixels a token holds is learned from the sample's shape,
from the position ids and sizes among the model's arguments, and from the pipeline's own unpacking.
"""

from __future__ import annotations

import inspect
import math
from itertools import combinations
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .slots import leaves

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .slots import Arguments, Shape

AUTOENCODER_KEYS = ("latent_channels", "z_dim", "vq_embed_dim", "latent_dim", "decoder_input_channels")
MODEL_KEYS = ("out_channels", "out_visual_dim", "latent_dim", "in_channels")
"""Names of the number of channels in the configs of autoencoders, and in those of models."""
AXES = torch.tensor([1.0, 1e3, 1e6, 1e9], dtype=torch.float64)
"""Weights that turn a position on up to four axes into one number."""


class Layout:
    """Rearranges samples (batch, *shape) for the core, whose masks are (batch, 1, *space).

    Args:
        shape: shape of one sample as the scheduler has it.
        axis: the axis of ``shape`` that holds the channels.
        grid: (rows, columns) or (frames, rows, columns) of tokens, if ``shape`` is (tokens, channels).
        order: indices into a flattened sample, (channels, *space), if each token holds several pixels.
    """

    def __init__(self, shape: Shape, axis: int, grid: Shape | None = None, order: Tensor | None = None):
        self.shape = shape
        self._axis, self._grid, self._order = axis, grid, order

    def to_core(self, sample: Tensor) -> Tensor:
        """(batch, *shape) to (batch, channels, *space)."""
        if self._order is not None:
            order = self._order.to(sample.device)
            return sample.flatten(1)[:, order.flatten()].reshape(-1, *order.shape)
        moved = sample.movedim(1 + self._axis, 1)
        return moved if self._grid is None else moved.unflatten(2, self._grid)

    def from_core(self, latent: Tensor) -> Tensor:
        """(batch, channels, *space) to (batch, *shape)."""
        if self._order is not None:
            sample = torch.empty_like(latent.flatten(1))
            sample[:, self._order.flatten().to(latent.device)] = latent.flatten(1)
            return sample.reshape(-1, *self.shape)
        latent = latent if self._grid is None else latent.flatten(2)
        return latent.movedim(1, 1 + self._axis)


def learn_layout(pipe: Any, module: Any, shape: Shape, arguments: Arguments, start: int) -> Layout:
    """The layout of a sample.

    Args:
        pipe: the pipeline. Its autoencoder's config has the number of channels; it may have a method to unpack latents.
        module: the model. Its config may have the number of channels too.
        shape: of one sample as the scheduler has it.
        arguments: of the model's call.
        start: where the sample begins among the model's tokens.

    Raises:
        ValueError: the sample's axes cannot be told apart.
    """
    channels = _latent_channels(pipe)
    if len(shape) == 2:
        tokens, width = shape
        by_ids, by_sizes = _grids(arguments, tokens, start)
        possible = (tuple(size for size in grid if size > 1) for grid in (*by_ids, *by_sizes))
        grid = next((grid for grid in possible if len(grid) > 1 and math.prod(grid) == tokens), None)
        if grid is not None:
            # A token holds several pixels, unless it has the channels of one.
            return Layout(shape, 1, grid, None if width in channels else _order(pipe, grid, shape, channels))
        if any(sum(size > 1 for size in sizes) > 1 and max(sizes) < tokens for sizes in by_ids):
            raise ValueError("its tokens fill no grid: some of them do not belong to the picture")
    if not 2 <= len(shape) <= 4:
        raise ValueError(f"its samples have {len(shape)} axes: supported are audio, pictures and video")
    # No axis has the latent's channels: each place holds several pixels.
    packed = len(shape) == 3 and bool(channels) and channels.isdisjoint(shape)
    axis = _channel_axis(pipe, module, shape, channels)
    return Layout(shape, axis, None, _order(pipe, shape[1:], shape, channels) if packed else None)


def _latent_channels(pipe: Any) -> set[int]:
    """The number of a latent's channels, from the configs of the pipeline's autoencoders."""
    parts = getattr(pipe, "components", None) or {}
    return {size for part in parts.values() if hasattr(part, "decode") for size in _sizes(part, AUTOENCODER_KEYS)}


def _sizes(part: Any, names: tuple[str, ...]) -> set[int]:
    config = getattr(part, "config", None) or {}
    return {size for name in names if isinstance(size := config.get(name), int)}


def _channel_axis(pipe: Any, module: Any, shape: Shape, channels: set[int]) -> int:
    """The axis of channels: the one that has their number."""
    possible: list[int] = []
    for sizes in (channels, _sizes(module, MODEL_KEYS)):
        possible = possible or [axis for axis, size in enumerate(shape) if size in sizes]
    if len(possible) == 1:
        return possible[0]
    # Several axes have such a size (a clip may have as many frames), or none has. Ask the pipeline.
    by_pipe = _axis_by_pipe(pipe, len(shape))
    if by_pipe is not None and by_pipe in (possible or range(len(shape))):
        return by_pipe
    # Tokens have it last, and pictures first.
    if not possible and len(shape) == 2:
        return 1
    if len(shape) == 3 and (not possible or 0 in possible):
        return 0
    raise ValueError(
        f"nothing tells which axis of its latent {shape} holds the channels: change the size or the number of frames"
    )


def _axis_by_pipe(pipe: Any, axes: int) -> int | None:
    """The axis along which the pipeline prepares wider latents for more channels; None where it cannot be asked."""
    prepare = getattr(pipe, "prepare_latents", None)
    if not callable(prepare):
        return None
    possible = {"batch_size": 1, "num_frames": 9, "video_length": 9, "height": 64, "width": 64}
    possible |= {"dtype": torch.float32, "device": torch.device("cpu")}
    shapes: list[Shape] = []
    for channels in (4, 8):
        # A generator of its own, so that no other one moves on.
        possible |= {"num_channels_latents": channels, "generator": torch.Generator().manual_seed(0)}
        names = inspect.signature(prepare).parameters
        try:
            latent: Any = prepare(**{name: value for name, value in possible.items() if name in names})
            latent = latent[0] if isinstance(latent, tuple) else latent
            shapes.append(tuple(latent.shape[1:]))
        except Exception:
            return None
    differ = [i for i, (a, b) in enumerate(zip(*shapes, strict=False)) if a != b]
    return differ[0] if all(len(shape) == axes for shape in shapes) and len(differ) == 1 else None


def _grids(arguments: Arguments, tokens: int, start: int) -> tuple[list[Shape], list[Shape]]:
    """Grids that the model's arguments may describe: (those of position ids, those of sizes)."""
    numbers: dict[Any, list[int]] = {}
    by_ids: list[Shape] = []
    for path, leaf in leaves(arguments):
        if isinstance(leaf, int) and not isinstance(leaf, bool):
            # A tuple (frames, height, width), or arguments side by side.
            numbers.setdefault(path[:-1], []).append(leaf)
        elif isinstance(leaf, Tensor) and leaf.ndim >= 2 and leaf.numel() < 16 * (tokens + start + 4096):
            by_ids += _by_ids(leaf, tokens, start)
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


def _order(pipe: Any, grid: Shape, shape: Shape, channels: set[int]) -> Tensor | None:
    """Which value of a flattened sample the pipeline unpacks to each place: indices, (channels, *space)."""
    # Float64 holds all indices exactly. They begin at 1, since padding has zeros.
    index = torch.arange(1, math.prod(shape) + 1, dtype=torch.float64).reshape(1, *shape)
    for unpack in _unpackings(pipe, grid, len(shape) == 2):
        try:
            order = unpack(index)[0]
        except (RuntimeError, ValueError):
            continue
        order = order.squeeze(1) if order.ndim > 1 + len(grid) else order
        whole = torch.equal(order.flatten().sort().values, index.flatten())
        if whole and order.ndim == 1 + len(grid) and (not channels or len(order) in channels):
            return order.long() - 1
    return None


def _unpackings(pipe: Any, grid: Shape, tokens: bool) -> Iterator[Any]:
    """Functions with which the pipeline unpacks (1, tokens, channels) or (1, channels, height, width) to decode it."""
    unpack, scale = getattr(pipe, "_unpack_latents", None), getattr(pipe, "vae_scale_factor", None)
    if tokens and callable(unpack) and isinstance(scale, int):
        names = list(inspect.signature(unpack).parameters)
        more = {"vae_scale_factor": scale, "patch_size": 2}
        if names[:3] == ["latents", "height", "width"] and more.keys() >= {*names[3:]}:
            # The size in pixels of the picture. A token is two pixels of the latent wide, or one.
            for per in (2, 1):
                size = [per * scale * side for side in grid[-2:]]
                yield lambda index, size=size: unpack(index, *size, *(more[name] for name in names[3:]))
    unpatchify = getattr(pipe, "_unpatchify_latents", None)
    if callable(unpatchify):
        yield lambda index: unpatchify(index.movedim(2, 1).unflatten(2, grid) if tokens else index)
