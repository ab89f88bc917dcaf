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
"""Tokens of text before each picture, and of one picture: four of the latent's each."""
GIVEN, OWN = (6, 10), (10, 6)
"""Equal numbers of tokens in other shapes."""


class Processor:
    """What the pipeline is asked for when it is made."""

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
    # The words of a prompt and the places of its pictures, which a call cannot be given.
    pipe.encode_prompt = lambda prompt, **_: (random(1, slots.shape[1], 16, seed=len(prompt)), None, slots)
    pixels = (random(16 * GIVEN[0], 16 * GIVEN[1], 3) * 60 + 128).clamp(0, 255).byte()
    arguments = {
        "prompt": "a sailor",
        "negative_prompt": "a tailor's",
        "true_cfg_scale": 3.0,
        "image": [Image.fromarray(pixels.numpy())] * pictures,
        "height": 16 * OWN[0],
        "width": 16 * OWN[1],
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
        given = {**dict(zip(names, args, strict=False)), **kwargs}
        seen.append((given["hidden_states"].clone(), float(given["timestep"][0])))

    hook = tiny.module.register_forward_pre_hook(see, with_kwargs=True)
    with detail(tiny.pipe, strength=0.1, start=0.0, every=1, mask_override="zeros") as run:
        assert torch.equal(tiny(use_kv_cache=cached), plain)
    hook.remove()
    # Where a first call fills a cache, the kind that uses it is learned at the second.
    learned = 2 if cached else 1
    assert run.report.lied == 2 * (8 - learned)
    assert run.mask.shape == (1, 1, *OWN)
    pairs = seen[2 * learned :]
    given = pictures * GIVEN[0] * GIVEN[1]
    # The last step is told by half.
    for (lied, told), (true, time) in list(zip(pairs[::2], pairs[1::2], strict=True))[:-2]:
        assert told / (1 - told) == pytest.approx(0.9 * time / (1 - time), rel=1e-4)
        assert torch.equal(lied[:, :given], true[:, :given])
        torch.testing.assert_close(lied[:, given:], true[:, given:] * (1 - told) / (1 - time))


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
