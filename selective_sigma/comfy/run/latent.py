"""ComfyUI's latents, noise levels and masks in the terms of the core."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
import torch.nn.functional as F
from comfy.model_base import BaseModel
from comfy.model_sampling import CONST
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ...lie import Lie
    from ...prediction import Latent
    from ...settings import Family, Settings

Shapes: TypeAlias = "Sequence[Sequence[int]] | None"
"""Shapes (batch, channels, *space) of the streams that are packed into one latent; None where nothing is packed."""


def family_of(model_sampling: Any) -> Family | None:
    """The core's name for the way in which a model adds noise to a latent.

    Returns:
        - ``flow`` for models that derive from ComfyUI's ``CONST``, or that scale the latent by 1 - sigma;
        - ``ve`` for models that only add noise;
        - None for models that put no noise into the latent, such as Lotus, which turns one image into another.
    """
    sigma, one, zero = torch.tensor(0.25), torch.ones(1), torch.zeros(1)
    if float(model_sampling.noise_scaling(sigma, one.clone(), zero)) == 0:
        return None
    signal = float(model_sampling.noise_scaling(sigma, zero.clone(), one))
    return "flow" if isinstance(model_sampling, CONST) or abs(signal - 0.75) < 1e-3 else "ve"


def noise_window(model_sampling: Any, settings: Settings) -> tuple[float, float]:
    """Noise levels (high, low) of the settings ``start`` and ``end``, as ComfyUI converts start and end percents."""
    return float(model_sampling.percent_to_sigma(settings.start)), float(model_sampling.percent_to_sigma(settings.end))


def packed_shapes(base: Any) -> Shapes:
    """Shapes of the latents that newer versions of ComfyUI pack into one of (batch, 1, N)."""
    shapes = getattr(base, "latent_shapes", None)
    return shapes if shapes is not None and len(shapes) > 1 else None


def unpack_streams(packed: Tensor, shapes: Shapes) -> Latent:
    """The streams of a packed latent; without ``shapes``, the latent itself."""
    if shapes is None:
        return packed
    sizes = [math.prod(shape[1:]) for shape in shapes]
    return [
        part.reshape(len(packed), *shape[1:])
        for part, shape in zip(packed.reshape(len(packed), -1).split(sizes, 1), shapes, strict=True)
    ]


def pack_streams(latent: Latent) -> Tensor:
    """Several streams packed into (batch, 1, N); a single latent as it is."""
    if isinstance(latent, Tensor):
        return latent
    return torch.cat([stream.reshape(len(stream), 1, -1) for stream in latent], 2)


def first_stream(latent: Any) -> Tensor:
    """The stream that masks and previews are made of: the first of a list or of a ``NestedTensor``, or the latent."""
    if getattr(latent, "is_nested", False):
        return latent.unbind()[0]
    return latent[0] if isinstance(latent, list) else latent


@dataclass
class CleanFrames:
    """Frames that a video model gets without noise beside noisy ones (Wan 2.2, LTXV, HunyuanVideo, Cosmos)."""

    base: Any
    """The ``BaseModel``, whose ``scale_latent_inpaint`` prepares the clean frames for a noise level."""
    x: Tensor
    noise: Tensor
    latent_image: Tensor
    denoise_mask: Tensor
    """1 where the model gets the noisy latent, 0 where it gets a clean frame."""

    def at_level(self, sigma: Tensor) -> Tensor:
        """The clean frames as the model gets them at noise levels (batch,), shaped like the latent."""
        return self.base.scale_latent_inpaint(
            x=self.x, sigma=sigma, noise=self.noise, latent_image=self.latent_image, denoise_mask=self.denoise_mask
        )

    def in_lied_call(self, x: Tensor, sigma: Tensor, lie: Lie) -> Tensor:
        """``x`` with other clean frames: multiplied by ``lie.scale``, they are the clean frames of the level told."""
        scale = lie.scale(sigma).reshape(-1, *[1] * (x.ndim - 1))
        return x + (1.0 - self.denoise_mask) * (self.at_level(lie.tell(sigma)) / scale - self.at_level(sigma))


def clean_frames(inner: Any, base: Any, x: Tensor, denoise_mask: Tensor | None) -> CleanFrames | None:
    """The clean frames of one sampler call; None for models or calls that have none.

    Args:
        inner: ComfyUI's ``KSamplerX0Inpaint``, which puts them into the latent.
        base: the ``BaseModel``.
        denoise_mask: the mask of the call, shaped like the latent.
    """
    image = getattr(inner, "latent_image", None)
    if denoise_mask is None or image is None or type(base).scale_latent_inpaint is BaseModel.scale_latent_inpaint:
        return None
    return CleanFrames(base, x, inner.noise, image, denoise_mask)


def inpainted_region(denoise_mask: Tensor | None, shapes: Shapes) -> Tensor | None:
    """The part that inpainting regenerates, (batch or 1, 1, *space), from a ``denoise_mask`` in the latent's shape."""
    return None if denoise_mask is None else first_stream(unpack_streams(denoise_mask, shapes)).amax(1, keepdim=True)


def limit_for_latent(limit: Tensor | None, x: Tensor, shapes: Shapes) -> Tensor | None:
    """A MASK in pixels as the core's ``limit`` for a latent: (batch or 1, 1, *space) in [0, 1].

    Args:
        limit: (masks, height, width), or with a channel axis.

            - Images: one mask for the batch, or one for each sample.
            - Video: one mask for all frames, or one for each frame, stretched over the length of the clip.
            - Sound: the columns of the mask are time.
        x: the latent, (batch, channels, *space) or packed (batch, 1, N).
    """
    if limit is None:
        return None
    space = tuple(x.shape[2:]) if shapes is None else tuple(shapes[0][2:])
    masks = limit.reshape(-1, 1, *limit.shape[-2:]).to(x.device, torch.float32).clamp(0, 1)
    if len(space) == 1:
        return _one_per_sample(F.adaptive_avg_pool1d(masks.mean(2), min(space[0], masks.shape[-1])), len(x))
    # Masks are only averaged down here. The core interpolates masks that are smaller than the latent.
    size = (min(space[-2], masks.shape[-2]), min(space[-1], masks.shape[-1]))
    masks = F.adaptive_avg_pool2d(masks, size)
    if len(space) == 2:
        return _one_per_sample(masks, len(x))
    if len(masks) not in (1, len(x)):
        return masks.squeeze(1)[None, None]
    return masks.unsqueeze(2)


def _one_per_sample(masks: Tensor, batch: int) -> Tensor:
    """Repeat or cut several masks to the batch, as ComfyUI does. A single mask is returned as it is."""
    return masks if len(masks) == 1 else masks.repeat(-(-batch // len(masks)), *[1] * (masks.ndim - 1))[:batch]
