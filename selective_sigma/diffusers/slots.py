"""Where a scheduler's sample sits in a call of the model, found by value: no argument is known by name.

A call's arguments, and its answer, are a tree of tuples, lists and dicts. A path leads to a tensor of rows in it, or
to a list of rows. A row holds one sample of the batch, before or behind other channels, tokens or frames. ``Region`` is
a sample's place in its row, ``SampleSlot`` the places of a batch in the tree. ``likeness`` compares whole latents.
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

Path = tuple[Any, ...]
Shape = tuple[int, ...]


def nodes(tree: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """(path, part) for every part of a tree, a container after what it holds."""
    if isinstance(tree, (dict, list, tuple)):
        for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
            yield from nodes(value, (*path, key))
    yield path, tree


def leaves(tree: Any) -> Iterator[tuple[Path, Any]]:
    """(path, leaf) for all that is no container."""
    return ((path, part) for path, part in nodes(tree) if not isinstance(part, (dict, list, tuple)))


def at(tree: Any, path: Path) -> Any:
    """The part of a tree at a path; None where the tree has none."""
    for key in path:
        branches = dict(enumerate(tree)) if isinstance(tree, (list, tuple)) else tree
        if not isinstance(branches, dict) or key not in branches:
            return None
        tree = branches[key]
    return tree


def rebuilt(tree: Any, new: dict[Path, Any], path: Path = ()) -> Any:
    """A copy of a tree with other values at some paths.

    Lists and dicts are copied at every depth: some models take things out of their arguments (T2I adapters' features)
    that a further call still needs.
    """
    if path in new:
        return new[path]
    if type(tree) is dict:
        return {key: rebuilt(value, new, (*path, key)) for key, value in tree.items()}
    if isinstance(tree, dict) and any(changed[: len(path)] == path for changed in new):
        # A model's output class is a dict with fields, built from them.
        return type(tree)(**{key: rebuilt(value, new, (*path, key)) for key, value in tree.items()})
    if type(tree) in (list, tuple):
        return type(tree)(rebuilt(value, new, (*path, key)) for key, value in enumerate(tree))
    return tree


class UncertainRowsError(ValueError):
    """It is uncertain which part of a call's arguments belongs to which row."""


def selected(tree: Any, rows: Sequence[int], count: int) -> Any:
    """A copy of a call's arguments with only ``rows`` of everything that is batched.

    Args:
        count: rows of the call.

    Raises:
        UncertainRowsError: a list is as long as ``count``, perhaps by chance; or a first axis holds several entries
            for each row.
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
    """The row's axes for those of the sample that are larger than 1. The sample has size 1 on all others."""
    start: Shape
    """Where the sample begins on each axis of the row."""

    @property
    def sizes(self) -> Shape:
        """Shape of the sample as the row has it."""
        large = iter(size for size in self.shape if size > 1)
        return tuple(next(large) if axis in self.axes else 1 for axis in range(len(self.start)))

    def read(self, row: Tensor) -> Tensor:
        """A view of the sample, of ``shape``."""
        return row[tuple(slice(s, s + n) for s, n in zip(self.start, self.sizes, strict=True))].view(self.shape)

    def moved(self, before: Shape, after: Shape) -> Iterator[Region]:
        """This region in a row of shape ``after`` in place of ``before``: at either end of each axis that differs."""
        if len(before) != len(after) or any(n > size for n, size in zip(self.sizes, after, strict=True)):
            return
        choices = [
            (start,) if old == new else dict.fromkeys((0, new - n))
            for start, n, old, new in zip(self.start, self.sizes, before, after, strict=True)
        ]
        for start in itertools.product(*choices):
            yield replace(self, start=start)


def find_region(sample: Tensor, row: Tensor) -> tuple[Region, Tensor | None] | None:
    """Where ``row`` holds the values of ``sample`` (any shape, without batch axis): at either end of each axis.

    Returns:
        The region; and, where the row has only some of the values (a first frame is the user's own), a mask of those,
        of the sample's shape. None where it has less than half of them.
    """
    count = sum(size > 1 for size in sample.shape)
    if not count or row.numel() < sample.numel():
        return None
    few = slice(None, None, max(1, sample.numel() // 64))
    for axes in itertools.combinations(range(row.ndim), count):
        region = Region(tuple(sample.shape), axes, (0,) * row.ndim)
        gaps = [size - n for size, n in zip(row.shape, region.sizes, strict=True)]
        if min(gaps) < 0:
            continue
        for start in itertools.product(*(dict.fromkeys((0, gap)) for gap in gaps)):
            region = replace(region, start=start)
            values = region.read(row)
            # A few values first: rows are large, and most places wrong.
            if float(equal(values.flatten()[few], sample.flatten()[few]).float().mean()) <= 0.25:
                continue
            same = equal(values, sample)
            if bool(same.all()):
                return region, None
            if float(same.float().mean()) > 0.5:
                return region, same
    return None


def equal(a: Tensor, b: Tensor) -> Tensor:
    """Whether values are the same but for rounding to the coarser of the two types."""
    step = max(torch.finfo(t.dtype).eps for t in (a, b))
    a, b = a.double(), b.double()
    return (a - b).abs() <= 2 * step * b.abs() + 1e-12


@dataclass(frozen=True)
class SampleSlot:
    """Rows that hold the samples of a batch, once or, for guidance, in several copies, batch after batch."""

    path: Path
    """Leads to a tensor whose first axis counts rows, or to a list of rows."""
    region: Region
    row: Shape
    """Of one row."""
    batch: int
    noisy: Tensor | None = None
    """Which of a sample's values are in its row, where others are replaced (a first frame is the user's own)."""

    def fits(self, tree: Any) -> bool:
        """Whether a tree has rows of the same shape at the same path."""
        rows = _rows(at(tree, self.path))
        return bool(rows) and len(rows) % self.batch == 0 and all(tuple(row.shape) == self.row for row in rows)

    def read(self, tree: Any) -> list[Tensor]:
        """The copies, each (batch, ...)."""
        rows = torch.stack([self.region.read(row) for row in _rows(at(tree, self.path))])
        return list(rows.split(self.batch))

    def write(self, tree: Any, samples: list[Tensor]) -> Any:
        """What is at ``path``, with other samples in it: as many copies as ``read`` returns."""
        table = at(tree, self.path)
        rows = [row.clone() for row in _rows(table)]
        for row, sample in zip(rows, torch.cat(samples), strict=True):
            place = self.region.read(row)
            if self.noisy is None:
                place.copy_(sample)
            else:
                place.copy_(torch.where(self.noisy.to(row.device), sample.to(row), place))
        return torch.stack(rows) if isinstance(table, Tensor) else type(table)(rows)


def find_slot(samples: Tensor, arguments: Any) -> SampleSlot | None:
    """Where a call's arguments hold the values of ``samples`` (batch, ...)."""
    batch = len(samples)
    for path, rows in _tables(arguments):
        if len(rows) % batch or not rows[0].is_floating_point() or rows[0].numel() < samples[0].numel():
            continue
        match = find_region(samples[0].cpu(), rows[0].detach().cpu())
        if match is None:
            continue
        region, noisy = match
        slot = SampleSlot(path, region, tuple(rows[0].shape), batch, noisy)
        if slot.fits(arguments) and all(_holds(copy, samples, noisy) for copy in slot.read(arguments)):
            return slot
    return None


def answer_slots(answer: Any, slot: SampleSlot, rows: int) -> Iterator[SampleSlot]:
    """Where in a model's answer the prediction for the samples in ``slot`` may be.

    Args:
        rows: of the call.
    """
    for path, table in _tables(answer):
        if len(table) == rows and table[0].is_floating_point():
            shape = tuple(table[0].shape)
            for region in slot.region.moved(slot.row, shape):
                yield replace(slot, path=path, region=region, row=shape, noisy=None)


def _tables(tree: Any) -> Iterator[tuple[Path, list[Tensor]]]:
    """(path, rows) for the tensors with rows, and the lists of tensors, in a tree."""
    return ((path, rows) for path, part in nodes(tree) if (rows := _rows(part)))


def _rows(part: Any) -> list[Tensor]:
    if isinstance(part, Tensor):
        return list(part.unbind(0)) if part.ndim > 1 else []
    return list(part) if isinstance(part, (list, tuple)) and all(isinstance(row, Tensor) for row in part) else []


def _holds(copy: Tensor, samples: Tensor, noisy: Tensor | None) -> bool:
    if noisy is not None:
        return bool(equal(copy.cpu(), samples.cpu())[:, noisy].all())
    # find_region() has compared all of the first row: of the others some values will do.
    few = slice(None, None, max(1, samples.numel() // 16384))
    return bool(equal(copy.flatten()[few].cpu(), samples.flatten()[few].cpu()).all())


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
    # Every n-th value is enough, and less to transfer from the device.
    every_nth = slice(None, None, max(1, latent.numel() // 4096))
    a, b = (values.detach().flatten()[every_nth].cpu().double() for values in (latent, other))
    rounding = max(torch.finfo(values.dtype).eps for values in (latent, other))
    scales = (a / b)[(b != 0) & b.isfinite() & a.isfinite()]
    if not len(scales):
        return Likeness.OTHER
    equal = ((a - scales.median() * b).abs() <= 4 * rounding * a.abs()) & (a != 0)
    if equal.double().mean() > EQUAL_SHARE:
        return Likeness.SAME
    return Likeness.LIKE if torch.corrcoef(torch.stack([a, b]))[0, 1] > CORRELATION else Likeness.OTHER
