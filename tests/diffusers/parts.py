"""What the zoo's pipelines are built from: configs of tiny models, and arguments of their calls."""

from __future__ import annotations

from typing import Any

import diffusers
import torch
from torch import nn

from .schedulers import FLOW_SCHEDULERS, SD, UNET_SCHEDULERS

Parts = dict[str, tuple[str, dict[str, Any]]]


def random(*shape: int, seed: int = 7) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


FIELD = (1, 4, 16, 16)
"""Shape of the latents of loops that are written by hand."""


def field(seed: int) -> torch.Tensor:
    return random(*FIELD, seed=seed)


class Net(nn.Module):
    """A convolution of its input; counts its calls."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Conv2d(4, 4, 3, padding=1)
        self.calls = 0

    def forward(self, sample, timestep):  # noqa: ARG002
        self.calls += 1
        return (self.net(sample),)


def both(width: int, tokens: int = 5, name: str = "prompt_embeds") -> dict[str, torch.Tensor]:
    """Embeddings of a prompt and of a negative one, (1, tokens, width)."""
    return {name: random(1, tokens, width), f"negative_{name}": random(1, tokens, width, seed=8)}


def ones(*names: str, tokens: int = 5, dtype: torch.dtype = torch.long) -> dict[str, torch.Tensor]:
    """Attention masks of ones."""
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
XL_CONTROL = (
    "ControlNetModel",
    {
        **{k: v for k, v in UNET.items() if k not in ("sample_size", "out_channels", "up_block_types")},
        **XL,
        "conditioning_embedding_out_channels": (4, 8, 8, 8),
    },
)
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
QWEN_VAE = (
    "AutoencoderKLQwenImage",
    {"base_dim": 4, "z_dim": 4, "dim_mult": [1] * 4, "num_res_blocks": 1, "temperal_downsample": [False, True, True]},
)
QWEN_VAE[1].update(latents_mean=[0.0] * 4, latents_std=[1.0] * 4)
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
Z_IMAGE = (
    "ZImageTransformer2DModel",
    {
        "in_channels": 16,
        "dim": 32,
        "n_layers": 1,
        "n_refiner_layers": 1,
        "n_heads": 2,
        "n_kv_heads": 2,
        "cap_feat_dim": 16,
        "axes_dims": [8, 4, 4],
        "axes_lens": [256, 32, 32],
    },
)
Z_IMAGE_TEXT = {
    **SIZE,
    "prompt_embeds": [random(5, 16)],
    "negative_prompt_embeds": [random(5, 16, seed=8)],
    "guidance_scale": 3.0,
}

FLOW = FLOW_SCHEDULERS["flow_euler"]
EULER, DDIM = UNET_SCHEDULERS["euler"], UNET_SCHEDULERS["ddim"]


def pndm() -> Any:
    return diffusers.PNDMScheduler(**SD, skip_prk_steps=True, steps_offset=1)


def svd() -> Any:
    noise = {"sigma_min": 0.002, "sigma_max": 700.0, "use_karras_sigmas": True}
    return diffusers.EulerDiscreteScheduler(prediction_type="v_prediction", timestep_type="continuous", **noise)
