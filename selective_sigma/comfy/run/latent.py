"""What ComfyUI knows of a run's latent, in the core's terms."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import torch
import torch.nn.functional as F
from comfy.model_base import BaseModel
from comfy.model_sampling import CONST
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ...lie import Lie
    from ...prediction import Latent
    from ...settings import Family, Settings
    from .passes import Passes

Shapes: TypeAlias = "Sequence[Sequence[int]] | None"


def family(model_sampling: Any) -> Family | None:
    """``flow`` where noising dims the latent by 1 - sigma, ``ve`` where it only adds; None where it does neither.

    ComfyUI's name for flow is CONST, however a model that derives from it noises its latent. Models
    that turn one image into another (Lotus) have no noise in the latent, and so nothing to hide.
    """
    sigma, one, zero = torch.tensor(0.25), torch.ones(1), torch.zeros(1)
    if float(model_sampling.noise_scaling(sigma, one.clone(), zero)) == 0:
        return None
    signal = float(model_sampling.noise_scaling(sigma, zero.clone(), one))
    return "flow" if isinstance(model_sampling, CONST) or abs(signal - 0.75) < 1e-3 else "ve"


def window(model_sampling: Any, settings: Settings) -> tuple[float, float]:
    """Noise levels (high, low) of ``start`` and ``end``, read as every start and end percent of ComfyUI is."""
    return float(model_sampling.percent_to_sigma(settings.start)), float(model_sampling.percent_to_sigma(settings.end))


def shapes_of(base: Any) -> Shapes:
    """Shapes of the latents that newer ComfyUI packs into one (batch, 1, N), or None for one latent."""
    shapes = getattr(base, "latent_shapes", None)
    return shapes if shapes is not None and len(shapes) > 1 else None


def unpack(packed: Tensor, shapes: Shapes) -> Latent:
    """The streams of a pack, or the latent itself."""
    if shapes is None:
        return packed
    sizes = [math.prod(shape[1:]) for shape in shapes]
    return [
        part.reshape(len(packed), *shape[1:])
        for part, shape in zip(packed.reshape(len(packed), -1).split(sizes, 1), shapes, strict=True)
    ]


def pack(latent: Latent) -> Tensor:
    """The one (batch, 1, N) of several streams, or the latent itself."""
    if isinstance(latent, Tensor):
        return latent
    return torch.cat([stream.reshape(len(stream), 1, -1) for stream in latent], 2)


def first(latent: Latent) -> Tensor:
    """The first stream, which masks and pictures are of."""
    return latent if isinstance(latent, Tensor) else latent[0]


class GivenFrames(NamedTuple):
    """Frames that a model of clips is handed clean, beside noise (Wan 2.2, LTXV, HunyuanVideo, Cosmos)."""

    at: Callable[[Tensor, Tensor], Tensor]
    """What such a model is handed in place of noise at a level (batch,) under a mask, shaped like the latent."""
    mask: Callable[[], Tensor]
    """1 where it is handed the noisy latent, 0 where it is handed a given frame."""

    def in_lied_call(self, x: Tensor, sigma: Tensor, lie: Lie) -> Tensor:
        """``x`` for a lied call, so that the given frames are at the told level what they would be there."""
        scale, mask = lie.scale(sigma).reshape(-1, *[1] * (x.ndim - 1)), self.mask()
        return x + (1.0 - mask) * (self.at(lie.tell(sigma), mask) / scale - self.at(sigma, mask))


def given_frames(inner: Any, base: Any, x: Tensor, mask: Tensor | None, passes: Passes) -> GivenFrames | None:
    """The given frames of one call of the sampler; None where there are none.

    Args:
        inner: ComfyUI's ``KSamplerX0Inpaint``, which puts them in.
        base: the ``BaseModel``.
        mask: the ``denoise_mask`` of the call.
        passes: which know the mask that a function made of it.
    """
    image = getattr(inner, "latent_image", None)
    if mask is None or image is None or type(base).scale_latent_inpaint is BaseModel.scale_latent_inpaint:
        return None

    def at(level: Tensor, present: Tensor) -> Tensor:
        return base.scale_latent_inpaint(x=x, sigma=level, noise=inner.noise, latent_image=image, denoise_mask=present)

    return GivenFrames(at, lambda: mask if passes.denoise_mask is None else passes.denoise_mask)


def regenerated(denoise_mask: Tensor | None, shapes: Shapes) -> Tensor | None:
    """What inpainting regenerates, (batch or 1, 1, *space), from ComfyUI's mask in the latent's shape."""
    return None if denoise_mask is None else first(unpack(denoise_mask, shapes)).amax(1, keepdim=True)


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
