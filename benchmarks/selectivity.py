"""How much detail comes where it does not belong, at equal detail where it does."""

from __future__ import annotations

from pathlib import Path
from statistics import fmean
from typing import Any

from selective_sigma.settings import Settings

from . import charts, words
from .figures import spread
from .methods import EVERYWHERE_RATIO, PEERS, PERFECT, PUBLISHED, SOURCES, Method, source_label
from .samplers import DETERMINISTIC, SAMPLERS
from .study import STRENGTH, Pictures, Study, Track, leak_energy, leak_rms

TITLE = "Selectivity"
STEPS, OTHER_STEPS = 20, (6, 12, 40)
OWN = source_label(Settings().mask_source)
SCHEDULES = ("Detail Daemon", "Lying Sigma", "Multiply Sigmas")
"""Methods without a mask that differ from ``everywhere`` in when they lie, not in where."""


def methods(family: str, sampler: str) -> dict[str, Method]:
    """Rows of the full table. The maskless schedules and ``first`` stand on few samplers, to save runs."""
    few = sampler == "euler" or (family == "ve" and sampler == "euler_ancestral")
    peers = {label: m for label, m in PEERS.items() if few or label not in SCHEDULES}
    sources = {source_label(name): m for name, m in SOURCES.items() if name != "first" or sampler == "euler"}
    return {**peers, **sources, "a perfect mask": PERFECT}


def measure(study: Study, track: Track) -> dict[str, Any]:
    """Rows at 20 steps and equal gain, and at other step counts with the strengths found there."""
    cells = [
        (family, sampler, label)
        for family in ("ve", "flow")
        for sampler in SAMPLERS
        for label in methods(family, sampler)
    ]
    strengths: dict[tuple[str, str, str], float] = {}
    rows: list[dict[str, Any]] = []
    for family, sampler, label in track(cells):
        method = methods(family, sampler)[label]
        few = study.pictures(family=family)
        many = study.pictures(family=family, count=2 if family == "ve" else 1)
        target = fmean(study.figures(few, EVERYWHERE_RATIO, STRENGTH, sampler, STEPS).inside)
        strength = study.matched(few, method, target, sampler, STEPS)
        strengths[family, sampler, label] = strength
        rows.append(_row(study, many, method, strength, sampler, STEPS) | {"label": label, "target": target})
    matrix: list[dict[str, Any]] = []
    places = [(f, s, n) for f in ("ve", "flow") for s in SAMPLERS for n in OTHER_STEPS]
    for family, sampler, steps in track([p for p in places if p[2] < 40 or (p[0] == "ve" and p[1] != "dpmpp_sde")]):
        for label, method in (("everywhere", PEERS["everywhere"]), ("published", PUBLISHED), (OWN, _own())):
            strength = strengths[family, sampler, label]
            row = _row(study, study.pictures(family=family), method, strength, sampler, steps)
            matrix.append(row | {"label": label})
    return {"rows": rows, "matrix": matrix}


def _own() -> Method:
    return SOURCES.get(Settings().mask_source, PUBLISHED)


def _row(study: Study, pictures: Pictures, method: Method, strength: float, sampler: str, steps: int) -> dict[str, Any]:
    figures = study.figures(pictures, method, strength, sampler, steps)
    leak = leak_rms(pictures, figures)
    return {
        "family": pictures.family,
        "sampler": sampler,
        "steps": steps,
        "strength": strength,
        "inside": pictures.mean(figures.inside),
        "leak": spread([fmean(seed) for seed in leak]),
        "energy": spread(leak_energy(pictures, figures)),
        "kinds": {kind: spread([seed[i] for seed in leak])["mean"] for i, kind in enumerate(pictures.kinds)},
        "cost": figures.cost,
    }


def plot(data: dict[str, Any], path: Path) -> None:
    with charts.chart(path, 2, 4.2, width_ratios=[1.25, 1]) as (left, right):
        found: dict[str, dict[str, float]] = {}
        for row in data["rows"]:
            if row["family"] == "ve":
                found.setdefault(row["label"], {})[row["sampler"]] = row["leak"]["mean"]
        charts.dots(left, [(label, values, charts.colour_of(label)) for label, values in found.items()])
        left.set_xlim(0)
        left.set_xlabel("fine detail added outside / inside (less is better)")
        left.set_title("20 steps, equal detail added inside")
        charts.mark_legend(left.figure, left, list(SAMPLERS))
        steps = sorted({STEPS, *OTHER_STEPS})
        curves = {}
        for label in ("everywhere", "published", OWN):
            means = [_mean(data, label, n) for n in steps]
            curves[label] = (means, charts.colour_of(label))
        charts.lines(right, steps, curves)
        right.set_xlabel("steps")
        right.set_title("Mean over samplers, VE")


def _mean(data: dict[str, Any], label: str, steps: int) -> float:
    """Leak on VE over the samplers that ran at every step count."""
    rows = [r for r in [*data["rows"], *data["matrix"]] if r["family"] == "ve" and r["label"] == label]
    complete = [s for s in SAMPLERS if {r["steps"] for r in rows if r["sampler"] == s} >= {STEPS, *OTHER_STEPS}]
    return fmean(r["leak"]["mean"] for r in rows if r["steps"] == steps and r["sampler"] in complete)


def describe(data: dict[str, Any]) -> str:
    kinds = list(data["rows"][0]["kinds"])
    head = ["method", "sampler", "strength", "gain", "leak", "by energy", *kinds, "calls"]
    text = [
        "Leak is fine detail added outside the region map over fine detail added inside: RMS of the "
        "high-passed difference from the plain picture of the same seed (by energy: high-frequency energy "
        "gained, which falls where a method blurs). Every method is scaled to the detail that an even lie of 0.1 adds "
        "inside, by one run at 0.1, as a small lie's effect is linear in its strength; `gain` is what was then "
        f"reached of it. Mean and standard deviation over seeds, {STEPS} steps; * is the default."
    ]
    for family, name in (("ve", "VE model"), ("flow", "Rectified flow")):
        body = [
            [
                r["label"],
                r["sampler"],
                words.figure(r["strength"], 3),
                words.figure(r["inside"]["mean"] / r["target"]),
                words.spread(r["leak"]),
                words.spread(r["energy"]),
                *(words.figure(r["kinds"][kind]) for kind in kinds),
                words.figure(r["cost"]),
            ]
            for r in data["rows"]
            if r["family"] == family
        ]
        text += [f"**{name}**", words.table(head, body)]
    labels = list(dict.fromkeys(r["label"] for r in data["matrix"]))
    body = []
    for family, sampler in dict.fromkeys((r["family"], r["sampler"]) for r in data["matrix"]):
        for n in sorted({r["steps"] for r in data["matrix"] if r["family"] == family} | {STEPS}):
            found = {r["label"]: r for r in [*data["rows"], *data["matrix"]] if _at(r, family, sampler, n)}
            if not found.keys() >= set(labels):
                continue
            body.append([family, sampler, n, *(words.spread(found[label]["leak"]) for label in labels)])
    text += [
        "**Other step counts**, leak, strengths as at 20 steps",
        words.table(["", "sampler", "steps", *labels], body),
    ]
    return "\n\n".join(text)


def _at(row: dict[str, Any], family: str, sampler: str, steps: int) -> bool:
    return row["family"] == family and row["sampler"] == sampler and row["steps"] == steps


def targets(data: dict[str, Any]) -> list[words.Target]:
    found = {(r["sampler"], r["label"]): r["leak"]["mean"] for r in data["rows"] if r["family"] == "ve"}
    made: list[words.Target] = []
    for sampler in SAMPLERS:
        share = found[sampler, OWN] / found[sampler, "published"]
        limit, word = (1 / 3, "a third") if sampler in DETERMINISTIC else (1 / 2, "half")
        made.append(
            words.Target(
                f"leak at most {word} of the published method's, VE, {sampler}, {STEPS} steps",
                f"{share:.2f} of it ({found[sampler, OWN]:.3f} against {found[sampler, 'published']:.3f}; the true "
                f"region as the mask: {found[sampler, 'a perfect mask']:.3f})",
                share <= limit,
            )
        )
    made.append(_rule(data))
    return made


def _rule(data: dict[str, Any]) -> words.Target:
    """Which sources beat ``change`` on selectivity in every scene class, over all VE samplers."""
    kinds = list(data["rows"][0]["kinds"])

    def leak(source: str, kind: str) -> float:
        rows = [r for r in data["rows"] if r["family"] == "ve" and r["label"] == source_label(source)]
        return fmean(r["kinds"][kind] for r in rows)

    better = [s for s in SOURCES if s not in ("change", "first") and all(leak(s, k) < leak("change", k) for k in kinds)]
    own = Settings().mask_source
    return words.Target(
        "`mask_source` is a change mask unless another beats it in every scene class",
        f"default {own}; better than change in every class: {', '.join(better) or 'none'}. "
        + "; ".join(f"{s}: " + ", ".join(f"{k} {leak(s, k):.2f}" for k in kinds) for s in SOURCES if s != "first"),
        own in better or (own.startswith("change") and not better),
    )
