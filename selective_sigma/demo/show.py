"""``selective-sigma demo``: photographs redrawn plain, with the lie told everywhere, and with Selective Sigma."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ..settings import Settings
from . import NAMES, page, truth
from . import out as folder
from .compare import Row, compare, side_by_side
from .figure import grid, to_image
from .network import load
from .photos import FACTOR, photograph, shape_of
from .scene import Scene, image

if TYPE_CHECKING:
    from .terminal import ProgressBar

PHOTOS = ("wren", "chelsea")
STRENGTHS = (-0.1, 0.0, 0.05, 0.1, 0.15)
COVERAGES = (1.0, 0.75, 0.5, 0.25, 0.0)
REGIONS = (
    "Inside and outside: fine detail of brightness (RMS) in the third of the pixels where the photograph itself has "
    "most and least of it. Calls are model calls; 1.00x is the plain sampler."
)
SWEEP_RUNS = 6
"""Runs of the sampler for the two sweeps, beyond those of the comparison."""
COMPARISON_RUNS = 4
"""Expected runs for a comparison. The search for equal detail may need more or fewer."""
COLUMNS = ("photograph", "method", "strength", "calls", "inside", "outside")


@dataclass
class Demo:
    """What was drawn, what it cost, and what to look at."""

    pictures: list[str]
    page: str
    rows: list[Row]
    seconds: float = 0.0
    peak_mib: float | None = None
    text: str = field(default="", repr=False)


def draw_demo(
    out: Path,
    steps: int,
    seed: int,
    progress: ProgressBar,
    photo: str | None = None,
    strength: float = Settings.strength,
) -> Demo:
    """Draw pictures and page into ``out``.

    Args:
        out: the folder. It is made if it is missing.
        steps: of the sampler.
        seed: of the noise.
        progress: a bar that is shown already.
        photo: a picture of the user's, or a named one, in place of ``PHOTOS``.
        strength: of Selective Sigma.

    Raises:
        ValueError: ``photo`` is no picture, ``out`` no folder.
    """
    began = time.monotonic()
    network = load()
    scenes = {name: _scene(network, name, steps, seed, progress) for name in ([photo] if photo else PHOTOS)}
    folder.make(out)
    progress.begin("pictures", COMPARISON_RUNS * len(scenes) + SWEEP_RUNS)
    demo = Demo([], str(out / "demo.html"), [])
    wipes: list[page.Wipe] = []
    figures: list[page.Figure] = []
    for source, scene in scenes.items():
        name = Path(source).stem
        comparison = compare(scene, name, strength)
        # A user's photograph may lie in this folder, and is not written over.
        file = f"{name}.png" if source in NAMES else f"{name}_compared.png"
        demo.pictures.append(_save(side_by_side(comparison, scene.factor), out / file))
        text = f"{name}, drawn three ways with as much fine detail in the busy part; below, parts of busy and smooth."
        figures.append(page.Figure(f"{name}, side by side", text, demo.pictures[-1]))
        demo.rows += comparison.rows
        wipes.append(comparison.wipe)
    figures += _sweeps(next(iter(scenes.values())), out, strength)
    demo.pictures += [figure.path for figure in figures[len(scenes) :]]
    introduction = (
        f"A small network redraws each photograph from a thumbnail {FACTOR:g} times smaller. Drag over a picture, or "
        "use the arrow keys, to wipe between two versions of it. Both detailed versions hold as much fine detail where "
        "the photograph has most of it."
    )
    table = page.Table("What it cost", REGIONS, COLUMNS, [cells(row) for row in demo.rows])
    Path(demo.page).write_text(page.build(introduction, wipes, table, figures), encoding="utf-8")
    progress.complete()
    demo.seconds = time.monotonic() - began
    demo.peak_mib = _peak_mib()
    demo.text = _explain(demo)
    return demo


def cells(row: Row) -> list[str]:
    """A row of the table, by ``COLUMNS``."""
    cost = f"{row.calls} ({row.calls / row.steps:.2f}x)"
    return [row.photo, row.method, f"{row.strength:.3g}", cost, f"{row.inside:.4f}", f"{row.outside:.4f}"]


def _scene(network: Any, source: str, steps: int, seed: int, progress: ProgressBar) -> Scene:
    size = (256, 256) if source in NAMES else shape_of(source)
    smooth = truth.by_hand(source, size).outside if truth.has_regions(source) else None
    return Scene(network, photograph(source, size), smooth, steps, seed, progress.advance)


def _sweeps(scene: Scene, out: Path, strength: float) -> list[page.Figure]:
    """One photograph at several coverages, and at several strengths."""
    sweeps = [
        (
            f"Coverage, at strength {strength:g}",
            "From everywhere (1) to nowhere (0): the masks below show where the lie was told.",
            "coverage_sweep.png",
            {f"coverage {coverage:g}": scene.draw(strength, coverage) for coverage in COVERAGES},
        ),
        (
            "Strength, at coverage 0.5",
            "Softer below 0, the plain sampler's picture at 0, finer above.",
            "strength_sweep.png",
            {f"strength {value:g}": scene.draw(value) for value in STRENGTHS},
        ),
    ]
    figures: list[page.Figure] = []
    for title, text, file, samples in sweeps:
        pictures = [image(sample.picture) for sample in samples.values()]
        masks = [to_image(sample.mask[0]) for sample in samples.values()]
        sheet = grid([("picture", pictures), ("mask", masks)], list(samples), note=f"{title}, {scene.steps} steps")
        figures.append(page.Figure(title, text, _save(sheet, out / file)))
    return figures


def _save(picture: Any, path: Path) -> str:
    picture.save(path)
    return str(path)


def _peak_mib() -> float | None:
    """The most memory that this process has held, in MiB; None on Windows, which does not say."""
    if sys.platform == "win32":
        return None
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Linux counts in KiB, macOS in bytes.
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def _explain(demo: Demo) -> str:
    *compared, coverage, strength = demo.pictures
    memory = "" if demo.peak_mib is None else f", at most {demo.peak_mib:.0f} MiB"
    return f"""
What to look at
  {demo.page}   all of it, with sliders that wipe from plain to detailed: open it in a browser
  {", ".join(compared)}   equal detail in fur, feathers and edges; look at the smooth parts
  {coverage}   masks below: where the lie was told, from everywhere (left) to nowhere (right)
  {strength}   softer to the left of 0, finer to the right
{REGIONS}
Embedded network, {torch.get_num_threads()} threads: {demo.seconds:.0f} s{memory}.
For a picture of yours: --photo FILE; named ones are {", ".join(NAMES)}.
""".strip("\n")
