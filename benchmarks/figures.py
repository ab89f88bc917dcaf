"""What is measured: figures of pictures and of runs, in typed rows, kept as JSON lines in docs/evidence/rows.jsonl."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from selective_sigma.demo.measure import low_pass

from .models import ReferenceModel

ROWS = Path("docs/evidence/rows.jsonl")


@dataclass(frozen=True)
class Row:
    """A result for a question about a model (``model`` may also name something else that was measured)."""

    question: str
    model: str

    @property
    def key(self) -> str:
        """Question, model, schedule, sampler, steps and label, as far as the row has them."""
        names = ("question", "model", "schedule", "sampler", "steps", "label")
        return "/".join(str(part) for name in names if (part := getattr(self, name, "")))


@dataclass(frozen=True)
class Figures:
    """A batch of detailed pictures beside the plain ones of the same seeds."""

    gain: float
    """Fine-detail energy gained inside, as a share of what the plain pictures have there."""
    leak: float
    """Fine-detail energy gained per pixel outside, over that gained inside."""
    leak_rms: float
    """RMS of the fine detail that separates the two pictures, outside over inside."""
    mean: float
    """Change of a picture's mean, absolute, as a share of its own standard deviation."""
    contrast: float
    """Relative change of the standard deviation of the low-passed picture."""


@dataclass(frozen=True)
class Effect(Row, Figures):
    """What a method did to the pictures of a model."""

    schedule: str
    sampler: str
    steps: int
    label: str
    strength: float
    leak_spread: float
    """Standard deviation over seed groups; 0 for one group."""
    calls: float
    """Model calls over those of the plain sampler."""
    chroma: float = 0.0
    """Of photographs, inside: energy of the fine detail's chroma over that of its luma."""
    finest: float = 0.0
    """Of photographs, inside: energy of fine detail over that of the band an octave coarser."""
    lit_inside: float = 0.0
    """Mean of the masks where detail belongs."""
    lit_outside: float = 0.0


@dataclass(frozen=True)
class Value(Row):
    """One number."""

    label: str
    value: float
    schedule: str = ""
    """The noise schedule, if there is one."""


@dataclass(frozen=True)
class Provenance(Row):
    """The commit, machine and time that the rows of a question come from."""

    commit: str
    device: str
    seconds: float


TYPES: dict[str, type[Row]] = {t.__name__: t for t in (Effect, Value, Provenance)}
LUMA = torch.tensor([0.299, 0.587, 0.114]).reshape(3, 1, 1)
"""Weights of red, green and blue (Rec. 601)."""


def energy(values: Tensor, where: Tensor) -> float:
    """Mean square over channels and the pixels ``where`` (batch, 1, H, W); each picture counts alike."""
    squares = values.square().mean(1, keepdim=True) * where
    return float((squares.flatten(1).sum(1) / where.flatten(1).sum(1)).mean())


def kind(picture: Tensor, where: Tensor) -> dict[str, float]:
    """``chroma`` and ``finest`` of an ``Effect``, from (batch, 3, H, W) and (batch, 1, H, W)."""
    wide = coarse = low_pass(picture)
    fine = picture - coarse
    for _ in range(4):  # Variances add: five blurs are twice as wide, and a little.
        wide = low_pass(wide)
    luma = (fine * LUMA).sum(1, keepdim=True)
    bands = {"chroma": (fine - luma, luma), "finest": (fine, coarse - wide)}
    return {name: energy(a, where) / energy(b, where) for name, (a, b) in bands.items()}


def compare(detailed: Tensor, plain: Tensor, model: ReferenceModel, part: slice = slice(None)) -> Figures:
    """Measure a ``part`` of the model's pictures (batch, channels, H, W) against its truth; pooled over the part."""
    detailed, plain, inside, outside = detailed[part], plain[part], model.inside[part], model.outside[part]
    before, after = model.fine(plain), model.fine(detailed)
    added = energy(after, inside) - energy(before, inside)
    differs = energy(after - before, inside)
    shift = (detailed.flatten(1).mean(1) - plain.flatten(1).mean(1)).abs() / plain.flatten(1).std(1)
    contrast = low_pass(detailed).flatten(1).std(1) / low_pass(plain).flatten(1).std(1) - 1
    return Figures(
        gain=added / energy(before, inside),
        leak=(energy(after, outside) - energy(before, outside)) / added if added else 0.0,
        leak_rms=(energy(after - before, outside) / differs) ** 0.5 if differs else 0.0,
        mean=float(shift.mean()),
        contrast=float(contrast.mean()),
    )


def read(path: Path = ROWS) -> list[Row]:
    """All rows, in the order in which they were written; none where there is no file."""
    lines = path.read_text().splitlines() if path.exists() else []
    return [TYPES[fields.pop("type")](**fields) for fields in map(json.loads, lines)]


def write(rows: list[Row], path: Path = ROWS) -> None:
    """Replace the file. Numbers are rounded to five digits."""
    lines: list[str] = []
    for row in rows:
        fields = {k: float(f"{v:.5g}") if isinstance(v, float) else v for k, v in asdict(row).items()}
        lines.append(json.dumps({"type": type(row).__name__, **fields}))
    path.write_text("\n".join(lines) + "\n")
