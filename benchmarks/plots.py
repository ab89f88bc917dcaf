"""The plots of docs/evidence.md: few colours, labels beside what they name."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from .evaluate import COUNTS, DRAWN, FLOW, FOUR, PHOTOS, STEPS, VE
from .figures import Row
from .methods import METHODS, OURS, THEIRS
from .report import NAMES, pick, reached

COLOURS = {OURS: "#1261a8", THEIRS: "#d1601c", "the true region": "#2b8a5a", "ours, published mask": "#7aa7cf"}
PEER = "#868d96"
MARKS: dict[str, str] = dict(zip(FOUR, "os^D", strict=True))
STYLE = {"font.size": 10, "text.color": "#24292f", "axes.titleweight": "bold", "axes.titlelocation": "left"}
STYLE |= {"axes.titlesize": 10.5, "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True}
STYLE |= {"axes.axisbelow": True, "grid.color": "#e4e7ea", "legend.frameon": False, "axes.edgecolor": "#8c959f"}


def leak(rows: Sequence[Row], figure: Figure) -> None:
    """Leak on photographs and mixtures, VE, a mark for each sampler: the plot a stranger sees first."""
    labels = [label for label in METHODS if label != "Multiply Sigmas"]
    colours = [COLOURS.get(label, PEER) for label in labels]
    figure.set_figheight(3.4)
    axes = figure.subplots(1, len(DRAWN), sharey=True)
    for ax, model in zip(axes, DRAWN, strict=True):
        for i, (label, colour) in enumerate(zip(labels, colours, strict=True)):
            found = list(filter(reached, pick(rows, "leak", model=model, schedule=VE, label=label)))
            ax.plot([row.leak for row in found], [i] * len(found), "-", color=colour, linewidth=1, alpha=0.5)
            for row in found:
                ax.plot(row.leak, i, MARKS[row.sampler], color=colour, markersize=6)
        ax.set_yticks(range(len(labels)), labels)
        for tick, colour in zip(ax.get_yticklabels(), colours, strict=False):
            tick.set_color(colour)
        ax.set_ylim(len(labels) - 0.5, -0.5)
        ax.set_xlim(min(0.0, ax.get_xlim()[0]))
        ax.set_title(model.capitalize())
    axes[1].set_xlabel("fine detail added where it does not belong / where it does (less is better)")
    marks = [axes[0].plot([], [], MARKS[s], color="#57606a", markersize=6)[0] for s in FOUR]
    figure.legend(marks, [NAMES[s] for s in FOUR], loc="outside lower center", ncols=len(marks))


def steps(rows: Sequence[Row], figure: Figure) -> None:
    """Gain at one strength over the number of steps, ours and published."""
    figure.set_figheight(2.8)
    places = [(model, schedule) for model in (PHOTOS, "mixture 4x4") for schedule in (VE, FLOW)]
    axes = figure.subplots(1, len(places), sharey=True)
    for ax, (model, schedule) in zip(axes, places, strict=True):
        for label, sampler in product((OURS, THEIRS), FOUR):
            found = pick(rows, "steps", model=model, schedule=schedule, sampler=sampler, label=label)
            at, gains = [row.steps for row in found], [100 * row.gain for row in found]
            ax.plot(at, gains, f"-{MARKS[sampler]}", color=COLOURS[label], markersize=4, linewidth=1.4)
        ax.set_xscale("log")
        ax.minorticks_off()
        ax.set_xticks(COUNTS, [str(n) for n in COUNTS])
        ax.set_ylim(0)
        ax.set_title(f"{model}\n{schedule}")
    axes[0].set_ylabel(f"gain in % at strength 0.1 ({STEPS}: usual)")


def draw(rows: Sequence[Row], folder: Path) -> None:
    """All plots, as PNG files in ``folder``."""
    with mpl.rc_context(STYLE):  # type: ignore[arg-type]
        for plot in (leak, steps):
            figure = Figure(figsize=(9.6, 3), layout="constrained")
            plot(rows, figure)
            figure.savefig(folder / f"{plot.__name__}.png", dpi=110)
