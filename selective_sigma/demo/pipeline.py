"""A diffusers pipeline around the embedded network: scenes by name, from noise."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from .flow import SceneFlow
from .scene_network import LATENT_SCALE, NULL_CLASS, NULL_REGION, SceneUNet
from .samplers import scheduler
from .scenes import KINDS, SIZE, draw

WEIGHTS = Path(__file__).with_name("scene_weights.safetensors")


class ScenePipeline(DiffusionPipeline):
    """Pictures (count, 3, 64, 64) in [0, 1] of one kind of scene, with their region maps."""

    def __init__(self, unet: SceneUNet | SceneFlow, scheduler: Any):
        super().__init__()
        self.register_modules(unet=unet, scheduler=scheduler)

    @torch.no_grad()
    def __call__(
        self,
        kind: str,
        count: int = 1,
        seed: int = 0,
        num_inference_steps: int = 20,
        guidance_scale: float = 2.0,
        region: Tensor | None = None,
    ) -> Tensor:
        """Sample ``count`` pictures.

        Args:
            kind: one of ``scenes.KINDS``.
            seed: of the noise and, unless ``region`` is given, of the region maps.
            guidance_scale: classifier-free guidance (Ho & Salimans 2022); 1 leaves out the null pass.
            region: (count, 1, 64, 64) in [0, 1], where detail belongs.
        """
        device, dtype = self.unet.device, self.unet.dtype
        region = regions(kind, count, seed) if region is None else region
        labels = torch.full((count,), KINDS.index(kind))
        guided = guidance_scale != 1
        if guided:
            region = torch.cat([torch.full_like(region, NULL_REGION), region])
            labels = torch.cat([torch.full_like(labels, NULL_CLASS), labels])
        conditions = {"class_labels": labels.to(device), "region": region.to(device, dtype)}

        self.scheduler.set_timesteps(num_inference_steps, device=device)
        generator = torch.Generator().manual_seed(seed)
        latents = torch.randn((count, 3, SIZE, SIZE), generator=generator).to(device, dtype)
        latents = latents * getattr(self.scheduler, "init_noise_sigma", 1.0)
        extra = step_options(self.scheduler, generator)
        with self.progress_bar(total=len(self.scheduler.timesteps)) as bar:
            for t in self.scheduler.timesteps:
                model_input = torch.cat([latents] * 2) if guided else latents
                if hasattr(self.scheduler, "scale_model_input"):
                    model_input = self.scheduler.scale_model_input(model_input, t)
                output = self.unet(model_input, t.expand(len(model_input)), return_dict=False, **conditions)[0]
                if guided:
                    uncond, cond = output.chunk(2)
                    output = uncond + guidance_scale * (cond - uncond)
                latents = self.scheduler.step(output, t, latents, return_dict=False, **extra)[0]
                bar.update()
        return (latents.float() / LATENT_SCALE / 2 + 0.5).clamp(0, 1)


def regions(kind: str, count: int = 1, seed: int = 0) -> Tensor:
    """The region maps (count, 1, 64, 64) that equal arguments of the pipeline will use."""
    return draw(kind, count, seed).region


def step_options(scheduler: Any, generator: torch.Generator) -> dict[str, Any]:
    """The generator for schedulers whose ``step`` draws noise from one."""
    names = scheduler.step.__code__.co_varnames[: scheduler.step.__code__.co_argcount]
    return {"generator": generator} if "generator" in names else {}


def load(sampler: str = "euler", flow: bool = False, weights: Path = WEIGHTS) -> ScenePipeline:
    """The embedded network, ready to sample; ``flow`` converts it to a rectified-flow model."""
    unet = SceneUNet()
    unet.load_state_dict({name: tensor.float() for name, tensor in load_file(weights).items()})
    pipe = ScenePipeline(SceneFlow(unet) if flow else unet, scheduler(sampler, flow))
    pipe.unet.eval().requires_grad_(False)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def facts(weights: Path = WEIGHTS) -> dict[str, Any]:
    """How the weights were made: steps, batch, hours, loss."""
    with safe_open(weights, "pt") as file:
        return {name: json.loads(value) for name, value in (file.metadata() or {}).items() if name != "format"}
