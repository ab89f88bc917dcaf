"""Whether the mask lights what the region map says, and nothing where there is nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from selective_sigma import Detailer, Prediction, Settings
from selective_sigma.demo.scenes import KINDS
from selective_sigma.settings import CHOICES

from . import charts, words
from .figures import auc, spread
from .methods import Run, Step
from .samplers import SAMPLERS
from .study import Pictures, Study, Track

TITLE = "Mask truth"
THIRDS = ("early", "middle", "late")
PLACES = [(s, 20) for s in SAMPLERS] + [(s, n) for s in ("euler", "euler_ancestral") for n in (6, 12, 40)]
SOURCES: tuple[str, ...] = CHOICES["mask_source"]


class Watch:
    """A plain run on which a detailer for each source makes its masks, at no model call of its own."""

    def __init__(self) -> None:
        self.detailers: dict[str, Detailer] = {}
        self.sigmas: list[float] = []

    def __call__(self, run: Run, strength: float) -> Step:
        self.sigmas = run.sigmas
        for source in SOURCES:
            # A lie too small to matter, told to nobody: what they return is not used.
            settings = Settings(strength=1e-3, mask_source=source, passes="two")  # type: ignore[arg-type]
            self.detailers[source] = Detailer(settings, run.sigmas, run.family, record=True)

        def step(x: Tensor, sigma: Tensor) -> Prediction:
            prediction = run.evaluate(x, sigma)
            for detailer in self.detailers.values():
                detailer.step(lambda *_: prediction, x, sigma)
            return prediction

        return step

    def thirds(self, source: str) -> dict[str, list[Tensor]]:
        """Masks (batch, 1, H, W) of each third of the run, by the steps' noise levels."""
        steps = len(self.sigmas) - 1
        found: dict[str, list[Tensor]] = {third: [] for third in THIRDS}
        for sigma, mask in self.detailers[source].masks:
            # Solvers probe in between: such a call belongs to the step it lies in.
            step = sum(level > sigma * (1 + 1e-6) for level in self.sigmas[:-1])
            found[THIRDS[min(2, 3 * min(step, steps - 1) // steps)]].append(mask)
        return found


def measure(study: Study, track: Track) -> dict[str, Any]:
    """AUC and mean of the mask for each source, place, third and kind of scene."""
    pictures = study.pictures(kinds=KINDS, count=2)
    region = study.model(pictures).region
    rows: list[dict[str, Any]] = []
    for sampler, steps in track(PLACES):
        watch = Watch()
        study.run(pictures, watch, 0.0, sampler, steps)
        for source in SOURCES:
            for third, masks in watch.thirds(source).items():
                scores, lit = _judge(masks, region)
                rows += _rows(
                    pictures, scores, lit, {"sampler": sampler, "steps": steps, "source": source, "third": third}
                )
    return {"rows": rows}


def _judge(masks: list[Tensor], region: Tensor) -> tuple[list[float], list[float]]:
    """AUC and mean mask of each picture over the masks of a third; NaN where there are none."""
    if not masks:
        return [float("nan")] * len(region), [float("nan")] * len(region)
    scores = torch.tensor([[auc(m[i], region[i]) for i in range(len(region))] for m in masks])
    return scores.mean(0).tolist(), torch.stack(masks).mean((0, 2, 3, 4)).tolist()


def _rows(pictures: Pictures, scores: list[float], lit: list[float], place: dict[str, Any]) -> list[dict[str, Any]]:
    made = []
    nested = zip(pictures.by_seed(scores), pictures.by_seed(lit), strict=True)
    seeds = list(nested)
    for i, kind in enumerate(pictures.kinds):
        by = ([sum(seed[side][i]) / len(seed[side][i]) for seed in seeds] for side in (0, 1))
        right, share = (spread(values) for values in by)
        made.append({**place, "kind": kind, "auc": right, "lit": share})
    return made


def plot(data: dict[str, Any], path: Path) -> None:
    with charts.chart(path, 4, 3.4, sharey=True) as axes:
        for ax, kind in zip(axes, KINDS, strict=True):
            what = "lit" if kind == "smooth" else "auc"
            ends = {}
            for source in SOURCES:
                colour = _colour(source)
                values = [_find(data, source, third, kind)[what]["mean"] for third in THIRDS]
                ax.plot(range(3), values, "-o", color=colour, markersize=4, linewidth=1.8)
                ends[source] = (2.0, values[-1], colour)
            ax.set_xticks(range(3), THIRDS)
            ax.set_xlim(-0.2, 2.2)
            ax.set_ylim(0, 1.02)
            ax.set_title(f"{kind}: {'share lit' if kind == 'smooth' else 'AUC'}")
            if kind == "smooth":
                charts.label_ends(ax, ends)
                ax.axhline(0, color=charts.INK, linewidth=2)
            else:
                ax.axhline(0.5, color="#57606a", linewidth=0.8, linestyle=":")
        axes[0].set_ylabel("third of the run, Euler, 20 steps", fontsize=9)


def _colour(source: str) -> str:
    if source == Settings().mask_source:
        return charts.OURS
    known = {"change_published": charts.PUBLISHED, "first": charts.PEER, "structure": charts.OTHER}
    left = [s for s in SOURCES if s not in known and s != Settings().mask_source]
    return known.get(source) or ("#8250df", "#bf3989", "#7aa7cf", "#57606a")[left.index(source) % 4]


def _find(data: dict[str, Any], source: str, third: str, kind: str, sampler: str = "euler", steps: int = 20) -> Any:
    wanted = {"source": source, "third": third, "kind": kind, "sampler": sampler, "steps": steps}
    return next(r for r in data["rows"] if all(r[k] == v for k, v in wanted.items()))


def describe(data: dict[str, Any]) -> str:
    detailed = [kind for kind in KINDS if kind != "smooth"]
    head = ["source", "sampler", "steps", *(f"{kind}, early / middle / late" for kind in detailed), "smooth: share lit"]
    body = []
    for source in SOURCES:
        for sampler, steps in PLACES:
            cells = [
                " / ".join(words.figure(_find(data, source, t, kind, sampler, steps)["auc"]["mean"]) for t in THIRDS)
                for kind in detailed
            ]
            lit = " / ".join(
                words.figure(_find(data, source, t, "smooth", sampler, steps)["lit"]["mean"]) for t in THIRDS
            )
            body.append([source, sampler, steps, *cells, lit])
    widest = max(r["auc"]["std"] for r in data["rows"] if r["auc"]["std"] == r["auc"]["std"])
    return (
        "AUC: the chance that a pixel inside the region map is lit more than one outside; 0.5 is blind. On the "
        "smooth scene detail belongs nowhere, and the figure is the mean of the mask, honestly 0. Masks of every "
        "source are made along the same plain runs. A dash: no mask yet in that third. Standard deviation of an AUC "
        f"over seeds: at most {widest:.2f}.\n\n" + words.table(head, body)
    )


def targets(data: dict[str, Any]) -> list[words.Target]:
    own = Settings().mask_source

    def lit(source: str) -> float:
        return max(_find(data, source, third, "smooth")["lit"]["mean"] for third in THIRDS)

    return [
        words.Target(
            "all-smooth scene: the default mask is nearly empty (at most 0.05 lit in any third, Euler, 20 steps)",
            ", ".join(f"{source} {lit(source):.2f}" for source in SOURCES) + f"; default {own}",
            lit(own) <= 0.05,
        )
    ]
