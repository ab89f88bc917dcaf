"""For the pictures of the documentation: the embedded network as a MODEL of ComfyUI.

Put into ``custom_nodes`` by ``docs/screenshots.py``; no part of the node pack.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import comfy.latent_formats
import comfy.model_base
import comfy.model_patcher
import comfy.supported_models_base
import torch
import torch.nn.functional as F
from comfy_api.latest import ComfyExtension, io
from torch import Tensor, nn

# Last, so that ComfyUI's own packages come first.
sys.path += [str(Path(__file__).resolve().parents[2]), *filter(None, [os.environ.get("DIFFUSERS_PATH")])]
CPU = torch.device("cpu")


class Net(nn.Module):
    """The network, told scene and region by the prompt's (batch, 1, 1 + pixels)."""

    def __init__(self, **_: Any):
        from selective_sigma.demo.pipeline import load

        super().__init__()
        self.dtype = torch.float32
        self.scenes = load().unet

    def forward(self, x: Tensor, timesteps: Tensor, context: Tensor, **_: Any) -> Tensor:
        region = context[:, 0, 1:].reshape(len(x), 1, *x.shape[2:])
        return self.scenes(x, timesteps, context[:, 0, 0].round().long(), region).sample


class Prompt:
    """In place of CLIP: takes the name of a scene, all else means any scene."""

    def tokenize(self, text: str) -> str:
        return text.strip()

    def encode_from_tokens_scheduled(self, text: str) -> list[Any]:
        from selective_sigma.demo.scene_network import NULL_CLASS, NULL_REGION
        from selective_sigma.demo.scenes import KINDS

        from selective_sigma.demo.pipeline import regions

        kind, _, seed = text.partition(" ")
        known = kind in KINDS
        region = regions(kind, 1, int(seed or 0)) if known else torch.full((1, 1, 64, 64), NULL_REGION)
        label = torch.tensor([[float(KINDS.index(kind) if known else NULL_CLASS)]])
        return [[torch.cat([label, region.flatten(1)], 1).unsqueeze(1), {}]]


class Pixels:
    """In place of a VAE: the latent is the picture, an eighth of the size."""

    def decode(self, latent: Tensor) -> Tensor:
        from selective_sigma.demo.scene_network import LATENT_SCALE

        picture = latent.float() / LATENT_SCALE / 2 + 0.5
        return F.interpolate(picture, scale_factor=8, mode="bicubic").clamp(0, 1).movedim(1, -1)


class LoadSceneNetwork(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LoadSceneNetwork",
            display_name="Load embedded network",
            category="loaders",
            outputs=[io.Model.Output(), io.Clip.Output(), io.Vae.Output()],
        )

    @classmethod
    def execute(cls) -> io.NodeOutput:
        made = comfy.supported_models_base.BASE({})
        made.unet_config, made.sampling_settings, made.optimizations = {}, {}, {}
        made.latent_format = comfy.latent_formats.LatentFormat()
        made.latent_format.latent_channels = 3
        made.memory_usage_factor = 1.0
        kind = comfy.model_base.ModelType.V_PREDICTION
        base = comfy.model_base.BaseModel(made, kind, device=CPU, unet_model=Net).eval().requires_grad_(False)
        return io.NodeOutput(comfy.model_patcher.ModelPatcher(base, CPU, CPU), Prompt(), Pixels())


class Scenes(ComfyExtension):
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [LoadSceneNetwork]


async def comfy_entrypoint() -> Scenes:
    return Scenes()
