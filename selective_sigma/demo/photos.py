"""Photographs in, tensors out: scikit-image's own, or a file of yours. Pictures are in [-1, 1]."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from . import DRAWN, NAMES
from .network import MULTIPLE

if TYPE_CHECKING:
    from PIL.Image import Image


SMALLEST = 32
"""Pixels a side that a photograph must have at least."""


def photograph(source: str | Path, size: int | tuple[int, int] = 256, zoom: float | None = None) -> Tensor:
    """The photograph as (1, 3, height, width), cropped to the shape of ``size`` and scaled to it.

    Args:
        source: one of ``NAMES``, or the path of a picture.
        size: (height, width), or one number for both; rounded down to multiples of ``MULTIPLE``.
        zoom: pixels of the result per pixel of the photograph; None shows as much of it as fits.

    Raises:
        ValueError: no such photograph; the message lists those that are known.
    """
    values = pixels(open_photo(source), source, size, zoom)
    return values.float() / 127.5 - 1


def thumbnail(picture: Tensor, factor: float = 4.0) -> Tensor:
    """``picture`` (batch, 3, h, w) averaged over squares of ``factor`` pixels a side, enlarged again bilinearly.

    Fractions are allowed: the squares of neighbouring pixels then overlap.
    """
    small = F.interpolate(picture, [round(size / factor) for size in picture.shape[2:]], mode="area")
    return F.interpolate(small, picture.shape[2:], mode="bilinear", align_corners=False)


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
            # Of more than 8 bits a value, conversion would keep the lowest.
            if photo.mode[0] in "IF":
                raise ValueError(f"{str(source)!r} has more than 8 bits a value: save it with 8")
            if not 1 / 4 <= photo.width / photo.height <= 4 or min(photo.size) < SMALLEST:
                size = f"{photo.width} by {photo.height}"
                raise ValueError(f"{str(source)!r} is {size}: give one of at least {SMALLEST} a side, at most 4 to 1")
            return ImageOps.exif_transpose(photo).convert("RGB")
    except FileNotFoundError:
        raise ValueError(f"no photograph {str(source)!r}: give a file, or one of {', '.join(NAMES)}") from None
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError):
        raise ValueError(f"{str(source)!r} is no picture: give a JPEG, PNG or WebP file") from None


def pixels(photo: Image, source: str | Path, size: int | tuple[int, int], zoom: float | None) -> Tensor:
    """uint8 (1, channels, height, width) of what ``photograph`` shows, of a picture of the photograph's size."""
    from PIL import Image

    height, width = whole(size)
    scale = max(width / photo.width, height / photo.height, zoom or 0.0)
    x, y = DRAWN[str(source)]["centre"] if str(source) in DRAWN else (0.5, 0.5)
    # At most all of it: the quotients may be rounded up.
    wide, high = min(width / scale, photo.width), min(height / scale, photo.height)
    left = min(max(x * photo.width - wide / 2, 0.0), photo.width - wide)
    top = min(max(y * photo.height - high / 2, 0.0), photo.height - high)
    if scale == 1.0:
        left, top = round(left), round(top)
    shown = photo.resize((width, height), Image.Resampling.LANCZOS, (left, top, left + wide, top + high))
    values = torch.frombuffer(bytearray(shown.tobytes()), dtype=torch.uint8)
    return values.reshape(1, height, width, -1).permute(0, 3, 1, 2)


def whole(size: int | tuple[int, int]) -> tuple[int, int]:
    """(height, width), rounded down to what the network takes."""
    height, width = (size, size) if isinstance(size, int) else size
    return height // MULTIPLE * MULTIPLE, width // MULTIPLE * MULTIPLE


def _shipped(name: str) -> Path:
    found = find_spec("skimage")
    if found is None or not found.submodule_search_locations:
        raise ValueError("the named photographs are part of scikit-image: pip install scikit-image, or give a file")
    return Path(found.submodule_search_locations[0]) / "data" / name
