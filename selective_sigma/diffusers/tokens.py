"""Samples of tokens: the grid that they fill, and the pixels that they hold."""

from __future__ import annotations

import inspect
import math
from itertools import combinations
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .tree import leaves

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .regions import Shape


AXES = torch.tensor([1.0, 1e3, 1e6, 1e9], dtype=torch.float64)
"""By these, a place on up to four axes becomes one number."""


def grids(arguments: Any, tokens: int, start: int) -> tuple[list[Shape], list[Shape]]:
    """Grids that the model may have been told of: by position ids, and by sizes or shapes."""
    numbers: dict[Any, list[int]] = {}
    placed: list[Shape] = []
    for path, leaf in leaves(arguments):
        if isinstance(leaf, int) and not isinstance(leaf, bool):
            # A tuple (frames, height, width) of its own, or arguments side by side.
            numbers.setdefault(path[:-1], []).append(leaf)
        elif isinstance(leaf, Tensor) and leaf.ndim >= 2 and leaf.numel() < 16 * (tokens + start + 4096):
            placed += _from_ids(leaf, tokens, start)
    behind: dict[Any, list[list[int]]] = {}
    own: list[Shape] = []
    others: list[Shape] = []
    for path, sizes in numbers.items():
        # In a list of pictures' sizes a condition may have as many tokens as the sample, in another shape.
        listed = behind.setdefault(path[:-1], [])
        before = sum(math.prod(other) for other in listed)
        listed.append(sizes)
        possible = [grid for count in (3, 2) for grid in combinations(sizes, count)]
        # Or the sample is of several pictures, alike: layers.
        layers = tokens // max(1, math.prod(sizes))
        if layers > 1 and listed[-layers:] == [sizes] * layers and before + math.prod(sizes) == start + tokens:
            possible.append((layers, *(size for size in sizes if size > 1)))
        (own if before == start else others).extend(possible)
    return placed, own + others


def _from_ids(ids: Tensor, tokens: int, start: int) -> Iterator[Shape]:
    """Rows and columns of position ids, (..., tokens, axes) or (..., axes, tokens), or with an end beside each."""
    if ids.ndim == 4 and ids.shape[-1] == 2:
        yield from _from_ids(ids[..., 0], tokens, start)
    while ids.ndim > 2:
        ids = ids[0] if ids.shape[0] == 1 or ids.ndim > 3 or ids.shape[-1] <= 4 or ids.shape[-2] <= 4 else ids[..., 0]
    ids = ids if ids.shape[1] <= 4 else ids.T
    if ids.shape[1] > 4 or len(ids) < tokens:
        return
    for first in dict.fromkeys((start, 0, len(ids) - tokens)):
        own = ids[first : first + tokens]
        # Else no places: a time for each token, or text without any.
        if 2 * len((own.double() @ AXES[: own.shape[1]]).unique()) > tokens:
            yield tuple(len(column.unique()) for column in own.T)


def unpacked(pipe: Any, grid: Shape, shape: Shape, channels: set[int]) -> Tensor | None:
    """Where the pipe's own unpacking puts each value of a sample, (channels, *space), if it can be asked."""
    # In float64, exact up to any size; 1-based, so that nothing that is made up passes for an index.
    index = torch.arange(1, math.prod(shape) + 1, dtype=torch.float64).reshape(1, *shape)
    for ask in _unpackings(pipe, grid, len(shape) == 2):
        try:
            order = ask(index)[0]
        except (RuntimeError, ValueError):
            continue
        order = order.squeeze(1) if order.ndim > 1 + len(grid) else order
        whole = torch.equal(order.flatten().sort().values, index.flatten())
        if whole and order.ndim == 1 + len(grid) and (not channels or len(order) in channels):
            return order.long() - 1
    return None


def _unpackings(pipe: Any, grid: Shape, tokens: bool) -> Iterator[Any]:
    """What a pipe has to unpack (1, tokens, channels), or (1, channels, height, width), before it decodes."""
    unpack = getattr(pipe, "_unpack_latents", None)
    scale = getattr(pipe, "vae_scale_factor", None)
    if tokens and callable(unpack) and isinstance(scale, int):
        names = list(inspect.signature(unpack).parameters)
        # Of pictures in layers, the first is the whole, which is not counted.
        more = {"vae_scale_factor": scale, "patch_size": 2, "layers": grid[0] - 1}
        known = names[:3] == ["latents", "height", "width"] and more.keys() >= {*names[3:]}
        # Sizes in pixels: a token is two pixels of the latent wide, or what the pipe calls one is.
        for size in ([per * scale * side for side in grid[-2:]] for per in (2, 1) if known):
            yield lambda index, size=size: unpack(index, *size, *(more[name] for name in names[3:]))
    unpatchify = getattr(pipe, "_unpatchify_latents", None)
    if callable(unpatchify):
        yield lambda index: unpatchify(index.movedim(2, 1).unflatten(2, grid) if tokens else index)
