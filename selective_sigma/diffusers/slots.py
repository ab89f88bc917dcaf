"""Finds a scheduler's sample in a call of the model by its values. No argument is identified by its name.

The arguments of a call are a tree of tuples, lists and dicts, and so is its answer. A path is the tuple of keys that
leads to a part of a tree. The rows of a call are a tensor, or a list of tensors. A row holds one sample of the batch,
and may hold other channels, tokens or frames. A ``Region`` is the place of a sample in its row. A ``SampleSlot`` is the
place of a batch of samples in the tree.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import combinations, product
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

Arguments = tuple[tuple[Any, ...], dict[str, Any]]
"""(args, kwargs) of a call."""
Path = tuple[Any, ...]
Parts = dict[Path, Any]
"""All parts of a tree by their paths. A container comes after its parts."""
Shape = tuple[int, ...]


def parts_of(tree: Any) -> Parts:
    return dict(_parts(tree, ()))


def _parts(tree: Any, path: Path) -> Iterator[tuple[Path, Any]]:
    if isinstance(tree, (dict, list, tuple)):
        for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
            yield from _parts(value, (*path, key))
    yield path, tree


def rebuilt(tree: Any, new: Parts, path: Path = ()) -> Any:
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
    if type(tree) in (list, tuple) or hasattr(tree, "_fields"):
        values = [rebuilt(value, new, (*path, key)) for key, value in enumerate(tree)]
        # A named tuple is constructed from its fields too.
        return type(tree)(values) if type(tree) in (list, tuple) else type(tree)(*values)
    return tree


class UncertainRowsError(ValueError):
    """The parts of a call's arguments cannot be assigned to its rows."""


def selected(tree: Any, rows: Sequence[int], count: int) -> Any:
    """A copy of a call's arguments that has only ``rows`` of the tensors and lists of tensors that have ``count``.

    Args:
        count: number of rows in the call.

    Raises:
        UncertainRowsError: a list that is not all tensors, or a tuple of tensors, has ``count`` elements, none of them
            of ``count`` rows; the size of a first axis is a multiple of ``count``; or a container is of another class.
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
    if isinstance(tree, (dict, list, tuple)):
        raise UncertainRowsError
    return tree


@dataclass(frozen=True)
class Region:
    """The place of one sample, without its batch axis, in one row."""

    shape: Shape
    """Of the sample."""
    slices: tuple[slice, ...]
    """One for each axis of the row, which may have axes of size 1 elsewhere than the sample has them."""

    def read(self, row: Tensor) -> Tensor:
        """A view of the sample, of ``shape``."""
        return row[self.slices].view(self.shape)

    def moved(self, before: Shape, after: Shape) -> Iterator[Region]:
        """The possible regions in a row of another shape: at either end of each axis that differs."""
        if len(before) == len(after):
            pairs = zip(self.slices, before, after, strict=True)
            choices = [[s] if old == new else _ends(s.stop - s.start, new) for s, old, new in pairs]
            yield from (Region(self.shape, slices) for slices in product(*choices))


def _ends(size: int, whole: int) -> list[slice]:
    """The places at either end of an axis of size ``whole``."""
    return [slice(start, start + size) for start in dict.fromkeys((0, whole - size)) if size <= whole]


def find_region(sample: Tensor, row: Tensor) -> tuple[Region, Tensor | None] | None:
    """Find the values of ``sample`` (any shape, without batch axis) in ``row``, at either end of each axis.

    Returns:
        (region, present), or None if at most half of the values are found. ``present`` marks the values that are
        found, in the sample's shape; None if all are. The others are replaced, such as by a first frame.
    """
    sizes = [size for size in sample.shape if size > 1]
    for axes in combinations(range(row.ndim), len(sizes)) if sizes and row.numel() >= sample.numel() else ():
        size_of = dict(zip(axes, sizes, strict=True))
        for slices in product(*(_ends(size_of.get(axis, 1), whole) for axis, whole in enumerate(row.shape))):
            region = Region(tuple(sample.shape), slices)
            values = region.read(row)
            # Compare a few values first: rows are large, and most regions are wrong.
            if float(equal(thinned(values, 64), thinned(sample, 64)).float().mean()) <= 0.25:
                continue
            same = equal(values, sample)
            if float(same.float().mean()) > 0.5:
                return region, None if bool(same.all()) else same
    return None


def thinned(values: Tensor, count: int) -> Tensor:
    """``count`` values of a tensor, or all if it has fewer, on the CPU. They are enough to compare tensors by."""
    flat = values.detach().flatten()
    if len(flat) <= count:
        return flat.cpu()
    # Multiples of the golden ratio are spread evenly, over rows and columns too.
    shares = torch.arange(count, dtype=torch.float64) * ((5**0.5 - 1) / 2) % 1
    return flat[(shares * len(flat)).long().to(flat.device)].cpu()


def equal(a: Tensor, b: Tensor) -> Tensor:
    """Which values are the same but for rounding to the coarser of the two dtypes."""
    step = max(torch.finfo(t.dtype).eps for t in (a, b))
    a, b = a.double(), b.double()
    return (a - b).abs() <= 2 * step * b.abs() + 1e-12


def compared(latent: Tensor, other: Any) -> tuple[float, float]:
    """(share of values that are not zero and equal, correlation) of ``latent`` and the first copy of it in ``other``.

    Both are 0 if the size of ``other`` is no multiple.
    """
    if not isinstance(other, Tensor) or not latent.numel() or other.numel() % latent.numel():
        return 0.0, 0.0
    # There are several copies where a scheduler steps both copies of guidance (DiT).
    a, b = (thinned(values, 4096) for values in (latent, other.flatten()[: latent.numel()]))
    # A little more than the error of rounding to nearest.
    rounding = max(1e-6, *(0.6 * torch.finfo(values.dtype).eps for values in (a, b)))
    a, b = a.double(), b.double()
    is_equal = ((a - b).abs() <= rounding * a.abs()) & (a != 0)
    return float(is_equal.double().mean()), float(torch.corrcoef(torch.stack([a, b]))[0, 1])


@dataclass(frozen=True)
class SampleSlot:
    """Rows that hold the samples of a batch. For guidance there may be several copies, one batch after another."""

    path: Path
    """Leads to a tensor whose first axis counts rows, or to a list of rows."""
    region: Region
    row_shape: Shape
    batch: int
    present: Tensor | None = None
    """Which values of a sample are in its row, if some are replaced (a first frame given by the user)."""

    def fits(self, parts: Parts) -> bool:
        """Whether a tree has rows of the same shape at the same path."""
        rows = _rows(parts.get(self.path))
        return bool(rows) and len(rows) % self.batch == 0 and all(tuple(row.shape) == self.row_shape for row in rows)

    def read(self, parts: Parts) -> list[Tensor]:
        """The copies, each (batch, ...)."""
        return list(torch.stack([self.region.read(row) for row in _rows(parts[self.path])]).split(self.batch))

    def write(self, parts: Parts, samples: list[Tensor]) -> Any:
        """A copy of what is at ``path``, with other samples in it.

        Args:
            samples: as many copies as ``read`` returns.
        """
        table = parts[self.path]
        rows = [row.clone() for row in _rows(table)]
        for row, new in zip(rows, torch.cat(samples), strict=True):
            place = self.region.read(row)
            place.copy_(new if self.present is None else torch.where(self.present.to(row.device), new.to(row), place))
        return torch.stack(rows) if isinstance(table, Tensor) else type(table)(rows)


def find_slot(samples: Tensor, parts: Parts) -> SampleSlot | None:
    """Find the values of ``samples`` (batch, ...) among a call's arguments; None if they are not there."""
    for path, rows in _tables(parts):
        if len(rows) % len(samples) or not rows[0].is_floating_point():
            continue
        match = find_region(samples[0].cpu(), rows[0].detach().cpu())
        if match is None:
            continue
        region, present = match
        slot = SampleSlot(path, region, tuple(rows[0].shape), len(samples), present)
        if slot.fits(parts) and all(_holds(copy, samples, present) for copy in slot.read(parts)):
            return slot
    return None


def answer_slots(answer: Parts, slot: SampleSlot, rows: int) -> Iterator[SampleSlot]:
    """The possible slots, in a model's answer, of the prediction for the samples in ``slot``.

    Args:
        rows: number of rows in the call.
    """
    for path, table in _tables(answer):
        if len(table) == rows and table[0].is_floating_point():
            shape = tuple(table[0].shape)
            for region in slot.region.moved(slot.row_shape, shape):
                yield replace(slot, path=path, region=region, row_shape=shape, present=None)


def _tables(parts: Parts) -> Iterator[tuple[Path, list[Tensor]]]:
    """(path, rows) for the tensors with rows, and the lists of tensors, in a tree."""
    return ((path, rows) for path, part in parts.items() if (rows := _rows(part)))


def _rows(part: Any) -> list[Tensor]:
    if isinstance(part, Tensor):
        return list(part.unbind(0)) if part.ndim > 1 else []
    return list(part) if isinstance(part, (list, tuple)) and all(isinstance(row, Tensor) for row in part) else []


def _holds(copy: Tensor, samples: Tensor, present: Tensor | None) -> bool:
    if present is not None:
        return bool(equal(copy.cpu(), samples.cpu())[:, present].all())
    # find_region() has compared all values of the first row. Some values of the other rows are enough.
    return bool(equal(thinned(copy, 16_384), thinned(samples, 16_384)).all())
