"""Draws the picture at the top of the README, ``docs/detail.png``, from photographs that the network never saw.

python docs/draw_detail.py FOLDER

FOLDER holds the held-out photographs, which ``training/README.md`` lists.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NamedTuple

from selective_sigma.demo.compare import CLOSE_UP, SMOOTH, WHOLE, compare
from selective_sigma.demo.figure import grid
from selective_sigma.demo.network import load
from selective_sigma.demo.photos import cropped, open_photo, to_picture
from selective_sigma.demo.scene import Scene

STRENGTH, SIZE = 0.1, 256
COLUMNS = ["photograph", "plain", "lie everywhere,\nequal fine detail", "Selective Sigma\nstrength 0.1", "its mask"]


class Part(NamedTuple):
    """A part of a photograph, and the lines of the picture that show it."""

    file: str
    box: tuple[int, int, int, int]
    """Left, top, right and bottom in the file, in pixels; square."""
    lines: tuple[str, ...]
    """Labels of ``demo.compare``: the whole part, or a close-up."""
    close: tuple[int, int] | None = None
    """(top, left) of the close-up, in pixels of the drawing."""
    smooth: tuple[int, int] | None = None
    """(top, left) of the smooth close-up, in pixels of the drawing."""


PARTS = {
    "canyon wren": Part("budgie-canyon-wren", (380, 150, 1020, 790), (WHOLE, SMOOTH), smooth=(128, 128)),
    "otter": Part("budgie-oakland-zoo-otters", (560, 220, 1160, 820), (WHOLE, CLOSE_UP), (60, 30)),
    "colosseum": Part("budgie-roman-colosseum", (394, 0, 1406, 1012), (WHOLE, SMOOTH), smooth=(60, 128)),
}
"""Sharp subjects before a background out of focus, all from BuddiesOfBudgie/budgie-backgrounds (CC0 1.0)."""


def draw(name: str, part: Part, folder: Path) -> list[tuple[str, list[object]]]:
    """The lines of a part, each a label and its pictures."""
    photo = to_picture(cropped(open_photo(folder / f"{part.file}.jpg").crop(part.box), SIZE))
    comparison = compare(Scene(load(), photo), name, STRENGTH, part.close, part.smooth)
    for row in comparison.rows:
        print(f"{row.photo}: {row.method} at {row.strength:.3g}: {row.inside:.4f} inside, {row.outside:.4f} outside")
    return [(line if line != WHOLE else name, comparison.lines[line]) for line in part.lines]


def main(folder: Path) -> None:
    lines = [line for name, part in PARTS.items() for line in draw(name, part, folder)]
    grid(lines, COLUMNS).save(Path(__file__).with_name("detail.png"), optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
