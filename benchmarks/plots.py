"""The plots of docs/evidence.md: few colours, labels beside what they name."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from .evaluate import COUNTS, FLOW, FOUR, STEPS, VE
from .methods import METHODS
from .report import NAMES, OURS, Table

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from matplotlib.axes import Axes

    from .rows import Row

INK = "#24292f"
COLOURS = {
    OURS: "#1261a8",
    "published 0.1.1": "#d1601c",
    "the true region": "#2b8a5a",
    "ours, published mask": "#7aa7cf",
}
PEER = "#868d96"
MARKS: dict[str, str] = dict(zip(FOUR, "os^D", strict=True))
STYLE = {"font.size": 10, "text.color": INK, "axes.titleweight": "bold", "axes.titlelocation": "left"}
STYLE |= {"axes.titlesize": 10.5, "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True}
STYLE |= {"axes.axisbelow": True, "grid.color": "#e4e7ea", "legend.frameon": False, "axes.edgecolor": "#8c959f"}


@contextmanager
def chart(path: Path, columns: int, height: float, **options: object) -> Iterator[list[Axes]]:
    """Axes side by side, 9.6 inches in all; saved at ``path`` on leaving."""
    with mpl.rc_context(STYLE):  # type: ignore[arg-type]
        figure = Figure(figsize=(9.6, height), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots(1, columns, squeeze=False, **options)[0]  # type: ignore[arg-type]
        yield list(axes)
        figure.savefig(path, dpi=110)


def leak(rows: Table, path: Path) -> None:
    """Leak on photographs and mixtures, VE, a mark for each sampler: the plot a stranger sees first."""
    models = ("photographs", "mixture 8x8", "mixture 4x4")
    labels = [label for label in METHODS if label != "Multiply Sigmas"]
    with chart(path, len(models), 3.4, sharey=True) as axes:
        for ax, model in zip(axes, models, strict=True):
            for i, label in enumerate(labels):
                colour = COLOURS.get(label, PEER)
                found = {s: row.leak for s in FOUR if (row := rows.leak(model, VE, s, label))}
                ax.plot(list(found.values()), [i] * len(found), "-", color=colour, linewidth=1, alpha=0.5)
                for sampler, value in found.items():
                    ax.plot(value, i, MARKS[sampler], color=colour, markersize=6)
            ax.set_yticks(range(len(labels)), labels)
            for tick, label in zip(ax.get_yticklabels(), labels, strict=False):
                tick.set_color(COLOURS.get(label, PEER))
            ax.set_ylim(len(labels) - 0.5, -0.5)
            ax.set_xlim(min(0.0, ax.get_xlim()[0]))
            ax.set_title(model.capitalize())
        axes[1].set_xlabel("fine detail added where it does not belong / where it does (less is better)")
        figure = axes[0].figure
        assert isinstance(figure, Figure)
        marks = [axes[0].plot([], [], MARKS[s], color="#57606a", markersize=6)[0] for s in FOUR]
        figure.legend(marks, [NAMES[s] for s in FOUR], loc="outside lower center", ncols=len(marks))


def steps(rows: Table, path: Path) -> None:
    """Gain at one strength over the number of steps, ours and published."""
    places = [("photographs", VE), ("photographs", FLOW), ("mixture 4x4", VE), ("mixture 4x4", FLOW)]
    with chart(path, len(places), 2.8, sharey=True) as axes:
        for ax, (model, schedule) in zip(axes, places, strict=True):
            for label in (OURS, "published 0.1.1"):
                for sampler in FOUR:
                    found = [r for n in COUNTS if (r := rows.effect("steps", model, schedule, sampler, n, label))]
                    at, gains = [r.steps for r in found], [100 * r.gain for r in found]
                    ax.plot(at, gains, f"-{MARKS[sampler]}", color=COLOURS[label], markersize=4, linewidth=1.4)
            ax.set_xscale("log")
            ax.minorticks_off()
            ax.set_xticks(COUNTS, [str(n) for n in COUNTS])
            ax.set_ylim(0)
            ax.set_title(f"{model}\n{schedule}")
        axes[0].set_ylabel(f"gain in % at strength 0.1 ({STEPS}: usual)")


def draw(rows: Sequence[Row], folder: Path) -> None:
    """All plots, as PNG files in ``folder``."""
    for plot in (leak, steps):
        plot(Table(rows), folder / f"{plot.__name__}.png")
