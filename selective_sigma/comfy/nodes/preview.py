"""Masks as pictures: (batch, 1, *space) with one to three space axes to IMAGE (batch, height, width, 3)."""

from __future__ import annotations

import math
import textwrap
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from ...settings import Settings
from ..run.latent import first
from .sheet import caption, sheet, written

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ...detailer import MaskRecord

USUAL = Settings()
ENDINGS = {2: "nd", 3: "rd"}
SHOW = ("last step", "every step", "timeline", "average")
PIXELS = 2**25
"""At most about this many pixels in one answer; larger ones are rendered smaller."""
SHEET = 2**21
"""At most about this many in one sheet of the timeline."""
SIDE = 1024
"""A mask is enlarged to about this at most: latents of an eighth are shown as large as their picture."""
STRIP = 32
"""Height of the strip that stands for a mask with one space axis."""
GLOW = (1.0, 0.45, 0.08)


def message(text: str, width: int = 512, height: int = 256) -> Tensor:
    """A black picture that says why there is nothing to show, (1, height, width, 3)."""
    size = 20
    lines = textwrap.wrap(text, width // (size // 2) - 4)
    return written("\n".join(lines), width, height, size, margin=size)


def render(
    records: Sequence[MaskRecord],
    show: str = SHOW[0],
    image: Tensor | None = None,
    steps: int = 0,
    settings: Settings = USUAL,
) -> Tensor:
    """The masks of one run, in run order, as pictures with step and noise level below.

    Args:
        records: masks (batch, 1, *space); video gives one picture per frame, audio a strip.
        show: one of ``SHOW``.
        image: decoded pictures (count, height, width, channels) to lay the masks over.
        steps: how many steps the run had; 0 for as many as the records reach.
        settings: those of the run, whose strength is the title of the timeline's plot.
    """
    if show not in SHOW:
        raise ValueError(f"show is {show!r}: choose one of {', '.join(SHOW)}")
    if not records:
        raise ValueError("no masks to show: give at least one")
    # A sampler may ask several times a step; what stood at last counts.
    records = list({record.step: record for record in records}.values())
    masks = _of_one_size(records)
    total = max(steps, records[-1].step + 1)
    texts = [f"step {record.step + 1} of {total}   sigma {record.sigma:.3g}" for record in records]
    if show == "average":
        masks, texts = [torch.stack(masks).mean(0)], [f"average of {len(masks)} steps"]
    elif show == "last step":
        masks, texts = masks[-1:], texts[-1:]
    most = min(PIXELS, SHEET * len(masks[0])) if show == "timeline" else PIXELS
    share = most // len(masks)
    pictures = [_grey(mask, share) if image is None else _laid_over(mask, image, share) for mask in masks]
    batch = len(masks[0])
    names = _names(len(pictures[0]), batch)
    if show != "timeline":
        lines = [[f"{name}{text}" for name in names] for text in texts]
        longest = [max(line, key=len) for line in lines]
        return torch.cat([caption(*pair, longest) for pair in zip(pictures, lines, strict=True)])
    short = [f"{record.step + 1}   sigma {record.sigma:.2g}" for record in records]
    large = pictures[0].shape[2] // 8
    pictures = [caption(picture, [text], short, large) for picture, text in zip(pictures, short, strict=True)]
    plots = _plots(records, total, len(pictures[0]))
    title = f"strength {settings.strength:g}, {_how(records, total, settings.every)}"
    sheets = [[step[i] for step in pictures] for i in range(len(plots))]
    titles = [f"{name}{title}" for name in names]
    return torch.stack([sheet(*one) for one in zip(sheets, plots, titles, strict=True)])


def _names(count: int, batch: int) -> list[str]:
    """Which picture of a batch each of ``count`` belongs to, in front of a line; nothing where there is one."""
    return [f"picture {i * batch // count + 1} of {batch}   " if batch > 1 else "" for i in range(count)]


def _how(records: Sequence[MaskRecord], total: int, every: int) -> str:
    """How a strength is told, in the run's steps; long steps and the last one stand for themselves."""
    gaps = {after.step - before.step for before, after in pairwise(records[:-1])}
    if gaps != {every}:
        return f"at {len(records)} of {total} steps"
    return "on every step" if every == 1 else f"on every {every}{ENDINGS.get(every, 'th')} step"


def mask_of(
    records: Sequence[MaskRecord],
    samples: Tensor,
    show: str = SHOW[0],
    image: Tensor | None = None,
    scale: int = 8,
) -> Tensor:
    """A MASK (count, height, width) in [0, 1]: the last, or the mean; zeros where there is none.

    As large and as many as ``image``; without one, as large as the decoded picture, one per sample and frame.

    Args:
        scale: pixels of the picture along one side of a pixel of the latent.
    """
    if records:
        masks = _of_one_size(records)
        mask = masks[-1] if show == "last step" else torch.stack(masks).mean(0)
    else:
        of_picture = lead(samples)
        mask = torch.zeros(len(of_picture), 1, *of_picture.shape[2:])
    frames = _frames(mask)
    if image is None:
        of_sound = mask.ndim == 3
        size = _grey(mask[:1], PIXELS).shape[1:3] if of_sound else [scale * side for side in frames.shape[2:]]
        return F.interpolate(frames.flatten(0, 1)[:, None], size, mode="bilinear")[:, 0].clamp(0, 1)
    size = tuple(image.shape[1:3])
    grown = F.interpolate(_spread(frames, len(image)), size, mode="bilinear")[:, 0]
    return grown[_index(len(grown), max(len(image), len(grown)))].clamp(0, 1)


def lead(samples: Tensor) -> Tensor:
    """The stream that masks and pictures are of."""
    return samples.unbind()[0] if getattr(samples, "is_nested", False) else samples


def _of_one_size(records: Sequence[MaskRecord]) -> list[Tensor]:
    """A latent may grow during the run; pictures of one run have one size."""
    masks = [first(record.mask).detach().float().cpu().nan_to_num(0.0).clamp(0, 1) for record in records]
    space = tuple(masks[-1].shape[2:])
    return [mask if mask.shape[2:] == space else F.interpolate(mask, space, mode="nearest") for mask in masks]


def _frames(mask: Tensor) -> Tensor:
    """(batch, 1, *space) to (batch, frames, height, width); audio has one frame of height 1."""
    if mask.ndim == 3:
        return mask.unsqueeze(2)
    return mask[:, 0] if mask.ndim == 5 else mask


def _spread(frames: Tensor, count: int) -> Tensor:
    """(batch, frames, height, width) to (masks, 1, height, width): of a video, one for each of ``count`` pictures."""
    per_sample = max(1, count // len(frames))
    spread = F.interpolate(frames[:, None], (per_sample, *frames.shape[2:]), mode="nearest")
    return spread[:, 0].flatten(0, 1).unsqueeze(1)


def _index(have: int, want: int) -> Tensor:
    """Which of ``have`` stands for each of ``want``, in order."""
    return torch.arange(want) * have // want


def _grey(mask: Tensor, pixels: int) -> Tensor:
    """The latent's own grid, each cell a square (audio: a bar), white where detail goes."""
    frames = _frames(mask).flatten(0, 1).unsqueeze(1)
    count, _, height, width = frames.shape
    if mask.ndim == 3:
        wide = min(max(1, 512 // width) * width, 2048)
        grown = F.interpolate(frames, (STRIP, wide), mode="nearest" if wide >= width else "area")
    else:
        side = max(height, width)
        fits = int(math.sqrt(pixels / (count * height * width)))
        scale = max(1, min(max(8, 256 // side), SIDE // side, fits))
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
    # As many pictures as there are masks, or masks as there are pictures, whichever are more.
    masks = _spread(_frames(mask), len(picture))
    total = max(len(picture), len(masks))
    lit = F.interpolate(masks, picture.shape[2:], mode="nearest")[_index(len(masks), total)]
    grey = picture.mean(1, keepdim=True)[_index(len(picture), total)]
    # Brighter than what is dimmed at any grey, so that it shows in print without colour too.
    glow = torch.tensor(GLOW).view(1, 3, 1, 1) * (0.5 + 0.5 * grey)
    return (0.4 * grey * (1 - lit) + glow * lit).movedim(1, -1).contiguous()


def _plots(records: Sequence[MaskRecord], total: int, count: int) -> list[list[tuple[float, float] | None]]:
    """For each of ``count`` sheets, the (strength, mask mean) of each step of the run; None where there was none."""
    plots: list[list[tuple[float, float] | None]] = []
    for i in range(count):
        steps: list[tuple[float, float] | None] = [None] * total
        for record in records:
            if record.step >= 0:
                mask = first(record.mask).float()
                steps[record.step] = (record.strength, float(mask[i * len(mask) // count].mean()))
        plots.append(steps)
    return plots
