"""Labelled picture grids, dark, for reading at a glance."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

TILE, GAP, HEAD, MARGIN = 224, 8, 40, 104
INK, PAPER = (235, 235, 235), (16, 16, 18)


def grid(rows: Sequence[tuple[str, Sequence[Image.Image]]], columns: Sequence[str], tile: int = TILE) -> Image.Image:
    """Rows of equal tiles under labelled columns.

    Args:
        rows: a label and one picture per column each.
        columns: labels above.
        tile: width and height of a tile in pixels; pictures are enlarged without smoothing,
            so that what a method did to single pixels stays visible.
    """
    width = MARGIN + len(columns) * (tile + GAP)
    sheet = Image.new("RGB", (width, HEAD + len(rows) * (tile + GAP)), PAPER)
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(size=17)
    for i, label in enumerate(columns):
        draw.text((MARGIN + i * (tile + GAP) + tile / 2, HEAD / 2), label, INK, font, anchor="mm")
    for j, (label, pictures) in enumerate(rows):
        top = HEAD + j * (tile + GAP)
        draw.multiline_text((MARGIN / 2 - 2, top + tile / 2), label, INK, font, anchor="mm", align="center")
        for i, picture in enumerate(pictures):
            scaled = picture.convert("RGB").resize((tile, tile), Image.Resampling.NEAREST)
            sheet.paste(scaled, (MARGIN + i * (tile + GAP), top))
    return sheet


def crop(picture: Image.Image, box: tuple[float, float, float, float]) -> Image.Image:
    """Cut out left, top, right, bottom, given as shares of the picture."""
    w, h = picture.size
    left, top, right, bottom = box
    return picture.crop((round(left * w), round(top * h), round(right * w), round(bottom * h)))
