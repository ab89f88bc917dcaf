"""Crops of photographs with their thumbnails, from a folder held decoded in memory."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from selective_sigma.demo.photos import thumbnail

if TYPE_CHECKING:
    from pathlib import Path

CROP, MARGIN = 64, 8
"""Pixels. The margin is cut off after the thumbnail is made, so that a crop does not see the thumbnail's border."""
SCALES = (1.0, 1.25, 1.55, 1.95, 2.4)
"""Factors that each photograph is scaled down by, so that crops hold fine detail."""
GRID = 8
"""Crops begin at multiples of this, as whole pictures do."""
FACTORS = (2.0, 4.0)
"""Range of the factor that thumbnails are smaller by; the network learns to see it from the thumbnail."""
SUFFIXES = {".jpg", ".jpeg", ".png", ".webp"}


def read(folder: Path, leave_out: tuple[str, ...]) -> dict[str, list[Tensor]]:
    """Photographs by name, each at every one of ``SCALES``, uint8 (3, h, w). ``leave_out``: beginnings of names."""
    photographs: dict[str, list[Tensor]] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in SUFFIXES or path.name.startswith(leave_out):
            continue
        photo = Image.open(path).convert("RGB")
        sizes = [(round(photo.width / s), round(photo.height / s)) for s in SCALES]
        kept = [photo.resize(size, Image.Resampling.LANCZOS) for size in sizes if min(size) >= CROP + 2 * MARGIN + GRID]
        photographs[path.stem] = [torch.from_numpy(np.array(p)).permute(2, 0, 1).contiguous() for p in kept]
    if not photographs:
        raise ValueError(f"no photographs in {folder}: give a folder of JPEG, PNG or WebP files")
    return photographs


class Crops:
    """Draws batches: pictures (n, 3, 64, 64) in [-1, 1] and conditions (n, 4, 64, 64)."""

    def __init__(self, photos: list[list[Tensor]], seed: int):
        self.photos = photos
        self.weights = [(p[0].shape[1] * p[0].shape[2]) ** 0.5 for p in photos]
        self.random = random.Random(seed)

    def cut(self) -> Tensor:
        """A crop with its margin, mirrored in half of the cases, transposed in a quarter."""
        photo = self.random.choice(self.random.choices(self.photos, self.weights)[0])
        side = CROP + 2 * MARGIN
        top, left = (GRID * self.random.randint(0, (n - side) // GRID) for n in photo.shape[1:])
        crop = photo[:, top : top + side, left : left + side].float() / 127.5 - 1
        crop = crop.flip(-1) if self.random.random() < 0.5 else crop
        return crop.transpose(1, 2) if self.random.random() < 0.25 else crop

    def batch(self, size: int) -> tuple[Tensor, Tensor]:
        crops, conditions = [], []
        for _ in range(size):
            # In half of the cases the more detailed of two crops: sky is learned long before fur is.
            crop = self.cut()
            if self.random.random() < 0.5:
                crop = max(crop, self.cut(), key=busy)
            small = thumbnail(crop[None], self.random.uniform(*FACTORS))[0]
            flag = 0.0 if self.random.random() < 0.1 else 1.0
            condition = torch.cat([small * flag, torch.full_like(small[:1], flag)])
            inner = slice(MARGIN, MARGIN + CROP)
            crops.append(crop[:, inner, inner])
            conditions.append(condition[:, inner, inner])
        return torch.stack(crops), torch.stack(conditions)


def busy(crop: Tensor) -> float:
    """Mean difference of neighbouring pixels."""
    return float(crop.diff(dim=-1).abs().mean() + crop.diff(dim=-2).abs().mean())
