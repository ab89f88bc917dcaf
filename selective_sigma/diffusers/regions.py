"""Where one tensor lies within another: found by value, whatever the axes are called.

A pipeline's scheduler steps a sample (batch, ...). Its model is shown that sample beside other
things: stacked for guidance, behind text tokens, before a mask's channels, with axes in another
order or merged into tokens, row by row in a list. ``Region`` says where in such a row it is.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Iterator

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Region:
    """One sample without its batch axis, within one row of a larger tensor.

    Axes of size 1 are left out. ``order``: the sample's axes in the row's order; ``split``: how
    many of them each axis of the row holds, merged; ``start``: where the block begins.
    """

    shape: Shape
    order: tuple[int, ...]
    split: tuple[int, ...]
    start: Shape

    @property
    def sizes(self) -> Shape:
        """Shape of the block within the row."""
        return _sizes(self.shape, self.order, self.split)

    def along(self, row: Shape) -> Shape:
        """Size of a row along each of the sample's axes: its own where the row merges it with others."""
        sizes, at = list(self.shape), 0
        for count, size in zip(self.split, row, strict=True):
            if count == 1:
                sizes[self.order[at]] = size
            at += count
        return tuple(sizes)

    def read(self, row: Tensor) -> Tensor:
        """The sample, of ``shape``."""
        block = row[tuple(slice(s, s + n) for s, n in zip(self.start, self.sizes, strict=True))]
        block = block.reshape([self.shape[axis] for axis in self.order])
        back = sorted(range(len(self.order)), key=self.order.__getitem__)
        return block.permute(back).reshape(self.shape)

    def write(self, row: Tensor, sample: Tensor) -> Tensor:
        """A copy of ``row`` with ``sample`` in its place."""
        block = sample.squeeze().permute(_ranks(self.order)) if self.order else sample
        block = block.reshape(self.sizes).to(row.dtype)
        if block.shape == row.shape:
            return block
        row = row.clone()
        row[tuple(slice(s, s + n) for s, n in zip(self.start, self.sizes, strict=True))] = block
        return row

    def moved(self, before: Shape, after: Shape) -> Iterator[Region]:
        """This place in a row of another shape: where an axis differs, at its start or its end."""
        if len(before) != len(after) or any(n > size for n, size in zip(self.sizes, after, strict=True)):
            return
        choices = [
            (start,) if old == new else dict.fromkeys((0, new - n))
            for start, n, old, new in zip(self.start, self.sizes, before, after, strict=True)
        ]
        for start in itertools.product(*choices):
            yield Region(self.shape, self.order, self.split, start)


def find(sample: Tensor, row: Tensor) -> tuple[Region, Tensor | None] | None:
    """Where ``row`` holds the values of ``sample`` (any shape, no batch axis).

    Returns the place and, where the row holds only some of the values (a first frame that is
    given), a mask of those, of the sample's shape; None where it holds less than half of them.
    """
    axes = [axis for axis, size in enumerate(sample.shape) if size > 1]
    if not axes or row.ndim == 0 or row.numel() < sample.numel():
        return None
    shape = tuple(sample.shape)
    for order in itertools.permutations(axes):
        for split in _splits(len(axes), row.ndim):
            sizes = _sizes(shape, order, split)
            if any(n > size for n, size in zip(sizes, row.shape, strict=True)):
                continue
            block = sample.permute(*order, *(a for a in range(sample.ndim) if a not in axes)).reshape(sizes)
            for start in _starts(block, row):
                place = Region(shape, order, split, start)
                found = place.read(row)
                # A few values first: rows are large, and most places wrong.
                few = slice(None, None, max(1, sample.numel() // 64))
                if float(equal(found.flatten()[few], sample.flatten()[few]).float().mean()) <= 0.25:
                    continue
                own = equal(found, sample)
                if bool(own.all()):
                    return place, None
                if float(own.float().mean()) > 0.5:
                    return place, own
    return None


def _starts(block: Tensor, row: Tensor) -> Iterator[Shape]:
    """Where the block may begin: at either end of each axis, or anywhere along one of them."""
    free = [size - n for size, n in zip(row.shape, block.shape, strict=True)]
    ends = list(itertools.product(*(dict.fromkeys((0, gap)) for gap in free)))
    yield from ends
    for axis, gap in enumerate(free):
        if gap < 2:
            continue
        # Only where the first slice of the block is found; the other axes at their start.
        inner = [slice(0, n) for n in block.shape]
        inner[axis] = slice(0, gap + 1)
        same = equal(row[tuple(inner)], block.narrow(axis, 0, 1)).movedim(axis, 0).reshape(gap + 1, -1).all(1)
        for start in same.nonzero().flatten().tolist():
            yield tuple(start if a == axis else 0 for a in range(row.ndim))


def equal(a: Tensor, b: Tensor) -> Tensor:
    """Whether values are the same but for rounding to the coarser of the two types."""
    step = max(torch.finfo(t.dtype).eps for t in (a, b))
    a, b = a.double(), b.double()
    return (a - b).abs() <= 2 * step * b.abs() + 1e-12


def _splits(count: int, groups: int) -> Iterator[tuple[int, ...]]:
    """Ways to share ``count`` ordered axes among ``groups``, one each first."""
    found = []
    for bars in itertools.combinations_with_replacement(range(count + 1), groups - 1):
        edges = (0, *bars, count)
        found.append(tuple(b - a for a, b in itertools.pairwise(edges)))
    yield from sorted(found, key=max)


def _sizes(shape: Shape, order: tuple[int, ...], split: tuple[int, ...]) -> Shape:
    sizes, at = [], 0
    for n in split:
        sizes.append(math.prod(shape[axis] for axis in order[at : at + n]))
        at += n
    return tuple(sizes)


def _ranks(order: tuple[int, ...]) -> list[int]:
    """``order`` among the axes that are left when those of size 1 are gone."""
    ranked = sorted(order)
    return [ranked.index(axis) for axis in order]
