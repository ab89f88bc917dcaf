"""Plots alike: readable at the width of a README, few colours, labels beside what they name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

OURS, PUBLISHED, PEER, OTHER = "#1261a8", "#d1601c", "#868d96", "#2b8a5a"
INK = "#24292f"
SAMPLER_MARKS = {"euler": "o", "euler_ancestral": "s", "dpmpp_2m": "^", "dpmpp_sde": "D"}
STYLE = {
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": "#8c959f",
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e7ea",
    "grid.linewidth": 0.8,
    "xtick.color": "#57606a",
    "ytick.color": "#57606a",
    "legend.frameon": False,
    "legend.fontsize": 9,
}


@contextmanager
def chart(path: Path, columns: int = 1, height: float = 3.8, **options: object) -> Iterator[list[Axes]]:
    """Axes side by side, 9.6 inches in all; saved at ``path`` on leaving."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9.6, height), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots(1, columns, squeeze=False, **options)[0]
        yield list(axes)
        figure.savefig(path, dpi=110)


def lines(
    axes: Axes,
    x: Sequence[float],
    curves: Mapping[str, tuple[Sequence[float], str]],
    spreads: Mapping[str, Sequence[float]] | None = None,
    log: bool = True,
) -> None:
    """Curves from zero up over step counts: (values, colour) by label, named at the right end."""
    for label, (y, colour) in curves.items():
        axes.plot(x, y, "-o", color=colour, markersize=4, linewidth=1.8)
        if spreads and label in spreads:
            low, high = ([v + sign * s for v, s in zip(y, spreads[label], strict=True)] for sign in (-1, 1))
            axes.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
    if log:
        axes.set_xscale("log")
        axes.minorticks_off()
    axes.set_xticks(list(x), [f"{v:g}" for v in x])
    axes.set_ylim(0)
    label_ends(axes, {label: (x[-1], y[-1], colour) for label, (y, colour) in curves.items()})


def label_ends(axes: Axes, ends: Mapping[str, tuple[float, float, str]], gap: float = 0.075) -> None:
    """Names beside the last points, pushed apart by ``gap`` of the height where they would meet."""
    to_share = axes.transData + axes.transAxes.inverted()
    axes.autoscale_view()
    order = sorted(ends.items(), key=lambda item: item[1][1])
    places = [float(to_share.transform((x, y))[1]) for _, (x, y, _) in order]
    for i in range(1, len(places)):
        places[i] = max(places[i], places[i - 1] + gap)
    over = max(0.0, places[-1] - 1.0) if places else 0.0
    for (label, (_, _, colour)), place in zip(order, places, strict=True):
        axes.text(1.02, place - over, label, color=colour, transform=axes.transAxes, va="center", fontsize=9)


def dots(axes: Axes, rows: Sequence[tuple[str, Mapping[str, float], str]]) -> None:
    """One row a method, top down: (label, value by sampler, colour), a mark for each sampler."""
    for i, (_, values, colour) in enumerate(rows):
        axes.plot(list(values.values()), [i] * len(values), "-", color=colour, linewidth=1, alpha=0.5)
        for sampler, value in values.items():
            axes.plot(value, i, SAMPLER_MARKS.get(sampler, "o"), color=colour, markersize=6)
    axes.set_yticks(range(len(rows)), [label for label, _, _ in rows])
    for tick, (_, _, colour) in zip(axes.get_yticklabels(), rows, strict=False):
        tick.set_color(colour)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.grid(axis="y", visible=False)


def mark_legend(figure: Figure, axes: Axes, samplers: Sequence[str]) -> None:
    """Which mark is which sampler, below the axes."""
    marks = [axes.plot([], [], SAMPLER_MARKS[s], color="#57606a", markersize=6)[0] for s in samplers]
    figure.legend(marks, samplers, loc="outside lower center", ncols=len(marks))


def colour_of(label: str) -> str:
    """Ours blue (the default strong), the published method orange, the rest grey."""
    if label.startswith("ours"):
        return OURS if label.endswith("*") else "#7aa7cf"
    return PUBLISHED if label.startswith("published") else PEER
