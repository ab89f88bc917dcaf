"""Labelled picture grids, dark, for reading at a glance."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from PIL import Image, ImageDraw, ImageFont

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

TILE, GAP, HEAD, MARGIN, FOOT = 256, 8, 44, 116, 26
INK, PAPER = (235, 235, 235), (16, 16, 18)


def to_image(values: Tensor) -> Image.Image:
    """(1 or 3, h, w) in [0, 1] to a picture."""
    pixels = (values.float().clamp(0, 1) * 255).round().to(torch.uint8).cpu().permute(1, 2, 0).numpy()
    return Image.fromarray(pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels)


def grid(
    rows: Sequence[tuple[str, Sequence[Image.Image | None]]], columns: Sequence[str], tile: int = TILE, note: str = ""
) -> Image.Image:
    """Rows of tiles under labelled columns.

    Args:
        rows: a label and one picture (or None) per column each.
        columns: labels above; may have two lines.
        tile: width of a tile in pixels; pictures are enlarged without smoothing, so that what a
            method did to single pixels stays visible.
        note: a line below.
    """
    heights = [max(round(tile * picture.height / picture.width) for picture in line if picture) for _, line in rows]
    width = MARGIN + len(columns) * (tile + GAP)
    height = HEAD + sum(heights) + GAP * len(rows) + (FOOT if note else 0)
    canvas = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(canvas)
    font, note_font = ImageFont.load_default(size=16), ImageFont.load_default(size=14)
    for i, label in enumerate(columns):
        middle = MARGIN + i * (tile + GAP) + tile / 2, HEAD / 2
        draw.multiline_text(middle, label, INK, font, anchor="mm", align="center")
    top = HEAD
    for (label, pictures), row_height in zip(rows, heights, strict=True):
        draw.multiline_text((MARGIN / 2 - 2, top + row_height / 2), label, INK, font, anchor="mm", align="center")
        for i, picture in enumerate(pictures):
            if picture is None:
                continue
            shape = (tile, round(tile * picture.height / picture.width))
            resampling = Image.Resampling.NEAREST if tile >= picture.width else Image.Resampling.LANCZOS
            canvas.paste(picture.convert("RGB").resize(shape, resampling), (MARGIN + i * (tile + GAP), top))
        top += row_height + GAP
    draw.text((MARGIN, top + 2), note, INK, note_font)
    return canvas
