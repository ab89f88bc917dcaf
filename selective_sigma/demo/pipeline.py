"""The embedded network as diffusers knows models: a denoiser on a noise table or on rectified flow, and a pipeline."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from diffusers import DiffusionPipeline, ModelMixin
from diffusers.models.unets.unet_2d import UNet2DOutput

from .levels import log_sigma_table, to_log_sigma
from .network import SIGMA_MAX, Network, load
from .photos import FACTOR, photograph, thumbnail
from .samplers import scheduler

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

LATENT_SCALE = 2.0
"""Latents are pictures times this: of unit variance, as schedulers expect."""


class PhotoUNet(ModelMixin):
    """Predicts the noise (``flow``: the velocity, noise minus picture) of latents (batch, 3, h, w)."""

    log_sigma: Tensor

    def __init__(self, network: Network, flow: bool = False):
        super().__init__()
        self.network, self.flow = network, flow
        self.register_buffer("log_sigma", log_sigma_table(), persistent=False)

    def forward(
        self, sample: Tensor, timestep: Tensor, condition: Tensor | None = None, return_dict: bool = True
    ) -> UNet2DOutput | tuple[Tensor]:
        """Predict the noise in ``sample``; on flow, predict the velocity.

        Args:
            sample: (batch, channels, h, w). On the noise table it has unit variance, ``x / sqrt(sigma^2 + 1)``; on
                flow it is x itself.
            timestep: (batch,) position in the noise table, fractions allowed; on flow 1000 sigma.
            condition: (batch, 4, h, w), thumbnail and flag; None draws without a condition.
        """
        time = timestep.float().reshape(-1).expand(len(sample)).to(sample.device)
        if condition is None:
            condition = sample.new_zeros((len(sample), 4, *sample.shape[2:]))
        if self.flow:
            sigma = time / 1000
            # x / (1 - sigma) is a picture at noise-to-signal ratio sigma / (1 - sigma), up to what the network knows.
            scale = 1 / (1 - sigma).clamp(min=1 / (LATENT_SCALE * SIGMA_MAX))
        else:
            sigma = to_log_sigma(time, self.log_sigma).exp()
            scale = (sigma**2 + 1).sqrt()
        ratio = sigma * scale if self.flow else sigma
        pixel_sigma, pixel_scale = (value.reshape(-1, 1, 1, 1) for value in (sigma, scale))
        x = sample.float() if self.flow else sample.float() * pixel_scale
        noisy = (x * pixel_scale if self.flow else x) / LATENT_SCALE
        denoised = self.network.preconditioned(noisy, ratio / LATENT_SCALE, condition.float()) * LATENT_SCALE
        prediction = ((x - denoised) / pixel_sigma).to(sample.dtype)
        return UNet2DOutput(sample=prediction) if return_dict else (prediction,)


class PhotoPipeline(DiffusionPipeline):
    """Pictures (batch, 3, h, w) in [0, 1], redrawn from thumbnails."""

    def __init__(self, unet: PhotoUNet, scheduler: Any):
        super().__init__()
        self.register_modules(unet=unet, scheduler=scheduler)

    @torch.no_grad()
    def __call__(
        self, small: Tensor, seed: int = 0, num_inference_steps: int = 20, guidance_scale: float = 1.0
    ) -> Tensor:
        """Sample.

        Args:
            small: (batch, 3, h, w), as ``photos.thumbnail`` makes it.
            guidance_scale: classifier-free guidance (Ho & Salimans 2022); 1 leaves out the null pass.
        """
        device, dtype = self.unet.device, self.unet.dtype
        condition = torch.cat([small, torch.ones_like(small[:, :1])], 1).to(device, dtype)
        is_guided = guidance_scale != 1
        if is_guided:
            condition = torch.cat([torch.zeros_like(condition), condition])
        self.scheduler.set_timesteps(num_inference_steps, device=device)
        generator = torch.Generator().manual_seed(seed)
        latents = torch.randn(small.shape, generator=generator).to(device, dtype)
        latents = latents * getattr(self.scheduler, "init_noise_sigma", 1.0)
        extra = step_options(self.scheduler, generator)
        progress: Any = self.progress_bar
        with progress(total=len(self.scheduler.timesteps)) as bar:
            for t in self.scheduler.timesteps:
                model_input = torch.cat([latents] * 2) if is_guided else latents
                if hasattr(self.scheduler, "scale_model_input"):
                    model_input = self.scheduler.scale_model_input(model_input, t)
                output = self.unet(model_input, t.expand(len(model_input)), condition, return_dict=False)[0]
                if is_guided:
                    uncond, cond = output.chunk(2)
                    output = uncond + guidance_scale * (cond - uncond)
                latents = self.scheduler.step(output, t, latents, return_dict=False, **extra)[0]
                bar.update()
        return (latents.float() / LATENT_SCALE / 2 + 0.5).clamp(0, 1)


def step_options(scheduler: Any, generator: torch.Generator) -> dict[str, Any]:
    """The generator for schedulers whose ``step`` draws noise from one."""
    names = scheduler.step.__code__.co_varnames[: scheduler.step.__code__.co_argcount]
    return {"generator": generator} if "generator" in names else {}


def open_pipeline(sampler: str = "euler", flow: bool = False) -> PhotoPipeline:
    """The embedded network, ready to sample.

    Raises:
        ValueError: the sampler is unknown for this family.
    """
    pipe = PhotoPipeline(PhotoUNet(load(), flow), scheduler(sampler, flow))
    pipe.unet.eval().requires_grad_(False)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def thumbnail_of(source: str | Path, size: int | tuple[int, int] = 256, factor: float = FACTOR) -> Tensor:
    """What the pipeline redraws a photograph from, (1, 3, h, w)."""
    return thumbnail(photograph(source, size), factor)
