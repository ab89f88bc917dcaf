"""Questions to ComfyUI itself: its samplers on an exact denoiser, and the cost of a run beside the network.

COMFYUI_PATH=~/comfy/ComfyUI ~/comfy/ComfyUI/.venv/bin/python -m benchmarks --only comfyui overhead
"""

# ComfyUI is in ComfyUI's own environment alone.
# pyright: reportMissingImports=false
# ruff: noqa: E402

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial
from itertools import cycle, product
from typing import Any

import torch
from torch import Tensor

from selective_sigma import Settings
from tests.comfy import conftest

from .evaluate import STEPS, STRENGTH, Setup
from .figures import Row, Value
from .models import MODELS, ReferenceModel

# With that ComfyUI is on the path, in CPU mode.
assert conftest.MISSING is None, conftest.MISSING

import comfy.samplers
import tiny
from published import around

from selective_sigma.comfy.run.sampler import wrap

SCHEDULES = {"eps, karras": "karras", "eps, normal": "normal", "flow, shift 3": "normal"}


def draw(model: ReferenceModel, schedule: str, name: str, settings: Settings | None) -> tuple[Tensor, int]:
    """The picture of a sampler, bare without settings, (batch, channels, H, W), and its model calls."""
    flow = schedule.startswith("flow")
    patcher = tiny.model(tiny.FLOW if flow else tiny.EPS)
    patcher.model.latent_format.scale_factor = 1.0

    def denoised(x: Tensor, sigma: Tensor, *_: Any, **__: Any) -> Any:
        level = min(float(sigma[0]), 0.9999) if flow else float(sigma[0])
        tiny.calls(patcher).append(level)
        # Rectified flow is the same denoiser of x / (1 - sigma).
        alpha = 1 - level if flow else 1.0
        return model.denoise(x / alpha, level / alpha)

    patcher.model._apply_model = denoised
    sampler = tiny.sampler(name) if settings is None else wrap(tiny.sampler(name), settings)
    sigmas = tiny.schedule(patcher, STEPS, SCHEDULES[schedule])
    picture = tiny.sample(patcher, sampler, sigmas, shape=model.shape, cfg=1.0, seed=0)
    return picture, len(tiny.calls(patcher))


def comfyui(model: str) -> Iterator[Row]:
    """Gain, leak and calls of every sampler of ComfyUI itself, at ``every`` 1 and 2."""
    for schedule, sampler in product(SCHEDULES, comfy.samplers.SAMPLER_NAMES):
        sampled = partial(draw, MODELS[model](), schedule, sampler)
        usual, once = sampled(None)
        for n in (1, 2):
            detailed, calls = sampled(Settings(strength=STRENGTH, every=n))
            yield Setup("comfyui", model, schedule, sampler).compared(detailed, usual, calls / once, f"every {n}")


ROUNDS = 9
SHAPES = {"1x4x128x128, eps, Karras": (1, 4, 128, 128), "1x16x21x45x80, flow, shift 3": (1, 16, 21, 45, 80)}
CONTESTANTS = {
    "bare": lambda sampler: sampler,
    "published": around,
    "ours": partial(wrap, settings=Settings()),
    # A black limit: no step is due.
    "ours, nothing due": partial(wrap, settings=Settings(), limit=torch.zeros(1, 64, 64)),
}


def network(shape: tuple[int, ...], flow: bool, patches: int) -> tuple[Any, list[int]]:
    """A MODEL whose network returns at once, with as many attention patches, as of IP-Adapters; and its rows."""
    model, rows = tiny.model(tiny.FLOW if flow else tiny.EPS, len(shape) - 2), list[int]()
    answers = cycle([torch.randn(2, *shape[1:]) for _ in range(3)])

    def forward(x: Tensor, *_: Any, **__: Any) -> Tensor:
        rows.append(len(x))
        return next(answers)[: len(x)]

    model.model.diffusion_model.forward = forward
    for i in range(patches // 2):
        model.set_model_attn2_replace(partial(torch.add, torch.randn(4, 64)), "input", i)
        model.set_model_attn2_patch(partial(torch.add, torch.randn(4, 64)))
    return model, rows


def overhead(_: str) -> Iterator[Value]:
    """CPU time in ms of a run minus the bare sampler's, and of a step; the least of the rounds."""
    for (name, shape), patches in product(SHAPES.items(), (0, 500)):
        flow = len(shape) == 5
        model, rows = network(shape, flow, patches)
        sigmas, least, row_counts = tiny.schedule(model, STEPS, "normal" if flow else "karras"), {}, {}
        for label, make in (each for _ in range(ROUNDS) for each in CONTESTANTS.items()):
            sampler, began = make(tiny.sampler("euler")), time.process_time()
            rows.clear()
            tiny.sample(model, sampler, sigmas, shape=shape)
            spent, row_counts[label] = 1e3 * (time.process_time() - began), sum(rows)
            least[label] = min(spent, least.get(label, spent))
        over = {label: spent - least["bare"] for label, spent in least.items()}
        values = {"bare run, ms": least["bare"], **{f"{label}, ms over bare": over[label] for label in list(over)[1:]}}
        values["a due step, ms"] = over["ours"] / (row_counts["ours"] - row_counts["bare"])
        values["another step, ms"] = over["ours, nothing due"] / STEPS
        values["ours / published"] = over["ours"] / over["published"]
        for label, value in values.items():
            yield Value("overhead", f"{name}, {patches} patches", label, value)
