"""ComfyUI's own samplers on an exact denoiser, for the question ``comfyui``; needs ComfyUI's own Python.

COMFYUI_PATH=~/comfy/ComfyUI ~/comfy/ComfyUI/.venv/bin/python -m benchmarks --only comfyui
"""

# ComfyUI is in ComfyUI's own environment alone.
# pyright: reportMissingImports=false
# ruff: noqa: E402

from __future__ import annotations

from typing import Any

from torch import Tensor

from selective_sigma import Settings
from tests.comfy import conftest

from .models import Model

# With that ComfyUI is on the path, in CPU mode.
assert conftest.MISSING is None, conftest.MISSING

import comfy.samplers
import tiny

from selective_sigma.comfy.sampler import wrap

SAMPLERS: list[str] = comfy.samplers.SAMPLER_NAMES
SCHEDULES = {"eps, karras": "karras", "eps, normal": "normal", "flow, shift 3": "normal"}


def draw(known: Model, schedule: str, name: str, steps: int, settings: Settings | None) -> tuple[Tensor, int]:
    """What a sampler draws, bare without settings, (batch, channels, H, W); and in how many model calls."""
    flow = schedule.startswith("flow")
    model = tiny.model(tiny.FLOW if flow else tiny.EPS)
    model.model.latent_format.scale_factor = 1.0

    def denoised(x: Tensor, sigma: Tensor, *_: Any, **__: Any) -> Any:
        level = min(float(sigma[0]), 0.9999) if flow else float(sigma[0])
        tiny.calls(model).append(level)
        # Rectified flow is the same denoiser of x / (1 - sigma).
        alpha = 1 - level if flow else 1.0
        return known.denoise(x / alpha, level / alpha).denoised

    model.model._apply_model = denoised
    sampler = tiny.sampler(name) if settings is None else wrap(tiny.sampler(name), settings)
    sigmas = tiny.schedule(model, steps, SCHEDULES[schedule])
    picture = tiny.sample(model, sampler, sigmas, shape=known.shape, cfg=1.0, seed=0)
    return picture, len(tiny.calls(model))
