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
import transformers
from PIL import Image

from .parts import (
    COGVIDEO,
    DDIM,
    EULER,
    FLOW,
    FLUX,
    FLUX2,
    HUNYUAN,
    KANDINSKY,
    KANDINSKY_TEXT,
    LTX,
    MASKS,
    PAIR_MASKS,
    PIXART,
    POOLED,
    QWEN,
    QWEN_VAE,
    SD3,
    SIZE,
    UNET,
    VAE,
    VIDEO,
    WAN,
    XL,
    XL_CONTROL,
    Z_IMAGE,
    Z_IMAGE_TEXT,
    Parts,
    both,
    ones,
    pndm,
    random,
    svd,
    vae,
)
from .pipes import Tiny
from .schedulers import FLOW_SCHEDULERS, UNET_SCHEDULERS

ZOO: dict[str, tuple[str, Any, Parts, dict[str, Any]]] = {
    "Stable Diffusion 1.5": ("StableDiffusionPipeline", pndm, {"unet": ("UNet2DConditionModel", UNET), "vae": VAE}, {**SIZE, **both(32)}),
    "Stable Diffusion XL": ("StableDiffusionXLPipeline", EULER, {"unet": ("UNet2DConditionModel", UNET | XL)}, {**SIZE, **both(32), **POOLED}),
    "Stable Diffusion 3.5": ("StableDiffusion3Pipeline", FLOW, {"transformer": ("SD3Transformer2DModel", SD3)}, {**SIZE, **both(32), **POOLED}),
    "Flux.1": ("FluxPipeline", FLOW, {"transformer": ("FluxTransformer2DModel", FLUX | {"pooled_projection_dim": 32}), "vae": VAE}, {**SIZE, "prompt_embeds": random(1, 5, 32), "pooled_prompt_embeds": random(1, 32)}),
    "Flux.2": ("Flux2Pipeline", FLOW, {"transformer": ("Flux2Transformer2DModel", FLUX2), "vae": vae("AutoencoderKLFlux2")}, {**SIZE, "prompt_embeds": random(1, 5, 32)}),
    "Flux.2 klein": ("Flux2KleinPipeline", FLOW, {"transformer": ("Flux2Transformer2DModel", FLUX2 | {"guidance_embeds": False}), "vae": vae("AutoencoderKLFlux2")}, {**SIZE, **both(32)}),
    "Chroma": ("ChromaPipeline", FLOW, {"transformer": ("ChromaTransformer2DModel", FLUX | {"approximator_hidden_dim": 32, "approximator_layers": 1, "approximator_num_channels": 16}), "vae": VAE}, {**SIZE, **both(32), **ones("prompt_attention_mask", "negative_prompt_attention_mask", dtype=torch.bool)}),
    "Qwen-Image": ("QwenImagePipeline", FLOW, {"transformer": ("QwenImageTransformer2DModel", QWEN), "vae": QWEN_VAE}, {**SIZE, **both(16), **PAIR_MASKS, "true_cfg_scale": 3.0}),
    "Z-Image": ("ZImagePipeline", FLOW, {"transformer": Z_IMAGE}, Z_IMAGE_TEXT),
    "HiDream": ("HiDreamImagePipeline", FLOW, {"transformer": ("HiDreamImageTransformer2DModel", {"patch_size": 2, "in_channels": 4, "out_channels": 4, "num_layers": 1, "num_single_layers": 1, "attention_head_dim": 8, "num_attention_heads": 4, "caption_channels": [32, 16], "text_emb_dim": 64, "num_routed_experts": 2, "num_activated_experts": 1, "axes_dims_rope": (4, 2, 2), "max_resolution": (128, 128), "llama_layers": (0, 0)}), "vae": VAE}, {**SIZE, **both(32, name="prompt_embeds_t5"), "prompt_embeds_llama3": random(1, 1, 5, 16), "negative_prompt_embeds_llama3": random(1, 1, 5, 16, seed=8), "pooled_prompt_embeds": random(1, 64), "negative_pooled_prompt_embeds": random(1, 64, seed=8)}),
    "Lumina-Next": ("LuminaPipeline", FLOW, {"transformer": ("LuminaNextDiT2DModel", {"sample_size": 4, "patch_size": 2, "in_channels": 4, "hidden_size": 24, "num_layers": 1, "num_attention_heads": 3, "num_kv_heads": 1, "multiple_of": 16, "cross_attention_dim": 32})}, {**SIZE, **both(32), **MASKS}),
    "Lumina 2": ("Lumina2Pipeline", FLOW, {"transformer": ("Lumina2Transformer2DModel", {"sample_size": 4, "patch_size": 2, "in_channels": 4, "hidden_size": 8, "num_layers": 1, "num_attention_heads": 1, "num_kv_heads": 1, "multiple_of": 16, "axes_dim_rope": [4, 2, 2], "cap_feat_dim": 8})}, {**SIZE, **both(8), **MASKS}),
    "Krea 2": ("Krea2Pipeline", FLOW, {"transformer": ("Krea2Transformer2DModel", {"in_channels": 16, "num_layers": 1, "attention_head_dim": 8, "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 32, "timestep_embed_dim": 8, "text_hidden_dim": 16, "num_text_layers": 3, "text_num_attention_heads": 2, "text_num_key_value_heads": 1, "text_intermediate_size": 16, "num_layerwise_text_blocks": 1, "num_refiner_text_blocks": 1, "axes_dims_rope": (4, 2, 2)}), "vae": QWEN_VAE}, {**SIZE, "prompt_embeds": random(1, 5, 3, 16), "negative_prompt_embeds": random(1, 5, 3, 16, seed=8), **ones("prompt_embeds_mask", "negative_prompt_embeds_mask", dtype=torch.bool), "guidance_scale": 3.0}),
    "Ovis-Image": ("OvisImagePipeline", FLOW, {"transformer": ("OvisImageTransformer2DModel", FLUX | {"out_channels": 16}), "vae": VAE}, {**SIZE, **both(32), "negative_prompt": None}),
    "Bria 3.2": ("BriaPipeline", FLOW, {"transformer": ("BriaTransformer2DModel", FLUX | {"pooled_projection_dim": None, "axes_dims_rope": [0, 8, 8]}), "vae": VAE}, {**SIZE, **both(32)}),
    "NucleusMoE-Image": ("NucleusMoEImagePipeline", FLOW, {"transformer": ("NucleusMoEImageTransformer2DModel", QWEN | {"num_attention_heads": 4, "moe_enabled": False, "capacity_factors": [8.0]}), "vae": QWEN_VAE}, {**SIZE, **both(16), **PAIR_MASKS}),
    "CogView 4": ("CogView4Pipeline", lambda: diffusers.FlowMatchEulerDiscreteScheduler(base_shift=0.25, max_shift=0.75, base_image_seq_len=256, use_dynamic_shifting=True, time_shift_type="linear"), {"transformer": ("CogView4Transformer2DModel", {"patch_size": 2, "in_channels": 4, "num_layers": 1, "attention_head_dim": 4, "num_attention_heads": 4, "out_channels": 4, "text_embed_dim": 32, "time_embed_dim": 8, "condition_dim": 4})}, {**SIZE, **both(32, 16)}),
    "CogView 3 Plus": ("CogView3PlusPipeline", lambda: diffusers.CogVideoXDDIMScheduler(prediction_type="v_prediction", rescale_betas_zero_snr=True), {"transformer": ("CogView3PlusTransformer2DModel", {"patch_size": 2, "in_channels": 4, "num_layers": 1, "attention_head_dim": 4, "num_attention_heads": 2, "out_channels": 4, "text_embed_dim": 32, "time_embed_dim": 8, "condition_dim": 2, "pos_embed_max_size": 8})}, {**SIZE, **both(32)}),
    "AuraFlow": ("AuraFlowPipeline", FLOW, {"transformer": ("AuraFlowTransformer2DModel", {"sample_size": 32, "patch_size": 2, "in_channels": 4, "num_mmdit_layers": 1, "num_single_dit_layers": 1, "attention_head_dim": 8, "num_attention_heads": 4, "caption_projection_dim": 32, "joint_attention_dim": 32, "out_channels": 4, "pos_embed_max_size": 256})}, {**SIZE, **both(32), **MASKS}),
    "Sana": ("SanaPipeline", FLOW, {"transformer": ("SanaTransformer2DModel", {"patch_size": 1, "in_channels": 4, "out_channels": 4, "num_layers": 1, "num_attention_heads": 2, "attention_head_dim": 4, "num_cross_attention_heads": 2, "cross_attention_head_dim": 4, "cross_attention_dim": 8, "caption_channels": 8, "sample_size": 32})}, {**SIZE, **both(8), **MASKS, "negative_prompt": None, "use_resolution_binning": False}),
    "PixArt-Sigma": ("PixArtSigmaPipeline", UNET_SCHEDULERS["dpmpp_2m_karras"], {"transformer": ("PixArtTransformer2DModel", PIXART)}, {**SIZE, **both(32), **MASKS, "negative_prompt": None, "use_resolution_binning": False}),
    "PRX": ("PRXPipeline", FLOW, {"transformer": ("PRXTransformer2DModel", {"patch_size": 1, "in_channels": 4, "context_in_dim": 8, "hidden_size": 8, "mlp_ratio": 2.0, "num_heads": 2, "depth": 1, "axes_dim": [2, 2]}), "vae": VAE}, {**SIZE, **both(8), **ones("prompt_attention_mask", "negative_prompt_attention_mask", dtype=torch.bool), "use_resolution_binning": False}),
    "HunyuanDiT": ("HunyuanDiTPipeline", UNET_SCHEDULERS["ddpm"], {"transformer": ("HunyuanDiT2DModel", {"sample_size": 16, "num_layers": 2, "patch_size": 2, "attention_head_dim": 8, "num_attention_heads": 3, "in_channels": 4, "cross_attention_dim": 32, "cross_attention_dim_t5": 32, "pooled_projection_dim": 16, "hidden_size": 24, "text_len": 5, "text_len_t5": 5, "activation_fn": "gelu-approximate"})}, {"height": 128, "width": 128, "use_resolution_binning": False, **both(32), **both(32, name="prompt_embeds_2"), **MASKS, **ones("prompt_attention_mask_2", "negative_prompt_attention_mask_2")}),
    "Kandinsky 5 image": ("Kandinsky5T2IPipeline", FLOW, {"transformer": ("Kandinsky5Transformer3DModel", KANDINSKY), "vae": vae(channels=16)}, {**SIZE, **KANDINSKY_TEXT}),
    "Kandinsky 5 video": ("Kandinsky5T2VPipeline", FLOW, {"transformer": ("Kandinsky5Transformer3DModel", KANDINSKY | {"visual_cond": True})}, {**VIDEO, **KANDINSKY_TEXT}),
    "Wan 2.1": ("WanPipeline", FLOW_SCHEDULERS["flow_unipc"], {"transformer": ("WanTransformer3DModel", WAN | {"in_channels": 16, "out_channels": 16})}, {**VIDEO, **both(32)}),
    "LTX": ("LTXPipeline", FLOW, {"transformer": ("LTXVideoTransformer3DModel", LTX)}, {**VIDEO, **both(32), **MASKS}),
    "CogVideoX": ("CogVideoXPipeline", lambda: diffusers.CogVideoXDDIMScheduler(prediction_type="v_prediction", rescale_betas_zero_snr=True), {"transformer": ("CogVideoXTransformer3DModel", COGVIDEO)}, {**VIDEO, **both(32)}),
    "CogVideoX DPM": ("CogVideoXPipeline", lambda: diffusers.CogVideoXDPMScheduler(prediction_type="v_prediction", rescale_betas_zero_snr=True), {"transformer": ("CogVideoXTransformer3DModel", COGVIDEO)}, {**VIDEO, **both(32)}),
    "Hunyuan Video": ("HunyuanVideoPipeline", FLOW, {"transformer": ("HunyuanVideoTransformer3DModel", HUNYUAN | {"guidance_embeds": True}), "vae": ("AutoencoderKLHunyuanVideo", {"block_out_channels": (8, 8, 8, 8), "norm_num_groups": 4, "latent_channels": 4})}, {**VIDEO, "prompt_embeds": random(1, 5, 16), "pooled_prompt_embeds": random(1, 8), **ones("prompt_attention_mask")}),
    "Mochi": ("MochiPipeline", lambda: diffusers.FlowMatchEulerDiscreteScheduler(invert_sigmas=True), {"transformer": ("MochiTransformer3DModel", {"patch_size": 2, "num_attention_heads": 2, "attention_head_dim": 8, "num_layers": 2, "pooled_projection_dim": 16, "in_channels": 12, "text_embed_dim": 32, "time_embed_dim": 4, "max_sequence_length": 16})}, {**VIDEO, "width": 112, **both(32), **ones("prompt_attention_mask", "negative_prompt_attention_mask", dtype=torch.bool)}),
    "Allegro": ("AllegroPipeline", DDIM, {"transformer": ("AllegroTransformer3DModel", {"num_attention_heads": 2, "attention_head_dim": 12, "in_channels": 4, "out_channels": 4, "num_layers": 1, "cross_attention_dim": 24, "sample_width": 12, "sample_height": 8, "sample_frames": 8, "caption_channels": 24})}, {**VIDEO, "num_frames": 8, **both(24), **MASKS, "negative_prompt": None}),
    "AnimateDiff": ("AnimateDiffPipeline", DDIM, {"unet": ("UNet2DConditionModel", UNET), "motion_adapter": ("MotionAdapter", {"block_out_channels": (16, 32), "motion_layers_per_block": 1, "motion_norm_num_groups": 2, "motion_num_attention_heads": 2})}, {**SIZE, "num_frames": 3, **both(32)}),
    "Latte": ("LattePipeline", DDIM, {"transformer": ("LatteTransformer3DModel", PIXART | {"patch_size": 2})}, {**SIZE, "height": 128, "width": 128, "video_length": 16, "negative_prompt": None, **both(32, 120)}),
    "SDXL image to image": ("StableDiffusionXLImg2ImgPipeline", EULER, {"unet": ("UNet2DConditionModel", UNET | XL), "vae": VAE}, {**both(32), **POOLED, "image": random(1, 4, 8, 12), "strength": 0.6}),
    "SDXL inpainting": ("StableDiffusionXLInpaintPipeline", EULER, {"unet": ("UNet2DConditionModel", UNET | XL | {"in_channels": 9}), "vae": VAE}, {**SIZE, **both(32), **POOLED, "image": random(1, 3, 64, 96).clamp(-1, 1), "mask_image": torch.ones(1, 1, 64, 96), "strength": 1.0}),
    "SDXL ControlNet": ("StableDiffusionXLControlNetPipeline", EULER, {"unet": ("UNet2DConditionModel", UNET | XL), "vae": VAE, "controlnet": XL_CONTROL}, {**SIZE, **both(32), **POOLED, "image": torch.ones(1, 3, 64, 96)}),
    "SDXL two ControlNets": ("StableDiffusionXLControlNetPipeline", EULER, {"unet": ("UNet2DConditionModel", UNET | XL), "vae": VAE, "controlnet": [XL_CONTROL, XL_CONTROL]}, {**SIZE, **both(32), **POOLED, "image": [torch.ones(1, 3, 64, 96)] * 2}),
    "Flux ControlNet": ("FluxControlNetPipeline", FLOW, {"transformer": ("FluxTransformer2DModel", FLUX | {"pooled_projection_dim": 32}), "vae": vae(shift_factor=0.1), "controlnet": ("FluxControlNetModel", FLUX | {"pooled_projection_dim": 32})}, {**SIZE, "prompt_embeds": random(1, 5, 32), "pooled_prompt_embeds": random(1, 32), "control_image": torch.ones(1, 3, 64, 96)}),
    "SD T2I adapter": ("StableDiffusionAdapterPipeline", EULER, {"unet": ("UNet2DConditionModel", UNET | {"down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"), "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D")}), "vae": VAE, "adapter": ("T2IAdapter", {"channels": [16, 32], "num_res_blocks": 1, "downscale_factor": 8})}, {**SIZE, **both(32), "image": torch.ones(1, 3, 64, 96)}),
    "Flux image to image": ("FluxImg2ImgPipeline", FLOW, {"transformer": ("FluxTransformer2DModel", FLUX | {"pooled_projection_dim": 32}), "vae": vae(shift_factor=0.1)}, {**SIZE, "prompt_embeds": random(1, 5, 32), "pooled_prompt_embeds": random(1, 32), "image": random(1, 3, 64, 96).clamp(-1, 1), "strength": 0.7}),
    "Flux Kontext": ("FluxKontextPipeline", FLOW, {"transformer": ("FluxTransformer2DModel", FLUX | {"pooled_projection_dim": 32}), "vae": VAE}, {**SIZE, "prompt_embeds": random(1, 5, 32), "pooled_prompt_embeds": random(1, 32), "image": random(1, 4, 8, 12), "max_area": 64 * 96}),
    "Flux.2 klein KV": ("Flux2KleinKVPipeline", FLOW, {"transformer": ("Flux2Transformer2DModel", FLUX2 | {"guidance_embeds": False}), "vae": vae("AutoencoderKLFlux2")}, {**SIZE, "prompt_embeds": random(1, 5, 32), "image": "picture"}),
    "Wan 2.2 5B (a time for each token)": ("WanPipeline", FLOW_SCHEDULERS["flow_unipc"], {"transformer": ("WanTransformer3DModel", WAN | {"in_channels": 4})}, {**VIDEO, **both(32)}),
    "Wan 2.2 5B image to video": ("WanImageToVideoPipeline", FLOW_SCHEDULERS["flow_unipc"], {"transformer": ("WanTransformer3DModel", WAN | {"in_channels": 4}), "vae": ("AutoencoderKLWan", {"base_dim": 3, "z_dim": 4, "dim_mult": [1, 1, 1, 1], "num_res_blocks": 1, "temperal_downsample": [False, True, True], "latents_mean": [0.0] * 4, "latents_std": [1.0] * 4})}, {**VIDEO, **both(32), "image": "picture"}),
    "Z-Image ControlNet": ("ZImageControlNetPipeline", FLOW, {"transformer": Z_IMAGE, "vae": vae(channels=16, shift_factor=0.1), "controlnet": ("ZImageControlNetModel", {"dim": 32, "n_refiner_layers": 1, "n_heads": 2, "n_kv_heads": 2, "control_layers_places": [0], "control_in_dim": 16})}, {**Z_IMAGE_TEXT, "control_image": "picture"}),
    "Z-Image image to image": ("ZImageImg2ImgPipeline", FLOW, {"transformer": Z_IMAGE, "vae": vae(channels=16, shift_factor=0.1)}, {**Z_IMAGE_TEXT, "image": "picture", "strength": 0.8}),
    "GLM-Image": ("GlmImagePipeline", lambda: diffusers.FlowMatchEulerDiscreteScheduler(base_shift=0.25, max_shift=0.75, base_image_seq_len=256, use_dynamic_shifting=True, time_shift_type="linear"), {"transformer": ("GlmImageTransformer2DModel", {"patch_size": 2, "in_channels": 4, "num_layers": 1, "attention_head_dim": 8, "num_attention_heads": 2, "out_channels": 4, "text_embed_dim": 32, "time_embed_dim": 16, "condition_dim": 8, "prior_vq_quantizer_codebook_size": 64}), "vae": VAE}, {**SIZE, "prompt_embeds": random(1, 5, 32), "prior_token_ids": torch.arange(24)[None], "guidance_scale": 1.0}),
    "Stable Video Diffusion": ("StableVideoDiffusionPipeline", svd, {"unet": ("UNetSpatioTemporalConditionModel", {"sample_size": 16, "in_channels": 8, "out_channels": 4, "block_out_channels": (32, 64), "layers_per_block": 1, "down_block_types": ("CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"), "up_block_types": ("UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"), "cross_attention_dim": 32, "num_attention_heads": 8, "projection_class_embeddings_input_dim": 96, "addition_time_embed_dim": 32}), "vae": ("AutoencoderKLTemporalDecoder", {"block_out_channels": (32, 32, 32, 32), "down_block_types": ("DownEncoderBlock2D",) * 4, "latent_channels": 4}), "image_encoder": ("CLIPVisionModelWithProjection", {"hidden_size": 32, "projection_dim": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "image_size": 224, "intermediate_size": 37, "patch_size": 56}), "feature_extractor": ("CLIPImageProcessor", {})}, {**SIZE, "num_frames": 3, "image": "picture"}),
    "Stable Audio": ("StableAudioPipeline", lambda: diffusers.CosineDPMSolverMultistepScheduler(sigma_schedule="exponential"), {"transformer": ("StableAudioDiTModel", {"sample_size": 16, "in_channels": 3, "num_layers": 1, "attention_head_dim": 4, "num_key_value_attention_heads": 2, "out_channels": 3, "cross_attention_dim": 4, "time_proj_dim": 8, "global_states_input_dim": 8, "cross_attention_input_dim": 4}), "projection_model": ("StableAudioProjectionModel", {"text_encoder_dim": 32, "conditioning_dim": 4, "min_value": 0, "max_value": 32}), "vae": ("AutoencoderOobleck", {"encoder_hidden_size": 6, "downsampling_ratios": [1, 2], "decoder_channels": 3, "decoder_input_channels": 3, "audio_channels": 2, "channel_multiples": [2, 4], "sampling_rate": 4})}, {**both(32), "attention_mask": torch.ones(1, 5, dtype=torch.long), "negative_attention_mask": torch.ones(1, 5, dtype=torch.long), "audio_end_in_s": 6.0}),
    "SDXL with an EDM scheduler (Playground 2.5)": ("StableDiffusionXLPipeline", diffusers.EDMDPMSolverMultistepScheduler, {"unet": ("UNet2DConditionModel", UNET | XL)}, {**SIZE, **both(32), **POOLED}),
}
GRIDS: dict[str, tuple[int, ...]] = {
    # Resolution buckets, square models, autoencoders with 32 pixels to one.
    "HiDream": (104, 156),
    "HunyuanDiT": (16, 16),
    "Kandinsky 5 image": (1, 96, 160),
    "Sana": (2, 3),
    # Clips: frames of the latent. With an image to animate, its frame is not stepped.
    "Kandinsky 5 video": (3, 8, 12),
    "Wan 2.1": (3, 8, 12),
    "Wan 2.2 5B (a time for each token)": (3, 8, 12),
    "Wan 2.2 5B image to video": (3, 8, 12),
    "LTX": (2, 2, 3),
    "CogVideoX": (3, 8, 12),
    "CogVideoX DPM": (3, 8, 12),
    "Hunyuan Video": (3, 8, 12),
    "Mochi": (2, 8, 14),
    "Allegro": (2, 8, 12),
    "AnimateDiff": (3, 8, 12),
    "Latte": (16, 16, 16),
    "Stable Video Diffusion": (3, 8, 12),
    # Sound.
    "Stable Audio": (16,),
}
"""The latent's grid, where it is not an eighth of 64 x 96 pixels. No mask is coarser than that."""
REFUSED: dict[str, tuple[Any, str]] = {
    "Sana Sprint (SCM)": (diffusers.SCMScheduler, "does not say how noise is added"),
    "IPNDM": (diffusers.IPNDMScheduler, "does not say how noise is added"),
    "Stable Cascade (Wuerstchen)": (diffusers.DDPMWuerstchenScheduler, "no training noise levels"),
    "Helios": (diffusers.HeliosScheduler, "does not say how noise is added"),
}


def _made(model: str, config: dict[str, Any]) -> Any:
    torch.manual_seed(0)
    kind = getattr(diffusers, model, None) or getattr(transformers, model)
    module = kind(kind.config_class(**config)) if hasattr(kind, "config_class") else kind(**config)
    if not isinstance(module, torch.nn.Module):
        return module
    module.eval()
    for parameter in module.parameters():
        # Layers that are initialised to zero would make the answer zero.
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    return module


def build(name: str, more: Parts | None = None) -> Tiny:
    """A tiny pipeline of the zoo, with ``more`` parts."""
    kind, scheduler, parts, arguments = ZOO[name]
    components: dict[str, Any] = {"scheduler": scheduler()}
    for part, config in {**parts, **(more or {})}.items():
        components[part] = [_made(*each) for each in config] if isinstance(config, list) else _made(*config)
    cls = getattr(diffusers, kind)
    needed = [p.name for p in list(inspect.signature(cls.__init__).parameters.values())[1:] if p.default is p.empty]
    if "Wan 2.2 5B" in name:
        components["expand_timesteps"] = True
    pipe = cls(**{**dict.fromkeys(needed), **components})
    arguments = {k: Image.new("RGB", (96, 64), (200, 90, 30)) if isinstance(v, str) and v == "picture" else v for k, v in arguments.items()}
    common = {"num_inference_steps": 8, "output_type": "latent", "return_dict": False}
    taken = inspect.signature(cls.__call__).parameters
    return Tiny(pipe, {**{k: v for k, v in common.items() if k in taken}, **arguments}, ("unet" if "unet" in components else "transformer",))
