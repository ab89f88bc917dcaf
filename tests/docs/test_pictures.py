"""The scripts that draw the pictures of README and templates, without drawing them."""

from __future__ import annotations

import importlib.util
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from selective_sigma import Settings
from selective_sigma.demo.scene import CLOSE
from training.train import HELD_OUT

if TYPE_CHECKING:
    from types import ModuleType

DOCS = Path(__file__).parents[2] / "docs"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, DOCS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_front_page_shows_photographs_that_the_network_never_saw_at_the_strength_that_we_advise():
    front = load("draw_detail")
    assert Settings.strength == front.STRENGTH
    assert f"strength {front.STRENGTH}" in " ".join(front.COLUMNS)
    for part in front.PARTS.values():
        assert part.file in HELD_OUT
        left, top, right, bottom = part.box
        assert right - left == bottom - top
        assert all(0 <= at <= front.SIZE - CLOSE for at in (*(part.close or ()), *(part.smooth or ())))


def test_thumbnails_are_drawn_at_the_strength_that_we_advise():
    thumbnails = load("thumbnails")
    assert thumbnails.STRENGTH == thumbnails.OURS.strength == Settings.strength
    numbers = [number for key in thumbnails.SUBJECTS for number in key.split()]
    names = sorted(path.name.split(" ", 1)[0] for path in thumbnails.FOLDER.glob("*.json"))
    assert sorted(numbers) == names


def test_no_two_thumbnails_are_alike():
    """The nearest two differ by 43 of 255 on average; the same subject with another setting differs by less than 10."""
    folder = load("thumbnails").FOLDER
    small = {path.name: Image.open(path).convert("L").resize((32, 24)) for path in folder.glob("*.jpg")}
    pixels = {name: np.asarray(picture, dtype=float) for name, picture in small.items()}
    assert len(pixels) == len(list(folder.glob("*.json")))
    for (name, a), (other, b) in combinations(pixels.items(), 2):
        assert np.abs(a - b).mean() > 25, f"{name} and {other} show nearly the same"
