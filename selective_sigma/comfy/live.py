"""While sampling: the mask beside the picture, in the preview of each step that ComfyUI sends to the browser.

A sampler's callback makes the preview and hands it to the hook of ComfyUI's progress bars. Ours
stands before that hook; it changes what is sent while the callback of such a run is running, and
nothing else.
"""

from __future__ import annotations

import functools
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, NamedTuple

import comfy.utils
import latent_preview
import numpy as np
import torch
from PIL import Image

from .sheet import DARK

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

MARK = "selective_sigma_live"


class Shown(NamedTuple):
    """What a step has to show."""

    denoised: Tensor
    """(batch, channels, *space)"""
    mask: Tensor | None
    """(batch, 1, *space); None before detail begins."""
    latent_format: Any


now: ContextVar[Shown | None] = ContextVar("now", default=None)


def install() -> None:
    """Stand before the progress hook. Progress bars take it when they are made, so before any sampler runs."""
    # Not by the callback alone, in either version (0.3.64, 0.33): it makes the preview inside, hands it to a progress
    # bar of its own and returns nothing. A second bar after it would show each step twice, without the mask and with
    # it, and decode each preview twice.
    hook = comfy.utils.PROGRESS_BAR_HOOK
    if hook is None or hasattr(hook, MARK):
        return

    @functools.wraps(hook)
    def with_mask(value: int, total: int, preview: Any = None, *args: Any, **named: Any) -> Any:
        shown = now.get()
        if shown is not None:
            now.set(None)  # Once, should ours stand twice among the hooks of others.
            preview = beside(preview, shown)
        return hook(value, total, preview, *args, **named)

    setattr(with_mask, MARK, True)
    comfy.utils.set_progress_bar_global_hook(with_mask)


def watched(callback: Callable[..., Any], shown: Shown, *given: Any) -> Any:
    """Call a sampler's callback with the mask beside the preview that it sends."""
    token = now.set(shown)
    try:
        return callback(*given)
    finally:
        now.reset(token)


def beside(preview: Any, shown: Shown) -> Any:
    """ComfyUI's preview (format, picture, largest side) with the mask to the right of the picture.

    Where previews are off, the picture is what the preview method "auto" would show.
    """
    if preview is None:
        preview = ("JPEG", simple(shown), latent_preview.MAX_PREVIEW_RESOLUTION)
    form, picture, largest = preview
    if picture is not None and not isinstance(picture, Image.Image):
        return preview
    mask = pictured(shown)
    if picture is None:
        return form, mask, largest
    width, height = picture.size
    gap = max(1, width // 64)
    both = Image.new("RGB", (2 * width + gap, height), DARK)
    both.paste(picture.convert("RGB"), (0, 0))
    both.paste(mask.resize((width, height), Image.Resampling.NEAREST), (width + gap, 0))
    if largest is not None:  # Each half as large as the picture alone would be.
        largest = round(largest * max(both.size) / max(width, height))
    return form, both, largest


def simple(shown: Shown) -> Image.Image | None:
    """The latent as ComfyUI's cheapest previewer shows it, or None for latents that are no picture."""
    factors = getattr(shown.latent_format, "latent_rgb_factors", None)
    if factors is None or shown.denoised.ndim < 4:
        return None
    given = [factors, getattr(shown.latent_format, "latent_rgb_factors_bias", None)]
    reshape = getattr(shown.latent_format, "latent_rgb_factors_reshape", None)
    given += [] if reshape is None else [reshape]  # Unknown to older ComfyUI.
    return latent_preview.Latent2RGBPreviewer(*given).decode_latent_to_preview(shown.denoised)


def pictured(shown: Shown) -> Image.Image:
    """The mask of the first sample and frame, white where detail goes; black before there is one."""
    if shown.mask is None:
        space = shown.denoised.shape[2:]
        values = torch.zeros(tuple(space[-2:]) if len(space) > 1 else (1, *space))
    else:
        values = shown.mask[0, 0].detach().float().cpu()
        values = values[0] if values.ndim == 3 else values.reshape(-1, values.shape[-1])
    return Image.fromarray(np.asarray(values.clamp(0, 1).mul(255).round().byte())).convert("RGB")
