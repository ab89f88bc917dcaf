"""While sampling: the mask beside the picture, in the preview of each step that ComfyUI sends to the browser.

A sampler's callback makes the preview and hands it to the hook of ComfyUI's progress bars. Ours
stands before that hook; it changes what is sent while the callback of such a run is running, and
nothing else.
"""

from __future__ import annotations

import functools
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import comfy.utils
import latent_preview
import numpy as np
import torch
from PIL import Image

from .sheet import DARK

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..run.sampler import StepPreview

MARK = "selective_sigma_live"


now: ContextVar[StepPreview | None] = ContextVar("now", default=None)


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
        step = now.get()
        if step is not None:
            now.set(None)  # Once, should ours stand twice among the hooks of others.
            preview = beside(preview, step)
        return hook(value, total, preview, *args, **named)

    setattr(with_mask, MARK, True)
    comfy.utils.set_progress_bar_global_hook(with_mask)


@contextmanager
def mask_in_preview(step: StepPreview) -> Iterator[None]:
    """While a sampler's callback runs within, the preview that it sends has the mask beside the picture."""
    token = now.set(step)
    try:
        yield
    finally:
        now.reset(token)


def beside(preview: Any, step: StepPreview) -> Any:
    """ComfyUI's preview (format, picture, largest side) with the mask to the right of the picture.

    Where previews are off, the picture is what the preview method "auto" would show.
    """
    if preview is None:
        preview = ("JPEG", simple(step), latent_preview.MAX_PREVIEW_RESOLUTION)
    form, picture, largest = preview
    if picture is not None and not isinstance(picture, Image.Image):
        return preview
    mask = pictured(step)
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


def simple(step: StepPreview) -> Image.Image | None:
    """The latent as ComfyUI's cheapest previewer shows it, or None for latents that are no picture."""
    factors = getattr(step.latent_format, "latent_rgb_factors", None)
    if factors is None or step.denoised.ndim < 4:
        return None
    given = [factors, getattr(step.latent_format, "latent_rgb_factors_bias", None)]
    reshape = getattr(step.latent_format, "latent_rgb_factors_reshape", None)
    given += [] if reshape is None else [reshape]  # Unknown to older ComfyUI.
    return latent_preview.Latent2RGBPreviewer(*given).decode_latent_to_preview(step.denoised)


def pictured(step: StepPreview) -> Image.Image:
    """The mask of the first sample and frame, white where detail goes; black before there is one."""
    if step.mask is None:
        space = step.denoised.shape[2:]
        values = torch.zeros(tuple(space[-2:]) if len(space) > 1 else (1, *space))
    else:
        values = step.mask[0, 0].detach().float().cpu()
        values = values[0] if values.ndim == 3 else values.reshape(-1, values.shape[-1])
    return Image.fromarray(np.asarray(values.clamp(0, 1).mul(255).round().byte())).convert("RGB")
