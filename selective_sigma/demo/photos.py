"""Photographs in, tensors out: named ones, or a file of yours. Pictures are in [-1, 1]."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from . import NAMES, PHOTOGRAPHS
from .network import MULTIPLE

if TYPE_CHECKING:
    from PIL.Image import Image


SMALLEST = 32
"""Pixels a side that a photograph must have at least."""
FACTOR = 3.0
"""How many times smaller than the picture the thumbnail is wherever a picture is drawn to be looked at.

The network was trained on factors from 2 to 4. At 2 it sharpens what the thumbnail holds, at 4 fur and feathers turn
soft.
"""


def photograph(source: str | Path, size: int | tuple[int, int] = 256) -> Tensor:
    """The photograph as (1, 3, height, width) in [-1, 1], cropped to the shape of ``size`` and scaled to it.

    Args:
        source: one of ``NAMES``, or the path of a picture.
        size: (height, width), or one number for both; rounded down to multiples of ``MULTIPLE``.

    Raises:
        ValueError: no such photograph; the message lists those that are known.
    """
    return to_picture(cropped(open_photo(source), size, centre_of(source)))


def thumbnail(picture: Tensor, factor: float) -> Tensor:
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
    return tuple(max(MULTIPLE, round(side * scale / MULTIPLE) * MULTIPLE) for side in (photo.height, photo.width))  # type: ignore[return-value]


def open_photo(source: str | Path) -> Image:
    """The whole photograph, as a PIL picture in RGB.

    Raises:
        ValueError: no such photograph, or nothing that is a picture.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    path = _file_of(str(source)) if str(source) in PHOTOGRAPHS else Path(source)
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


def centre_of(source: str | Path) -> tuple[float, float]:
    """Where the photograph is cropped around, as shares of its width and height."""
    x, y = PHOTOGRAPHS[str(source)]["centre"] if str(source) in PHOTOGRAPHS else (0.5, 0.5)
    return x, y


def cropped(photo: Image, size: int | tuple[int, int], centre: tuple[float, float] = (0.5, 0.5)) -> Tensor:
    """As much of ``photo`` around ``centre`` as has the shape of ``size``, scaled to it.

    Returns:
        uint8 (1, channels, height, width), both rounded down to multiples of ``MULTIPLE``.
    """
    from PIL import Image

    height, width = (side // MULTIPLE * MULTIPLE for side in ((size, size) if isinstance(size, int) else size))
    scale = max(width / photo.width, height / photo.height)
    # At most all of it: the quotients may be rounded up.
    box_width, box_height = min(width / scale, photo.width), min(height / scale, photo.height)
    left = min(max(centre[0] * photo.width - box_width / 2, 0.0), photo.width - box_width)
    top = min(max(centre[1] * photo.height - box_height / 2, 0.0), photo.height - box_height)
    box = (left, top, left + box_width, top + box_height)
    if scale == 1.0:
        box = tuple(map(round, box))
    scaled = photo.resize((width, height), Image.Resampling.LANCZOS, box)  # pyright: ignore[reportArgumentType]
    values = torch.frombuffer(bytearray(scaled.tobytes()), dtype=torch.uint8)
    return values.reshape(1, height, width, -1).permute(0, 3, 1, 2)


def to_picture(values: Tensor) -> Tensor:
    """uint8 values of any shape in [-1, 1], float32."""
    return values.float() / 127.5 - 1


def _file_of(name: str) -> Path:
    """The file of a named photograph: in this folder, or in scikit-image's."""
    ours = Path(__file__).with_name(PHOTOGRAPHS[name]["file"])
    if ours.exists():
        return ours
    spec = find_spec("skimage")
    if spec is None or not spec.submodule_search_locations:
        raise ValueError(f"photograph {name!r} is part of scikit-image: pip install scikit-image, or give a file")
    return Path(spec.submodule_search_locations[0]) / "data" / ours.name
