"""Masks as pictures: (batch, 1, *space) with one to three space axes to IMAGE (batch, height, width, 3)."""

from __future__ import annotations

import math
import textwrap
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Sequence

SHOW = ("last step", "every step", "timeline", "average")
PIXELS = 2**25
"""At most about this many pixels in one answer; larger ones are rendered smaller."""
SHEET = 2**21
"""At most about this many in one sheet of the timeline."""
STRIP = 32
"""Height of the strip that stands for a mask with one space axis."""
GLOW = (1.0, 0.45, 0.08)


def message(text: str, width: int = 512, height: int = 256) -> Tensor:
    """A black picture that says why there is nothing to show, (1, height, width, 3)."""
    size = 20
    font = ImageFont.load_default(size)
    image = Image.new("RGB", (width, height))
    lines = textwrap.wrap(text, width // (size // 2) - 4)
    ImageDraw.Draw(image).multiline_text((size, size), "\n".join(lines), fill="white", font=font, spacing=size // 3)
    return torch.from_numpy(np.asarray(image).copy()).float().div_(255).unsqueeze(0)


def render(masks: Sequence[Tensor], show: str = SHOW[0], image: Tensor | None = None) -> Tensor:
    """The masks of one run, in run order, as pictures.

    Args:
        masks: one (batch, 1, *space) per step; video gives one picture per frame, audio a strip.
        show: one of ``SHOW``.
        image: decoded pictures (count, height, width, channels) to lay the masks over.
    """
    if show not in SHOW:
        raise ValueError(f"show is {show!r}: choose one of {', '.join(SHOW)}")
    if not masks:
        raise ValueError("no masks to show: give at least one")
    space = masks[-1].shape[2:]
    steps = [_sized(mask.detach().float().cpu().nan_to_num(0.0).clamp(0, 1), space) for mask in masks]
    if show == "average":
        steps = [torch.stack(steps).mean(0)]
    elif show == "last step":
        steps = steps[-1:]
    share = (SHEET if show == "timeline" else PIXELS) // len(steps)
    pictures = [_grey(mask, share) if image is None else _laid_over(mask, image, share) for mask in steps]
    return _sheet(pictures) if show == "timeline" else torch.cat(pictures)


def _sized(mask: Tensor, space: Sequence[int]) -> Tensor:
    """A latent may grow during the run; pictures of one run have one size."""
    return mask if mask.shape[2:] == tuple(space) else F.interpolate(mask, tuple(space), mode="nearest")


def _frames(mask: Tensor) -> Tensor:
    """(batch, 1, *space) to (batch, frames, height, width); audio has one frame of height 1."""
    if mask.ndim == 3:
        return mask.unsqueeze(2)
    return mask[:, 0] if mask.ndim == 5 else mask


def _grey(mask: Tensor, pixels: int) -> Tensor:
    """The latent's own grid, each cell a square (audio: a bar), white where detail goes."""
    frames = _frames(mask).flatten(0, 1).unsqueeze(1)
    count, _, height, width = frames.shape
    if mask.ndim == 3:
        wide = min(max(1, 512 // width) * width, 2048)
        grown = F.interpolate(frames, (STRIP, wide), mode="nearest" if wide >= width else "area")
    else:
        fits = int(math.sqrt(pixels / (count * height * width)))
        scale = max(1, min(max(8, 256 // max(height, width)), fits))
        grown = F.interpolate(frames, scale_factor=scale, mode="nearest")
    return grown.movedim(1, -1).expand(-1, -1, -1, 3).contiguous()


def _laid_over(mask: Tensor, image: Tensor, pixels: int) -> Tensor:
    """The picture, dimmed and grey, glowing where detail goes."""
    if image.ndim != 4 or image.shape[-1] not in (1, 3, 4) or 0 in image.shape:
        raise ValueError(f"image has shape {tuple(image.shape)}: connect an IMAGE of (batch, height, width, channels)")
    picture = image.detach().float().cpu()[..., :3].clamp(0, 1).movedim(-1, 1)
    shrink = math.sqrt(pixels / (len(picture) * picture.shape[2] * picture.shape[3]))
    if shrink < 1:
        size = tuple(max(1, int(side * shrink)) for side in picture.shape[2:])
        picture = F.interpolate(picture, size, mode="area")
    count, _, height, width = picture.shape
    frames = _frames(mask)
    batch = len(frames)
    per_sample = max(1, count // batch)
    grown = F.interpolate(frames[:, None], (per_sample, height, width), mode="nearest")[:, 0].flatten(0, 1)
    # As many pictures as there are masks, or masks as there are pictures, whichever are more.
    total = max(count, len(grown))
    lit = grown[torch.arange(total) * len(grown) // total].unsqueeze(1)
    grey = picture.mean(1, keepdim=True)[torch.arange(total) * count // total]
    glow = torch.tensor(GLOW).view(1, 3, 1, 1) * (0.35 + 0.65 * grey)
    return (0.5 * grey * (1 - lit) + glow * lit).movedim(1, -1).contiguous()


def _sheet(steps: list[Tensor]) -> Tensor:
    """All steps in one picture, row by row, in a shape close to a square; one sheet per picture."""
    count, height, width, channels = steps[0].shape
    columns = min(len(steps), max(1, round(math.sqrt(len(steps) * height / width))))
    rows = math.ceil(len(steps) / columns)
    gap = max(2, min(height, width) // 64)
    sheet = torch.full((count, rows * (height + gap) - gap, columns * (width + gap) - gap, channels), 0.25)
    for index, step in enumerate(steps):
        top, left = index // columns * (height + gap), index % columns * (width + gap)
        sheet[:, top : top + height, left : left + width] = step
    return sheet
