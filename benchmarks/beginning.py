"""How early in the run the lie should begin."""

from __future__ import annotations

from pathlib import Path
from statistics import fmean
from typing import Any

from selective_sigma.settings import Settings

from . import charts, words
from .figures import spread
from .methods import ours
from .study import STRENGTH, Study, Track, leak_rms

TITLE = "Beginning"
STARTS = (0.1, 0.2, 0.3, 0.4)
PLACES = (("ve", "euler"), ("ve", "euler_ancestral"), ("flow", "euler"))


def measure(study: Study, track: Track) -> dict[str, Any]:
    """Detail, leak and side effects for each start, 20 steps."""
    rows: list[dict[str, Any]] = []
    for (family, sampler), start in track([(place, start) for place in PLACES for start in STARTS]):
        pictures = study.pictures(family=family)
        figures = study.figures(pictures, ours(start=start), STRENGTH, sampler)
        rows.append(
            {
                "family": family,
                "sampler": sampler,
                "start": start,
                "gain": pictures.mean(figures.inside),
                "leak": spread([fmean(seed) for seed in leak_rms(pictures, figures)]),
                "mean": pictures.mean([abs(v) for v in figures.mean]),
                "cost": figures.cost,
            }
        )
    return {"rows": rows}


def plot(data: dict[str, Any], path: Path) -> None:
    shades = dict(zip(PLACES, (charts.OURS, "#9dc3e6", charts.PUBLISHED), strict=True))
    with charts.chart(path, 2, 3.0) as (left, right):
        for ax, what, title in (
            (left, "gain", "detail added, of that from 0.1"),
            (right, "mean", "change of mean, of that from 0.1"),
        ):
            for (family, sampler), colour in shades.items():
                rows = [r for r in data["rows"] if (r["family"], r["sampler"]) == (family, sampler)]
                values = [r[what]["mean"] / rows[0][what]["mean"] for r in rows]
                ax.plot(STARTS, values, "-o", color=colour, linewidth=1.8, markersize=4, label=f"{family}, {sampler}")
            ax.set_ylim(0, 1.15)
            ax.set_xticks(STARTS)
            ax.set_xlabel("start, share of the run")
            ax.set_title(title)
        left.legend(loc="lower left")


def describe(data: dict[str, Any]) -> str:
    head = ["", "sampler", "start", "detail gained", "leak", "change of mean", "calls"]
    body = [
        [
            r["family"],
            r["sampler"],
            words.figure(r["start"], 1),
            words.spread(r["gain"], 4),
            words.spread(r["leak"]),
            words.percent(r["mean"], 2),
            words.figure(r["cost"]),
        ]
        for r in data["rows"]
    ]
    return (
        "At strength 0.1 and 20 steps. What is told before a fifth of the run moves the mean of the picture and adds "
        "next to no fine detail.\n\n" + words.table(head, body)
    )


def targets(data: dict[str, Any]) -> list[words.Target]:
    own = Settings().start
    at = {(r["family"], r["sampler"], r["start"]): r for r in data["rows"]}
    pairs = [(at[(*place, STARTS[0])], at[(*place, own)]) for place in PLACES]
    kept = [late["gain"]["mean"] / early["gain"]["mean"] for early, late in pairs]
    moved = [late["mean"]["mean"] / early["mean"]["mean"] for early, late in pairs]
    return [
        words.Target(
            "`start` loses no more than a twentieth of the detail that a start at 0.1 adds, for less change of mean",
            f"start {own:g} keeps {min(kept):.2f} of the detail or more, with {max(moved):.2f} of the change or less",
            min(kept) >= 0.95 and max(moved) <= 1,
        )
    ]
