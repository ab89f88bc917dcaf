"""Several latents packed into one tensor, as audio-and-video models have them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor


class Streams:
    """Splits a packed latent (batch, 1, N) into its parts; without shapes there is one part."""

    def __init__(self, shapes: Sequence[Sequence[int]] | None = None):
        """``shapes``: (batch, channels, *space) of each part in packing order; batch is ignored."""
        self._shapes = None if shapes is None or len(shapes) < 2 else [tuple(s[1:]) for s in shapes]

    def __len__(self) -> int:
        return 1 if self._shapes is None else len(self._shapes)

    def check(self, x: Tensor) -> None:
        """Raise ``ValueError`` unless the parts make up ``x``."""
        if self._shapes is None:
            return
        total = sum(math.prod(shape) for shape in self._shapes)
        if x.ndim != 3 or x.shape[1] != 1 or x.shape[2] != total:
            raise ValueError(f"shapes hold {total} values, x has shape {tuple(x.shape)}: give (batch, 1, {total})")

    def split(self, packed: Tensor) -> list[Tensor]:
        """Views of the parts, each (batch, channels, *space)."""
        if self._shapes is None:
            return [packed]
        parts: list[Tensor] = []
        start = 0
        for shape in self._shapes:
            size = math.prod(shape)
            parts.append(packed.narrow(-1, start, size).reshape(len(packed), *shape))
            start += size
        return parts

    def join(self, masks: list[Tensor]) -> Tensor:
        """Pack one mask (batch, 1, *space) per part to broadcast against the packed latent."""
        if self._shapes is None:
            return masks[0]
        wide = [m.expand(len(m), *shape).flatten(1) for m, shape in zip(masks, self._shapes, strict=True)]
        return torch.cat(wide, dim=1).unsqueeze(1)
