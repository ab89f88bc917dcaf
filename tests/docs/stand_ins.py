"""What code blocks of the documentation run with, where they name something that is not here.

A block says so itself, in a comment right above it: ``<!-- test: NAME -->``. The block's text is run as it
stands; NAME, a function of this module, sets the stage and may return names for the block to find.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    import pytest


def tiny_sdxl(patch: pytest.MonkeyPatch) -> dict[str, Any]:
    """In place of the download: diffusers' own SDXL pipeline, tiny, with random weights and random prompts."""
    from diffusers import AutoencoderKL, StableDiffusionXLPipeline

    from tests.diffusers import pipes

    class Tiny(StableDiffusionXLPipeline):
        def encode_prompt(self, *_: Any, **__: Any) -> tuple[torch.Tensor, ...]:
            arguments = tiny.arguments
            names = ("prompt_embeds", "negative_prompt_embeds", "pooled_prompt_embeds", "negative_pooled_prompt_embeds")
            return tuple(arguments[name] for name in names)

        def to(self, *_: Any, **__: Any) -> Tiny:
            return self

    tiny = pipes.sdxl()
    torch.manual_seed(0)
    vae = AutoencoderKL(block_out_channels=(8,), norm_num_groups=4, sample_size=16, latent_channels=4)
    pipe = Tiny(vae, None, None, None, None, tiny.module, tiny.pipe.scheduler, add_watermarker=False)
    pipe.set_progress_bar_config(disable=True)

    def from_pretrained(name: str, **_: Any) -> Tiny:
        assert name == "stabilityai/stable-diffusion-xl-base-1.0"
        return pipe

    patch.setattr(StableDiffusionXLPipeline, "from_pretrained", from_pretrained)
    return {}


def loop(_: pytest.MonkeyPatch) -> dict[str, Any]:
    """A model, a schedule and a latent of one's own."""

    def model(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        return x / (1 + sigma**2)

    sigmas = torch.tensor([4.0, 2.0, 1.0, 0.5, 0.0])
    return {"model": model, "sigmas": sigmas, "x": torch.randn(1, 4, 16, 16), "sigma": sigmas[2]}
