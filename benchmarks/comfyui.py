"""Questions to ComfyUI itself: its samplers on an exact denoiser, and the cost of a run beside the network.

COMFYUI_PATH=~/comfy/ComfyUI ~/comfy/ComfyUI/.venv/bin/python -m benchmarks --only comfyui overhead
"""

# ComfyUI is installed only in its own environment.
# pyright: reportMissingImports=false
# ruff: noqa: E402

import time
from collections.abc import Iterator
from functools import partial
from itertools import cycle, product
from typing import Any

import torch
from torch import Tensor

from selective_sigma import Settings
from tests.comfy import conftest

from .evaluate import STEPS, STRENGTH, TIMED_RUNS, Setup
from .figures import Row, Value
from .models import MODELS, ReferenceModel

# Importing conftest has put ComfyUI on the path, in CPU mode.
assert conftest.MISSING is None, conftest.MISSING

import comfy.samplers
import tiny
from published import around

from selective_sigma.comfy.run.sampler import wrap

SCHEDULERS = {"eps, karras": "karras", "eps, normal": "normal", "flow, shift 3": "normal"}
"""ComfyUI's name of the scheduler that makes each noise schedule."""


def draw(model: ReferenceModel, schedule: str, name: str, settings: Settings | None) -> tuple[Tensor, int]:
    """The picture of a sampler, (batch, channels, H, W), and its model calls. Without settings, the sampler is bare."""
    is_flow = schedule.startswith("flow")
    patcher = tiny.model(tiny.FLOW if is_flow else tiny.EPS)
    patcher.model.latent_format.scale_factor = 1.0

    def denoised(x: Tensor, sigma: Tensor, *_: Any, **__: Any) -> Any:
        level = min(float(sigma[0]), 0.9999) if is_flow else float(sigma[0])
        tiny.calls(patcher).append(level)
        return model.predict(x, level, family="flow" if is_flow else "ve").denoised

    patcher.model._apply_model = denoised
    sigmas = tiny.schedule(patcher, STEPS, SCHEDULERS[schedule])
    picture = tiny.sample(patcher, tiny.sampler(name, settings), sigmas, shape=model.shape, cfg=1.0, seed=0)
    return picture, len(tiny.calls(patcher))


def comfyui(model: str) -> Iterator[Row]:
    """Gain, leak and calls of every sampler of ComfyUI, at ``every`` 1 and 2."""
    for schedule, sampler in product(SCHEDULERS, comfy.samplers.SAMPLER_NAMES):
        setup = Setup("comfyui", model, schedule, sampler)
        bare_picture, bare_calls = draw(MODELS[model](), schedule, sampler, None)
        for every in (1, 2):
            detailed, calls = draw(MODELS[model](), schedule, sampler, Settings(strength=STRENGTH, every=every))
            yield setup.compare(detailed, bare_picture, calls / bare_calls, f"every {every}", STRENGTH)


SHAPES = {"1x4x128x128, eps, Karras": (1, 4, 128, 128), "1x16x21x45x80, flow, shift 3": (1, 16, 21, 45, 80)}
CONTESTANTS = {
    "bare": lambda sampler: sampler,
    "published": around,
    "ours": partial(wrap, settings=Settings()),
    # A black limit: no step is due.
    "ours, nothing due": partial(wrap, settings=Settings(), limit=torch.zeros(1, 64, 64)),
}


def instant_model(shape: tuple[int, ...], patch_count: int) -> tuple[Any, list[int]]:
    """A MODEL whose network answers at once, with attention patches, and the list of its batch sizes."""
    axes = len(shape) - 2
    model, batch_sizes = tiny.model(tiny.FLOW if axes == 3 else tiny.EPS, axes), list[int]()
    answers = cycle([torch.randn(2, *shape[1:]) for _ in range(3)])

    def forward(x: Tensor, *_: Any, **__: Any) -> Tensor:
        batch_sizes.append(len(x))
        return next(answers)[: len(x)]

    model.model.diffusion_model.forward = forward
    for i in range(patch_count // 2):
        model.set_model_attn2_replace(partial(torch.add, torch.randn(4, 64)), "input", i)
        model.set_model_attn2_patch(partial(torch.add, torch.randn(4, 64)))
    return model, batch_sizes


def overhead(_: str) -> Iterator[Value]:
    """CPU time in ms of a run and of a step, minus that of the bare sampler; the least of ``TIMED_RUNS``."""
    for (name, shape), patch_count in product(SHAPES.items(), (0, 500)):
        model, batch_sizes = instant_model(shape, patch_count)
        sigmas = tiny.schedule(model, STEPS, "normal" if "flow" in name else "karras")
        times, rows = dict.fromkeys(CONTESTANTS, float("inf")), dict.fromkeys(CONTESTANTS, 0)
        for label in [*CONTESTANTS] * TIMED_RUNS:
            batch_sizes.clear()
            sampler, began = CONTESTANTS[label](tiny.sampler("euler")), time.process_time()
            tiny.sample(model, sampler, sigmas, shape=shape)
            times[label] = min(times[label], 1e3 * (time.process_time() - began))
            rows[label] = sum(batch_sizes)
        over = {label: times[label] - times["bare"] for label in CONTESTANTS if label != "bare"}
        value = partial(Value, "overhead", f"{name}, {patch_count} patches")
        yield value("bare run, ms", times["bare"])
        yield from (value(f"{label}, ms over bare", over[label]) for label in over)
        yield value("a due step, ms", over["ours"] / (rows["ours"] - rows["bare"]))
        yield value("another step, ms", over["ours, nothing due"] / STEPS)
        yield value("ours / published", over["ours"] / over["published"])
