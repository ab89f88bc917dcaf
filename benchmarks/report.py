"""Fills the marked blocks of a page with tables made from the rows; the prose around them is the page's own.

A block stands between ``<!-- figures: NAME -->`` and ``<!-- /figures -->``; ``BLOCKS`` has the names.
"""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING

from .evaluate import COUNTS, FLOW, FOUR, MIXTURES, STEPS, TARGET, VE
from .methods import METHODS
from .rows import Effect, Made, Row, Value

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

PAGES = ("docs/evidence.md", "README.md")
_BLOCK = re.compile(r"(<!-- figures: ([^>]*?) -->\n)(.*?)(<!-- /figures -->)", re.DOTALL)
NAMES = {"euler": "Euler", "euler_ancestral": "Euler ancestral", "dpmpp_2m": "DPM++ 2M", "dpmpp_sde": "DPM++ SDE"}
OURS = "ours"
LEAKS = (("photographs", 0.25), ("mixture 8x8", 0.2), ("mixture 4x4", 0.2))
"""Of the published method's leak, what ours was set out to reach at most."""


def reached(row: Effect) -> bool:
    """Whether the method came to the common gain."""
    return abs(row.gain / TARGET - 1) < 0.15


class Table:
    """The rows, to be asked for by question and label."""

    def __init__(self, rows: Sequence[Row]):
        self.made = [r for r in rows if isinstance(r, Made)]
        self._effects = {r.key: r for r in rows if isinstance(r, Effect)}
        self._values = [r for r in rows if isinstance(r, Value)]

    def effect(self, question: str, model: str, schedule: str, sampler: str, steps: int, label: str) -> Effect | None:
        """One row, or None where it was not measured."""
        return self._effects.get("/".join((question, model, schedule, sampler, str(steps), label)))

    def leak(self, model: str, schedule: str, sampler: str, label: str) -> Effect | None:
        """A row of the first question, where the method reached the common gain."""
        row = self.effect("leak", model, schedule, sampler, STEPS, label)
        return row if row and reached(row) else None

    def effects(self, question: str) -> list[Effect]:
        return [r for r in self._effects.values() if r.question == question]

    def values(self, question: str) -> dict[tuple[str, str], float]:
        return {(r.model, r.label): r.value for r in self._values if r.question == question}


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; all columns but the first are right-aligned."""
    lines = ["| " + " | ".join(head) + " |", "|---" + "|---:" * (len(head) - 1) + "|"]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def beside_the_others(rows: Table) -> str:
    """The table a stranger understands: photographs, VE."""
    body = []
    for label in METHODS:
        cells = [rows.leak("photographs", VE, sampler, label) for sampler in FOUR]
        first = cells[0]
        if first is None:
            continue
        marks = {OURS: "**", "the true region": "*"}.get(label, "")
        found = [f"{marks}{c.leak:.3f}{marks}" if c else "–" for c in cells]
        body.append([marks + label + marks, *found, f"{first.calls:.2f}"])
    return table(["detail outside / inside", *(NAMES[s] for s in FOUR), "model calls a step"], body)


def leaks(rows: Table) -> str:
    """Every model and schedule: energy with its spread over seed groups, and RMS."""

    def cell(row: Effect | None) -> str:
        if row is None:
            return "–"
        if not reached(row):
            return f"not reached ({100 * row.gain:.0f} %)"
        spread = f" ± {row.leak_spread:.2f}" if row.leak_spread else ""
        return f"{row.leak:.3f}{spread} ({row.leak_rms:.2f}) at {row.strength:.2f}"

    text = []
    for model, schedule in [(m, s) for s in (VE, FLOW) for m in ("photographs", *MIXTURES)]:
        found = [[label, *(rows.effect("leak", model, schedule, s, STEPS, label) for s in FOUR)] for label in METHODS]
        body = [[label, *map(cell, cells)] for label, *cells in found if any(cells)]
        text.append(f"**{model.capitalize()}, {schedule}**\n\n" + table(["", *(NAMES[s] for s in FOUR)], body))
    return "\n\n".join(text)


def side_effects(rows: Table) -> str:
    """Change of mean and of contrast at equal gain."""
    places = [(m, s) for m in ("photographs", *MIXTURES) for s in (VE, FLOW)]
    body = []
    for label in METHODS:
        cells = [rows.leak(m, s, "euler", label) for m, s in places]
        if any(cells):
            body.append([label, *("–" if c is None else f"{100 * c.mean:.1f}, {100 * c.contrast:+.1f}" for c in cells)])
    return table(["mean, contrast in %, Euler", *(f"{m}, {s}" for m, s in places)], body)


def by_label(question: str, rows: Table) -> str:
    """Gain, leak and change of mean of each label; a column for each model and sampler."""
    effects = rows.effects(question)
    places = list(dict.fromkeys((r.model, r.schedule, r.sampler) for r in effects))
    body = []
    for label in dict.fromkeys(r.label for r in effects):
        found = [rows.effect(question, *place, STEPS, label) for place in places]
        shown = (f"{100 * c.gain:.0f} %, {c.leak:.3f}, {100 * c.mean:.1f} %" if c else "–" for c in found)
        body.append([label, *shown])
    return table(["gain, leak, change of mean", *(f"{m}, {NAMES[s]}" for m, _, s in places)], body)


def steps(rows: Table) -> str:
    """Gain in % and leak at each number of steps, and the gains over that at 20."""
    body = []
    for key in dict.fromkeys((r.model, r.schedule, r.sampler, r.label) for r in rows.effects("steps")):
        cells = [rows.effect("steps", *key[:3], n, key[3]) for n in COUNTS]
        found = ["–" if c is None else f"{100 * c.gain:.0f} ({c.leak:.2f})" for c in cells]
        body.append([f"{key[0]}, {key[1]}, {NAMES[key[2]]}, {key[3]}", *found])
    return table(["gain in % (leak)", *map(str, COUNTS)], body)


def by_model(question: str, rows: Table) -> str:
    """Values: models, or what stands for them, down and labels across."""
    values = rows.values(question)
    models, labels = (list(dict.fromkeys(key[side] for key in values)) for side in (0, 1))
    body = [[m, *(f"{values[m, n]:.2f}" if (m, n) in values else "–" for n in labels)] for m in models]
    return table(["", *labels], body)


def comfyui(rows: Table) -> str:
    """Gain and leak of each of ComfyUI's samplers at ``every`` 1, then 2; bold where the rule of thumb fails."""
    found = {(r.schedule, r.sampler, r.label): r for r in rows.effects("comfyui")}
    schedules = list(dict.fromkeys(schedule for schedule, _, _ in found))
    body: dict[str, list[str]] = {}
    for sampler in dict.fromkeys(name for _, name, _ in found):
        cells: list[str] = []
        for schedule in schedules:
            one, two = (found[schedule, sampler, f"every {n}"] for n in (1, 2))
            cell = f"{100 * one.gain:.0f}, {100 * two.gain:.0f} % ({one.leak:.2f}, {two.leak:.2f})"
            holds = abs(two.gain / one.gain - 1) <= 0.2 and two.leak <= 1.1 * one.leak
            cells += [cell if holds else f"**{cell}**", f"{two.calls:.2f}"]
        # Twins (on the GPU, or CFG++ without guidance) share a line.
        twin = next((name for name, shown in body.items() if shown == cells), None)
        if twin:
            body[f"{twin}, {sampler}"] = body.pop(twin)
        else:
            body[sampler] = cells
    head = [part for schedule in schedules for part in (schedule, "calls")]
    return table(["gain at every 1, 2 (leak)", *head], [[name, *cells] for name, cells in sorted(body.items())])


def targets(rows: Table) -> str:
    """What was set out to be reached, how often it was, and the worst that was found."""
    gains = {(r.model, r.schedule, r.sampler, r.steps): r.gain for r in rows.effects("steps") if r.label == OURS}
    far = {
        f"{model}, {schedule}, {NAMES[sampler]}, {n} steps": abs(gain / gains[model, schedule, sampler, STEPS] - 1)
        for (model, schedule, sampler, n), gain in gains.items()
        if n != STEPS
    }
    lit = {model: value for (model, label), value in rows.values("smooth").items() if label == OURS}
    calls = {place: value for (place, label), value in rows.values("calls").items() if label == OURS}
    times = {shape: v for (shape, label), v in rows.values("step_time").items() if label == "every 2 / published"}
    found = [(f"leak over the published method's, {model}, VE", most, ratios(rows, model)) for model, most in LEAKS]
    found += [
        ("gain, how far from that at 20 steps", 0.15, far),
        ("share that is lit of what is out of focus", 0.1, {k: lit[k] for k in lit if k == "defocused"}),
        ("calls a step, one-call samplers", 1.36, {place: v for place, v in calls.items() if "sde" not in place}),
        ("time of a step over the published pack's, pictures", 0.25, {k: times[k] for k in times if k.count("x") == 3}),
        ("time of a step over the published pack's, video", 0.17, {k: times[k] for k in times if k.count("x") == 4}),
    ]
    body: list[list[str]] = []
    for what, most, values in (target for target in found if target[2]):
        worst = max(values, key=lambda place: values[place])
        holds = sum(value <= most for value in values.values())
        body.append([what, f"{most:g}", f"{values[worst]:.2f} ({worst})", f"{holds} of {len(values)}"])
    return table(["target, at 20 steps unless said", "at most", "worst found", "held"], body)


def ratios(rows: Table, model: str) -> dict[str, float]:
    """Our leak over the published method's, by sampler, where both came to the common gain."""
    pairs = {s: [rows.leak(model, VE, s, label) for label in (OURS, "published 0.1.1")] for s in FOUR}
    return {NAMES[s]: own.leak / other.leak for s, (own, other) in pairs.items() if own and other}


def made(rows: Table) -> str:
    """From which commit, on what, in what time."""
    body = [[f"{r.question}, {r.model}", r.commit, f"{r.seconds:.0f} s", r.device] for r in rows.made]
    total = sum(r.seconds for r in rows.made)
    return table(["question, model", "commit", "time", "machine"], [*body, ["all", "", f"{total:.0f} s", ""]])


BLOCKS: dict[str, Callable[[Table], str]] = {
    "beside the others": beside_the_others,
    "targets": targets,
    "leak": leaks,
    "side effects": side_effects,
    "steps": steps,
    "comfyui": comfyui,
    **{question: partial(by_label, question) for question in ("mask", "every", "start")},
    **{question: partial(by_model, question) for question in ("coverage", "smooth", "cfg_pp", "step_time", "calls")},
    "made": made,
}


def fill(text: str, rows: Sequence[Row]) -> str:
    """``text`` with every block made anew.

    Raises:
        KeyError: for a block of an unknown name.
    """
    found = Table(rows)
    return _BLOCK.sub(lambda match: f"{match[1]}{BLOCKS[match[2]](found)}\n{match[4]}", text)
