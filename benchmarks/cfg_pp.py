"""Whether one strength does as much on a CFG++ sampler as on its plain sibling."""

from __future__ import annotations

from pathlib import Path
from statistics import fmean
from typing import Any

from . import charts, words
from .figures import spread
from .methods import DEFAULT, EVERYWHERE, PUBLISHED, Method, PublishedCfgPp
from .study import STRENGTH, Study, Track

TITLE = "CFG++"
STEPS = (8, 16, 50)
PAIRS: dict[str, tuple[Method, Method]] = {
    "everywhere, one pass": (EVERYWHERE, EVERYWHERE),
    "published, constant 0.15": (PUBLISHED, PublishedCfgPp()),
    "ours *": (DEFAULT, DEFAULT),
}
GUIDANCE = 2.0


def measure(study: Study, track: Track) -> dict[str, Any]:
    """Fine detail added by euler_cfg_pp over that added by euler, each method by itself."""
    rows: list[dict[str, Any]] = []
    pictures = study.pictures(guidance=GUIDANCE)
    for steps, label in track([(steps, label) for steps in STEPS for label in PAIRS]):
        sibling, method = PAIRS[label]
        usual = study.figures(pictures, sibling, STRENGTH, "euler", steps)
        found = study.figures(pictures, method, STRENGTH, "euler_cfg_pp", steps)
        ratio = [
            fmean(v for kind in a for v in kind) / fmean(v for kind in b for v in kind)
            for a, b in zip(pictures.by_seed(found.inside), pictures.by_seed(usual.inside), strict=True)
        ]
        rows.append(
            {
                "steps": steps,
                "label": label,
                "euler": pictures.mean(usual.inside),
                "cfg_pp": pictures.mean(found.inside),
                "ratio": spread(ratio),
                "cost": found.cost,
            }
        )
    return {"rows": rows}


def plot(data: dict[str, Any], path: Path) -> None:
    with charts.chart(path, 1, 3.2) as (axes,):
        curves, spreads = {}, {}
        for label in PAIRS:
            rows = [r["ratio"] for r in data["rows"] if r["label"] == label]
            colour = charts.colour_of(label)
            curves[label] = ([r["mean"] for r in rows], colour)
            spreads[label] = [r["std"] for r in rows]
        charts.lines(axes, STEPS, curves, spreads)
        axes.axhline(1, color=charts.INK, linewidth=1, linestyle=":")
        axes.set_xlabel("steps")
        axes.set_title("Detail added by Euler CFG++ / by Euler, same strength (1: alike)")


def describe(data: dict[str, Any]) -> str:
    head = ["method", "steps", "Euler", "Euler CFG++", "CFG++ / plain"]
    body = [
        [r["label"], r["steps"], words.spread(r["euler"], 4), words.spread(r["cfg_pp"], 4), words.spread(r["ratio"])]
        for r in data["rows"]
    ]
    return (
        f"RMS of the fine detail that strength {STRENGTH:g} adds inside the region map, guidance {GUIDANCE:g}. "
        "Ours blends uncond with the mask that blends denoised; the published method takes uncond from the true "
        "pass and divides its effect by a constant. `everywhere` is one lied call a step, so its drift is CFG++'s "
        "own: the guidance part of a lie is not damped by 1 - r there.\n\n" + words.table(head, body)
    )


def targets(data: dict[str, Any]) -> list[words.Target]:
    def drift(label: str) -> float:
        ratios = [r["ratio"]["mean"] for r in data["rows"] if r["label"] == label]
        return max(ratios) / min(ratios)

    own, other, even = drift("ours *"), drift("published, constant 0.15"), drift("everywhere, one pass")
    return [
        words.Target(
            f"CFG++: effect beside the plain sibling steady from {STEPS[0]} to {STEPS[-1]} steps (drift at most x1.5)",
            f"x{own:.2f}; published x{other:.2f}; CFG++'s own (everywhere, one pass) x{even:.2f}",
            own <= 1.5,
        )
    ]
