# ruff: noqa: E501
# fmt: off
"""The pipelines that people use, one line each: tiny models with random weights, nothing downloaded.

An entry names the pipeline's class, its scheduler, its parts (class and config) and the arguments
of its call. Prompts come as embeddings, so that no tokenizer is needed.
"""

from __future__ import annotations

import inspect
from typing import Any

import diffusers
import torch
from PIL import Image

from .pipes import Tiny, random
from .schedulers import FLOW_SCHEDULERS, SD, UNET_SCHEDULERS

Parts = dict[str, tuple[str, dict[str, Any]]]


def both(width: int, tokens: int = 5, name: str = "prompt_embeds") -> dict[str, torch.Tensor]:
    """A prompt and a negative one, (1, tokens, width)."""
    return {name: random(1, tokens, width), f"negative_{name}": random(1, tokens, width, seed=8)}


def ones(*names: str, tokens: int = 5, dtype: torch.dtype = torch.long) -> dict[str, torch.Tensor]:
    """Attention masks that hide nothing."""
    return {name: torch.ones(1, tokens, dtype=dtype) for name in names}


MASKS = ones("prompt_attention_mask", "negative_prompt_attention_mask")
PAIR_MASKS = ones("prompt_embeds_mask", "negative_prompt_embeds_mask")
SIZE = {"height": 64, "width": 96}
VIDEO = {**SIZE, "num_frames": 9}
def vae(kind: str = "AutoencoderKL", channels: int = 4, **more: Any) -> tuple[str, dict[str, Any]]:
    """An autoencoder of four levels, so that a latent is an eighth of its picture's size."""
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4}
    return kind, {"block_out_channels": (4,) * 4, "norm_num_groups": 2, "latent_channels": channels, **blocks, **more}


VAE = vae()
UNET = {
    "sample_size": 16,
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": (16, 32),
    "layers_per_block": 1,
    "norm_num_groups": 8,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    "attention_head_dim": (2, 4),
    "cross_attention_dim": 32,
}
XL = {
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 8,
    "projection_class_embeddings_input_dim": 6 * 8 + 32,
}
POOLED = {"pooled_prompt_embeds": random(1, 32, seed=9), "negative_pooled_prompt_embeds": random(1, 32, seed=10)}
FLUX = {
    "patch_size": 1,
    "in_channels": 16,
    "num_layers": 1,
    "num_single_layers": 1,
    "attention_head_dim": 16,
    "num_attention_heads": 2,
    "joint_attention_dim": 32,
    "axes_dims_rope": (4, 4, 8),
}
WAN = {
    "patch_size": (1, 2, 2),
    "num_attention_heads": 2,
    "attention_head_dim": 12,
    "out_channels": 4,
    "text_dim": 32,
    "freq_dim": 32,
    "ffn_dim": 32,
    "num_layers": 1,
    "rope_max_seq_len": 32,
}
FLUX2 = {**FLUX, "attention_head_dim": 16, "timestep_guidance_channels": 32, "axes_dims_rope": (4, 4, 4, 4)}
QWEN = {
    "patch_size": 2,
    "in_channels": 16,
    "out_channels": 4,
    "num_layers": 1,
    "attention_head_dim": 16,
    "num_attention_heads": 3,
    "joint_attention_dim": 16,
    "axes_dims_rope": (8, 4, 4),
}
KANDINSKY = {
    "in_visual_dim": 16,
    "in_text_dim": 16,
    "in_text_dim2": 32,
    "time_dim": 16,
    "out_visual_dim": 16,
    "patch_size": (1, 2, 2),
    "model_dim": 16,
    "ff_dim": 32,
    "num_text_blocks": 1,
    "num_visual_blocks": 1,
    "axes_dims": (1, 1, 2),
    "attention_type": "regular",
}
KANDINSKY_TEXT = {
    **both(16, name="prompt_embeds_qwen"),
    "prompt_embeds_clip": random(1, 32),
    "negative_prompt_embeds_clip": random(1, 32, seed=8),
    "prompt_cu_seqlens": torch.tensor([0, 5]),
    "negative_prompt_cu_seqlens": torch.tensor([0, 5]),
}
LTX = {
    "in_channels": 8,
    "out_channels": 8,
    "patch_size": 1,
    "patch_size_t": 1,
    "num_attention_heads": 4,
    "attention_head_dim": 8,
    "cross_attention_dim": 32,
    "num_layers": 1,
    "caption_channels": 32,
}
COGVIDEO = {
    "num_attention_heads": 4,
    "attention_head_dim": 8,
    "in_channels": 4,
    "out_channels": 4,
    "time_embed_dim": 4,
    "text_embed_dim": 32,
    "num_layers": 1,
    "sample_width": 12,
    "sample_height": 8,
    "sample_frames": 9,
    "patch_size": 2,
    "max_text_seq_length": 5,
}
PIXART = {
    "sample_size": 16,
    "num_layers": 1,
    "attention_head_dim": 8,
    "num_attention_heads": 3,
    "caption_channels": 32,
    "in_channels": 4,
    "cross_attention_dim": 24,
    "out_channels": 8,
    "norm_type": "ada_norm_single",
    "num_embeds_ada_norm": 1000,
    "norm_elementwise_affine": False,
    "activation_fn": "gelu-approximate",
    "attention_bias": True,
}
SD3 = {
    "sample_size": 16,
    "patch_size": 2,
    "in_channels": 4,
    "out_channels": 4,
    "num_layers": 1,
    "attention_head_dim": 8,
    "num_attention_heads": 4,
    "caption_projection_dim": 32,
    "joint_attention_dim": 32,
    "pooled_projection_dim": 32,
    "pos_embed_max_size": 16,
}
HUNYUAN = {
    "in_channels": 4,
    "out_channels": 4,
    "num_attention_heads": 2,
    "attention_head_dim": 10,
    "num_layers": 1,
    "num_single_layers": 1,
    "num_refiner_layers": 1,
    "patch_size": 1,
    "patch_size_t": 1,
    "text_embed_dim": 16,
    "pooled_projection_dim": 8,
    "rope_axes_dim": (2, 4, 4),
}

FLOW = FLOW_SCHEDULERS["flow_euler"]
EULER, DDIM = UNET_SCHEDULERS["euler"], UNET_SCHEDULERS["ddim"]


def pndm() -> Any:
    return diffusers.PNDMScheduler(**SD, skip_prk_steps=True, steps_offset=1)


ZOO: dict[str, tuple[str, Any, Parts, dict[str, Any]]] = {
    "Stable Diffusion 1.5": ("StableDiffusionPipeline", pndm, {"unet": ("UNet2DConditionModel", UNET), "vae": VAE}, {**SIZE, **both(32)}),
    "Stable Diffusion XL": ("StableDiffusionXLPipeline", EULER, {"unet": ("UNet2DConditionModel", UNET | XL)}, {**SIZE, **both(32), **POOLED}),
    "Stable Diffusion 3.5": ("StableDiffusion3Pipeline", FLOW, {"transformer": ("SD3Transformer2DModel", SD3)}, {**SIZE, **both(32), **POOLED}),
    "Flux.1": ("FluxPipeline", FLOW, {"transformer": ("FluxTransformer2DModel", FLUX | {"pooled_projection_dim": 32})}, {**SIZE, "prompt_embeds": random(1, 5, 32), "pooled_prompt_embeds": random(1, 32)}),
    "Flux.2": ("Flux2Pipeline", FLOW, {"transformer": ("Flux2Transformer2DModel", FLUX2), "vae": vae("AutoencoderKLFlux2")}, {**SIZE, "prompt_embeds": random(1, 5, 32)}),
    "Flux.2 klein": ("Flux2KleinPipeline", FLOW, {"transformer": ("Flux2Transformer2DModel", FLUX2 | {"guidance_embeds": False}), "vae": vae("AutoencoderKLFlux2")}, {**SIZE, **both(32)}),
    "Chroma": ("ChromaPipeline", FLOW, {"transformer": ("ChromaTransformer2DModel", FLUX | {"approximator_hidden_dim": 32, "approximator_layers": 1, "approximator_num_channels": 16})}, {**SIZE, **both(32), **ones("prompt_attention_mask", "negative_prompt_attention_mask", dtype=torch.bool)}),
    "Qwen-Image": ("QwenImagePipeline", FLOW, {"transformer": ("QwenImageTransformer2DModel", QWEN)}, {**SIZE, **both(16), **PAIR_MASKS, "true_cfg_scale": 3.0}),
    "Z-Image": ("ZImagePipeline", FLOW, {"transformer": ("ZImageTransformer2DModel", {"in_channels": 16, "dim": 32, "n_layers": 1, "n_refiner_layers": 1, "n_heads": 2, "n_kv_heads": 2, "cap_feat_dim": 16, "axes_dims": [8, 4, 4], "axes_lens": [256, 32, 32]})}, {**SIZE, "prompt_embeds": [random(5, 16)], "negative_prompt_embeds": [random(5, 16, seed=8)], "guidance_scale": 3.0}),
    "HiDream": ("HiDreamImagePipeline", FLOW, {"transformer": ("HiDreamImageTransformer2DModel", {"patch_size": 2, "in_channels": 4, "out_channels": 4, "num_layers": 1, "num_single_layers": 1, "attention_head_dim": 8, "num_attention_heads": 4, "caption_channels": [32, 16], "text_emb_dim": 64, "num_routed_experts": 2, "num_activated_experts": 1, "axes_dims_rope": (4, 2, 2), "max_resolution": (128, 128), "llama_layers": (0, 0)}), "vae": VAE}, {**SIZE, **both(32, name="prompt_embeds_t5"), "prompt_embeds_llama3": random(1, 1, 5, 16), "negative_prompt_embeds_llama3": random(1, 1, 5, 16, seed=8), "pooled_prompt_embeds": random(1, 64), "negative_pooled_prompt_embeds": random(1, 64, seed=8)}),
    "Lumina-Next": ("LuminaPipeline", FLOW, {"transformer": ("LuminaNextDiT2DModel", {"sample_size": 4, "patch_size": 2, "in_channels": 4, "hidden_size": 24, "num_layers": 1, "num_attention_heads": 3, "num_kv_heads": 1, "multiple_of": 16, "cross_attention_dim": 32})}, {**SIZE, **both(32), **MASKS}),
    "Lumina 2": ("Lumina2Pipeline", FLOW, {"transformer": ("Lumina2Transformer2DModel", {"sample_size": 4, "patch_size": 2, "in_channels": 4, "hidden_size": 8, "num_layers": 1, "num_attention_heads": 1, "num_kv_heads": 1, "multiple_of": 16, "axes_dim_rope": [4, 2, 2], "cap_feat_dim": 8})}, {**SIZE, **both(8), **MASKS}),
    "Krea 2": ("Krea2Pipeline", FLOW, {"transformer": ("Krea2Transformer2DModel", {"in_channels": 16, "num_layers": 1, "attention_head_dim": 8, "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 32, "timestep_embed_dim": 8, "text_hidden_dim": 16, "num_text_layers": 3, "text_num_attention_heads": 2, "text_num_key_value_heads": 1, "text_intermediate_size": 16, "num_layerwise_text_blocks": 1, "num_refiner_text_blocks": 1, "axes_dims_rope": (4, 2, 2)})}, {**SIZE, "prompt_embeds": random(1, 5, 3, 16), "negative_prompt_embeds": random(1, 5, 3, 16, seed=8), **ones("prompt_embeds_mask", "negative_prompt_embeds_mask", dtype=torch.bool), "guidance_scale": 3.0}),
    "Ovis-Image": ("OvisImagePipeline", FLOW, {"transformer": ("OvisImageTransformer2DModel", FLUX | {"out_channels": 16})}, {**SIZE, **both(32), "negative_prompt": None}),
    "Bria 3.2": ("BriaPipeline", FLOW, {"transformer": ("BriaTransformer2DModel", FLUX | {"pooled_projection_dim": None, "axes_dims_rope": [0, 8, 8]}), "vae": VAE}, {**SIZE, **both(32)}),
    "NucleusMoE-Image": ("NucleusMoEImagePipeline", FLOW, {"transformer": ("NucleusMoEImageTransformer2DModel", QWEN | {"num_attention_heads": 4, "moe_enabled": False, "capacity_factors": [8.0]})}, {**SIZE, **both(16), **PAIR_MASKS}),
    "CogView 4": ("CogView4Pipeline", lambda: diffusers.FlowMatchEulerDiscreteScheduler(base_shift=0.25, max_shift=0.75, base_image_seq_len=256, use_dynamic_shifting=True, time_shift_type="linear"), {"transformer": ("CogView4Transformer2DModel", {"patch_size": 2, "in_channels": 4, "num_layers": 1, "attention_head_dim": 4, "num_attention_heads": 4, "out_channels": 4, "text_embed_dim": 32, "time_embed_dim": 8, "condition_dim": 4})}, {**SIZE, **both(32, 16)}),
    "CogView 3 Plus": ("CogView3PlusPipeline", lambda: diffusers.CogVideoXDDIMScheduler(prediction_type="v_prediction", rescale_betas_zero_snr=True), {"transformer": ("CogView3PlusTransformer2DModel", {"patch_size": 2, "in_channels": 4, "num_layers": 1, "attention_head_dim": 4, "num_attention_heads": 2, "out_channels": 4, "text_embed_dim": 32, "time_embed_dim": 8, "condition_dim": 2, "pos_embed_max_size": 8})}, {**SIZE, **both(32)}),
    "AuraFlow": ("AuraFlowPipeline", FLOW, {"transformer": ("AuraFlowTransformer2DModel", {"sample_size": 32, "patch_size": 2, "in_channels": 4, "num_mmdit_layers": 1, "num_single_dit_layers": 1, "attention_head_dim": 8, "num_attention_heads": 4, "caption_projection_dim": 32, "joint_attention_dim": 32, "out_channels": 4, "pos_embed_max_size": 256})}, {**SIZE, **both(32), **MASKS}),
    "Sana": ("SanaPipeline", FLOW, {"transformer": ("SanaTransformer2DModel", {"patch_size": 1, "in_channels": 4, "out_channels": 4, "num_layers": 1, "num_attention_heads": 2, "attention_head_dim": 4, "num_cross_attention_heads": 2, "cross_attention_head_dim": 4, "cross_attention_dim": 8, "caption_channels": 8, "sample_size": 32})}, {**SIZE, **both(8), **MASKS, "negative_prompt": None, "use_resolution_binning": False}),
    "PixArt-Sigma": ("PixArtSigmaPipeline", UNET_SCHEDULERS["dpmpp_2m_karras"], {"transformer": ("PixArtTransformer2DModel", PIXART)}, {**SIZE, **both(32), **MASKS, "negative_prompt": None, "use_resolution_binning": False}),
    "PRX": ("PRXPipeline", FLOW, {"transformer": ("PRXTransformer2DModel", {"patch_size": 1, "in_channels": 4, "context_in_dim": 8, "hidden_size": 8, "mlp_ratio": 2.0, "num_heads": 2, "depth": 1, "axes_dim": [2, 2]}), "vae": VAE}, {**SIZE, **both(8), **ones("prompt_attention_mask", "negative_prompt_attention_mask", dtype=torch.bool), "use_resolution_binning": False}),
    "HunyuanDiT": ("HunyuanDiTPipeline", UNET_SCHEDULERS["ddpm"], {"transformer": ("HunyuanDiT2DModel", {"sample_size": 16, "num_layers": 2, "patch_size": 2, "attention_head_dim": 8, "num_attention_heads": 3, "in_channels": 4, "cross_attention_dim": 32, "cross_attention_dim_t5": 32, "pooled_projection_dim": 16, "hidden_size": 24, "text_len": 5, "text_len_t5": 5, "activation_fn": "gelu-approximate"})}, {"height": 128, "width": 128, "use_resolution_binning": False, **both(32), **both(32, name="prompt_embeds_2"), **MASKS, **ones("prompt_attention_mask_2", "negative_prompt_attention_mask_2")}),
    "Kandinsky 5 image": ("Kandinsky5T2IPipeline", FLOW, {"transformer": ("Kandinsky5Transformer3DModel", KANDINSKY), "vae": vae(channels=16)}, {**SIZE, **KANDINSKY_TEXT}),
    "Kandinsky 5 video": ("Kandinsky5T2VPipeline", FLOW, {"transformer": ("Kandinsky5Transformer3DModel", KANDINSKY | {"visual_cond": True})}, {**VIDEO, **KANDINSKY_TEXT}),
    "Wan 2.1": ("WanPipeline", FLOW_SCHEDULERS["flow_unipc"], {"transformer": ("WanTransformer3DModel", WAN | {"in_channels": 4})}, {**VIDEO, **both(32)}),
    "LTX": ("LTXPipeline", FLOW, {"transformer": ("LTXVideoTransformer3DModel", LTX)}, {**VIDEO, **both(32), **MASKS}),
    "CogVideoX": ("CogVideoXPipeline", lambda: diffusers.CogVideoXDDIMScheduler(prediction_type="v_prediction", rescale_betas_zero_snr=True), {"transformer": ("CogVideoXTransformer3DModel", COGVIDEO)}, {**VIDEO, **both(32)}),
    "CogVideoX DPM": ("CogVideoXPipeline", lambda: diffusers.CogVideoXDPMScheduler(prediction_type="v_prediction", rescale_betas_zero_snr=True), {"transformer": ("CogVideoXTransformer3DModel", COGVIDEO)}, {**VIDEO, **both(32)}),
    "Hunyuan Video": ("HunyuanVideoPipeline", FLOW, {"transformer": ("HunyuanVideoTransformer3DModel", HUNYUAN | {"guidance_embeds": True}), "vae": ("AutoencoderKLHunyuanVideo", {"block_out_channels": (8, 8, 8, 8), "norm_num_groups": 4, "latent_channels": 4})}, {**VIDEO, "prompt_embeds": random(1, 5, 16), "pooled_prompt_embeds": random(1, 8), **ones("prompt_attention_mask")}),
    "Mochi": ("MochiPipeline", lambda: diffusers.FlowMatchEulerDiscreteScheduler(invert_sigmas=True), {"transformer": ("MochiTransformer3DModel", {"patch_size": 2, "num_attention_heads": 2, "attention_head_dim": 8, "num_layers": 2, "pooled_projection_dim": 16, "in_channels": 12, "text_embed_dim": 32, "time_embed_dim": 4, "max_sequence_length": 16})}, {**VIDEO, **both(32), **ones("prompt_attention_mask", "negative_prompt_attention_mask", dtype=torch.bool)}),
    "Allegro": ("AllegroPipeline", DDIM, {"transformer": ("AllegroTransformer3DModel", {"num_attention_heads": 2, "attention_head_dim": 12, "in_channels": 4, "out_channels": 4, "num_layers": 1, "cross_attention_dim": 24, "sample_width": 12, "sample_height": 8, "sample_frames": 8, "caption_channels": 24})}, {**VIDEO, "num_frames": 8, **both(24), **MASKS, "negative_prompt": None}),
    "AnimateDiff": ("AnimateDiffPipeline", DDIM, {"unet": ("UNet2DConditionModel", UNET), "motion_adapter": ("MotionAdapter", {"block_out_channels": (16, 32), "motion_layers_per_block": 1, "motion_norm_num_groups": 2, "motion_num_attention_heads": 2})}, {**SIZE, "num_frames": 4, **both(32)}),
    "Latte": ("LattePipeline", DDIM, {"transformer": ("LatteTransformer3DModel", PIXART | {"patch_size": 2})}, {**SIZE, "height": 128, "width": 128, "video_length": 16, "negative_prompt": None, **both(32, 120)}),
    "SDXL image to image": ("StableDiffusionXLImg2ImgPipeline", EULER, {"unet": ("UNet2DConditionModel", UNET | XL), "vae": VAE}, {**both(32), **POOLED, "image": random(1, 4, 8, 12), "strength": 0.6}),
    "SDXL inpainting": ("StableDiffusionXLInpaintPipeline", EULER, {"unet": ("UNet2DConditionModel", UNET | XL | {"in_channels": 9}), "vae": VAE}, {**SIZE, **both(32), **POOLED, "image": random(1, 3, 64, 96).clamp(-1, 1), "mask_image": torch.ones(1, 1, 64, 96), "strength": 1.0}),
    "SDXL ControlNet": ("StableDiffusionXLControlNetPipeline", EULER, {"unet": ("UNet2DConditionModel", UNET | XL), "vae": VAE, "controlnet": ("ControlNetModel", {k: v for k, v in UNET.items() if k not in ("sample_size", "out_channels", "up_block_types")} | XL | {"conditioning_embedding_out_channels": (4, 8, 8, 8)})}, {**SIZE, **both(32), **POOLED, "image": torch.ones(1, 3, 64, 96)}),
    "SD T2I adapter": ("StableDiffusionAdapterPipeline", EULER, {"unet": ("UNet2DConditionModel", UNET | {"down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"), "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D")}), "vae": VAE, "adapter": ("T2IAdapter", {"channels": [16, 32], "num_res_blocks": 1, "downscale_factor": 8})}, {**SIZE, **both(32), "image": torch.ones(1, 3, 64, 96)}),
    "Flux image to image": ("FluxImg2ImgPipeline", FLOW, {"transformer": ("FluxTransformer2DModel", FLUX | {"pooled_projection_dim": 32}), "vae": vae(shift_factor=0.1)}, {**SIZE, "prompt_embeds": random(1, 5, 32), "pooled_prompt_embeds": random(1, 32), "image": random(1, 3, 64, 96).clamp(-1, 1), "strength": 0.7}),
    "Flux Kontext": ("FluxKontextPipeline", FLOW, {"transformer": ("FluxTransformer2DModel", FLUX | {"pooled_projection_dim": 32}), "vae": VAE}, {**SIZE, "prompt_embeds": random(1, 5, 32), "pooled_prompt_embeds": random(1, 32), "image": random(1, 4, 8, 12), "max_area": 64 * 96}),
    "Flux.2 klein KV": ("Flux2KleinKVPipeline", FLOW, {"transformer": ("Flux2Transformer2DModel", FLUX2 | {"guidance_embeds": False}), "vae": vae("AutoencoderKLFlux2")}, {**SIZE, "prompt_embeds": random(1, 5, 32), "image": "picture"}),
    "LTX image to video": ("LTXImageToVideoPipeline", FLOW, {"transformer": ("LTXVideoTransformer3DModel", LTX), "vae": ("AutoencoderKLLTXVideo", {"latent_channels": 8, "block_out_channels": (8, 8, 8, 8), "decoder_block_out_channels": (8, 8, 8, 8), "layers_per_block": (1, 1, 1, 1, 1), "decoder_layers_per_block": (1, 1, 1, 1, 1)})}, {**VIDEO, **both(32), **MASKS, "image": torch.ones(1, 3, 64, 96)}),
    "Wan 2.2 5B (a time for each token)": ("WanPipeline", FLOW_SCHEDULERS["flow_unipc"], {"transformer": ("WanTransformer3DModel", WAN | {"in_channels": 4})}, {**VIDEO, **both(32)}),
}
REFUSED: dict[str, tuple[Any, str]] = {
    "Stable Audio (CosineDPMSolverMultistep)": (diffusers.CosineDPMSolverMultistepScheduler, "no training noise levels"),
    "Stable Video Diffusion (continuous Euler)": (lambda: diffusers.EulerDiscreteScheduler(prediction_type="v_prediction", timestep_type="continuous", sigma_min=0.002, sigma_max=700.0, use_karras_sigmas=True), "timesteps are not those of its training noise levels"),
    "Cosmos (EDMEuler)": (diffusers.EDMEulerScheduler, "no training noise levels"),
    "EDM DPM-Solver": (diffusers.EDMDPMSolverMultistepScheduler, "no training noise levels"),
    "Sana Sprint (SCM)": (diffusers.SCMScheduler, "does not say how noise is added"),
    "IPNDM": (diffusers.IPNDMScheduler, "does not say how noise is added"),
    "Stable Cascade (Wuerstchen)": (diffusers.DDPMWuerstchenScheduler, ""),
    "Helios": (diffusers.HeliosScheduler, "does not say how noise is added"),
}


def build(name: str) -> Tiny:
    """A tiny pipeline of the zoo."""
    kind, scheduler, parts, arguments = ZOO[name]
    made: dict[str, Any] = {"scheduler": scheduler()}
    for part, (model, config) in parts.items():
        torch.manual_seed(0)
        made[part] = getattr(diffusers, model)(**config).eval()
        for parameter in made[part].parameters():
            # Layers that begin at zero would have the model say nothing.
            if not parameter.any():
                torch.nn.init.normal_(parameter, std=0.1)
    cls = getattr(diffusers, kind)
    needed = [p.name for p in list(inspect.signature(cls.__init__).parameters.values())[1:] if p.default is p.empty]
    if kind == "WanPipeline" and "5B" in name:
        made["expand_timesteps"] = True
    pipe = cls(**{**dict.fromkeys(needed), **made})
    arguments = {k: Image.new("RGB", (96, 64), (200, 90, 30)) if isinstance(v, str) and v == "picture" else v for k, v in arguments.items()}
    common = {"num_inference_steps": 8, "output_type": "latent", "return_dict": False}
    taken = inspect.signature(cls.__call__).parameters
    return Tiny(pipe, {**{k: v for k, v in common.items() if k in taken}, **arguments}, ("unet" if "unet" in made else "transformer",))
