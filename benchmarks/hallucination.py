"""Texture made up where it should be smooth: an exact mixture denoiser, which the network's own faults do not blur."""

from __future__ import annotations

from pathlib import Path
from statistics import fmean
from typing import Any

from selective_sigma.settings import Settings

from . import charts, words
from .exact import Mixture
from .figures import spread
from .methods import EVERYWHERE, PERFECT, PUBLISHED, SOURCES, Method, ours, source_label
from .study import STRENGTH, Study, Track, leak_rms

TITLE = "Made-up texture"
STEPS, SAMPLERS = 20, ("euler", "euler_ancestral")
METHODS: dict[str, Method] = {
    "everywhere": EVERYWHERE,
    "published": PUBLISHED,
    "published, EMA 0": ours(**dict(PUBLISHED.settings), ema=0.0),
    **{source_label(name): method for name, method in SOURCES.items()},
    "the true mask": PERFECT,
}
DOSE = STRENGTH
"""Of the even lie whose gain in the textured half all are scaled to."""


def measure(study: Study, track: Track) -> dict[str, Any]:
    """Grain added in the half that should be smooth, and patches that turned textured there."""
    pictures = study.pictures(mixture=True, count=8)
    model = study.model(pictures)
    assert isinstance(model, Mixture)
    rows: list[dict[str, Any]] = []
    for sampler, label in track([(s, m) for s in SAMPLERS for m in METHODS]):
        method = METHODS[label]
        target = fmean(study.figures(pictures, EVERYWHERE, DOSE, sampler, STEPS).gain)
        strength = study.matched(pictures, method, target, sampler, STEPS, lambda f: f.gain, runs=4)
        figures = study.figures(pictures, method, strength, sampler, STEPS)
        after = model.made_up(study.run(pictures, method, strength, sampler, STEPS).picture)
        before = model.made_up(study.plain(pictures, sampler, STEPS))
        rows.append(
            {
                "sampler": sampler,
                "label": label,
                "strength": strength,
                "gain": pictures.mean(figures.gain),
                "leak": spread([seed[0] for seed in leak_rms(pictures, figures)]),
                "made_up": pictures.mean(after.tolist()),
                "plain": pictures.mean(before.tolist()),
            }
        )
    return {"rows": rows}


def plot(data: dict[str, Any], path: Path) -> None:
    with charts.chart(path, 1, 3.2) as (axes,):
        found: dict[str, dict[str, float]] = {}
        for row in data["rows"]:
            found.setdefault(row["label"], {})[row["sampler"]] = 100 * row["made_up"]["mean"]
        charts.dots(axes, [(label, values, charts.colour_of(label)) for label, values in found.items()])
        plain = 100 * fmean(row["plain"]["mean"] for row in data["rows"])
        axes.axvline(plain, color=charts.INK, linewidth=1, linestyle=":")
        axes.text(plain, -0.45, " no detail", va="top", fontsize=9)
        axes.set_xlim(0)
        axes.set_xlabel("% of the smooth half's patches that came out textured")
        axes.set_title(f"Exact mixture denoiser, {STEPS} steps, equal gain in the textured half")
        charts.mark_legend(axes.figure, axes, SAMPLERS)


def describe(data: dict[str, Any]) -> str:
    head = ["method", "sampler", "strength", "gain inside", "grain outside / inside", "patches made up"]
    body = [
        [
            r["label"],
            r["sampler"],
            words.figure(r["strength"], 3),
            words.percent(r["gain"]),
            words.spread(r["leak"]),
            words.percent(r["made_up"]),
        ]
        for r in data["rows"]
    ]
    plain = data["rows"][0]["plain"]
    return (
        "Every 8x8 patch of these pictures is smooth or textured; the left half is 98 % smooth, the right 98 % "
        "textured, and the denoiser is the exact posterior mean. A lie makes noise look like more than noise, and "
        "where the posterior then tips, texture appears in the smooth half. All methods gain the high-frequency "
        f"energy in the textured half that an even lie of {DOSE:g} gains there. Without detail, "
        f"{100 * plain['mean']:.1f} % of the smooth half's patches are textured.\n\n" + words.table(head, body)
    )


def targets(data: dict[str, Any]) -> list[words.Target]:
    own = source_label(Settings().mask_source)

    def share(label: str) -> float:
        return fmean(r["made_up"]["mean"] - r["plain"]["mean"] for r in data["rows"] if r["label"] == label)

    even, published, found = share("everywhere"), share("published"), share(own)
    return [
        words.Target(
            "texture made up in the smooth half, less than by the published method (exact mixture)",
            f"{100 * found:+.1f} % of its patches; published {100 * published:+.1f} %, everywhere {100 * even:+.1f} %",
            found < published,
        )
    ]
