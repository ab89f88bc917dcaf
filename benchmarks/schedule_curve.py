"""Whether a shaped strength curve buys anything over a flat one of equal total strength."""

from __future__ import annotations

from pathlib import Path
from statistics import fmean
from typing import Any

from selective_sigma.schedule import cosine, flat

from . import charts, words
from .figures import spread
from .methods import Method, Ours
from .samplers import SAMPLERS
from .study import STRENGTH, Study, Track, leak_rms

TITLE = "Schedule"
STEPS = 20
MEASURES = {"gain": "detail gained", "leak": "leak", "mean": "change of mean", "contrast": "change of contrast"}


def curves() -> dict[str, tuple[float, ...]]:
    """Weights of each step; the cosine's are raised until their sum is the flat curve's."""
    level, bump = flat(STEPS), cosine(STEPS)
    grown = sum(level) / sum(bump)
    return {"flat": tuple(level), "cosine": tuple(grown * w for w in bump)}


def methods() -> dict[tuple[str, str], Method]:
    """By where and curve: everywhere and by the default mask."""
    made: dict[tuple[str, str], Method] = {}
    for curve, weights in curves().items():
        made["everywhere", curve] = Ours((("coverage", 1.0),), weights)
        made["masked", curve] = Ours((), weights)
    return made


def measure(study: Study, track: Track) -> dict[str, Any]:
    """What each curve adds, and what else it changes for it."""
    rows: list[dict[str, Any]] = []
    pictures = study.pictures()
    cells = [(s, place) for s in SAMPLERS for place in methods() if s == "euler" or place[0] == "masked"]
    for sampler, (where, curve) in track(cells):
        figures = study.figures(pictures, methods()[where, curve], STRENGTH, sampler, STEPS)
        rows.append(
            {
                "sampler": sampler,
                "where": where,
                "curve": curve,
                "gain": pictures.mean(figures.inside),
                "leak": spread([fmean(seed) for seed in leak_rms(pictures, figures)]),
                "mean": pictures.mean([abs(v) for v in figures.mean]),
                "contrast": pictures.mean([abs(v) for v in figures.contrast]),
                "cost": figures.cost,
            }
        )
    return {"rows": rows}


def plot(data: dict[str, Any], path: Path) -> None:
    colours = {"flat": charts.OURS, "cosine": charts.PUBLISHED}
    with charts.chart(path, 3, 3.2) as (left, middle, right):
        for curve, weights in curves().items():
            left.plot(range(1, STEPS + 1), weights, "-", color=colours[curve], linewidth=2)
            peak = max(range(STEPS), key=lambda i, w=weights: w[i])
            left.text(peak + 2.5, weights[peak] + 0.03, curve, color=colours[curve], va="bottom")
        left.set_ylim(-0.1, 3)
        left.set_xlabel("step")
        left.set_title("strength, equal sums")
        left.set_xticks([1, 5, 10, 15, 20])
        for ax, what in ((middle, "gain"), (right, "leak")):
            for j, curve in enumerate(colours):
                rows = [r for r in data["rows"] if r["curve"] == curve and r["where"] == "masked"]
                at = [i + 0.36 * (j - 0.5) for i in range(len(rows))]
                means, stds = [r[what]["mean"] for r in rows], [r[what]["std"] for r in rows]
                ax.bar(at, means, 0.34, yerr=stds, color=colours[curve], error_kw={"ecolor": charts.INK, "lw": 1})
            names = [r["sampler"].replace("_", "\n", 1) for r in rows]
            ax.set_xticks(range(len(names)), names, fontsize=8)
            ax.grid(axis="x", visible=False)
            ax.set_title("detail added (RMS)" if what == "gain" else "outside / inside")


def describe(data: dict[str, Any]) -> str:
    head = ["where", "sampler", "curve", *MEASURES.values(), "mean / gain", "contrast / gain", "calls"]
    body = [
        [
            r["where"],
            r["sampler"],
            r["curve"],
            words.spread(r["gain"], 4),
            words.spread(r["leak"]),
            words.percent(r["mean"], 2),
            words.percent(r["contrast"], 2),
            words.figure(r["mean"]["mean"] / r["gain"]["mean"]),
            words.figure(r["contrast"]["mean"] / r["gain"]["mean"]),
            words.figure(r["cost"]),
        ]
        for r in data["rows"]
    ]
    return (
        f"Flat with a taper, and Detail Daemon's cosine raised to the same sum over the {STEPS} steps, strength "
        f"{STRENGTH:g}, VE. Detail gained is the RMS of fine detail added inside the region map.\n\n"
        + words.table(head, body)
    )


def targets(data: dict[str, Any]) -> list[words.Target]:
    def mean(curve: str, what: str) -> float:
        rows = [r for r in data["rows"] if r["curve"] == curve and r["where"] == "masked"]
        return fmean(r["leak"]["mean"] if what == "leak" else r[what]["mean"] / r["gain"]["mean"] for r in rows)

    level, bump = (mean(curve, "leak") for curve in ("flat", "cosine"))
    side = {what: [mean(curve, what) for curve in ("flat", "cosine")] for what in ("mean", "contrast")}
    return [
        words.Target(
            "the cosine curve buys no selectivity: the flat curve's leak is no higher by more than a tenth",
            f"flat {level:.2f}, cosine {bump:.2f} over the samplers",
            level <= 1.1 * bump,
        ),
        words.Target(
            "nor fewer side effects: the flat curve's change of mean and contrast per detail at most a tenth higher",
            "; ".join(f"{what} / gain: flat {a:.2f}, cosine {b:.2f}" for what, (a, b) in side.items()),
            all(a <= 1.1 * b for a, b in side.values()),
        ),
    ]
