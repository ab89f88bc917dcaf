"""Fills the marked blocks of a page with tables made from the rows; the prose around them is the page's own.

A block stands between ``<!-- figures: NAME -->`` and ``<!-- /figures -->``; ``BLOCKS`` has the names.
"""

from __future__ import annotations

import re
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


class Table:
    """The rows, to be asked for by question and label."""

    def __init__(self, rows: Sequence[Row]):
        self.made = [r for r in rows if isinstance(r, Made)]
        self._effects = {r.key: r for r in rows if isinstance(r, Effect)}
        self._values = {r.key: r.value for r in rows if isinstance(r, Value)}

    def effect(self, question: str, model: str, schedule: str, sampler: str, steps: int, label: str) -> Effect | None:
        """One row, or None where it was not measured."""
        return self._effects.get("/".join((question, model, schedule, sampler, str(steps), label)))

    def leak(self, model: str, schedule: str, sampler: str, label: str) -> Effect | None:
        """A row of the first question, where the method reached the common gain."""
        row = self.effect("leak", model, schedule, sampler, STEPS, label)
        return row if row and abs(row.gain / TARGET - 1) < 0.15 else None

    def effects(self, question: str) -> list[Effect]:
        """All effects of one question."""
        return [r for r in self._effects.values() if r.question == question]

    def values(self, question: str) -> dict[tuple[str, str], float]:
        """All values of one question by model and label."""
        found = (key.split("/", 2) for key in self._values)
        return {(model, label): self._values[f"{q}/{model}/{label}"] for q, model, label in found if q == question}


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
        found = [f"{marks}{c.leak:.2f}{marks}" if c else "–" for c in cells]
        body.append([marks + label + marks, *found, f"{first.calls:.2f}"])
    return table(["detail outside / inside", *(NAMES[s] for s in FOUR), "model calls a step"], body)


def leaks(rows: Table) -> str:
    """Every model and schedule: energy with its spread over seed groups, and RMS."""
    text = []
    for model, schedule in [(m, s) for s in (VE, FLOW) for m in ("photographs", *MIXTURES)]:
        body = []
        for label in METHODS:
            cells = [rows.effect("leak", model, schedule, sampler, STEPS, label) for sampler in FOUR]
            if not any(cells):
                continue
            found = []
            for c in cells:
                if c is None:
                    found.append("–")
                elif abs(c.gain / TARGET - 1) < 0.15:
                    spread = f" ± {c.leak_spread:.2f}" if c.leak_spread else ""
                    found.append(f"{c.leak:.3f}{spread} ({c.leak_rms:.2f}) at {c.strength:.2f}")
                else:
                    found.append(f"not reached ({100 * c.gain:.0f} %)")
            body.append([label, *found])
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


def by_label(question: str) -> Callable[[Table], str]:
    """Gain, leak and change of mean of each label; a column for each model and sampler."""

    def made(rows: Table) -> str:
        effects = rows.effects(question)
        places = list(dict.fromkeys((r.model, r.schedule, r.sampler) for r in effects))
        body = []
        for label in dict.fromkeys(r.label for r in effects):
            found = [rows.effect(question, *place, STEPS, label) for place in places]
            shown = (f"{100 * c.gain:.0f} %, {c.leak:.3f}, {100 * c.mean:.1f} %" if c else "–" for c in found)
            body.append([label, *shown])
        return table(["gain, leak, change of mean", *(f"{m}, {NAMES[s]}" for m, _, s in places)], body)

    return made


def steps(rows: Table) -> str:
    """Gain in % and leak at each number of steps, and the gains over that at 20."""
    body = []
    for key in dict.fromkeys((r.model, r.schedule, r.sampler, r.label) for r in rows.effects("steps")):
        cells = [rows.effect("steps", *key[:3], n, key[3]) for n in COUNTS]
        found = ["–" if c is None else f"{100 * c.gain:.0f} ({c.leak:.2f})" for c in cells]
        body.append([f"{key[0]}, {key[1]}, {NAMES[key[2]]}, {key[3]}", *found])
    return table(["gain in % (leak)", *map(str, COUNTS)], body)


def by_model(question: str) -> Callable[[Table], str]:
    """Values: models, or what stands for them, down and labels across."""

    def made(rows: Table) -> str:
        values = rows.values(question)
        labels = list(dict.fromkeys(label for _, label in values))
        models = dict.fromkeys(model for model, _ in values)
        body = [[m, *(f"{values[m, n]:.2f}" if (m, n) in values else "–" for n in labels)] for m in models]
        return table(["", *labels], body)

    return made


def targets(rows: Table) -> str:
    """What was set out to be reached, what was found, and whether it holds."""
    body: list[list[str]] = []

    def add(what: str, found: str, holds: bool) -> None:
        body.append([what, found, "yes" if holds else "**no**"])

    for model, share in (("photographs", 0.25), ("mixture 8x8", 0.2), ("mixture 4x4", 0.2)):
        found = {}
        for sampler in FOUR:
            own, other = (rows.leak(model, VE, sampler, label) for label in (OURS, "published 0.1.1"))
            if own and other:
                found[sampler] = own.leak / other.leak
        if found:
            each = ", ".join(f"{NAMES[s]} {r:.2f}" for s, r in found.items())
            add(f"leak at most {share:g} of the published method's, {model}, VE", each, max(found.values()) <= share)
    for key in dict.fromkeys((r.model, r.schedule, r.sampler) for r in rows.effects("steps")):
        cells = [rows.effect("steps", *key, n, OURS) for n in COUNTS]
        gains = {c.steps: c.gain for c in cells if c}
        if STEPS in gains:
            off = {n: g / gains[STEPS] for n, g in gains.items()}
            worst = max(off, key=lambda n: abs(off[n] - 1))
            name = f"gain within 15 % of that at 20 steps, {key[0]}, {key[1]}, {NAMES[key[2]]}"
            add(name, f"{off[worst]:.2f} of it at {worst} steps", abs(off[worst] - 1) <= 0.15)
    lit = rows.values("smooth").get(("defocused", OURS))
    if lit is not None:
        add("a defocused photograph lit at most .10", f"{lit:.2f}", lit <= 0.10)
    most = {k: v for k, v in rows.values("calls").items() if k[1] == OURS and "sde" not in k[0]}
    if most:
        dear = max(most, key=lambda k: most[k])
        add("at most 1.36 calls a step, one-call samplers", f"{most[dear]:.2f} ({dear[0]})", most[dear] <= 1.36)
    for (shape, label), ratio in rows.values("step_time").items():
        if label == "every 2 / published":
            share = 1 / 6 if shape.count("x") > 3 else 1 / 4
            add(f"step at most {share:.2f} of the published pack's, {shape}", f"{ratio:.2f}", ratio <= share)
    return table(["target, at 20 steps unless said", "found", "holds"], body)


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
    **{question: by_label(question) for question in ("mask", "every", "start")},
    **{question: by_model(question) for question in ("coverage", "smooth", "cfg_pp", "step_time", "calls")},
    "made": made,
}


def fill(text: str, rows: Sequence[Row]) -> str:
    """``text`` with every block made anew.

    Raises:
        KeyError: for a block of an unknown name.
    """
    found = Table(rows)
    return _BLOCK.sub(lambda match: f"{match[1]}{BLOCKS[match[2]](found)}\n{match[4]}", text)
