"""Fills the marked blocks of a page with tables made from the rows; the text around them is left alone.

A block stands between ``<!-- figures: NAME -->`` and ``<!-- /figures -->``; ``BLOCKS`` has the names.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import product
from typing import Any

from .evaluate import COUNTS, DRAWN, FLOW, PHOTOGRAPH, PHOTOS, QUESTIONS, STEPS, TARGET, VE
from .figures import Effect, Provenance, Row, Value
from .methods import METHODS, OURS, THEIRS

PAGES = ("docs/evidence.md", "README.md")
_BLOCK = re.compile(r"(<!-- figures: ([^>]*?) -->\n)(.*?)(<!-- /figures -->)", re.DOTALL)
NAMES = {"euler": "Euler", "euler_ancestral": "Euler ancestral", "dpmpp_2m": "DPM++ 2M", "dpmpp_sde": "DPM++ SDE"}


def pick(rows: Sequence[Row], question: str, **fields: str) -> list[Any]:
    """The rows of a question whose fields have these values; those of ``leak`` in the order of the methods."""
    fields["question"] = question
    picked = [row for row in rows if all(getattr(row, name, row) == value for name, value in fields.items())]
    picked = [row for row in picked if not isinstance(row, Provenance)]
    return sorted(picked, key=lambda row: list(METHODS).index(row.label)) if question == "leak" else picked


def reached(row: Effect) -> bool:
    """Whether the method reached the common gain."""
    return abs(row.gain / TARGET - 1) < 0.15


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A Markdown table; all columns but the first are right-aligned."""
    first, *more = (f"| {' | '.join(cells)} |" for cells in (head, *rows))
    return "\n".join([first, "|---" + "|---:" * (first.count("|") - 2) + "|", *more])


def grid(corner: str, cells: Mapping[tuple[str, str], str], columns: Iterable[str] = ()) -> str:
    """A table of cells by row and column, in the order in which they come, or the columns as given."""
    columns = tuple(columns) or tuple(dict.fromkeys(column for _, column in cells))
    names = dict.fromkeys(name for name, _ in cells)
    return table((corner, *columns), ((name, *(cells.get((name, c), "–") for c in columns)) for name in names))


def beside_the_others(rows: Sequence[Row]) -> str:
    """README's table: photographs, VE."""
    cells: dict[tuple[str, str], str] = {}
    for row in filter(reached, pick(rows, "leak", model=PHOTOS, schedule=VE)):
        marks = {OURS: "**", "the true region": "*"}.get(row.label, "")
        name = f"{marks}{row.label}{marks}"
        cells[name, NAMES[row.sampler]] = f"{marks}{row.leak:.3f}{marks}"
        cells.setdefault((name, "model calls a step"), f"{row.calls:.2f}")
    return grid("detail outside / inside", cells, (*NAMES.values(), "model calls a step"))


def leaks(rows: Sequence[Row]) -> str:
    """Every model and schedule: energy with its spread over seed groups, and RMS."""

    def cell(row: Effect) -> str:
        if not reached(row):
            return f"not reached ({100 * row.gain:.0f} %)"
        spread = f" ± {row.leak_spread:.2f}" if row.leak_spread else ""
        return f"{row.leak:.3f}{spread} ({row.leak_rms:.2f}) at {row.strength:.2f}"

    text: list[str] = []
    for schedule, model in product((VE, FLOW), DRAWN):
        cells = {(r.label, NAMES[r.sampler]): cell(r) for r in pick(rows, "leak", model=model, schedule=schedule)}
        text.append(f"**{model.capitalize()}, {schedule}**\n\n{grid('', cells, NAMES.values())}")
    return "\n\n".join(text)


def place(row: Any) -> str:
    """Where a row is from: model, schedule and sampler, as far as it has them."""
    parts = (row.model, getattr(row, "schedule", ""), NAMES.get(getattr(row, "sampler", ""), ""))
    return ", ".join(filter(None, parts))


def by_place(question: str, rows: Sequence[Row]) -> str:
    """Gain, leak and changes of mean and contrast in %, or a value: places down and labels across."""

    def cell(row: Effect | Value) -> str:
        if isinstance(row, Value):
            return f"{row.value:.2f}"
        if question == "coverage":
            return f"{row.lit_inside:.2f}, {row.lit_outside:.2f}"
        return f"{100 * row.gain:.0f} %, {row.leak:.3f} ({100 * row.mean:.1f}, {100 * row.contrast:+.1f})"

    picked = pick(rows, question)
    corner = "mask inside, outside" if question == "coverage" else "gain, leak (mean, contrast)"
    corner = "" if all(isinstance(row, Value) for row in picked) else corner
    return grid(corner, {(place(row), row.label): cell(row) for row in picked})


def kinds(rows: Sequence[Row]) -> str:
    """Kind of detail, gain, leak and mask; bold where chroma exceeds the photograph's by more than a fifth."""
    picked, body = pick(rows, "kinds"), list[list[str]]()
    photograph = {row.model: row.chroma for row in picked if row.label == PHOTOGRAPH}
    for row in picked:
        mark = "**" if row.chroma > 1.2 * photograph[row.model] else ""
        last = [f"{100 * row.gain:.0f} %", f"{row.leak:.3f}", f"{row.lit_inside:.2f}, {row.lit_outside:.2f}"]
        kind = [f"{mark}{row.chroma:.3f}{mark}", f"{row.finest:.2f}"]
        body.append([f"{row.model}, {row.label}", *kind, *(last if row.strength else "–––")])
    return table(["inside", "chroma / luma", "finest / next band", "gain", "leak", "mask inside, outside"], body)


def steps(rows: Sequence[Row]) -> str:
    """Gain in % and leak at each number of steps."""
    picked = pick(rows, "steps")
    cells = {(f"{place(r)}, {r.label}", str(r.steps)): f"{100 * r.gain:.0f} ({r.leak:.2f})" for r in picked}
    return grid("gain in % (leak)", cells, map(str, COUNTS))


def comfyui(rows: Sequence[Row]) -> str:
    """Gain and leak of each of ComfyUI's samplers at ``every`` 1, then 2; bold where the rule of thumb fails."""
    cells: dict[str, list[str]] = {}
    # One row at 1, the next at 2.
    picked = iter(pick(rows, "comfyui"))
    for one, two in zip(picked, picked, strict=True):
        cell = f"{100 * one.gain:.0f}, {100 * two.gain:.0f} % ({one.leak:.2f}, {two.leak:.2f})"
        holds = abs(two.gain / one.gain - 1) <= 0.2 and two.leak <= 1.1 * one.leak
        cells.setdefault(one.sampler, []).extend([cell if holds else f"**{cell}**", f"{two.calls:.2f}"])
    # Twins (on the GPU, or CFG++ without guidance) share a line.
    twins = {tuple(line): [name for name in cells if cells[name] == line] for line in cells.values()}
    head = [part for s in dict.fromkeys(r.schedule for r in pick(rows, "comfyui")) for part in (s, "calls")]
    return table(["gain at every 1, 2 (leak)", *head], sorted([", ".join(twins[line]), *line] for line in twins))


def targets(rows: Sequence[Row]) -> str:
    """Each target: how often it was held, and the worst case."""

    def ratios(model: str) -> dict[str, float]:
        """Our leak over the published method's, by sampler."""
        effects = filter(reached, pick(rows, "leak", model=model, schedule=VE))
        leak = {(effect.label, NAMES[effect.sampler]): effect.leak for effect in effects}
        pairs = {s: (leak.get((OURS, s)), leak.get((THEIRS, s))) for s in NAMES.values()}
        return {s: a / b for s, (a, b) in pairs.items() if a is not None and b is not None}

    def values(question: str, **fields: str) -> dict[str, float]:
        return {place(r): r.value for r in pick(rows, question, **fields)}

    gains = {(place(r), r.steps): r.gain for r in pick(rows, "steps", label=OURS)}
    far = {f"{at}, {n} steps": abs(gain / gains[at, STEPS] - 1) for (at, n), gain in gains.items() if n != STEPS}
    calls = {at: n for at, n in values("calls", label=f"{OURS}, rows with guidance").items() if "sde" not in at}
    karras = {at: calls.pop(at) for at in list(calls) if at.startswith(VE)}
    times, work = (values("overhead", label=label) for label in ("ours / published", "a due step, ms"))
    clips, _ = ({at: numbers.pop(at) for at in list(numbers) if "flow" in at} for numbers in (times, work))
    pairs = {f"{r.model}, {r.label}": abs(r.value - 1) for r in pick(rows, "cfg_pp", schedule=OURS)}
    measured: list[tuple[str, float, dict[str, float]]] = [
        *((f"leak over the published method's, {m}, VE", 0.25 if m == PHOTOS else 0.2, ratios(m)) for m in DRAWN),
        ("gain, how far from that at 20 steps", 0.15, far),
        ("share that is lit of what is out of focus", 0.1, values("smooth", model="defocused", label=OURS)),
        ("Euler CFG++ beside Euler, how far from 1", 0.3, pairs),
        ("rows of the network with guidance, one-call samplers, Karras", 1.2, karras),
        ("rows of the network with guidance, one-call samplers, normal and flow", 1.25, calls),
        ("time beside the network over the published pack's, pictures", 0.5, times),
        ("time beside the network over the published pack's, video", 0.33, clips),
        ("own work of a due step, ms, pictures", 10, work),
    ]
    body: list[list[str]] = []
    for what, most, reached_at in (target for target in measured if target[2]):
        worst = max(reached_at, key=lambda at: reached_at[at])
        holds = sum(value <= most for value in reached_at.values())
        body.append([what, f"{most:g}", f"{reached_at[worst]:.2f} ({worst})", f"{holds} of {len(reached_at)}"])
    return table(["target, at 20 steps unless said", "at most", "worst found", "held"], body)


def provenance(rows: Sequence[Row]) -> str:
    """The commit, machine and time of each question."""
    picked = [row for row in rows if isinstance(row, Provenance)]
    body = [[f"{r.question}, {r.model}", r.commit, f"{r.seconds:.0f} s", r.device] for r in picked]
    total = sum(row.seconds for row in picked)
    return table(["question, model", "commit", "time", "machine"], [*body, ["all", "", f"{total:.0f} s", ""]])


BLOCKS: dict[str, Callable[[Sequence[Row]], str]] = {
    "beside the others": beside_the_others,
    "targets": targets,
    "leak": leaks,
    "steps": steps,
    "kinds": kinds,
    "comfyui": comfyui,
    **{name: partial(by_place, name) for name in QUESTIONS if name not in ("leak", "steps", "kinds", "comfyui")},
    "provenance": provenance,
}


def fill(text: str, rows: Sequence[Row]) -> str:
    """``text`` with every block made anew; ``KeyError`` for a block of an unknown name."""
    return _BLOCK.sub(lambda match: f"{match[1]}{BLOCKS[match[2]](rows)}\n{match[4]}", text)
