"""Draws docs/icon.png and docs/banner.png: detail inside the sigma, calm outside.

Run by hand: python docs/draw_artwork.py
"""

from __future__ import annotations

import math
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw

HERE = Path(__file__).parent
SIGMA = [(0.14, 0.0), (0.86, 0.0), (0.86, 0.2), (0.5, 0.2), (0.7, 0.5), (0.5, 0.8), (0.86, 0.8), (0.86, 1.0)]
SIGMA += [(0.14, 1.0), (0.14, 0.84), (0.4, 0.5), (0.14, 0.16)]
"""The corners of the letter, in a square of side 1."""
NIGHT, DUSK, GLOW, CREAM = ((0.05, 0.06, 0.13), (0.13, 0.12, 0.28), (1.0, 0.5, 0.12), (1.0, 0.93, 0.8))


def smooth_noise(height: int, width: int, cell: int, seed: int) -> torch.Tensor:
    """Smooth noise (height, width) with about one hill in each cell."""
    noise = torch.randn(1, 1, height // cell + 4, width // cell + 4, generator=torch.Generator().manual_seed(seed))
    return F.interpolate(noise, (height, width), mode="bicubic")[0, 0]


def sigma_mask(height: int, width: int, left: float, top: float, size: float) -> torch.Tensor:
    """1 inside the letter, 0 outside, (height, width)."""
    shape = Image.new("L", (width, height))
    ImageDraw.Draw(shape).polygon([(left + x * size, top + y * size) for x, y in SIGMA], fill=255)
    return torch.frombuffer(bytearray(shape.tobytes()), dtype=torch.uint8).view(height, width) / 255


def blurred(mask: torch.Tensor, radius: int) -> torch.Tensor:
    for _ in range(3):
        for kernel, pad in (((2 * radius + 1, 1), (radius, 0)), ((1, 2 * radius + 1), (0, radius))):
            mask = F.avg_pool2d(mask[None, None], kernel, 1, pad, count_include_pad=False)[0, 0]
    return mask


def colour(rgb: tuple[float, float, float]) -> torch.Tensor:
    return torch.tensor(rgb).view(3, 1, 1)


def draw(height: int, width: int, left: float, size: float, cell: int, seed: int) -> Image.Image:
    """The picture, drawn at four times its size and then reduced."""
    height, width, left, size, cell = height * 4, width * 4, left * 4, size * 4, cell * 4
    mask = sigma_mask(height, width, left, (height - size) / 2, size)
    hills = smooth_noise(height, width, cell, seed)
    dusk_share = torch.linspace(0, 1, height).view(1, -1, 1) * 0.6 + 0.4 * (hills * 0.3 + 0.5).clamp(0, 1)
    background = colour(NIGHT) * (1 - dusk_share) + colour(DUSK) * dusk_share
    glow = blurred(mask, height // 28)
    background = background + (colour(GLOW) - background) * 0.35 * glow
    lines = (torch.cos(hills * 2 * math.pi * 2.6) * 0.5 + 0.5) ** 3
    inside = colour(GLOW) * (0.55 + 0.25 * hills.clamp(-1, 1)) * (1 - lines) + colour(CREAM) * lines
    soft_mask = blurred(mask, 4)
    picture = (background * (1 - soft_mask) + inside * soft_mask).clamp(0, 1)
    picture = F.avg_pool2d(picture[None], 4)[0]
    return Image.fromarray((picture * 255).round().byte().movedim(0, -1).contiguous().numpy())


if __name__ == "__main__":
    icon = draw(400, 400, 60, 280, 34, 5)
    corners = Image.new("L", (1600, 1600))
    ImageDraw.Draw(corners).rounded_rectangle((0, 0, 1599, 1599), 288, fill=255)
    icon.putalpha(corners.resize((400, 400), Image.Resampling.LANCZOS))
    icon.save(HERE / "icon.png", optimize=True)
    draw(540, 1260, 430, 400, 44, 8).save(HERE / "banner.png", optimize=True)
