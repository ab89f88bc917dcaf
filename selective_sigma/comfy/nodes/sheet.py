"""Text, captions and the timeline's sheet with its plot, drawn with Pillow into pictures (height, width, 3)."""

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

    PlotPoints = Sequence[tuple[float, float] | None]
    """(strength, mean of the mask) of each step of a run; None for a step without detail."""

ORANGE, PAPER, GREY, DARK = (255, 150, 60), (235, 235, 235), (110, 110, 110), (24, 24, 24)
GAP = 0.25
"""Brightness of the gaps between the pictures of a sheet."""


def to_tensor(image: Image.Image) -> Tensor:
    """An RGB image as (1, height, width, 3) in [0, 1]."""
    return torch.from_numpy(np.asarray(image).copy()).float().div_(255).unsqueeze(0)


def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(max(8, size))


def text_picture(text: str, width: int, height: int, size: int, margin: int = 0) -> Tensor:
    """White text on black, (1, height, width, 3)."""
    image = Image.new("RGB", (width, height))
    ImageDraw.Draw(image).multiline_text((margin, margin), text, fill="white", font=font(size), spacing=size // 3)
    return to_tensor(image)


def captioned(pictures: Tensor, texts: Sequence[str], all_texts: Sequence[str] = (), size: int = 0) -> Tensor:
    """``pictures`` (count, height, width, 3) with a line of text below each.

    Args:
        texts: one for each picture, or one for all.
        all_texts: further texts that must fit in the same font size, so that all captions of a sheet look alike.
        size: of the font, reduced until all texts fit; 0 for one that suits a single picture.
    """
    count, _, width, _ = pictures.shape
    size = size or min(28, max(12, width // 20))
    while size > 8 and max(map(font(size).getlength, (*texts, *all_texts))) > width - 4:
        size -= 1
    bars = [text_picture(text, width, round(1.6 * size), size, margin=max(2, size // 5)) for text in texts]
    return torch.cat([pictures, torch.cat(bars).expand(count, -1, -1, -1)], 1)


def timeline_sheet(steps: list[Tensor], points: PlotPoints, title: str) -> Tensor:
    """The pictures (height, width, 3) of all steps in one, row by row, in about a square, with a plot below them."""
    height, width, channels = steps[0].shape

    def off_square(columns: int) -> float:
        wide = columns * width
        return abs(math.log(wide / (math.ceil(len(steps) / columns) * height + plot_height(wide))))

    columns = min(range(1, len(steps) + 1), key=off_square)
    rows = math.ceil(len(steps) / columns)
    gap = max(2, min(height, width) // 64)
    sheet = torch.full((rows * (height + gap) + gap, columns * (width + gap) + gap, channels), GAP)
    for index, step in enumerate(steps):
        top, left = gap + index // columns * (height + gap), gap + index % columns * (width + gap)
        sheet[top : top + height, left : left + width] = step
    size = (sheet.shape[1], plot_height(sheet.shape[1]))
    # A frame, which separates the sheets of a batch.
    frame = max(8, size[0] // 40)
    plot = to_tensor(plot_picture(points, size, title))[0]
    return F.pad(torch.cat([sheet, plot]), (0, 0, frame, frame, frame, frame))


def plot_height(width: int) -> int:
    return max(72, width // 4)


def plot_picture(points: PlotPoints, size: tuple[int, int], title: str) -> Image.Image:
    """A bar for the strength of each step and a dot for the mean of its mask; ``size`` is (width, height).

    The letters stay readable where a node shows the sheet at a quarter of its width.
    """
    width, height = size
    image = Image.new("RGB", size, DARK)
    draw = ImageDraw.Draw(image)
    means = [step[1] for step in points if step]
    right = f"mask, on average {sum(means) / max(1, len(means)):.2f}"
    letters = max(10, width // 32)
    while letters > 8 and font(letters).getlength(title + right) + 4 * letters > width:
        letters -= 1
    highest = max((abs(step[0]) for step in points if step), default=0.0) or 1.0
    margin, top, bottom = letters, round(2.2 * letters), height - round(1.8 * letters)
    wide = (width - 2 * margin) / max(1, len(points))
    draw.line([(margin, bottom), (width - margin, bottom)], fill=GREY)
    dots: list[tuple[float, float]] = []
    for i, step in enumerate(points):
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
    for i in {0, len(points) // 2, len(points) - 1} if points else ():
        draw.text((margin + (i + 0.5) * wide, bottom + 2), str(i + 1), fill=GREY, font=font(letters), anchor="ma")
    return image
