"""The mask beside the picture in the preview of each step that ComfyUI sends to the browser while sampling.

A sampler's callback makes the preview and passes it to the hook of ComfyUI's progress bars. Our hook is called in
place of that hook and calls it. It changes only what is sent while ``mask_in_preview`` is active.
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

    from ..run.sampler_run import StepPreview

MARK = "selective_sigma_live"
"""An attribute of our hook."""
current_step: ContextVar[StepPreview | None] = ContextVar("current_step", default=None)


def install_hook() -> None:
    """Replace the hook of the progress bars. They read it when they are made, so call this before any sampler runs."""
    # A callback alone cannot do it, in 0.3.64 and in 0.33: it makes the preview inside, passes it to a progress bar of
    # its own and returns nothing. A second bar after it would decode each preview twice, and show each step twice,
    # without the mask and with it.
    hook = comfy.utils.PROGRESS_BAR_HOOK
    if hook is None or hasattr(hook, MARK):
        return

    @functools.wraps(hook)
    def with_mask(value: int, total: int, preview: Any = None, *args: Any, **named: Any) -> Any:
        step = current_step.get()
        if step is not None:
            current_step.set(None)  # Once, in case another pack's hook stands between two of ours.
            preview = with_mask_beside(preview, step)
        return hook(value, total, preview, *args, **named)

    setattr(with_mask, MARK, True)
    comfy.utils.set_progress_bar_global_hook(with_mask)


@contextmanager
def mask_in_preview(step: StepPreview) -> Iterator[None]:
    """A preview that a sampler's callback sends within has the mask beside the picture."""
    token = current_step.set(step)
    try:
        yield
    finally:
        current_step.reset(token)


def with_mask_beside(preview: Any, step: StepPreview) -> Any:
    """ComfyUI's preview (format, picture, largest side) with the mask to the right of the picture.

    Where previews are off, the picture is that of the preview method "auto".
    """
    if preview is None:
        preview = ("JPEG", latent_to_rgb(step), latent_preview.MAX_PREVIEW_RESOLUTION)
    form, picture, largest = preview
    if picture is not None and not isinstance(picture, Image.Image):
        return preview
    mask = mask_picture(step)
    if picture is None:
        return form, mask, largest
    width, height = picture.size
    gap = max(1, width // 64)
    pair = Image.new("RGB", (2 * width + gap, height), DARK)
    pair.paste(picture.convert("RGB"), (0, 0))
    pair.paste(mask.resize((width, height), Image.Resampling.NEAREST), (width + gap, 0))
    if largest is not None:  # Each half is shown as large as the picture alone.
        largest = round(largest * max(pair.size) / max(width, height))
    return form, pair, largest


def latent_to_rgb(step: StepPreview) -> Image.Image | None:
    """The latent as ComfyUI's ``Latent2RGBPreviewer`` shows it; None for formats that it does not know, and sound."""
    factors = getattr(step.latent_format, "latent_rgb_factors", None)
    if factors is None or step.denoised.ndim < 4:
        return None
    args = [factors, getattr(step.latent_format, "latent_rgb_factors_bias", None)]
    reshape = getattr(step.latent_format, "latent_rgb_factors_reshape", None)
    args += [] if reshape is None else [reshape]  # Older versions of ComfyUI do not have this argument.
    return latent_preview.Latent2RGBPreviewer(*args).decode_latent_to_preview(step.denoised)


def mask_picture(step: StepPreview) -> Image.Image:
    """The mask of the first sample and frame, white where detail goes; black before there is one."""
    if step.mask is None:
        space = step.denoised.shape[2:]
        values = torch.zeros(tuple(space[-2:]) if len(space) > 1 else (1, *space))
    else:
        values = step.mask[0, 0].detach().float().cpu()
        values = values[0] if values.ndim == 3 else values.reshape(-1, values.shape[-1])
    return Image.fromarray(np.asarray(values.clamp(0, 1).mul(255).round().byte())).convert("RGB")
