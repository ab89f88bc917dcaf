"""A grid of strength and coverage, one picture a cell, shared over processes, resumable."""

from __future__ import annotations

import json
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from PIL import Image
from torch import Tensor

from ..diffusers import detail
from . import out
from .figure import grid, to_image

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path


class Cell(NamedTuple):
    strength: float
    coverage: float

    @property
    def name(self) -> str:
        """The name of the cell's files. All cells without detail share one picture, that of the plain sampler."""
        return f"s{self.strength:+}_c{self.coverage}" if self.strength and self.coverage else "plain"


@dataclass(frozen=True)
class Job:
    """Everything that a cell's picture depends on besides strength and coverage."""

    model: str
    sampler: str
    steps: int
    seed: int
    guidance: float
    subject: str
    """Photograph for the embedded network, prompt for a checkpoint."""
    content: str = ""
    """Checksum of a photograph of the user's, which may change under its name."""
    settings: tuple[tuple[str, Any], ...] = ()
    """Further fields of ``Settings``."""

    @property
    def facts(self) -> dict[str, Any]:
        """All fields in one dict, as a record stores them."""
        return {name: value for name, value in asdict(self).items() if name != "settings"} | dict(self.settings)


class Result(NamedTuple):
    """A finished cell: picture, mean mask of the run, and what it cost."""

    picture: Image.Image
    mask: Image.Image
    report: dict[str, Any]


def cells(strengths: Sequence[float], coverages: Sequence[float]) -> list[Cell]:
    return [Cell(strength, coverage) for strength in strengths for coverage in coverages]


def compute(pipe: Any, sample: Callable[[], Tensor], job: Job, cell: Cell) -> Result:
    """Sample one cell; ``sample`` runs the pipe and gives a picture (3, H, W) in [0, 1]."""
    options = {**dict(job.settings), "strength": cell.strength, "coverage": cell.coverage, "record": True}
    with detail(pipe, **options) as run, counted(pipe) as calls:
        picture = sample()
    masks = [record.mask[:1] for record in run.masks if isinstance(record.mask, Tensor)]
    mean = torch.stack(masks).mean(0)[0, 0] if masks else torch.zeros(picture.shape[1:])
    report = run.report.as_dict()
    if run.settings.idle:
        # Nothing was installed that could count. These are the calls of the plain sampler.
        report |= {"steps": len(calls), "calls": len(calls), "plain": len(calls)}
    return Result(to_image(picture), to_image(mean[None]), report)


@contextmanager
def counted(pipe: Any) -> Iterator[list[None]]:
    """A list that grows by one item with each call of the pipe's denoiser."""
    calls: list[None] = []
    denoiser = getattr(pipe, "unet", None) or pipe.transformer
    handle = denoiser.register_forward_pre_hook(lambda *_: calls.append(None))
    try:
        yield calls
    finally:
        handle.remove()


class Folder:
    """Cells of one job on disk; ``make`` makes the folder.

    Raises:
        ValueError: the folder holds cells of another job.
    """

    def __init__(self, path: Path, job: Job):
        self.path, self.job = path, job
        facts = job.facts
        for record in path.glob("*.json"):
            stored = (_read(record) or {}).get("job", facts)
            if differs := [name for name in facts if stored.get(name) != facts[name]]:
                was, now = (", ".join(f"{name} {values.get(name)}" for name in differs) for values in (stored, facts))
                raise ValueError(f"{path} holds a sweep with {was}: give the one with {now} another --out")

    def make(self) -> None:
        """Make the folder where it is missing.

        Raises:
            ValueError: the folder cannot be made or written to.
        """
        out.make(self.path)

    def store(self, cell: Cell, result: Result) -> None:
        result.picture.save(self.path / f"{cell.name}.png")
        result.mask.save(self.path / f"{cell.name}_mask.png")
        # The record is written last, and at once: a cell that was cut off halfway is made again.
        record = self.path / f"{cell.name}.json"
        part = record.with_suffix(".part")
        part.write_text(json.dumps({"job": self.job.facts, "report": result.report}))
        part.replace(record)

    def load(self, cell: Cell) -> Result | None:
        record = _read(self.path / f"{cell.name}.json")
        if record is None or record.get("job") != self.job.facts:
            return None
        with suppress(OSError):  # A file that is missing, or is no picture: the cell is made again.
            files = (self.path / f"{cell.name}{kind}.png" for kind in ("", "_mask"))
            picture, mask = (Image.open(file).copy() for file in files)
            return Result(picture, mask, record["report"])
        return None

    def missing(self, cells: Sequence[Cell]) -> list[Cell]:
        """Those of ``cells`` whose pictures are not stored yet, one for each picture."""
        return [cell for cell in {cell.name: cell for cell in cells}.values() if self.load(cell) is None]

    def figure(self, strengths: Sequence[float], coverages: Sequence[float]) -> Image.Image:
        """Pictures above, masks below; columns run along the longer of the two axes."""
        lines = [(f"strength\n{strength:g}", cells([strength], coverages)) for strength in strengths]
        columns = [f"coverage {coverage:g}" for coverage in coverages]
        if len(coverages) < len(strengths):
            lines = [(f"coverage\n{coverage:g}", cells(strengths, [coverage])) for coverage in coverages]
            columns = [f"strength {strength:g}" for strength in strengths]
        rows: list[tuple[str, list[Image.Image]]] = []
        for label, line in lines:
            results = [result for cell in line if (result := self.load(cell))]
            rows += [(label, [result.picture for result in results]), ("mask", [result.mask for result in results])]
        return grid(rows, columns)


def _read(path: Path) -> dict[str, Any] | None:
    """A stored record; None if the file is missing or holds something else."""
    with suppress(FileNotFoundError, ValueError):
        record = json.loads(path.read_text())
        if isinstance(record, dict):
            return record
    return None


def run(
    folder: Folder, pipe: Any, sample: Callable[[], Tensor], share: Sequence[Cell]
) -> Iterator[tuple[Cell, Result]]:
    """Compute and store what is missing of this process's share, one cell at a time."""
    for cell in folder.missing(share):
        result = compute(pipe, sample, folder.job, cell)
        folder.store(cell, result)
        yield cell, result
