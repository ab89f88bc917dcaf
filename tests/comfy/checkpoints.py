"""Tiny random checkpoints that ComfyUI's stock loader nodes open, sample with and decode.

Command line, with ComfyUI's own python and COMFYUI_PATH set where it is not ~/comfy/ComfyUI:

    python tests/comfy/checkpoints.py FOLDER

or, once ComfyUI is importable, ``write_checkpoints(folder)``. FOLDER is a ComfyUI ``models`` folder (or any
folder named in ``extra_model_paths.yaml`` or by ``--base-directory X`` as ``X/models``). About
40 MB are written:

    checkpoints/tiny_sd15.ckpt                 CheckpointLoaderSimple: eps MODEL, CLIP, VAE (4 channels)
    checkpoints/tiny_sd3.ckpt                  CheckpointLoaderSimple: flow MODEL (MMDiT), CLIP, VAE (16 channels)
    diffusion_models/tiny_sd3.safetensors      UNETLoader: the same MMDiT
    diffusion_models/tiny_wan.safetensors      UNETLoader: Wan 2.1, video latents (1, 16, T, H, W)
    text_encoders/tiny_clip_l.ckpt             CLIPLoader, type sd3
    vae/tiny_vae_4.safetensors, vae/tiny_vae_16.safetensors    VAELoader
    vae/tiny_vae_wan.safetensors               VAELoader, not before 0.33: Wan 2.1's, narrow

A step at 128 x 128 pixels takes well under a second on one core. ComfyUI fixes the size of CLIP-L (0.5 GB in memory,
1 s to load). Its weights overlap in storage, which ``.ckpt`` files keep, so that the file is small. Pictures are
coloured noise and depend on the prompt.
"""

from __future__ import annotations

import inspect
import json
import math
import os
import sys
import zlib
from pathlib import Path

import torch
from torch import Tensor

SD15_UNET = {
    "image_size": 32,
    "in_channels": 4,
    "out_channels": 4,
    "model_channels": 320,
    "num_res_blocks": [1, 1],
    "channel_mult": [1, 1],
    "transformer_depth": [0, 1],
    "transformer_depth_output": [1, 1, 0, 0],
    "transformer_depth_middle": 1,
    "context_dim": 768,
    "use_spatial_transformer": True,
    "num_heads": 8,
    "num_head_channels": -1,
    "legacy": False,
}
SD3_MMDIT = {
    "input_size": None,
    "patch_size": 2,
    "in_channels": 16,
    "depth": 2,  # times 64: the hidden size
    "adm_in_channels": 2048,
    "context_embedder_config": {
        "target": "torch.nn.Linear",
        "params": {"in_features": 4096, "out_features": 128},
    },
    "num_patches": 64 * 64,
    "pos_embed_max_size": 64,
    "pos_embed_scaling_factor": None,
}
WAN_VAE = {"dim": 4, "z_dim": 16, "dim_mult": [1, 2, 4, 4], "num_res_blocks": 2, "attn_scales": []}
WAN_VAE |= {"temperal_downsample": [False, True, True], "dropout": 0.0}
WAN = {"model_type": "t2v", "dim": 128, "num_heads": 1, "ffn_dim": 256, "num_layers": 2, "in_dim": 16, "out_dim": 16}


def overlapping(shape: tuple[int, ...], seed: int) -> Tensor:
    """A random tensor whose rows are one buffer, shifted by one: full rank, and next to nothing on disk."""
    rows, columns = shape[0], math.prod(shape[1:])
    buffer = torch.randn(rows + columns - 1, generator=torch.Generator().manual_seed(seed))
    inner = [math.prod(shape[i + 1 :]) for i in range(1, len(shape))]
    return buffer.as_strided(shape, (1, *inner))


def filled_weights(shapes: dict[str, tuple[int, ...]], prefix: str = "", last: str | None = None) -> dict[str, Tensor]:
    """Weights by name: ones for norms, zeros for biases, random matrices of gain 1, and of gain 0.3 under ``last``."""
    filled = {}
    for name, shape in shapes.items():
        if len(shape) < 2:
            value = torch.full(shape, 0.0 if name.endswith("bias") or "shift" in name else 1.0)
        else:
            quiet = 0.3 if last is not None and name.startswith(last) else 1.0
            value = overlapping(shape, zlib.crc32(name.encode()))
            # In place, since the rows share their storage.
            torch.as_strided(value, (value.untyped_storage().nbytes() // 4,), (1,)).mul_(
                quiet / math.sqrt(math.prod(shape[1:]))
            )
        filled[prefix + name] = value
    return filled


def tensor_shapes(module: torch.nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in module.state_dict().items()}


def parts() -> dict[str, dict[str, Tensor]]:
    """State dicts of every part, without prefixes."""
    import comfy.clip_model
    import comfy.ldm.wan.model
    import comfy.ldm.wan.vae
    import comfy.ops
    import comfy.taesd.taesd
    from comfy.ldm.modules.diffusionmodules.mmdit import OpenAISignatureMMDITWrapper
    from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel

    ops = comfy.ops.disable_weight_init
    folder = Path(inspect.getfile(comfy.clip_model)).parent
    config = json.loads((folder / "sd1_clip_config.json").read_text())
    with torch.device("meta"):
        unet = UNetModel(**SD15_UNET, operations=ops, device="meta")
        mmdit = OpenAISignatureMMDITWrapper(**SD3_MMDIT, operations=ops, device="meta")
        wan = comfy.ldm.wan.model.WanModel(**WAN, operations=ops, device="meta")
        clip = comfy.clip_model.CLIPTextModel(config, torch.float32, "meta", ops)
        wan_vae = comfy.ldm.wan.vae.WanVAE(**WAN_VAE)
        vaes = {n: comfy.taesd.taesd.TAESD(latent_channels=n) for n in (4, 16)}
    grey = {"taesd_decoder.18.bias": torch.full((3,), 0.5)}
    clip_weights = filled_weights(tensor_shapes(clip))
    for name, value in clip_weights.items():
        if "embedding" in name:
            value.as_strided((value.untyped_storage().nbytes() // 4,), (1,)).mul_(8.0)
    return {
        "unet": filled_weights(tensor_shapes(unet), last="out.2"),
        "mmdit": filled_weights(tensor_shapes(mmdit), last="final_layer.linear"),
        "wan": filled_weights(tensor_shapes(wan), last="head.head"),
        "clip": clip_weights,
        "vae_wan": filled_weights(tensor_shapes(wan_vae)),
        "vae_4": filled_weights(tensor_shapes(vaes[4])) | grey,
        "vae_16": filled_weights(tensor_shapes(vaes[16])) | grey,
    }


def write_checkpoints(folder: str | Path) -> dict[str, Path]:
    """Write every file listed above below ``folder``; returns the paths by file name."""
    import safetensors.torch

    weights = parts()

    def prefixed(prefix: str, part: str) -> dict[str, Tensor]:
        return {prefix + name: value for name, value in weights[part].items()}

    sd15 = prefixed("model.diffusion_model.", "unet") | prefixed("first_stage_model.", "vae_4")
    sd15 |= prefixed("cond_stage_model.transformer.", "clip")
    sd3 = prefixed("model.diffusion_model.", "mmdit") | prefixed("first_stage_model.", "vae_16")
    sd3 |= prefixed("text_encoders.clip_l.transformer.", "clip")
    files = {
        "checkpoints/tiny_sd15.ckpt": sd15,
        "checkpoints/tiny_sd3.ckpt": sd3,
        "diffusion_models/tiny_sd3.safetensors": weights["mmdit"],
        "diffusion_models/tiny_wan.safetensors": weights["wan"],
        "text_encoders/tiny_clip_l.ckpt": weights["clip"],
        "vae/tiny_vae_4.safetensors": weights["vae_4"],
        "vae/tiny_vae_16.safetensors": weights["vae_16"],
        "vae/tiny_vae_wan.safetensors": weights["vae_wan"],
    }
    written = {}
    for name, state in files.items():
        path = Path(folder) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".ckpt":
            torch.save(state, path)
        else:
            safetensors.torch.save_file({k: v.contiguous() for k, v in state.items()}, path)
        written[path.name] = path
    return written


if __name__ == "__main__":
    target = sys.argv.pop(1)
    sys.path.insert(0, os.environ.get("COMFYUI_PATH", str(Path.home() / "comfy" / "ComfyUI")))
    import comfy.cli_args

    comfy.cli_args.args.cpu = True
    for path in write_checkpoints(target).values():
        print(f"{path.stat().st_size / 2**20:6.2f} MB  {path}")
