"""Tiny pipelines with random weights, built from configs: nothing is downloaded."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderKLQwenImage,
    FluxPipeline,
    FluxTransformer2DModel,
    QwenImagePipeline,
    QwenImageTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionXLImg2ImgPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
    WanPipeline,
    WanTransformer3DModel,
)

from .parts import FLUX, POOLED, QWEN, QWEN_VAE, SD3, UNET, VAE, WAN, XL, both, ones, random
from .schedulers import FLOW_SCHEDULERS, UNET_SCHEDULERS


class Tiny:
    """A pipeline and the arguments to call it with; ``tiny(...)`` returns its latents."""

    def __init__(self, pipe: Any, arguments: dict[str, Any], modules: tuple[str, ...]):
        self.pipe = pipe
        self.arguments = arguments
        self.module = getattr(pipe, modules[0])
        pipe.set_progress_bar_config(disable=True)

    def __call__(self, seed: int = 0, **changes: Any) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed)
        # Some schedulers draw from the global generator.
        torch.manual_seed(seed)
        return self.pipe(generator=generator, **{**self.arguments, **changes})[0]


def _unet() -> UNet2DConditionModel:
    torch.manual_seed(0)
    return UNet2DConditionModel(**UNET, **XL).eval()


def _sdxl_arguments() -> dict[str, Any]:
    return {
        **both(32),
        **POOLED,
        "num_inference_steps": 8,
        "guidance_scale": 4.0,
        "output_type": "latent",
        "return_dict": False,
    }


def sdxl(scheduler: Any = None) -> Tiny:
    pipe = StableDiffusionXLPipeline(
        None, None, None, None, None, _unet(), scheduler or UNET_SCHEDULERS["euler"](), add_watermarker=False
    )
    return Tiny(pipe, {**_sdxl_arguments(), "height": 128, "width": 96}, ("unet",))


def sdxl_img2img(scheduler: Any = None) -> Tiny:
    torch.manual_seed(0)
    vae = AutoencoderKL(block_out_channels=(8,), norm_num_groups=4, sample_size=16)
    pipe = StableDiffusionXLImg2ImgPipeline(
        vae, None, None, None, None, _unet(), scheduler or UNET_SCHEDULERS["euler"](), add_watermarker=False
    )
    return Tiny(pipe, {**_sdxl_arguments(), "image": random(1, 4, 16, 16), "strength": 0.6}, ("unet",))


def flux(scheduler: Any = None) -> Tiny:
    torch.manual_seed(0)
    transformer = FluxTransformer2DModel(**FLUX | {"num_layers": 2, "pooled_projection_dim": 32}).eval()
    scheduler = scheduler or FLOW_SCHEDULERS["flow_euler"]()
    pipe = FluxPipeline(scheduler, AutoencoderKL(**VAE[1]), None, None, None, None, transformer)
    arguments = {
        "prompt_embeds": random(1, 5, 32),
        "pooled_prompt_embeds": random(1, 32, seed=9),
        "height": 128,
        "width": 96,
        "num_inference_steps": 8,
        "output_type": "latent",
        "return_dict": False,
    }
    return Tiny(pipe, arguments, ("transformer",))


def flux_true_cfg(scheduler: Any = None) -> Tiny:
    tiny = flux(scheduler)
    tiny.arguments |= {
        "negative_prompt_embeds": random(1, 5, 32, seed=8),
        "negative_pooled_prompt_embeds": random(1, 32, seed=10),
        "true_cfg_scale": 3.0,
    }
    return tiny


def sd3(scheduler: Any = None) -> Tiny:
    torch.manual_seed(0)
    transformer = SD3Transformer2DModel(**SD3 | {"num_layers": 2}).eval()
    scheduler = scheduler or FLOW_SCHEDULERS["flow_euler"]()
    pipe = StableDiffusion3Pipeline(transformer, scheduler, None, None, None, None, None, None, None)
    return Tiny(pipe, {**_sdxl_arguments(), "height": 128, "width": 96}, ("transformer",))


def wan(scheduler: Any = None) -> Tiny:
    torch.manual_seed(0)
    transformer = WanTransformer3DModel(**WAN | {"in_channels": 4, "num_layers": 2}).eval()
    scheduler = scheduler or FLOW_SCHEDULERS["flow_unipc"]()
    pipe = WanPipeline(None, None, None, scheduler, transformer)
    arguments = {
        **both(32),
        "height": 128,
        "width": 96,
        "num_frames": 9,
        "num_inference_steps": 8,
        "guidance_scale": 3.0,
        "output_type": "latent",
        "return_dict": False,
    }
    return Tiny(pipe, arguments, ("transformer",))


def wan_experts(scheduler: Any = None) -> Tiny:
    """Wan 2.2, which has a second transformer for the lower noise levels."""
    tiny = wan(scheduler)
    pipe = WanPipeline(None, None, None, tiny.pipe.scheduler, tiny.module, wan().module, boundary_ratio=0.8)
    return Tiny(pipe, tiny.arguments, ("transformer",))


def qwen(scheduler: Any = None) -> Tiny:
    torch.manual_seed(0)
    transformer = QwenImageTransformer2DModel(**QWEN | {"num_layers": 2}).eval()
    scheduler = scheduler or FLOW_SCHEDULERS["flow_euler"]()
    pipe = QwenImagePipeline(scheduler, AutoencoderKLQwenImage(**QWEN_VAE[1]), None, None, transformer)
    arguments = {
        **both(16),
        **ones("prompt_embeds_mask", "negative_prompt_embeds_mask"),
        "true_cfg_scale": 3.0,
        "height": 128,
        "width": 96,
        "num_inference_steps": 8,
        "output_type": "latent",
        "return_dict": False,
    }
    return Tiny(pipe, arguments, ("transformer",))


PIPES = {
    "sdxl": sdxl,
    "flux": flux,
    "flux_true_cfg": flux_true_cfg,
    "sd3": sd3,
    "wan": wan,
    "wan_experts": wan_experts,
    "qwen": qwen,
}
FLOW_PIPES = ("flux", "flux_true_cfg", "sd3", "wan")
CASES = [("sdxl", name) for name in UNET_SCHEDULERS]
CASES += [(pipe, name) for pipe in FLOW_PIPES for name in FLOW_SCHEDULERS]
CASES += [("wan_experts", "flow_unipc"), ("qwen", "flow_euler")]


def build(pipe: str, scheduler: str | None = None) -> Tiny:
    """A tiny pipeline by name, with a scheduler by name or its own."""
    makers = {**UNET_SCHEDULERS, **FLOW_SCHEDULERS}
    return PIPES[pipe](makers[scheduler]() if scheduler else None)
