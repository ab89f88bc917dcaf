"""Measures of pictures, and the typed rows that hold them: JSON lines in docs/evidence/rows.jsonl."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import stdev

from torch import Tensor

from selective_sigma.demo.measure import low_pass, luma

from .models import ReferenceModel

ROWS = Path("docs/evidence/rows.jsonl")


@dataclass(frozen=True)
class Effect:
    """What a method did to a model's pictures, compared with the bare sampler's from the same seeds."""

    gain: float
    """Fine-detail energy gained inside, as a share of what the bare pictures have there."""
    leak: float
    """Fine-detail energy gained per pixel outside, over that gained inside."""
    leak_rms: float
    """RMS of the difference in fine detail between the two pictures, outside over inside."""
    mean: float
    """Change of a picture's mean, absolute, as a share of its own standard deviation."""
    contrast: float
    """Relative change of the standard deviation of the low-passed picture."""
    question: str
    model: str
    schedule: str
    sampler: str
    steps: int
    label: str
    strength: float
    leak_spread: float
    """Standard deviation of the leak over seed groups; 0 for one group."""
    calls: float
    """Model calls over those of the bare sampler."""
    chroma: float = 0.0
    """Of photographs, inside: energy of the fine detail's chroma over that of its luma."""
    finest: float = 0.0
    """Of photographs, inside: energy of fine detail over that of the band an octave coarser."""
    lit_inside: float = 0.0
    """Mean of the masks where detail belongs."""
    lit_outside: float = 0.0
    """Mean of the masks where detail does not belong."""


@dataclass(frozen=True)
class Value:
    """One number."""

    question: str
    model: str
    label: str
    value: float
    schedule: str = ""
    """The noise schedule, if there is one."""


@dataclass(frozen=True)
class Provenance:
    """The commit, machine and time that the rows of a question come from."""

    question: str
    model: str
    commit: str
    device: str
    seconds: float


Row = Effect | Value | Provenance
"""A result for a question about a model. ``model`` may also name something else that was measured."""
ROW_TYPES: dict[str, type[Row]] = {row_type.__name__: row_type for row_type in (Effect, Value, Provenance)}


def energy(values: Tensor, region: Tensor) -> float:
    """Mean square over channels and the pixels of a region (batch, 1, H, W). Each picture counts alike."""
    squares = values.square().mean(1, keepdim=True) * region
    return float((squares.flatten(1).sum(1) / region.flatten(1).sum(1)).mean())


def kind_of_detail(picture: Tensor, region: Tensor) -> dict[str, float]:
    """``chroma`` and ``finest`` of an ``Effect``, from (batch, 3, H, W) and (batch, 1, H, W)."""
    wide = coarse = low_pass(picture)
    fine = picture - coarse
    for _ in range(4):  # Variances add up: five blurs are a little more than twice as wide as one.
        wide = low_pass(wide)
    bands = {"chroma": (fine - luma(fine), luma(fine)), "finest": (fine, coarse - wide)}
    return {name: energy(band, region) / energy(reference, region) for name, (band, reference) in bands.items()}


def compare(detailed: Tensor, bare: Tensor, model: ReferenceModel) -> dict[str, float]:
    """The fields of an ``Effect`` that are measured on its pictures, (batch, channels, H, W)."""
    before, after, regions = model.fine(bare), model.fine(detailed), (model.inside, model.outside)

    def leak(part: slice) -> float:
        inside, outside = (energy(after[part], r[part]) - energy(before[part], r[part]) for r in regions)
        return outside / inside if inside else 0.0

    size, energy_inside = len(bare) // model.groups, energy(before, model.inside)
    leaks = [leak(slice(i, i + size)) for i in range(0, len(bare), size)]
    changed_inside, changed_outside = (energy(after - before, region) for region in regions)
    shift = (detailed.flatten(1).mean(1) - bare.flatten(1).mean(1)).abs() / bare.flatten(1).std(1)
    contrast = low_pass(detailed).flatten(1).std(1) / low_pass(bare).flatten(1).std(1) - 1
    figures = {
        "gain": (energy(after, model.inside) - energy_inside) / energy_inside,
        "leak": leak(slice(None)),
        "leak_rms": (changed_outside / changed_inside) ** 0.5 if changed_inside else 0.0,
        "leak_spread": stdev(leaks) if len(leaks) > 1 else 0.0,
        "mean": float(shift.mean()),
        "contrast": float(contrast.mean()),
    }
    return figures if model.photographs is None else figures | kind_of_detail(detailed, model.inside)


def read(path: Path = ROWS) -> list[Row]:
    """All rows, in the order in which they were written; none if there is no file."""
    lines = path.read_text().splitlines() if path.exists() else []
    return [ROW_TYPES[fields.pop("type")](**fields) for fields in map(json.loads, lines)]


def write(rows: list[Row], path: Path = ROWS) -> None:
    """Replace the file. Numbers are rounded to five digits."""
    lines: list[str] = []
    for row in rows:
        fields = {k: float(f"{v:.5g}") if isinstance(v, float) else v for k, v in asdict(row).items()}
        lines.append(json.dumps({"type": type(row).__name__, **fields}))
    path.write_text("\n".join(lines) + "\n")
