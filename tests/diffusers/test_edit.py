"""Qwen-Image 2.1 with pictures to edit: their tokens stand before the sample's own, cached from the first step on."""

from __future__ import annotations

import inspect
from types import SimpleNamespace
from typing import Any

import diffusers
import pytest
import torch
from PIL import Image

from selective_sigma.diffusers import detail

from .parts import FLOW, random
from .pipes import Tiny

TEXT, SLOTS = 4, 15
"""Tokens of text before each picture, and of one picture, each of which stands for four of the latent."""
REFERENCE, SAMPLE = (6, 10), (10, 6)
"""Grids of a picture to edit and of the sample: equal numbers of tokens."""


class Processor:
    """Stands in for the text encoder's processor, of which the pipeline needs this much at its construction."""

    tokenizer = SimpleNamespace(encode=lambda _: [1])

    def apply_chat_template(self, *_: Any, **__: Any) -> list[list[int]]:
        return [[0, 1, 2]]


def edit(pictures: int) -> Tiny:
    torch.manual_seed(0)
    transformer = diffusers.QwenImage21Transformer2DModel(
        in_channels=8,
        out_channels=8,
        num_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        context_in_dim=16,
        axes_dims_rope=(8, 4, 4),
    )
    vae = diffusers.AutoencoderKLQwenImage21(
        base_dim=4,
        decoder_base_dim=4,
        z_dim=8,
        dim_mult=[1] * 5,
        num_res_blocks=1,
        latents_mean=[0.0] * 8,
        latents_std=[1.0] * 8,
    )
    pipe = diffusers.QwenImage21Pipeline(FLOW(), vae.eval(), None, Processor(), transformer.eval())
    slots = torch.tensor(([False] * TEXT + [True] * SLOTS) * pictures + [False])[None]
    # The embeddings of a prompt and the places of its pictures: a call does not take them as arguments.
    pipe.encode_prompt = lambda prompt, **_: (random(1, slots.shape[1], 16, seed=len(prompt)), None, slots)
    pixels = (random(16 * REFERENCE[0], 16 * REFERENCE[1], 3) * 60 + 128).clamp(0, 255).byte()
    arguments = {
        "prompt": "a sailor",
        "negative_prompt": "a tailor's",
        "true_cfg_scale": 3.0,
        "image": [Image.fromarray(pixels.numpy())] * pictures,
        "height": 16 * SAMPLE[0],
        "width": 16 * SAMPLE[1],
        "output_resolution": 128,
        "num_inference_steps": 8,
        "output_type": "latent",
        "return_dict": False,
    }
    return Tiny(pipe, arguments, ("transformer",))


@pytest.mark.parametrize(("pictures", "cached"), [(1, True), (2, True), (2, False)])
def test_what_the_model_is_told(pictures, cached):
    tiny = edit(pictures)
    plain = tiny(use_kv_cache=cached)
    seen = []
    names = list(inspect.signature(tiny.module.forward).parameters)

    def see(_, args, kwargs):
        arguments = {**dict(zip(names, args, strict=False)), **kwargs}
        seen.append((arguments["hidden_states"].clone(), float(arguments["timestep"][0])))

    hook = tiny.module.register_forward_pre_hook(see, with_kwargs=True)
    with detail(tiny.pipe, strength=0.1, start=0.0, every=1, mask_override="zeros") as run:
        assert torch.equal(tiny(use_kv_cache=cached), plain)
    hook.remove()
    # With a cache, the first call fills it. The second call uses it, and is learned as another kind.
    learned = 2 if cached else 1
    assert run.report.lied == 2 * (8 - learned)
    assert run.mask.shape == (1, 1, *SAMPLE)
    pairs = seen[2 * learned :]
    reference = pictures * REFERENCE[0] * REFERENCE[1]
    # The last two calls are the last step, whose dose is half.
    for (lied, lied_time), (true, time) in list(zip(pairs[::2], pairs[1::2], strict=True))[:-2]:
        assert lied_time / (1 - lied_time) == pytest.approx(0.9 * time / (1 - time), rel=1e-4)
        assert torch.equal(lied[:, :reference], true[:, :reference])
        torch.testing.assert_close(lied[:, reference:], true[:, reference:] * (1 - lied_time) / (1 - time))


def test_identities():
    tiny = edit(1)
    plain = tiny()
    with detail(tiny.pipe, coverage=1.0) as run:
        everywhere = tiny()
        assert run.report.calls == run.report.steps
    with detail(tiny.pipe, mask_override="ones"):
        assert torch.equal(tiny(), everywhere)
    with detail(tiny.pipe):
        chosen = tiny()
    assert not torch.equal(everywhere, plain)
    assert not torch.equal(chosen, plain)
    with detail(tiny.pipe, strength=0):
        assert torch.equal(tiny(), plain)
