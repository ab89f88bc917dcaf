"""Where in a model's input the noisy latent is, and its shape on the picture's grid."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


class Layout:
    """Reads the noisy latent out of a model's tensors, and writes it back.

    Images and video are (batch, channels, *space); whatever follows the latent's own channels
    (masks, masked images, first frames) conditions the model and is left alone. Flux and
    Qwen-Image pack 2x2 pixels into one token, (batch, tokens, 4 channels): there the latent is
    unpacked to (batch, channels, height, width), and reference tokens behind it are left alone.
    """

    def __init__(self, sample: Tensor, module: Any, argument: Callable[[str], Any]):
        """Args:
        sample: the model's input.
        module: the model; its config tells how many channels it predicts.
        argument: looks up a further argument of the call by name, None where it is not given.
        """
        config = getattr(module, "config", None) or {}
        out = config.get("out_channels")
        self.grid = None
        if sample.ndim == 3:
            self.grid = _grid(argument("img_ids"), argument("img_shapes"), sample)
            if out is not None:
                out *= int(config.get("patch_size") or 1) ** 2
        elif sample.ndim not in (4, 5):
            raise ValueError(f"the model's input has shape {tuple(sample.shape)}: give images, video or packed tokens")
        elif config.get("in_channels") not in (None, sample.shape[1]):
            raise ValueError(
                f"the model's input has shape {tuple(sample.shape)} but {config['in_channels']} channels: "
                "supported is (batch, channels, *space)"
            )
        width = sample.shape[2 if self.grid else 1]
        # More channels out than in are a learned variance behind the prediction.
        self.width = width if out is None else min(int(out), width)

    def read(self, tensor: Tensor, width: int | None = None) -> Tensor:
        """The latent's part, (batch, channels, *space); ``width`` channels where given."""
        if self.grid is None:
            return tensor[:, : width or self.width]
        height, length = self.grid
        tokens = tensor[:, : height * length, : width or self.width]
        batch, _, packed = tokens.shape
        blocks = tokens.reshape(batch, height, length, packed // 4, 2, 2)
        return blocks.permute(0, 3, 1, 4, 2, 5).reshape(batch, packed // 4, 2 * height, 2 * length)

    def write(self, tensor: Tensor, latent: Tensor) -> Tensor:
        """A copy of ``tensor`` with ``latent`` in place of its latent part."""
        if self.grid is None:
            rest = tensor[:, latent.shape[1] :]
            return torch.cat([latent.to(tensor.dtype), rest], 1) if rest.shape[1] else latent.to(tensor.dtype)
        height, length = self.grid
        batch, channels = latent.shape[:2]
        blocks = latent.reshape(batch, channels, height, 2, length, 2).permute(0, 2, 4, 1, 3, 5)
        tokens = blocks.reshape(batch, height * length, channels * 4)
        whole = tensor.clone()
        whole[:, : height * length, : channels * 4] = tokens.to(tensor.dtype)
        return whole


def _grid(ids: Tensor | None, shapes: Any, sample: Tensor) -> tuple[int, int]:
    """Rows and columns of the noisy tokens, from Flux's ``img_ids`` or Qwen's ``img_shapes``."""
    tokens = sample.shape[1]
    if ids is not None:
        ids = ids[0] if ids.ndim == 3 else ids
        # Reference images follow the latent, with another first coordinate.
        own = ids[ids[:, 0] == ids[0, 0]]
        grid = int(own[:, 1].max()) + 1, int(own[:, 2].max()) + 1
    elif shapes is not None:
        first = shapes[0][0] if isinstance(shapes[0], list) else shapes[0]
        grid = int(first[-2]), int(first[-1])
    else:
        raise ValueError(f"cannot unpack {tokens} tokens: the model's call has neither img_ids nor img_shapes")
    if grid[0] * grid[1] > tokens or sample.shape[2] % 4:
        raise ValueError(f"cannot unpack {tokens} tokens of {sample.shape[2]} channels to a grid of {grid}")
    return grid
