"""What else a method changes: mean, contrast and colour, at equal gain of detail."""

from __future__ import annotations

from pathlib import Path
from statistics import fmean
from typing import Any

from . import charts, words
from .methods import EVERYWHERE, EVERYWHERE_RATIO, PUBLISHED, Method, ours
from .samplers import SAMPLERS
from .study import STRENGTH, Study, Track

TITLE = "Side effects"
STEPS = 20
MEASURES = {"mean": "mean", "contrast": "low-pass contrast", "colour": "colour"}
METHODS: dict[str, dict[str, Method]] = {
    "flow": {
        "everywhere, fixed input": EVERYWHERE,
        "everywhere, noise to signal": EVERYWHERE_RATIO,
        "published (fixed input)": PUBLISHED,
        "ours, fixed input": ours(lie="fixed_input"),
        "ours, noise to signal *": ours(lie="noise_to_signal"),
    },
    "ve": {"everywhere": EVERYWHERE, "published": PUBLISHED, "ours *": ours()},
}


def measure(study: Study, track: Track) -> dict[str, Any]:
    """Rows at the gain of high-frequency energy that an even lie of 0.1 about noise to signal brings."""
    rows: list[dict[str, Any]] = []
    for family, sampler, label in track([(f, s, m) for f in METHODS for s in SAMPLERS for m in METHODS[f]]):
        pictures, method = study.pictures(family=family), METHODS[family][label]
        target = fmean(study.figures(pictures, EVERYWHERE_RATIO, STRENGTH, sampler, STEPS).gain)
        strength = study.matched(pictures, method, target, sampler, STEPS, lambda f: f.gain)
        figures = study.figures(pictures, method, strength, sampler, STEPS)
        row = {"family": family, "sampler": sampler, "label": label, "strength": strength, "target": target}
        row["gain"] = pictures.mean(figures.gain)
        for name in MEASURES:
            row[name] = pictures.mean([abs(v) for v in getattr(figures, name)])
            row[f"{name} signed"] = fmean(getattr(figures, name))
        row["change"] = pictures.mean(figures.change)
        rows.append(row)
    return {"rows": rows}


def plot(data: dict[str, Any], path: Path) -> None:
    rows = [r for r in data["rows"] if r["family"] == "flow"]
    with charts.chart(path, 3, 3.4, sharey=True) as axes:
        for ax, (name, title) in zip(axes, MEASURES.items(), strict=True):
            found: dict[str, dict[str, float]] = {}
            for row in rows:
                found.setdefault(row["label"], {})[row["sampler"]] = 100 * row[name]["mean"]
            charts.dots(ax, [(label, values, _colour(label)) for label, values in found.items()])
            ax.set_xlim(0)
            ax.set_title(title)
            ax.set_xlabel("% of full scale" if name != "contrast" else "%")
        charts.mark_legend(axes[-1].figure, axes[-1], list(SAMPLERS))


def _colour(label: str) -> str:
    if "noise to signal" in label:
        return charts.OURS if label.startswith("ours") else charts.OTHER
    return charts.PUBLISHED if label.startswith("published") else charts.PEER


def describe(data: dict[str, Any]) -> str:
    head = ["", "method", "sampler", "strength", "gain", "mean", "low-pass contrast", "colour", "signed contrast"]
    body = [
        [
            r["family"],
            r["label"],
            r["sampler"],
            words.figure(r["strength"], 3),
            words.percent(r["gain"]),
            words.percent(r["mean"], 2),
            words.percent(r["contrast"], 2),
            words.percent(r["colour"], 2),
            words.figure(100 * r["contrast signed"]) + " %",
        ]
        for r in data["rows"]
    ]
    return (
        "Absolute changes against the plain picture, averaged over pictures, when every method gains the "
        "high-frequency energy inside the region map that an even noise-to-signal lie of 0.1 gains (one run "
        f"at 0.1, then scaled; a strength of 0.600 is the most tried). {STEPS} steps. Contrast is the standard "
        "deviation of the low-passed picture; colour is the change of channel means, the common part taken out.\n\n"
        + words.table(head, body)
    )


def targets(data: dict[str, Any]) -> list[words.Target]:
    made = []
    for name in ("mean", "contrast"):
        for pair in (("everywhere, noise to signal", "everywhere, fixed input"), _ours()):
            worst, sums = 0.0, [0.0, 0.0]
            for sampler in SAMPLERS:
                found = {r["label"]: r for r in data["rows"] if r["family"] == "flow" and r["sampler"] == sampler}
                right, wrong = (_at_gain(found[label], name) for label in pair)
                worst = max(worst, right / wrong)
                sums = [sums[0] + right, sums[1] + wrong]
            share = sums[0] / sums[1]
            made.append(
                words.Target(
                    f"flow: change of {name} at most a third of the fixed-input lie's, at equal gain ({pair[0]})",
                    f"{share:.2f} of it over the samplers, worst sampler {worst:.2f}",
                    share <= 1 / 3,
                )
            )
    return made


def _at_gain(row: dict[str, Any], name: str) -> float:
    """A side effect at exactly the target gain, for it is linear in the gain.

    At most doubled: a method that found no such gain is not charged for more than it did.
    """
    return row[name]["mean"] * row["target"] / max(row["gain"]["mean"], row["target"] / 2)


def _ours() -> tuple[str, str]:
    return "ours, noise to signal *", "ours, fixed input"
