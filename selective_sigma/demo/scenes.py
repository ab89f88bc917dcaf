"""Procedural pictures that come with the truth about where detail belongs.

Four kinds, each posing the detailer another question:

* ``landscape``    a clear sky over rough rock: detail below the ridge, none above it;
* ``portrait``     a softly lit head with fine skin texture before bokeh: smooth at first
                   glance, yet detail belongs on it;
* ``illustration`` flat colour with ink outlines: detail belongs at the lines only;
* ``smooth``       gradients and soft glows: detail belongs nowhere.

Everything is drawn for a whole batch at once, so that training can draw fresh pictures.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

KINDS = ("landscape", "portrait", "illustration", "smooth")
SIZE = 64


class Scene(NamedTuple):
    """Pictures (batch, 3, H, W) in [-1, 1] and region maps (batch, 1, H, W) in [0, 1]."""

    image: Tensor
    region: Tensor


class _Canvas:
    """Random numbers and coordinates for one batch; every shape is (batch, 1, H, W)."""

    def __init__(self, count: int, size: int, generator: torch.Generator):
        self.count, self.size, self.generator = count, size, generator
        axis = torch.linspace(-1, 1, size)
        self.y, self.x = (g[None, None] for g in torch.meshgrid(axis, axis, indexing="ij"))
        self.pixel = 2 / size

    def uniform(self, low: float, high: float, channels: int = 1) -> Tensor:
        draw = torch.rand(self.count, channels, 1, 1, generator=self.generator)
        return low + (high - low) * draw

    def noise(self, cells_y: int, cells_x: int | None = None) -> Tensor:
        """Smooth value noise of about unit variance with the given number of cells an axis."""
        shape = (self.count, 1, cells_y, cells_x or cells_y)
        coarse = torch.randn(shape, generator=self.generator)
        return F.interpolate(coarse, (self.size, self.size), mode="bicubic", align_corners=False)

    def fractal(self, first: int, octaves: int, gain: float = 0.6) -> Tensor:
        """Sum of value-noise octaves, scaled to about unit variance."""
        total, weight, norm = 0.0, 1.0, 0.0
        for octave in range(octaves):
            total = total + weight * self.noise(min(first * 2**octave, self.size))
            norm, weight = norm + weight**2, weight * gain
        return total / norm**0.5

    def inside(self, distance: Tensor, softness: float = 0.5) -> Tensor:
        """Coverage of a shape from its signed distance; ``softness`` in pixels."""
        return torch.sigmoid(-distance / (softness * self.pixel))

    def ellipse(self, cx: Tensor, cy: Tensor, rx: Tensor, ry: Tensor) -> Tensor:
        """Approximate signed distance to an axis-aligned ellipse."""
        q = (((self.x - cx) / rx) ** 2 + ((self.y - cy) / ry) ** 2).sqrt()
        return (q - 1) * torch.minimum(rx, ry)


def _over(base: Tensor, colour: Tensor, cover: Tensor) -> Tensor:
    return base * (1 - cover) + colour * cover


def _hue(h: Tensor, saturation: Tensor, value: Tensor) -> Tensor:
    """HSV to RGB in [0, 1] for (batch, 1, ...) inputs."""
    k = torch.cat([(h * 6 + n) % 6 for n in (5.0, 3.0, 1.0)], 1)
    return value * (1 - saturation * torch.minimum(k, 4 - k).clamp(0, 1))


def _sky(c: _Canvas) -> Tensor:
    """A clean vertical gradient, by day or at dusk, with a soft glow."""
    dusk = (c.uniform(0, 1) < 0.35).float()
    top = _hue(c.uniform(0.56, 0.64), c.uniform(0.45, 0.8), c.uniform(0.45, 0.85))
    day = _hue(c.uniform(0.52, 0.60), c.uniform(0.1, 0.35), c.uniform(0.85, 1.0))
    low = _over(day, _hue(c.uniform(0.02, 0.12), c.uniform(0.45, 0.75), c.uniform(0.85, 1.0)), dusk)
    sky = top + (low - top) * ((c.y + 1) / 2) ** 0.8
    cx, cy, r = c.uniform(-0.8, 0.8), c.uniform(-0.8, -0.1), c.uniform(0.15, 0.35)
    glow = torch.exp(-((c.x - cx) ** 2 + (c.y - cy) ** 2) / r**2)
    return _over(sky, torch.tensor([1.0, 0.95, 0.8]).view(1, 3, 1, 1), 0.7 * glow)


def _landscape(c: _Canvas) -> Scene:
    line = c.fractal(3, 4, 0.5)[:, :, :1, :]
    ridge = c.uniform(-0.15, 0.35) - 0.22 * line - c.uniform(-0.25, 0.25) * c.x
    rock = c.inside(ridge - c.y)
    # Stretched octaves read as strata; the finest one is near the pixel size.
    strata = 0.7 * c.noise(24, 12) + 0.6 * c.noise(40, 24) + 0.6 * c.noise(c.size)
    tone = _hue(c.uniform(0.03, 0.32), c.uniform(0.15, 0.45), c.uniform(0.35, 0.6))
    light = 1 + 0.35 * c.noise(4) + 0.4 * strata / 1.1
    snow = torch.sigmoid((ridge + 0.28 + 0.1 * c.noise(16) - c.y) * 14) * (c.uniform(0, 1) < 0.5)
    ground = _over(tone * light.clamp(0.15, 2), torch.full_like(tone, 0.93) * (0.85 + 0.12 * strata), snow)
    return Scene(_over(_sky(c), ground, rock), rock)


def _bokeh(c: _Canvas, discs: int = 7) -> Tensor:
    base = _hue(c.uniform(0, 1), c.uniform(0.2, 0.6), c.uniform(0.15, 0.4))
    picture = base * (1 + 0.25 * c.noise(3))
    for _ in range(discs):
        colour = _hue(c.uniform(0, 1), c.uniform(0.2, 0.7), c.uniform(0.5, 1.0))
        r = c.uniform(0.14, 0.32)
        disc = c.inside(c.ellipse(c.uniform(-1, 1), c.uniform(-1, 1), r, r), 2.0)
        picture = _over(picture, colour, disc * c.uniform(0.3, 0.7))
    return picture


def _portrait(c: _Canvas) -> Scene:
    cx, cy = c.uniform(-0.2, 0.2), c.uniform(-0.15, 0.05)
    rx, ry = c.uniform(0.36, 0.46), c.uniform(0.5, 0.6)
    dark = c.uniform(0, 1)
    skin = torch.cat([0.95 - 0.45 * dark, 0.76 - 0.44 * dark, 0.64 - 0.42 * dark], 1)
    side = c.uniform(-0.45, 0.45)
    shade = 1 + side * (c.x - cx) / rx - 0.3 * ((c.x - cx) / rx) ** 2 - 0.1 * (c.y - cy) / ry
    # Pores and freckles: small in amplitude, near the pixel size, only on skin.
    pores = 0.05 * c.noise(c.size) + 0.04 * c.noise(c.size // 2)
    freckles = 0.16 * torch.sigmoid((c.noise(28) - 1.5) * 6)
    flesh = skin * (shade + pores - freckles).clamp(0.1, 1.6)

    cloth_y = cy + ry * 0.95
    cloth = _hue(c.uniform(0, 1), c.uniform(0.3, 0.8), c.uniform(0.3, 0.8))
    weave = 0.2 * torch.sin((c.x + 0.5 * c.y) * 75) + 0.15 * c.noise(c.size)
    body = c.inside(c.ellipse(cx, cloth_y + 0.55, rx * 2.1, c.uniform(0.5, 0.6)))
    neck = c.inside(((c.x - cx).abs() - rx * 0.45).maximum((c.y - cloth_y - 0.1).abs() - 0.3))
    head = c.inside(c.ellipse(cx, cy, rx, ry))

    hair_tone = _hue(c.uniform(0.02, 0.13), c.uniform(0.3, 0.8), c.uniform(0.12, 0.6))
    strands = 1 + 0.45 * c.noise(6, c.size) + 0.2 * c.noise(c.size)
    hair_shape = c.inside(c.ellipse(cx, cy - 0.1, rx * 1.22, ry * 1.15))
    brow = cy - ry * 0.3 + 0.25 * ((c.x - cx) / rx) ** 2 * c.uniform(-1, 1)
    hair = (
        hair_shape
        * torch.maximum(c.inside(c.y - brow, 1.0), 1 - head)
        * c.inside(c.y - cy - ry * c.uniform(0.0, 0.8), 2.0)
    )

    picture = _over(_bokeh(c), cloth * (1 + weave), body)
    picture = _over(picture, flesh * 0.8, neck * (1 - body * 0.5))
    picture = _over(picture, flesh, head)
    eye_y, gap = cy - 0.02, rx * 0.42
    for sign in (-1, 1):
        white = c.inside(c.ellipse(cx + sign * gap, eye_y, rx * 0.22, rx * 0.13))
        iris = c.inside(c.ellipse(cx + sign * gap, eye_y, rx * 0.11, rx * 0.13))
        lid = c.inside(c.ellipse(cx + sign * gap, eye_y - rx * 0.26, rx * 0.26, rx * 0.05))
        picture = _over(picture, torch.full_like(skin, 0.92), white)
        picture = _over(picture, torch.full_like(skin, 0.08), iris)
        picture = _over(picture, hair_tone * 0.6, lid * 0.9)
    nose = c.inside(c.ellipse(cx + 0.02, cy + ry * 0.28, rx * 0.1, rx * 0.06), 1.0)
    picture = _over(picture, skin * 0.65, nose * 0.7)
    mouth = c.inside(c.ellipse(cx, cy + ry * 0.55, rx * c.uniform(0.3, 0.45), rx * 0.1))
    picture = _over(picture, skin * torch.tensor([0.85, 0.45, 0.45]).view(1, 3, 1, 1), mouth)
    picture = _over(picture, hair_tone * strands.clamp(0.2, 2), hair)
    return Scene(picture, 1 - (1 - body) * (1 - neck) * (1 - head) * (1 - hair))


def _illustration(c: _Canvas, shapes: int = 4) -> Scene:
    picture = _hue(c.uniform(0, 1), c.uniform(0.1, 0.5), c.uniform(0.75, 1.0)).expand(-1, -1, c.size, c.size)
    lines = torch.zeros(c.count, 1, c.size, c.size)
    for _ in range(shapes):
        colour = _hue(c.uniform(0, 1), c.uniform(0.35, 0.85), c.uniform(0.55, 1.0))
        cx, cy, r = c.uniform(-0.75, 0.75), c.uniform(-0.75, 0.75), c.uniform(0.22, 0.55)
        turn = c.uniform(0, 6.3)
        u = (c.x - cx) * turn.cos() + (c.y - cy) * turn.sin()
        v = (c.y - cy) * turn.cos() - (c.x - cx) * turn.sin()
        disc = (u**2 + v**2).sqrt() - r
        box = torch.maximum(u.abs() - r, v.abs() - r * 0.7)
        triangle = torch.maximum(v - r * 0.5, u.abs() * 0.866 - v * 0.5 - r * 0.5)
        pick = c.uniform(0, 3)
        distance = torch.where(pick < 1, disc, torch.where(pick < 2, box, triangle))
        fill = c.inside(distance)
        ink = c.inside(distance.abs() - 0.7 * c.pixel, 0.35)
        picture = _over(_over(picture, colour, fill), torch.full_like(colour, 0.05), ink)
        band = c.inside(distance.abs() - 2.5 * c.pixel)
        lines = torch.maximum(lines * (1 - c.inside(distance + 2.5 * c.pixel)), band)
    return Scene(picture, lines)


def _smooth(c: _Canvas) -> Scene:
    a = _hue(c.uniform(0, 1), c.uniform(0.1, 0.7), c.uniform(0.3, 1.0))
    b = _hue(c.uniform(0, 1), c.uniform(0.1, 0.7), c.uniform(0.3, 1.0))
    turn = c.uniform(0, 6.3)
    picture = a + (b - a) * torch.sigmoid(1.5 * (c.x * turn.cos() + c.y * turn.sin()))
    for _ in range(3):
        glow = _hue(c.uniform(0, 1), c.uniform(0.1, 0.7), c.uniform(0.4, 1.0))
        r2 = c.uniform(0.3, 0.7) ** 2
        distance2 = (c.x - c.uniform(-1, 1)) ** 2 + (c.y - c.uniform(-1, 1)) ** 2
        picture = _over(picture, glow, 0.6 * torch.exp(-distance2 / r2))
    return Scene(picture, torch.zeros(c.count, 1, c.size, c.size))


_DRAW = {"landscape": _landscape, "portrait": _portrait, "illustration": _illustration, "smooth": _smooth}


def draw(kind: str, count: int = 1, seed: int | torch.Generator = 0, size: int = SIZE) -> Scene:
    """Draw ``count`` pictures of one kind with their region maps; equal seeds draw equal pictures."""
    if kind not in _DRAW:
        raise ValueError(f"unknown scene kind {kind!r}: choose one of {', '.join(KINDS)}")
    generator = seed if isinstance(seed, torch.Generator) else torch.Generator().manual_seed(seed)
    scene = _DRAW[kind](_Canvas(count, size, generator))
    region = scene.region.expand(count, 1, size, size)
    return Scene(scene.image.clamp(0, 1) * 2 - 1, region.clamp(0, 1).contiguous())
