"""Where in a call's arguments, or in its answer, a scheduler's sample sits, row by row."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from . import regions, tree
from .regions import Region

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .tree import Path


@dataclass(frozen=True)
class SampleSlot:
    """Rows that hold the samples of a batch, once or (for guidance) several times.

    ``path`` leads to a tensor whose first axis counts rows, or to a list of rows. ``woven``: the
    copies of a sample lie side by side, not batch after batch. ``own``: which of a sample's values
    are in its row at all, where some are given by something else (a first frame); None for all.
    """

    path: Path
    region: Region
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
        rows = [self.region.read(row) for row in _rows(tree.at(arguments, self.path))]
        parts = len(rows) // self.batch
        chosen = [[self.index(part, b, parts) for b in range(self.batch)] for part in range(parts)]
        return [torch.stack([rows[i] for i in part]) for part in chosen]

    def latent(self, arguments: Any, positive: Callable[[int], int]) -> Tensor:
        """The copy that has the condition, (batch, ...)."""
        copies = self.read(arguments)
        return copies[positive(len(copies))]

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
                    value = torch.where(self.own.to(value.device), value, self.region.read(rows[i]))
                new[i] = self.region.write(rows[i], value)
        return torch.stack(new) if isinstance(there, Tensor) else type(there)(new)

    def widened(self, axis: int | None) -> SampleSlot:
        """With all that a model says beside its prediction on the axis of channels (a learned variance)."""
        size = self.row[axis] if axis is not None and len(self.row) == len(self.region.shape) else 0
        plain = self.region.order == tuple(a for a, n in enumerate(self.region.shape) if n > 1)
        if not size or not plain or any(self.region.start) or size == self.region.shape[axis or 0]:
            return self
        shape = tuple(size if a == axis else n for a, n in enumerate(self.region.shape))
        if shape != self.row:
            return self
        axes = tuple(a for a, n in enumerate(shape) if n > 1)
        whole = Region(shape, axes, tuple(int(n > 1) for n in shape), (0,) * len(shape))
        return replace(self, region=whole)

    def index(self, part: int, b: int, parts: int) -> int:
        """The row of a sample's copy."""
        return b * parts + part if self.woven else part * self.batch + b


def find(samples: Tensor, arguments: Any) -> SampleSlot | None:
    """Where a call's arguments hold the values of ``samples`` (batch, ...)."""
    batch = len(samples)
    for path, there in _tables(arguments):
        rows = _rows(there)
        if len(rows) % batch or not rows[0].is_floating_point() or rows[0].numel() < samples[0].numel():
            continue
        found = regions.find(samples[0].cpu(), rows[0].detach().cpu())
        if found is None:
            continue
        where, own = found
        slot = SampleSlot(path, where, tuple(rows[0].shape), batch, False, own)
        for woven in (False, True):
            candidate = replace(slot, woven=woven)
            if candidate.fits(arguments) and all(_same(part, samples, own) for part in candidate.read(arguments)):
                return candidate
    return None


def outputs(answer: Any, slot: SampleSlot, rows: int) -> Iterator[SampleSlot]:
    """Where in a model's answer the prediction for the samples in ``slot`` may be."""
    for path, there in _tables(answer):
        found = _rows(there)
        if len(found) != rows or not found[0].is_floating_point():
            continue
        shape = tuple(found[0].shape)
        for where in slot.region.moved(slot.row, shape):
            yield replace(slot, path=path, region=where, row=shape, own=None)


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
    if own is not None:
        return bool(regions.equal(part.cpu(), samples.cpu())[:, own].all())
    # The first row was looked at in full: of the others some values will do.
    few = slice(None, None, max(1, samples.numel() // 16384))
    return bool(regions.equal(part.flatten()[few].cpu(), samples.flatten()[few].cpu()).all())


SAME = 0.25
"""Share of equal values from which on two latents are one, of which a part was replaced: while inpainting, say."""
LIKE = 0.5
"""Correlation from which on one latent may be made of the other; two that share no noise are far below it."""


def alike(latent: Tensor, other: Any) -> tuple[bool, bool]:
    """Whether two latents are the same but for their scale and rounding, and whether they are at least like."""
    if not isinstance(other, Tensor) or not latent.numel() or other.numel() % latent.numel():
        return False, False
    # A scheduler may step the copies of guidance too (DiT), which are one.
    other = other.flatten()[: latent.numel()]
    # Some of them will do, and are one transfer from the device.
    few = slice(None, None, max(1, latent.numel() // 4096))
    a, b = (values.detach().flatten()[few].cpu().double() for values in (latent, other))
    step = max(torch.finfo(values.dtype).eps for values in (latent, other))
    scales = (a / b)[(b != 0) & b.isfinite() & a.isfinite()]
    if not len(scales):
        return False, False
    same = ((a - scales.median() * b).abs() <= 4 * step * a.abs()) & (a != 0)
    correlation = torch.corrcoef(torch.stack([a, b]))[0, 1]
    return bool(same.double().mean() > SAME), bool(correlation > LIKE)
