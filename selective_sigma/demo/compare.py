"""The picture, the figures and the wipe of one photograph, drawn by each method."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from .figure import grid, to_image
from .page import Wipe
from .scene import STRETCH, close_up, image

if TYPE_CHECKING:
    from PIL.Image import Image

    from .scene import Scene

    Corner = tuple[int, int]

WHOLE, CLOSE_UP, SMOOTH = "", "close\nx 2", f"smooth part\nx 2\ncontrast x {STRETCH:g}"
"""Labels of the lines."""


@dataclass
class Row:
    """One method on one photograph.

    ``inside`` and ``outside`` are RMS of the fine detail of brightness, in the thirds of ``truth.measured``.
    """

    photo: str
    method: str
    strength: float
    steps: int
    calls: int
    inside: float
    outside: float


class Comparison(NamedTuple):
    lines: dict[str, list[Image]]
    """By label, a picture for each of ``columns``: the whole, a close-up, and a close-up where it is smooth."""
    columns: list[str]
    rows: list[Row]
    wipe: Wipe


def compare(
    scene: Scene, name: str, strength: float, close: Corner | None = None, smooth: Corner | None = None
) -> Comparison:
    """The photograph, drawn plain, with the lie everywhere at equal detail, and with Selective Sigma.

    Args:
        name: of the photograph, in the figures.
        strength: of Selective Sigma.
        close: (top, left) of the close-up, else where the photograph has most detail.
        smooth: (top, left) of the smooth close-up, else where it has least.
    """
    plain, selective = scene.draw(0.0), scene.draw(strength)
    equal = scene.strength_everywhere(strength)
    methods = {"plain": (plain, 0.0), "everywhere": (scene.draw(equal, 1.0), equal), "selective": (selective, strength)}
    rows: list[Row] = []
    for method, (sample, method_strength) in methods.items():
        inside, outside = (value.item() for value in scene.detail(sample.picture))
        rows.append(Row(name, method, method_strength, scene.steps, sample.report.calls, inside, outside))
    labels = [
        "photograph",
        "plain",
        f"lie everywhere\nstrength {equal:.2g}",
        f"Selective Sigma\nstrength {strength:.3g}",
    ]
    pictures = [scene.photo, *(sample.picture for sample, _ in methods.values())]
    close, smooth = close or scene.busy_corner(), smooth or scene.smooth_corner()
    mask = 2 * selective.mask - 1
    lines = {
        WHOLE: [*map(image, pictures), image(mask)],
        CLOSE_UP: [close_up(p, close) for p in (*pictures, mask)],
        SMOOTH: [*(close_up(p, smooth, STRETCH) for p in pictures), close_up(mask, smooth)],
    }
    images = {label.replace("\n", ", "): image(p) for label, p in zip(labels, pictures, strict=True)}
    columns = [*labels, "mask of\nSelective Sigma"]
    return Comparison(lines, columns, rows, Wipe(name, images, to_image(selective.mask[0])))


def side_by_side(comparison: Comparison, factor: float) -> Image:
    """The lines of a comparison below each other; ``factor`` is the thumbnail's."""
    note = (
        "Everywhere and selective have equal fine detail of brightness in the third where the photograph has most. "
        f"The network saw the photograph {factor:g} times smaller."
    )
    return grid(list(comparison.lines.items()), comparison.columns, note=note)
