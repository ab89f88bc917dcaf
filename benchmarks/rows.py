"""What is measured, one row each, kept as JSON lines in docs/evidence/rows.jsonl."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeAlias

ROWS = Path("docs/evidence/rows.jsonl")


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
class Effect(Figures):
    """What a method did to a model's pictures."""

    question: str
    model: str
    schedule: str
    sampler: str
    steps: int
    label: str
    strength: float
    leak_spread: float
    """Standard deviation over seed groups; 0 for one group."""
    calls: float
    """Model calls over those of the plain sampler."""

    @property
    def key(self) -> str:
        return "/".join((self.question, self.model, self.schedule, self.sampler, str(self.steps), self.label))


@dataclass(frozen=True)
class Value:
    """One number."""

    question: str
    model: str
    label: str
    value: float

    @property
    def key(self) -> str:
        return "/".join((self.question, self.model, self.label))


@dataclass(frozen=True)
class Made:
    """From which commit, on what and in what time a question's rows were made."""

    question: str
    model: str
    commit: str
    device: str
    seconds: float

    @property
    def key(self) -> str:
        return "/".join((self.question, self.model, "made"))


Row: TypeAlias = Effect | Value | Made
TYPES: dict[str, type[Effect] | type[Value] | type[Made]] = {t.__name__: t for t in (Effect, Value, Made)}


def read(path: Path = ROWS) -> list[Row]:
    """All rows, in the order in which they were written; none where there is no file."""
    lines = path.read_text().splitlines() if path.exists() else []
    return [TYPES[fields.pop("type")](**fields) for fields in map(json.loads, lines)]


def write(rows: list[Row], path: Path = ROWS) -> None:
    """Replace the file; numbers to five digits, which is more than they are worth."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines: list[str] = []
    for row in rows:
        fields = {k: float(f"{v:.5g}") if isinstance(v, float) else v for k, v in asdict(row).items()}
        lines.append(json.dumps({"type": type(row).__name__, **fields}))
    path.write_text("\n".join(lines) + "\n")
