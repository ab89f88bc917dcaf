"""Where detail belongs, from the photograph itself, which the network never sees.

Two definitions, to be named beside every figure made with them:

- ``measured``: the photograph's own fine-detail energy (squared high-pass, ``measure.high_pass``), smoothed
  with a Gaussian of ``SMOOTH`` pixels. Inside is its upper third, outside its lower third; the rest is neither.
- ``by_hand``: polygons in ``photos.json``: feathers, fur, hair, wood inside; sky, bokeh, backdrop outside.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch

from . import PHOTOGRAPHS
from .measure import high_pass
from .photos import centre_of, cropped, defocused, open_photo

if TYPE_CHECKING:
    from torch import Tensor

SMOOTH = 4.0


class Regions(NamedTuple):
    """Pixels where detail belongs and where it does not, float 0 or 1, (batch, 1, h, w) each."""

    inside: Tensor
    outside: Tensor


def energy(picture: Tensor, smooth: float = SMOOTH) -> Tensor:
    """Fine-detail energy of ``picture`` (batch, 3, h, w), smoothed: (batch, 1, h, w)."""
    return defocused(high_pass(picture).square().mean(1, keepdim=True), smooth)


def measured(picture: Tensor, share: float = 1 / 3) -> Regions:
    """The upper and the lower ``share`` of the pixels by the photograph's own fine detail."""
    fine = energy(picture)
    levels = fine.flatten(1).quantile(torch.tensor([share, 1 - share], device=fine.device), dim=1)
    low, high = (level.reshape(-1, 1, 1, 1) for level in levels)
    return Regions((fine >= high).float(), (fine <= low).float())


def has_regions(name: str) -> bool:
    """Whether ``by_hand`` knows the photograph."""
    return bool(PHOTOGRAPHS.get(name, {}).get("detail"))


def by_hand(name: str, size: int | tuple[int, int] = 256) -> Regions:
    """The hand-drawn regions of a named photograph, cropped and scaled as ``photos.photograph`` does.

    Raises:
        ValueError: there are no regions for it; the message names ``measured``.
    """
    if not has_regions(name):
        raise ValueError(f"no regions are drawn for {name!r}: use truth.measured, or add polygons to photos.json")
    return Regions(_region(name, "detail", size), _region(name, "smooth", size))


def _region(name: str, kind: str, size: int | tuple[int, int]) -> Tensor:
    from PIL import Image, ImageDraw

    width, height = open_photo(name).size
    region = Image.new("L", (width, height))
    for polygon in PHOTOGRAPHS[name][kind]:
        ImageDraw.Draw(region).polygon([(x * width, y * height) for x, y in polygon], fill=255)
    return (cropped(region, size, centre_of(name)) > 127).float()
