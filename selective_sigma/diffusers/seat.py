"""Where in a call's arguments, or in its answer, a scheduler's sample sits, row by row."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from . import place, tree
from .place import Place

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .tree import Path


@dataclass(frozen=True)
class Seat:
    """Rows that hold the samples of a batch, once or (for guidance) several times.

    ``path`` leads to a tensor whose first axis counts rows, or to a list of rows. ``woven``: the
    copies of a sample lie side by side, not batch after batch. ``own``: which of a sample's values
    are in its row at all, where some are given by something else (a first frame); None for all.
    """

    path: Path
    place: Place
    row: tuple[int, ...]
    batch: int
    woven: bool = False
    own: Tensor | None = None

    def fits(self, arguments: Any) -> bool:
        """Whether a call has rows of the same shape at the same place."""
        rows = _rows(tree.at(arguments, self.path))
        return bool(rows) and len(rows) % self.batch == 0 and all(tuple(row.shape) == self.row for row in rows)

    def read(self, arguments: Any) -> list[Tensor]:
        """The copies, each (batch, ...)."""
        rows = [self.place.read(row) for row in _rows(tree.at(arguments, self.path))]
        parts = len(rows) // self.batch
        chosen = [[self.index(part, b, parts) for b in range(self.batch)] for part in range(parts)]
        return [torch.stack([rows[i] for i in part]) for part in chosen]

    def write(self, arguments: Any, samples: list[Tensor]) -> Any:
        """What is at ``path``, with other samples in it: as many copies as ``read`` found."""
        there = tree.at(arguments, self.path)
        rows = _rows(there)
        new = list(rows)
        for part, sample in enumerate(samples):
            for b in range(self.batch):
                i = self.index(part, b, len(samples))
                value = sample[b].to(rows[i].dtype)
                if self.own is not None:
                    value = torch.where(self.own.to(value.device), value, self.place.read(rows[i]))
                new[i] = self.place.write(rows[i], value)
        return torch.stack(new) if isinstance(there, Tensor) else type(there)(new)

    def widened(self, axis: int | None) -> Seat:
        """With all that a model says beside its prediction on the axis of channels (a learned variance)."""
        size = self.row[axis] if axis is not None and len(self.row) == len(self.place.shape) else 0
        plain = self.place.order == tuple(a for a, n in enumerate(self.place.shape) if n > 1)
        if not size or not plain or any(self.place.start) or size == self.place.shape[axis or 0]:
            return self
        shape = tuple(size if a == axis else n for a, n in enumerate(self.place.shape))
        if shape != self.row:
            return self
        axes = tuple(a for a, n in enumerate(shape) if n > 1)
        whole = Place(shape, axes, tuple(int(n > 1) for n in shape), (0,) * len(shape))
        return replace(self, place=whole)

    def index(self, part: int, b: int, parts: int) -> int:
        """The row of a sample's copy."""
        return b * parts + part if self.woven else part * self.batch + b


def find(samples: Tensor, arguments: Any) -> Seat | None:
    """Where a call's arguments hold the values of ``samples`` (batch, ...)."""
    batch = len(samples)
    for path, there in _tables(arguments):
        rows = _rows(there)
        if len(rows) % batch or not rows[0].is_floating_point() or rows[0].numel() < samples[0].numel():
            continue
        found = place.find(samples[0].cpu(), rows[0].detach().cpu())
        if found is None:
            continue
        where, own = found
        seat = Seat(path, where, tuple(rows[0].shape), batch, False, own)
        for woven in (False, True):
            candidate = replace(seat, woven=woven)
            if candidate.fits(arguments) and all(_same(part, samples, own) for part in candidate.read(arguments)):
                return candidate
    return None


def outputs(answer: Any, seat: Seat, rows: int) -> Iterator[Seat]:
    """Where in a model's answer the prediction for the samples in ``seat`` may be."""
    for path, there in _tables(answer):
        found = _rows(there)
        if len(found) != rows or not found[0].is_floating_point():
            continue
        shape = tuple(found[0].shape)
        for where in seat.place.moved(seat.row, shape):
            yield replace(seat, path=path, place=where, row=shape, own=None)


def _tables(found: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Tensors with rows, and lists of tensors, in a tree."""
    if isinstance(found, Tensor):
        if found.ndim > 1:
            yield path, found
        return
    if isinstance(found, (list, tuple, dict)):
        for key, value in found.items() if isinstance(found, dict) else enumerate(found):
            yield from _tables(value, (*path, key))
        if isinstance(found, (list, tuple)) and found and all(isinstance(row, Tensor) for row in found):
            yield path, found


def _rows(there: Any) -> list[Tensor]:
    if isinstance(there, Tensor):
        return list(there.unbind(0))
    if isinstance(there, (list, tuple)) and all(isinstance(row, Tensor) for row in there):
        return list(there)
    return []


def _same(part: Tensor, samples: Tensor, own: Tensor | None) -> bool:
    same = place.equal(part.cpu(), samples.cpu())
    return bool(same.all() if own is None else same[:, own].all())
