"""Modular pipelines work as classic ones do: they call the same parts, once for each side of guidance.

Their ``loop_step`` would be another seam (its blocks up to the denoiser map latents and time to the
prediction, guided and signed), but its blocks have names and places of their own in each pipeline, and
what is learned from the model's calls and the scheduler's step is the same there as anywhere.
"""

from __future__ import annotations

import pytest
import torch
from diffusers import modular_pipelines

from selective_sigma.diffusers import detail

from .zoo import build

MODULAR = {
    "Stable Diffusion XL": "StableDiffusionXLAutoBlocks",
    "Stable Diffusion 3.5": "StableDiffusion3AutoBlocks",
    "Flux.1": "FluxAutoBlocks",
    "Flux.2": "Flux2AutoBlocks",
    "Flux.2 klein": "Flux2KleinBaseAutoBlocks",
    "Qwen-Image": "QwenImageAutoBlocks",
    "Z-Image": "ZImageAutoBlocks",
    "Krea 2": "Krea2AutoBlocks",
    "Wan 2.1": "WanBlocks",
    "LTX": "LTXAutoBlocks",
}


@pytest.mark.parametrize("name", MODULAR)
def test_modular(name):
    tiny = build(name)
    blocks = getattr(modular_pipelines, MODULAR[name])()
    # Prompts come as embeddings and results as latents.
    for other in [block for block in blocks.sub_blocks if block != "denoise"]:
        blocks.sub_blocks.pop(other)
    pipe = blocks.init_pipeline()
    wanted = {spec.name for spec in blocks.expected_components}
    pipe.update_components(**{k: v for k, v in tiny.pipe.components.items() if k in wanted and v is not None})
    pipe.set_progress_bar_config(disable=True)
    names = {field.name for field in blocks.inputs}
    arguments = {k: v for k, v in tiny.arguments.items() if k in names}

    def call():
        torch.manual_seed(0)
        return pipe(generator=torch.Generator().manual_seed(0), output="latents", **arguments)

    plain = call()
    with detail(pipe, mask_override="zeros") as run:
        assert torch.equal(call(), plain)
        assert run.report.lied > 0
    with detail(pipe, coverage=1.0) as run:
        everywhere = call()
        assert run.report.calls == run.report.steps
    with detail(pipe, mask_override="ones"):
        assert torch.equal(call(), everywhere)
    with detail(pipe):
        chosen = call()
    assert 0 < (chosen - plain).norm() < 2 * (everywhere - plain).norm()
    assert torch.equal(call(), plain)
