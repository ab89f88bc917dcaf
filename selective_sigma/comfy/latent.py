"""What ComfyUI knows of a run's latent, in the core's terms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..settings import Family
from ..streams import Streams

Shapes = Sequence[Sequence[int]] | None


def family(model_sampling: Any) -> Family:
    """``flow`` where the model's noising dims the latent by 1 - sigma, else ``ve``.

    Asked of ``noise_scaling`` and not of a class: CONST and all that behave like it are flow;
    COSMOS_RFLOW, whose sigma is already noise against signal, is not.
    """
    sigma, noise, latent = torch.tensor(0.25), torch.zeros(1), torch.ones(1)
    signal = float(model_sampling.noise_scaling(sigma, noise, latent))
    return "flow" if abs(signal - 0.75) < 1e-3 else "ve"


def shapes_of(base: Any) -> Shapes:
    """Shapes of the latents that newer ComfyUI packs into one (batch, 1, N), or None for one latent."""
    shapes = getattr(base, "latent_shapes", None)
    return shapes if shapes is not None and len(shapes) > 1 else None


def first(packed: Tensor, shapes: Shapes) -> Tensor:
    """The first (or only) latent's part of a tensor shaped like the latent or its mask."""
    return packed if shapes is None else Streams(shapes).split(packed)[0]


def regenerated(denoise_mask: Tensor | None, shapes: Shapes) -> Tensor | None:
    """What inpainting regenerates, (batch or 1, 1, *space), from ComfyUI's mask in the latent's shape."""
    return None if denoise_mask is None else first(denoise_mask, shapes).amax(1, keepdim=True)


def fit(limit: Tensor | None, x: Tensor, shapes: Shapes) -> Tensor | None:
    """A MASK at pixel size, as the limit of a latent: (batch or 1, 1, *space) in [0, 1].

    Args:
        limit: (masks, height, width), also with a channel axis; for an image and its batch one
            mask each or one for all; for a video one for all frames, or one per frame, stretched
            over its length; for sound the columns are time.
        x: the latent, (batch, channels, *space), or the packed (batch, 1, N).
    """
    if limit is None:
        return None
    space = tuple(x.shape[2:]) if shapes is None else tuple(shapes[0][2:])
    masks = limit.reshape(-1, 1, *limit.shape[-2:]).to(x.device, torch.float32).clamp(0, 1)
    if len(space) == 1:
        return _repeat(F.adaptive_avg_pool1d(masks.mean(2), min(space[0], masks.shape[-1])), len(x))
    # Averaged down, never up: the core interpolates what is still too small.
    size = (min(space[-2], masks.shape[-2]), min(space[-1], masks.shape[-1]))
    masks = F.adaptive_avg_pool2d(masks, size)
    if len(space) == 2:
        return _repeat(masks, len(x))
    if len(masks) not in (1, len(x)):
        return masks.squeeze(1)[None, None]
    return masks.unsqueeze(2)


def _repeat(masks: Tensor, batch: int) -> Tensor:
    """One mask for all, or one each: repeated or cut, as ComfyUI does with batches."""
    return masks if len(masks) == 1 else masks.repeat(-(-batch // len(masks)), *[1] * (masks.ndim - 1))[:batch]
