"""``selective-sigma demo``: photographs redrawn plain, with the lie told everywhere, and with Selective Sigma."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from . import NAMES, STRENGTH, page
from . import out as folder
from .compare import Scene, crop, image
from .figure import grid, to_image
from .network import load
from .photos import shape_of

PHOTOS = ("chelsea", "astronaut")
STRENGTHS = (-0.2, 0.0, 0.1, 0.2, 0.4)
COVERAGES = (1.0, 0.75, 0.5, 0.25, 0.0)
STRETCH = 2.0
"""Contrast of the smooth crop: what a screen hides and a print shows."""
REGIONS = (
    "Inside and outside: fine detail (RMS) in the third of the pixels where the photograph itself has most and least "
    "of it. Calls are model calls; 1.00x is the plain sampler."
)
RUNS = 14
"""About so many runs of the sampler for two photographs; the search for equal detail decides."""


@dataclass
class Row:
    """One method on one photograph; ``inside`` and ``outside`` are RMS of its fine detail by ``truth.measured``."""

    photo: str
    method: str
    strength: float
    steps: int
    calls: int
    inside: float
    outside: float


@dataclass
class Shown:
    """What the demo made, and what to look at."""

    pictures: list[str]
    page: str
    rows: list[Row]
    seconds: float = 0.0
    peak_mib: float | None = None
    text: str = field(default="", repr=False)


def show(out: Path, steps: int, seed: int, bar: Any, photo: str | None = None, strength: float = STRENGTH) -> Shown:
    """Draw everything into ``out``; ``bar`` is a rich Progress, not begun; ``photo`` a picture in place of ours.

    Raises:
        ValueError: ``photo`` is no picture, ``out`` no folder.
    """
    began = time.monotonic()
    network = load()
    sources = [photo] if photo else list(PHOTOS)
    scenes = [
        Scene(
            network,
            source,
            shape_of(source) if photo else 256,
            None if photo else 1.0,
            steps,
            seed,
            lambda: bar.advance(task),
        )
        for source in sources
    ]
    folder.make(out)
    with bar:
        task = bar.add_task("pictures", total=RUNS if len(sources) > 1 else RUNS - 4)
        shown = _drawn(scenes, out, strength)
        bar.update(task, completed=bar.tasks[task].total)
    shown.seconds = time.monotonic() - began
    shown.peak_mib = _peak_mib()
    shown.text = _explain(shown)
    return shown


def _drawn(scenes: list[Scene], out: Path, strength: float) -> Shown:
    """Pictures and page in ``out``."""
    shown = Shown([], str(out / "demo.html"), [])
    wipes: list[page.Wipe] = []
    sheets: list[page.Sheet] = []
    for scene in scenes:
        name = Path(scene.source).stem
        figure, rows, wipe = compared(scene, name, strength)
        # Under a name that no photograph of the user's has, should it lie in that very folder.
        file = f"{name}.png" if str(scene.source) in NAMES else f"{name}_compared.png"
        shown.pictures.append(_save(figure, out / file))
        text = f"{name}, drawn three ways with as much fine detail in the busy part; below, crops of busy and smooth."
        sheets.append(page.Sheet(f"{name}, side by side", text, shown.pictures[-1]))
        shown.rows += rows
        wipes.append(wipe)
    first = scenes[0]
    sweeps = {
        "coverage": ([(strength, c) for c in COVERAGES], [f"coverage {c:g}" for c in COVERAGES]),
        "strength": ([(s, 0.5) for s in STRENGTHS], [f"strength {s:g}" for s in STRENGTHS]),
    }
    fixed = {"coverage": f"strength {strength:g}", "strength": "coverage 0.5"}
    texts = {
        "coverage": "From everywhere (1) to nowhere (0): the masks below show where the lie was told.",
        "strength": "Softer below 0, the plain sampler's picture at 0, finer above.",
    }
    for name, (cells, columns) in sweeps.items():
        drawn = [first.draw(*cell) for cell in cells]
        rows = [("picture", [image(d.picture) for d in drawn]), ("mask", [to_image(d.mask[0]) for d in drawn])]
        note = f"{fixed[name]}, {first.steps} steps"
        shown.pictures.append(_save(grid(rows, columns, note=note), out / f"{name}_sweep.png"))
        sheets.append(page.Sheet(f"{name.capitalize()}, at {fixed[name]}", texts[name], shown.pictures[-1]))
    Path(shown.page).write_text(page.build(wipes, sheets), encoding="utf-8")
    return shown


def compared(scene: Scene, name: str, strength: float) -> tuple[Any, list[Row], page.Wipe]:
    """The row of a photograph with its crops, the figures to it, and what the page wipes between."""
    plain, selective = scene.draw(0.0), scene.draw(strength)
    same = scene.everywhere(strength)
    everywhere = scene.draw(same, 1.0)
    drawn = {"plain": (plain, 0.0), "everywhere": (everywhere, same), "selective": (selective, strength)}
    rows: list[Row] = []
    for method, (d, s) in drawn.items():
        inside, outside = (v.item() for v in scene.detail(d.picture))
        rows.append(Row(name, method, s, scene.steps, d.report.calls, inside, outside))
    pictures = [scene.photo, *(d.picture for d, _ in drawn.values())]
    columns = [
        "photograph",
        "plain",
        f"lie everywhere\nstrength {same:.3g}",
        f"Selective Sigma\nstrength {strength:.3g}",
    ]
    places = scene.places()
    mask = selective.mask
    lines = [
        ("", [*map(image, pictures), to_image(mask[0])]),
        ("close", [crop(p, places["busy"]) for p in pictures] + [crop(mask * 2 - 1, places["busy"])]),
        (
            f"smooth part\ncontrast x {STRETCH:g}",
            [crop(p, places["smooth"], stretch=STRETCH) for p in pictures] + [crop(mask * 2 - 1, places["smooth"])],
        ),
    ]
    note = "Equal fine detail where the photograph has most of it (upper third); the photograph itself was not shown"
    figure = grid(lines, [*columns, "mask of\nSelective Sigma"], note=f"{note}: a thumbnail 4 times smaller was.")
    images = {label.replace("\n", ", "): image(p) for label, p in zip(columns, pictures, strict=True)}
    return figure, rows, page.Wipe(name, images, to_image(mask[0]))


def _save(picture: Any, path: Path) -> str:
    picture.save(path)
    return str(path)


def _peak_mib() -> float | None:
    """Most memory this process has held, in MiB; Windows does not tell."""
    if sys.platform == "win32":
        return None
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Linux counts in KiB, macOS in bytes.
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def _explain(shown: Shown) -> str:
    *compared, coverage, strength = shown.pictures
    memory = "" if shown.peak_mib is None else f", at most {shown.peak_mib:.0f} MiB"
    return f"""
What to look at
  {shown.page}   all of it, with sliders that wipe from plain to detailed: open it in a browser
  {", ".join(compared)}   equal detail in fur, hair and edges; look at the smooth parts
  {coverage}   masks below: where the lie was told, from everywhere (left) to nowhere (right)
  {strength}   softer to the left of 0, finer to the right
{REGIONS}
Embedded network, {torch.get_num_threads()} threads: {shown.seconds:.0f} s{memory}.
For a picture of yours: --photo FILE; named ones are {", ".join(NAMES)}.
""".strip("\n")
