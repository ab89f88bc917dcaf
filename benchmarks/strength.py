"""Whether one strength does the same at every step count, on VE and flow, on each sampler."""

from __future__ import annotations

from pathlib import Path
from statistics import fmean
from typing import Any

from . import charts, words
from .figures import spread
from .methods import DEFAULT, EVERYWHERE_RATIO
from .samplers import SAMPLERS
from .study import STRENGTH, Study, Track

TITLE = "Strength"
STEPS, AT = (8, 20, 50), 20
METHODS = {"everywhere": EVERYWHERE_RATIO, "ours *": DEFAULT}
CELLS = [(f, s, m) for f in ("ve", "flow") for s in SAMPLERS for m in METHODS if s != "dpmpp_sde" or m == "everywhere"]


def measure(study: Study, track: Track) -> dict[str, Any]:
    """Fine detail added inside by strength 0.1, absolute and over that at 20 steps."""
    rows: list[dict[str, Any]] = []
    for family, sampler, label in track(CELLS):
        pictures = study.pictures(family=family)
        found = {n: study.figures(pictures, METHODS[label], STRENGTH, sampler, n).inside for n in STEPS}
        means = {n: [fmean(v for kind in seed for v in kind) for seed in pictures.by_seed(v)] for n, v in found.items()}
        for steps in STEPS:
            ratio = [a / b for a, b in zip(means[steps], means[AT], strict=True)]
            row = {"family": family, "sampler": sampler, "label": label, "steps": steps}
            rows.append(row | {"inside": spread(means[steps]), "ratio": spread(ratio)})
    return {"rows": rows}


def plot(data: dict[str, Any], path: Path) -> None:
    colours = dict(zip(SAMPLERS, (charts.OURS, charts.PUBLISHED, charts.OTHER, charts.PEER), strict=False))
    panels = [(f, m) for m in METHODS for f in ("ve", "flow")]
    with charts.chart(path, 4, 3.4, sharey=True) as axes:
        for ax, (family, label) in zip(axes, panels, strict=True):
            for sampler, colour in colours.items():
                rows = [r for r in data["rows"] if (r["family"], r["label"], r["sampler"]) == (family, label, sampler)]
                if rows:
                    y = [r["ratio"]["mean"] for r in rows]
                    marker = charts.SAMPLER_MARKS[sampler]
                    ax.plot(STEPS, y, "-", marker=marker, color=colour, linewidth=1.8, markersize=5, label=sampler)
            ax.set_xscale("log")
            ax.minorticks_off()
            ax.set_xticks(STEPS, [str(n) for n in STEPS])
            ax.set_title(f"{label.rstrip(' *')}, {'VE' if family == 've' else 'flow'}")
            ax.axhline(1, color=charts.INK, linewidth=1, linestyle=":")
        axes[0].set_ylim(0)
        axes[0].set_ylabel(f"detail added, relative to {AT} steps")
        axes[0].legend(loc="lower right")
        axes[0].figure.supxlabel("steps", fontsize=10)


def describe(data: dict[str, Any]) -> str:
    head = ["method", "", "sampler", *(f"{n} steps" for n in STEPS), *(f"{n} / {AT}" for n in STEPS if n != AT)]
    body = []
    for family, sampler, label in CELLS:
        found = {r["steps"]: r for r in data["rows"] if _at(r, family, sampler, label)}
        cells = [words.spread(found[n]["inside"], 4) for n in STEPS]
        cells += [words.spread(found[n]["ratio"]) for n in STEPS if n != AT]
        body.append([label, family, sampler, *cells])
    return (
        f"RMS of the fine detail that strength {STRENGTH:g} adds inside the region map (`everywhere`: the "
        f"noise-to-signal lie without a mask), and what part that is of the same at {AT} steps.\n\n"
        + words.table(head, body)
    )


def _at(row: dict[str, Any], family: str, sampler: str, label: str) -> bool:
    return (row["family"], row["sampler"], row["label"]) == (family, sampler, label)


def targets(data: dict[str, Any]) -> list[words.Target]:
    made = []
    for label in METHODS:
        rows = [r for r in data["rows"] if r["label"] == label]
        low, high = (pick(rows, key=lambda r: r["ratio"]["mean"]) for pick in (min, max))
        inside = [r["ratio"]["mean"] for r in rows]
        places = (f"{r['family']}, {r['sampler']}, {r['steps']} steps" for r in (low, high))
        made.append(
            words.Target(
                f"one strength does the same from {STEPS[0]} to {STEPS[-1]} steps, within a third ({label})",
                f"from x{min(inside):.2f} ({next(places)}) to x{max(inside):.2f} ({next(places)}) of {AT} steps",
                min(inside) >= 2 / 3 and max(inside) <= 4 / 3,
            )
        )
    return made
