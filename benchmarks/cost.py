"""Model calls against error: how long the lie's effect may be held."""

from __future__ import annotations

from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from selective_sigma.settings import Settings

from . import charts, words
from .methods import DEFAULT, ours
from .samplers import SAMPLERS
from .study import STRENGTH, Pictures, Study, Track

TITLE = "Cost"
REFRESH = tuple(sorted({0.3, 0.6, 0.9, Settings().refresh}))
STEPS = (8, 12, 20, 40)
TWO = ours(passes="two")


def measure(study: Study, track: Track) -> dict[str, Any]:
    """Calls and error at each threshold; flow at 20 steps and the default threshold alone."""
    cells = [
        ("ve", sampler, steps, refresh)
        for sampler in SAMPLERS
        for steps in STEPS
        # Two calls a step and twice the levels: what 40 steps show, 20 show.
        if (sampler, steps) != ("dpmpp_sde", 40)
        for refresh in REFRESH
    ]
    cells += [("flow", sampler, 20, Settings().refresh) for sampler in SAMPLERS]
    exact: dict[tuple[str, str, int], tuple[Tensor, int]] = {}
    rows: list[dict[str, Any]] = []
    for family, sampler, steps, refresh in track(cells):
        pictures = study.pictures(family=family)
        if (family, sampler, steps) not in exact:
            two = study.run(pictures, TWO, STRENGTH, sampler, steps)
            exact[family, sampler, steps] = two.picture, two.calls
        picture, calls = exact[family, sampler, steps]
        held = study.run(pictures, ours(passes="economy", refresh=refresh), STRENGTH, sampler, steps)
        plain = study.plain(pictures, sampler, steps)
        bare = 2 * steps - 1 if sampler == "dpmpp_sde" else steps
        rows.append(
            {
                "family": family,
                "sampler": sampler,
                "steps": steps,
                "refresh": refresh,
                "cost": held.calls / bare,
                "two": calls / bare,
                "error": pictures.mean(_error(held.picture, picture, plain)),
                "kinds": _by_kind(pictures, _error(held.picture, picture, plain)),
            }
        )
    return {"rows": rows}


def _error(held: Tensor, two: Tensor, plain: Tensor) -> list[float]:
    """Norm of the difference from two passes over the norm of their effect, one for each picture."""

    def norm(values: Tensor) -> Tensor:
        return torch.linalg.vector_norm(values.flatten(1), dim=1)

    return (norm(held - two) / norm(two - plain)).tolist()


def _by_kind(pictures: Pictures, errors: list[float]) -> dict[str, float]:
    seeds = pictures.by_seed(errors)
    return {kind: fmean(v for seed in seeds for v in seed[i]) for i, kind in enumerate(pictures.kinds)}


def plot(data: dict[str, Any], path: Path) -> None:
    shades = {8: "#9dc3e6", 12: "#5f9fd4", 20: charts.OURS, 40: "#0a2f52"}
    with charts.chart(path, len(SAMPLERS), 3.2, sharey=True, sharex=True) as axes:
        for ax, sampler in zip(axes, SAMPLERS, strict=True):
            for steps in STEPS:
                rows = [
                    r for r in data["rows"] if r["family"] == "ve" and r["sampler"] == sampler and r["steps"] == steps
                ]
                if not rows:
                    continue
                x, y = [r["cost"] for r in rows], [r["error"]["mean"] for r in rows]
                ax.plot(x, y, "-", color=shades[steps], linewidth=1.6)
                for r, cost, error in zip(rows, x, y, strict=True):
                    own = r["refresh"] == Settings().refresh
                    ax.plot(cost, error, "o", color=shades[steps], markersize=7 if own else 3.5)
                ax.plot([], [], "-o", color=shades[steps], label=f"{steps} steps", markersize=4)
            ax.axhline(0.1, color=charts.PUBLISHED, linewidth=1, linestyle=":")
            ax.set_title(sampler)
        axes[0].set_ylim(0)
        axes[0].set_ylabel("error as a share of the effect")
        axes[0].legend(loc="upper right")
        axes[-1].text(0.02, 0.1, "target", color=charts.PUBLISHED, transform=axes[-1].get_yaxis_transform(), va="top")
        axes[0].figure.supxlabel(
            f"model calls for each of the plain sampler's (large dot: refresh after {Settings().refresh:g} e-folds)",
            fontsize=10,
        )


def describe(data: dict[str, Any]) -> str:
    head = ["", "sampler", "steps", "two passes", *(f"refresh {r:g}: calls, error" for r in REFRESH)]
    body = []
    for family, sampler, steps in dict.fromkeys((r["family"], r["sampler"], r["steps"]) for r in data["rows"]):
        found = {r["refresh"]: r for r in data["rows"] if _at(r, family, sampler, steps)}
        cells = [f"{found[r]['cost']:.2f}, {words.spread(found[r]['error'])}" if r in found else "–" for r in REFRESH]
        two = next(iter(found.values()))["two"]
        body.append([family, sampler, steps, words.figure(two), *cells])
    return (
        "Model calls for each of the plain sampler's, over the whole run, and how far the picture is from that of two "
        "passes as a share of what two passes change (mean and standard deviation over seeds). The effect is measured "
        f"anew after this many e-folds of sigma; the default is {Settings().refresh:g}.\n\n" + words.table(head, body)
    )


def _at(row: dict[str, Any], family: str, sampler: str, steps: int) -> bool:
    return row["family"] == family and row["sampler"] == sampler and row["steps"] == steps


def targets(data: dict[str, Any]) -> list[words.Target]:
    own = [r for r in data["rows"] if r["refresh"] == Settings().refresh]
    twenty = [r for r in own if r["steps"] == 20 and r["family"] == "ve"]
    rows = [r for r in own if r["steps"] >= 12]
    short = [r for r in own if r["steps"] < 12]

    def worst(rows: list[dict[str, Any]], what: str = "error") -> dict[str, Any]:
        return max(rows, key=lambda r: r[what]["mean"] if what == "error" else r[what])

    dear, bad, bad12, bad8 = worst(twenty, "cost"), worst(twenty), worst(rows), worst(short)
    return [
        words.Target(
            "at most 1.35 calls per step over the run, 20 steps, VE",
            f"{fmean(r['cost'] for r in twenty):.2f} on average, at most {dear['cost']:.2f} ({dear['sampler']})",
            dear["cost"] <= 1.35,
        ),
        words.Target(
            "with an error of at most 0.10, 20 steps, VE",
            f"at most {bad['error']['mean']:.2f} ({bad['sampler']})",
            bad["error"]["mean"] <= 0.10,
        ),
        words.Target(
            "`passes` is economy if its error is at most 0.10 on every row of 12 steps and more, VE and flow",
            f"at most {bad12['error']['mean']:.2f} ({bad12['family']}, {bad12['sampler']}, {bad12['steps']} steps); "
            f"default {DEFAULT_PASSES}",
            (bad12["error"]["mean"] <= 0.10) == (DEFAULT_PASSES == "economy"),
        ),
        words.Target(
            "short runs (8 steps) are exact",
            f"error at most {bad8['error']['mean']:.2f} ({bad8['sampler']}) at {bad8['cost']:.2f} calls per step",
            bad8["error"]["mean"] <= 1e-3,
        ),
    ]


DEFAULT_PASSES = Settings(**dict(DEFAULT.settings)).passes
