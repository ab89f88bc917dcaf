"""Finds a scheduler's sample in a call of the model by its values. No argument is identified by its name.

The arguments of a call are a tree of tuples, lists and dicts, and so is its answer. A path is the tuple of keys that
leads to a part of a tree. The rows of a call are a tensor, or a list of tensors. A row holds one sample of the batch,
and may hold other channels, tokens or frames. A ``Region`` is the place of a sample in its row. A ``SampleSlot`` is the
place of a batch of samples in the tree. ``likeness`` compares whole latents.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

Arguments = tuple[tuple[Any, ...], dict[str, Any]]
"""(args, kwargs) of a call."""
Path = tuple[Any, ...]
Shape = tuple[int, ...]


def nodes(tree: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """(path, part) for every part of a tree. A container comes after its parts."""
    if isinstance(tree, (dict, list, tuple)):
        for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
            yield from nodes(value, (*path, key))
    yield path, tree


def leaves(tree: Any) -> Iterator[tuple[Path, Any]]:
    """(path, leaf) for every part of a tree that is not a container."""
    return ((path, part) for path, part in nodes(tree) if not isinstance(part, (dict, list, tuple)))


def at(tree: Any, path: Path) -> Any:
    """The part of a tree at a path; None if there is none."""
    for key in path:
        branches = dict(enumerate(tree)) if isinstance(tree, (list, tuple)) else tree
        if not isinstance(branches, dict) or key not in branches:
            return None
        tree = branches[key]
    return tree


def rebuilt(tree: Any, new: dict[Path, Any], path: Path = ()) -> Any:
    """A copy of a tree with other values at some paths.

    Lists and dicts are copied at every depth: some models remove parts of their arguments (features of T2I adapters)
    that the next call needs.
    """
    if path in new:
        return new[path]
    if type(tree) is dict:
        return {key: rebuilt(value, new, (*path, key)) for key, value in tree.items()}
    if isinstance(tree, dict) and any(changed[: len(path)] == path for changed in new):
        # Output classes of models are dicts that are constructed from their fields.
        return type(tree)(**{key: rebuilt(value, new, (*path, key)) for key, value in tree.items()})
    if type(tree) in (list, tuple):
        return type(tree)(rebuilt(value, new, (*path, key)) for key, value in enumerate(tree))
    return tree


def copied(tree: Any) -> Any:
    """A copy of a tree, with the same leaves."""
    return rebuilt(tree, {})


class UncertainRowsError(ValueError):
    """The parts of a call's arguments cannot be assigned to its rows."""


def selected(tree: Any, rows: Sequence[int], count: int) -> Any:
    """A copy of a call's arguments that has only ``rows`` of all batched tensors and lists.

    Args:
        count: number of rows in the call.

    Raises:
        UncertainRowsError: a list of ``count`` elements, or a tuple of ``count`` tensors, may have one for each row or
            not; or the size of a first axis is a multiple of ``count``.
    """
    if isinstance(tree, Tensor):
        size = tree.shape[0] if tree.ndim else 1
        if size != count and size % count == 0:
            raise UncertainRowsError
        return tree[list(rows)] if size == count and tree.ndim else tree
    if type(tree) is dict:
        return {key: selected(value, rows, count) for key, value in tree.items()}
    if type(tree) in (list, tuple):
        tensors = [value for value in tree if isinstance(value, Tensor)]
        if len(tree) == count and not any(tensor.shape[:1] == (count,) for tensor in tensors):
            if type(tree) is list and len(tensors) == count:
                # A list of rows, each a tensor.
                return [tree[row] for row in rows]
            if type(tree) is list or len(tensors) == count:
                raise UncertainRowsError
        return type(tree)(selected(value, rows, count) for value in tree)
    return tree


@dataclass(frozen=True)
class Region:
    """The place of one sample, without its batch axis, in one row."""

    shape: Shape
    """Of the sample."""
    axes: tuple[int, ...]
    """The row's axis for each axis of the sample that is larger than 1. The region has size 1 on all others."""
    start: Shape
    """Index at which the sample begins, on each axis of the row."""

    @property
    def sizes(self) -> Shape:
        """Size of the region on each axis of the row."""
        large = iter(size for size in self.shape if size > 1)
        return tuple(next(large) if axis in self.axes else 1 for axis in range(len(self.start)))

    def read(self, row: Tensor) -> Tensor:
        """A view of the sample, of ``shape``."""
        return row[tuple(slice(s, s + n) for s, n in zip(self.start, self.sizes, strict=True))].view(self.shape)

    def moved(self, before: Shape, after: Shape) -> Iterator[Region]:
        """The possible regions in a row of another shape: at either end of each axis that differs."""
        if len(before) != len(after) or any(n > size for n, size in zip(self.sizes, after, strict=True)):
            return
        choices = [
            (start,) if old == new else dict.fromkeys((0, new - n))
            for start, n, old, new in zip(self.start, self.sizes, before, after, strict=True)
        ]
        for start in itertools.product(*choices):
            yield replace(self, start=start)


def find_region(sample: Tensor, row: Tensor) -> tuple[Region, Tensor | None] | None:
    """Find the values of ``sample`` (any shape, without batch axis) in ``row``, at either end of each axis.

    Returns:
        (region, present), or None if at most half of the values are found. ``present`` is a mask of those, of the
        sample's shape, where the user gives some of them (a first frame); None if all are found.
    """
    count = sum(size > 1 for size in sample.shape)
    if not count or row.numel() < sample.numel():
        return None
    for axes in itertools.combinations(range(row.ndim), count):
        region = Region(tuple(sample.shape), axes, (0,) * row.ndim)
        gaps = [size - n for size, n in zip(row.shape, region.sizes, strict=True)]
        if min(gaps) < 0:
            continue
        for start in itertools.product(*(dict.fromkeys((0, gap)) for gap in gaps)):
            region = replace(region, start=start)
            values = region.read(row)
            # Compare a few values first: rows are large, and most regions are wrong.
            if float(equal(thinned(values, 64), thinned(sample, 64)).float().mean()) <= 0.25:
                continue
            same = equal(values, sample)
            if bool(same.all()):
                return region, None
            if float(same.float().mean()) > 0.5:
                return region, same
    return None


def thinned(values: Tensor, count: int) -> Tensor:
    """At least ``count`` evenly spaced values of a tensor, on the CPU. They are enough to compare tensors by."""
    return values.detach().flatten()[:: max(1, values.numel() // count)].cpu()


def equal(a: Tensor, b: Tensor) -> Tensor:
    """Which values are the same but for rounding to the coarser of the two dtypes."""
    step = max(torch.finfo(t.dtype).eps for t in (a, b))
    a, b = a.double(), b.double()
    return (a - b).abs() <= 2 * step * b.abs() + 1e-12


@dataclass(frozen=True)
class SampleSlot:
    """Rows that hold the samples of a batch. For guidance there may be several copies, one batch after another."""

    path: Path
    """Leads to a tensor whose first axis counts rows, or to a list of rows."""
    region: Region
    row: Shape
    """Shape of one row."""
    batch: int
    present: Tensor | None = None
    """Which values of a sample are in its row, if some are replaced (a first frame given by the user)."""

    def fits(self, tree: Any) -> bool:
        """Whether a tree has rows of the same shape at the same path."""
        rows = _rows(at(tree, self.path))
        return bool(rows) and len(rows) % self.batch == 0 and all(tuple(row.shape) == self.row for row in rows)

    def read(self, tree: Any) -> list[Tensor]:
        """The copies, each (batch, ...)."""
        rows = torch.stack([self.region.read(row) for row in _rows(at(tree, self.path))])
        return list(rows.split(self.batch))

    def write(self, tree: Any, samples: list[Tensor]) -> Any:
        """A copy of what is at ``path``, with other samples in it.

        Args:
            samples: as many copies as ``read`` returns.
        """
        table = at(tree, self.path)
        rows = [row.clone() for row in _rows(table)]
        for row, sample in zip(rows, torch.cat(samples), strict=True):
            place = self.region.read(row)
            place.copy_(
                sample if self.present is None else torch.where(self.present.to(row.device), sample.to(row), place)
            )
        return torch.stack(rows) if isinstance(table, Tensor) else type(table)(rows)


def find_slot(samples: Tensor, arguments: Arguments) -> SampleSlot | None:
    """Find the values of ``samples`` (batch, ...) in a call's arguments; None if they are not there."""
    batch = len(samples)
    for path, rows in _tables(arguments):
        if len(rows) % batch or not rows[0].is_floating_point() or rows[0].numel() < samples[0].numel():
            continue
        match = find_region(samples[0].cpu(), rows[0].detach().cpu())
        if match is None:
            continue
        region, present = match
        slot = SampleSlot(path, region, tuple(rows[0].shape), batch, present)
        if slot.fits(arguments) and all(_holds(copy, samples, present) for copy in slot.read(arguments)):
            return slot
    return None


def answer_slots(answer: Any, slot: SampleSlot, rows: int) -> Iterator[SampleSlot]:
    """The possible slots, in a model's answer, of the prediction for the samples in ``slot``.

    Args:
        rows: number of rows in the call.
    """
    for path, table in _tables(answer):
        if len(table) == rows and table[0].is_floating_point():
            shape = tuple(table[0].shape)
            for region in slot.region.moved(slot.row, shape):
                yield replace(slot, path=path, region=region, row=shape, present=None)


def _tables(tree: Any) -> Iterator[tuple[Path, list[Tensor]]]:
    """(path, rows) for the tensors with rows, and the lists of tensors, in a tree."""
    return ((path, rows) for path, part in nodes(tree) if (rows := _rows(part)))


def _rows(part: Any) -> list[Tensor]:
    if isinstance(part, Tensor):
        return list(part.unbind(0)) if part.ndim > 1 else []
    return list(part) if isinstance(part, (list, tuple)) and all(isinstance(row, Tensor) for row in part) else []


def _holds(copy: Tensor, samples: Tensor, present: Tensor | None) -> bool:
    if present is not None:
        return bool(equal(copy.cpu(), samples.cpu())[:, present].all())
    # find_region() has compared all values of the first row. Some values of the other rows are enough.
    return bool(equal(thinned(copy, 16_384), thinned(samples, 16_384)).all())


class Likeness(Enum):
    """How similar two latents are."""

    SAME = "equal but for scale and rounding, at least in a part (inpainting replaces the rest)"
    LIKE = "correlated: one may be computed from the other"
    OTHER = "unrelated"


EQUAL_SHARE = 0.25
"""Least share of equal values in latents that are the same."""
CORRELATION = 0.5
"""Least correlation of latents that are alike. Latents that share no noise correlate far less."""


def likeness(latent: Tensor, other: Any) -> Likeness:
    """Compare the values of ``latent`` with those of ``other``, which may hold several copies of it."""
    if not isinstance(other, Tensor) or not latent.numel() or other.numel() % latent.numel():
        return Likeness.OTHER
    # Some schedulers step every copy of guidance (DiT). The copies are equal: compare with the first one.
    other = other.flatten()[: latent.numel()]
    a, b = (thinned(values, 4096).double() for values in (latent, other))
    rounding = max(torch.finfo(values.dtype).eps for values in (latent, other))
    scales = (a / b)[(b != 0) & b.isfinite() & a.isfinite()]
    if not len(scales):
        return Likeness.OTHER
    equal = ((a - scales.median() * b).abs() <= 4 * rounding * a.abs()) & (a != 0)
    if equal.double().mean() > EQUAL_SHARE:
        return Likeness.SAME
    return Likeness.LIKE if torch.corrcoef(torch.stack([a, b]))[0, 1] > CORRELATION else Likeness.OTHER
