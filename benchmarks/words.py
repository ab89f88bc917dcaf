"""Figures as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple


class Target(NamedTuple):
    """What was promised, what was found, and whether it holds."""

    what: str
    found: str
    met: bool


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table; columns of figures are right-aligned."""
    figures = [all(_is_figure(row[i]) for row in rows) for i in range(len(head))]
    lines = ["| " + " | ".join(head) + " |", "|" + "|".join("---:" if right else "---" for right in figures) + "|"]
    lines += ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows]
    return "\n".join(lines)


def _is_figure(cell: object) -> bool:
    return not str(cell) or str(cell)[0] in "0123456789-+–x×"


def figure(value: float, digits: int = 2) -> str:
    """``0.32``, or a dash for what could not be measured."""
    return f"{value:.{digits}f}" if value == value else "–"


def spread(value: Mapping[str, float], digits: int = 2) -> str:
    """``0.32 ± 0.04``: mean and standard deviation over seeds."""
    if value["mean"] != value["mean"]:
        return "–"
    return f"{value['mean']:.{digits}f} ± {value['std']:.{digits}f}"


def percent(value: Mapping[str, float], digits: int = 1) -> str:
    """``+3.2 ± 0.4 %``."""
    return f"{100 * value['mean']:+.{digits}f} ± {100 * value['std']:.{digits}f} %"
