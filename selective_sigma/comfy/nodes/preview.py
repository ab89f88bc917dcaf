"""Masks as pictures: (batch, 1, *space) with one to three space axes to IMAGE (batch, height, width, 3)."""

from __future__ import annotations

import math
import textwrap
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from ..run.capture import DEFAULT_SETTINGS
from ..run.latent import first_stream
from .sheet import captioned, text_picture, timeline_sheet

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ...detailer import MaskRecord
    from ...settings import Settings
    from .sheet import PlotPoints

ORDINAL_ENDINGS = {2: "nd", 3: "rd"}
SHOW = ("last step", "every step", "timeline", "average")
MOST_PIXELS = 2**25
"""Of all pictures in one answer. Pictures of longer runs are rendered smaller."""
MOST_SHEET_PIXELS = 2**21
"""Of the masks in one sheet of the timeline."""
LONGEST_SIDE = 1024
"""To which a mask is enlarged: a latent at an eighth is then as large as its picture."""
STRIP_HEIGHT = 32
"""Of the picture of a mask with one space axis."""
GLOW = (1.0, 0.45, 0.08)


def message(text: str, width: int = 512, height: int = 256) -> Tensor:
    """A black picture with a message, (1, height, width, 3)."""
    size = 20
    lines = textwrap.wrap(text, width // (size // 2) - 4)
    return text_picture("\n".join(lines), width, height, size, margin=size)


def render(
    records: Sequence[MaskRecord],
    show: str = SHOW[0],
    image: Tensor | None = None,
    steps: int = 0,
    settings: Settings = DEFAULT_SETTINGS,
) -> Tensor:
    """Pictures of the masks of one run, with step and noise level below each.

    Args:
        records: in the order of the steps, with masks (batch, 1, *space). A video gives one picture for each frame,
            sound a strip.
        show: one of ``SHOW``.
        image: decoded pictures (count, height, width, channels) to lay the masks over.
        steps: how many steps the run had; 0 for as many as the records reach.
        settings: those of the run. The title of the timeline's plot names the strength.

    Raises:
        ValueError: there are no records, ``show`` is unknown, or ``image`` is no IMAGE.
    """
    if show not in SHOW:
        raise ValueError(f"show is {show!r}: choose one of {', '.join(SHOW)}")
    if not records:
        raise ValueError("no masks to show: give at least one")
    # A step may be several calls of the model. The last one's mask is shown.
    records = list({record.step: record for record in records}.values())
    masks = _masks_of_one_size(records)
    total = max(steps, records[-1].step + 1)
    texts = [f"step {record.step + 1} of {total}   sigma {record.sigma:.3g}" for record in records]
    if show == "average":
        masks, texts = [torch.stack(masks).mean(0)], [f"average of {len(masks)} steps"]
    elif show == "last step":
        masks, texts = masks[-1:], texts[-1:]
    most = min(MOST_PIXELS, MOST_SHEET_PIXELS * len(masks[0])) if show == "timeline" else MOST_PIXELS
    share = most // len(masks)
    pictures = [_grey(mask, share) if image is None else _laid_over(mask, image, share) for mask in masks]
    batch = len(masks[0])
    prefixes = _batch_prefixes(len(pictures[0]), batch)
    if show != "timeline":
        lines = [[f"{prefix}{text}" for prefix in prefixes] for text in texts]
        longest = [max(line, key=len) for line in lines]
        return torch.cat([captioned(*pair, longest) for pair in zip(pictures, lines, strict=True)])
    short = [f"{record.step + 1}   sigma {record.sigma:.2g}" for record in records]
    large = pictures[0].shape[2] // 8
    pictures = [captioned(picture, [text], short, large) for picture, text in zip(pictures, short, strict=True)]
    title = f"strength {settings.strength:g}, {_frequency(records, total, settings.every)}"
    sheets = []
    for i, prefix in enumerate(prefixes):
        points = _plot_points(records, total, i * batch // len(prefixes))
        sheets.append(timeline_sheet([step[i] for step in pictures], points, f"{prefix}{title}"))
    return torch.stack(sheets)


def _batch_prefixes(count: int, batch: int) -> list[str]:
    """For each of ``count`` pictures, the start of its caption: its place in the batch; empty for a batch of one."""
    return [f"picture {i * batch // count + 1} of {batch}   " if batch > 1 else "" for i in range(count)]


def _frequency(records: Sequence[MaskRecord], total: int, every: int) -> str:
    """On which steps a run added detail. Long steps, and the last one, may deviate from ``every``."""
    gaps = {after.step - before.step for before, after in pairwise(records[:-1])}
    if gaps != {every}:
        return f"at {len(records)} of {total} steps"
    return "on every step" if every == 1 else f"on every {every}{ORDINAL_ENDINGS.get(every, 'th')} step"


def mask_output(
    records: Sequence[MaskRecord],
    samples: Tensor,
    show: str = SHOW[0],
    image: Tensor | None = None,
    scale: int = 8,
) -> Tensor:
    """A MASK (count, height, width) in [0, 1]: the last mask or the mean over the run; zeros without records.

    With ``image``, there are as many masks of the same size. Without, there is one for each sample and frame, in the
    size of the decoded picture.

    Args:
        samples: the latent that the run made.
        scale: pixels of the picture along one side of a latent pixel.
    """
    if records:
        masks = _masks_of_one_size(records)
        mask = masks[-1] if show == "last step" else torch.stack(masks).mean(0)
    else:
        latent = first_stream(samples)
        mask = torch.zeros(len(latent), 1, *latent.shape[2:])
    frames = _frames(mask)
    if image is None:
        is_sound = mask.ndim == 3
        size = _grey(mask[:1], MOST_PIXELS).shape[1:3] if is_sound else [scale * side for side in frames.shape[2:]]
        return F.interpolate(frames.flatten(0, 1)[:, None], size, mode="bilinear")[:, 0].clamp(0, 1)
    size = tuple(image.shape[1:3])
    resized = F.interpolate(_spread(frames, len(image)), size, mode="bilinear")[:, 0]
    return resized[_stretched_index(len(resized), max(len(image), len(resized)))].clamp(0, 1)


def _masks_of_one_size(records: Sequence[MaskRecord]) -> list[Tensor]:
    """The masks in the size of the last one. A latent may grow during the run."""
    masks = [first_stream(record.mask).detach().float().cpu().nan_to_num(0.0).clamp(0, 1) for record in records]
    space = tuple(masks[-1].shape[2:])
    return [mask if mask.shape[2:] == space else F.interpolate(mask, space, mode="nearest") for mask in masks]


def _frames(mask: Tensor) -> Tensor:
    """(batch, 1, *space) to (batch, frames, height, width); sound has one frame of height 1."""
    if mask.ndim == 3:
        return mask.unsqueeze(2)
    return mask[:, 0] if mask.ndim == 5 else mask


def _spread(frames: Tensor, count: int) -> Tensor:
    """(batch, frames, height, width) to (masks, 1, height, width); for a video, one for each of ``count`` pictures."""
    per_sample = max(1, count // len(frames))
    spread = F.interpolate(frames[:, None], (per_sample, *frames.shape[2:]), mode="nearest")
    return spread[:, 0].flatten(0, 1).unsqueeze(1)


def _stretched_index(length: int, count: int) -> Tensor:
    """(count,) indices that stretch ``length`` items over ``count`` places, in order."""
    return torch.arange(count) * length // count


def _grey(mask: Tensor, pixels: int) -> Tensor:
    """The mask in black and white. Each latent pixel is a square; for sound, a bar."""
    frames = _frames(mask).flatten(0, 1).unsqueeze(1)
    count, _, height, width = frames.shape
    if mask.ndim == 3:
        wide = min(max(1, 512 // width) * width, 2048)
        resized = F.interpolate(frames, (STRIP_HEIGHT, wide), mode="nearest" if wide >= width else "area")
    else:
        side = max(height, width)
        fits = int(math.sqrt(pixels / (count * height * width)))
        scale = max(1, min(max(8, 256 // side), LONGEST_SIDE // side, fits))
        resized = F.interpolate(frames, scale_factor=scale, mode="nearest")
    return resized.movedim(1, -1).expand(-1, -1, -1, 3).contiguous()


def _laid_over(mask: Tensor, image: Tensor, pixels: int) -> Tensor:
    """The picture in dimmed grey, glowing where the mask is white."""
    if image.ndim != 4 or image.shape[-1] not in (1, 3, 4) or 0 in image.shape:
        raise ValueError(f"image has shape {tuple(image.shape)}: connect an IMAGE of (batch, height, width, channels)")
    picture = image.detach().float().cpu()[..., :3].clamp(0, 1).movedim(-1, 1)
    shrink = math.sqrt(pixels / (len(picture) * picture.shape[2] * picture.shape[3]))
    if shrink < 1:
        size = tuple(max(1, int(side * shrink)) for side in picture.shape[2:])
        picture = F.interpolate(picture, size, mode="area")
    # The smaller of the two numbers, of masks and of pictures, is stretched to the larger.
    masks = _spread(_frames(mask), len(picture))
    total = max(len(picture), len(masks))
    lit = F.interpolate(masks, picture.shape[2:], mode="nearest")[_stretched_index(len(masks), total)]
    grey = picture.mean(1, keepdim=True)[_stretched_index(len(picture), total)]
    # At each grey the glow is brighter than the dimmed picture, so that it shows without colour too.
    glow = torch.tensor(GLOW).view(1, 3, 1, 1) * (0.5 + 0.5 * grey)
    return (0.4 * grey * (1 - lit) + glow * lit).movedim(1, -1).contiguous()


def _plot_points(records: Sequence[MaskRecord], total: int, sample: int) -> PlotPoints:
    """The points of all ``total`` steps, with the means of one sample's masks."""
    points: list[tuple[float, float] | None] = [None] * total
    for record in records:
        if record.step >= 0:
            points[record.step] = record.strength, float(first_stream(record.mask).float()[sample].mean())
    return points
