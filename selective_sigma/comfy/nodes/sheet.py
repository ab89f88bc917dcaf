"""Words, captions and the timeline's sheet with its plot, drawn with Pillow onto (height, width, 3)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Sequence

    Plot = Sequence[tuple[float, float] | None]

ORANGE, PAPER, GREY, DARK = (255, 150, 60), (235, 235, 235), (110, 110, 110), (24, 24, 24)
GAP = 0.25
"""Brightness of what lies between the pictures of a sheet."""


def drawn(image: Image.Image) -> Tensor:
    """(1, height, width, 3) in [0, 1]."""
    return torch.from_numpy(np.asarray(image).copy()).float().div_(255).unsqueeze(0)


def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(max(8, size))


def written(text: str, width: int, height: int, size: int, margin: int = 0) -> Tensor:
    """White words on black, (1, height, width, 3)."""
    image = Image.new("RGB", (width, height))
    ImageDraw.Draw(image).multiline_text((margin, margin), text, fill="white", font=font(size), spacing=size // 3)
    return drawn(image)


def caption(pictures: Tensor, texts: Sequence[str], beside: Sequence[str] = (), size: int = 0) -> Tensor:
    """``pictures`` (count, height, width, 3) with a line of words below each, as small as those ``beside`` it need.

    Args:
        texts: one for each picture, or one for all.
        size: of the letters where the lines fit, else as large as fits; 0 for one that suits a single picture.
    """
    count, _, width, _ = pictures.shape
    size = size or min(28, max(12, width // 20))
    while size > 8 and max(map(font(size).getlength, (*texts, *beside))) > width - 4:
        size -= 1
    bars = [written(text, width, round(1.6 * size), size, margin=max(2, size // 5)) for text in texts]
    return torch.cat([pictures, torch.cat(bars).expand(count, -1, -1, -1)], 1)


def sheet(steps: list[Tensor], plot: Plot, title: str) -> Tensor:
    """All steps (height, width, 3) of one sample in one picture, row by row, in a shape close to a square.

    Below them, the strength and the mask's mean at each step of the run.
    """
    height, width, channels = steps[0].shape

    def off_square(columns: int) -> float:
        wide = columns * width
        return abs(math.log(wide / (math.ceil(len(steps) / columns) * height + plot_height(wide))))

    columns = min(range(1, len(steps) + 1), key=off_square)
    rows = math.ceil(len(steps) / columns)
    gap = max(2, min(height, width) // 64)
    whole = torch.full((rows * (height + gap) + gap, columns * (width + gap) + gap, channels), GAP)
    for index, step in enumerate(steps):
        top, left = gap + index // columns * (height + gap), gap + index % columns * (width + gap)
        whole[top : top + height, left : left + width] = step
    size = (whole.shape[1], plot_height(whole.shape[1]))
    # Framed, so that the sheets of a batch stay apart.
    frame = max(8, size[0] // 40)
    return F.pad(torch.cat([whole, drawn(plotted(plot, size, title))[0]]), (0, 0, frame, frame, frame, frame))


def plot_height(width: int) -> int:
    return max(72, width // 4)


def plotted(plot: Plot, size: tuple[int, int], title: str) -> Image.Image:
    """Bars of the strength of each step, dots of the mask's mean, for (width, height) in ``size``.

    The letters are large enough to be read where a node shows the sheet a quarter as wide.
    """
    width, height = size
    image = Image.new("RGB", size, DARK)
    draw = ImageDraw.Draw(image)
    means = [step[1] for step in plot if step]
    right = f"mask, on average {sum(means) / max(1, len(means)):.2f}"
    letters = max(10, width // 32)
    while letters > 8 and font(letters).getlength(title + right) + 4 * letters > width:
        letters -= 1
    highest = max((abs(step[0]) for step in plot if step), default=0.0) or 1.0
    margin, top, bottom = letters, round(2.2 * letters), height - round(1.8 * letters)
    wide = (width - 2 * margin) / max(1, len(plot))
    draw.line([(margin, bottom), (width - margin, bottom)], fill=GREY)
    dots: list[tuple[float, float]] = []
    for i, step in enumerate(plot):
        if step is None:
            continue
        left = margin + i * wide
        draw.rectangle(
            [left + 0.15 * wide, bottom - (bottom - top) * abs(step[0]) / highest, left + 0.85 * wide, bottom],
            fill=ORANGE,
        )
        dots.append((left + wide / 2, bottom - (bottom - top) * step[1]))
    radius = max(2, letters // 5)
    draw.line(dots, fill=PAPER, width=max(2, radius // 2))
    for x, y in dots:
        draw.ellipse([x - radius, y - radius, x + radius, y + radius], fill=PAPER, outline=DARK)
    draw.text((margin, letters // 3), title, fill=ORANGE, font=font(letters))
    across = max(margin + font(letters).getlength(title) + letters, width - margin - font(letters).getlength(right))
    draw.text((across, letters // 3), right, fill=PAPER, font=font(letters))
    for i in {0, len(plot) // 2, len(plot) - 1} if plot else ():
        draw.text((margin + (i + 0.5) * wide, bottom + 2), str(i + 1), fill=GREY, font=font(letters), anchor="ma")
    return image
