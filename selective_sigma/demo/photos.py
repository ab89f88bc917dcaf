"""Photographs in, tensors out: scikit-image's own, or a file of yours. Pictures are in [-1, 1]."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .network import MULTIPLE

if TYPE_CHECKING:
    from PIL.Image import Image

DRAWN: dict[str, Any] = json.loads(Path(__file__).with_name("photos.json").read_text())
"""Of each photograph in scikit-image's wheel (public domain or CC0): file, centre of interest and hand-drawn regions.

Positions are shares of the whole photograph, left to right and top to bottom.
"""
NAMES = tuple(DRAWN)


def photograph(source: str | Path, size: int | tuple[int, int] = 256) -> Tensor:
    """The photograph as (1, 3, height, width), cropped to the shape of ``size`` and scaled to it.

    Args:
        source: one of ``NAMES``, or the path of a picture.
        size: (height, width), or one number for both; rounded down to multiples of ``MULTIPLE``.

    Raises:
        ValueError: no such photograph; the message lists those that are known.
    """
    photo = open_photo(source)
    pixels = bytearray(fit(photo, whole(size), centre(source)).tobytes())
    height, width = whole(size)
    values = torch.frombuffer(pixels, dtype=torch.uint8).reshape(1, height, width, 3).permute(0, 3, 1, 2)
    return values.float() / 127.5 - 1


def thumbnail(picture: Tensor, factor: int = 4) -> Tensor:
    """``picture`` (batch, 3, h, w) averaged over ``factor`` x ``factor`` pixels, enlarged again bilinearly."""
    return F.interpolate(F.avg_pool2d(picture, factor), picture.shape[2:], mode="bilinear", align_corners=False)


def defocused(picture: Tensor, sigma: float = 6.0) -> Tensor:
    """``picture`` under a Gaussian blur of ``sigma`` pixels: a photograph where detail belongs nowhere."""
    reach = int(3 * sigma)
    taps = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / sigma) ** 2).to(picture)
    taps = (taps / taps.sum()).expand(picture.shape[1], 1, 1, -1)
    for kernel, pad in ((taps, (reach, reach, 0, 0)), (taps.transpose(2, 3), (0, 0, reach, reach))):
        picture = F.conv2d(F.pad(picture, pad, mode="replicate"), kernel, groups=picture.shape[1])
    return picture


def shape_of(source: str | Path, pixels: int = 256 * 256) -> tuple[int, int]:
    """(height, width) of about so many pixels in the photograph's own shape, fit for the network."""
    photo = open_photo(source)
    scale = (pixels / (photo.width * photo.height)) ** 0.5
    return tuple(max(MULTIPLE, round(n * scale / MULTIPLE) * MULTIPLE) for n in (photo.height, photo.width))  # type: ignore[return-value]


def open_photo(source: str | Path) -> Image:
    """The whole photograph, as a PIL picture in RGB.

    Raises:
        ValueError: no such photograph, or nothing that is a picture.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    path = _shipped(DRAWN[str(source)]["file"]) if str(source) in DRAWN else Path(source)
    try:
        with Image.open(path) as photo:
            return ImageOps.exif_transpose(photo).convert("RGB")
    except FileNotFoundError:
        raise ValueError(f"no photograph {str(source)!r}: give a file, or one of {', '.join(NAMES)}") from None
    except (UnidentifiedImageError, OSError):
        raise ValueError(f"{str(source)!r} is no picture: give a JPEG, PNG or WebP file") from None


def centre(source: str | Path) -> tuple[float, float]:
    """What a crop is placed by, as shares from the left and the top."""
    return tuple(DRAWN[str(source)]["centre"]) if str(source) in DRAWN else (0.5, 0.5)


def fit(photo: Image, size: tuple[int, int], where: tuple[float, float]) -> Image:
    """The largest crop of the shape of ``size`` (height, width), placed by ``where``, scaled to it."""
    from PIL import Image, ImageOps

    return ImageOps.fit(photo, size[::-1], Image.Resampling.LANCZOS, centering=where)


def whole(size: int | tuple[int, int]) -> tuple[int, int]:
    """(height, width), rounded down to what the network takes."""
    height, width = (size, size) if isinstance(size, int) else size
    return height // MULTIPLE * MULTIPLE, width // MULTIPLE * MULTIPLE


def _shipped(name: str) -> Path:
    found = find_spec("skimage")
    if found is None or not found.submodule_search_locations:
        raise ValueError("the named photographs are part of scikit-image: pip install scikit-image, or give a file")
    return Path(found.submodule_search_locations[0]) / "data" / name
