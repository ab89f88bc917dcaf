"""A MODEL without a checkpoint: the embedded network, which redraws a photograph from a thumbnail of it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import comfy.conds
import comfy.latent_formats
import comfy.model_base
import comfy.model_management
import comfy.model_patcher
import comfy.model_sampling
import comfy.patcher_extension
import comfy.sd
import comfy.supported_models_base
import numpy as np
import torch
import torch.nn.functional as F
from comfy_api.latest import io
from PIL import Image
from torch import Tensor, nn

from ...demo.network import MULTIPLE, SIGMA_DATA, SIGMA_MAX, SIGMA_MIN, load
from ...demo.photos import FACTOR, thumbnail
from . import words
from .widgets import DEMO, node_schema

if TYPE_CHECKING:
    from collections.abc import Mapping

FAMILIES = ("ve", "flow")
MOST_PIXELS = 512 * 512
"""Of the largest picture, so that a run takes seconds on a CPU."""
PHOTOGRAPH = Path(__file__).parents[2] / "demo/wren.jpg"
"""Used where no image is connected: a canyon wren, CC0 1.0, from BuddiesOfBudgie/budgie-backgrounds."""
THUMBNAIL = "selective_sigma_thumbnail"
"""The key of the thumbnail in a CONDITIONING."""


class ExponentialSampling(comfy.model_sampling.ModelSamplingContinuousEDM, comfy.model_sampling.EPS):
    """Noise levels as in Karras et al. 2022: x = picture + sigma * noise."""


class DemoNet(nn.Module):
    """The network with the outputs that ComfyUI expects: the noise for ``ve``, the velocity for ``flow``."""

    def __init__(self, family: str, **_: Any):
        super().__init__()
        self.dtype = torch.float32
        self.family = family
        self.network = load()

    def forward(
        self, x: Tensor, timesteps: Tensor, condition: Tensor, transformer_options: Any = None, **_: Any
    ) -> Tensor:
        kind = comfy.patcher_extension.WrappersMP.DIFFUSION_MODEL
        wrappers = comfy.patcher_extension.get_all_wrappers(kind, transformer_options or {})
        executor = comfy.patcher_extension.WrapperExecutor.new_class_executor(self.predict, self, wrappers)
        return executor.execute(x, timesteps, condition)

    def predict(self, x: Tensor, timesteps: Tensor, condition: Tensor) -> Tensor:
        timesteps = timesteps.float().reshape(-1).expand(len(x))
        if self.family == "ve":
            sigma = (4 * timesteps).exp()  # ModelSamplingContinuousEDM.timestep
            wide = sigma[:, None, None, None]
            noisy = x * (wide**2 + SIGMA_DATA**2).sqrt()  # EPS.calculate_input
            return (noisy - self.denoised(noisy, sigma, condition)) / wide
        level = (timesteps / 1000).clamp(min=1e-5)
        # The denoiser for the same ratio of noise to signal. At full noise that is infinite, beyond what the network
        # was trained for.
        sigma = (level / (1 - level).clamp(min=1e-6)).clamp(max=4 * SIGMA_MAX)
        wide = level[:, None, None, None]
        noisy = x * (sigma / level)[:, None, None, None]
        return (x - self.denoised(noisy, sigma, condition)) / wide

    def denoised(self, noisy: Tensor, sigma: Tensor, condition: Tensor) -> Tensor:
        """The denoised picture. Sizes that are no multiple of ``MULTIPLE`` are padded for the network."""
        height, width = noisy.shape[2:]
        pad = (0, -width % MULTIPLE, 0, -height % MULTIPLE)
        if any(pad):
            noisy, condition = (F.pad(t, pad, mode="replicate") for t in (noisy, condition))
        return self.network.preconditioned(noisy, sigma, condition)[..., :height, :width]


class RedrawModel(comfy.model_base.BaseModel):
    """A diffusion model that is conditioned on a thumbnail."""

    def extra_conds(self, **options: Any) -> dict[str, Any]:
        """The thumbnail, enlarged to the latent, with a channel of ones; zeros where there is no thumbnail."""
        noise, small = options["noise"], options.get(THUMBNAIL)
        shape = tuple(noise.shape[2:])
        if small is None:
            condition = torch.zeros(1, 4, *shape)
        else:
            enlarged = F.interpolate(small.float(), shape, mode="bilinear", align_corners=False)
            condition = torch.cat([enlarged, torch.ones(len(small), 1, *shape)], 1)
        return {"condition": comfy.conds.CONDNoiseShape(condition.to(options.get("device", noise.device)))}


def demo_model(family: str) -> comfy.model_patcher.ModelPatcher:
    """The MODEL, of family ``ve`` or ``flow``."""
    config: Any = comfy.supported_models_base.BASE({})
    config.unet_config, config.optimizations = {"family": family}, {}
    config.sampling_settings = {"sigma_min": SIGMA_MIN, "sigma_max": SIGMA_MAX, "sigma_data": SIGMA_DATA, "shift": 1.0}
    config.latent_format = comfy.latent_formats.LatentFormat()
    config.latent_format.latent_channels = 3
    config.latent_format.spacial_downscale_ratio = 1
    # The previews of the steps show the latent as it is.
    config.latent_format.latent_rgb_factors = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    # Small, since ComfyUI's estimate of memory takes the sides of a latent for an eighth of the picture's.
    config.memory_usage_factor = 0.05
    kind = comfy.model_base.ModelType.FLOW if family == "flow" else comfy.model_base.ModelType.EPS
    base = RedrawModel(config, kind, device=torch.device("cpu"), unet_model=DemoNet).eval().requires_grad_(False)
    if family == "ve":
        base.model_sampling = ExponentialSampling(config)
    device = comfy.model_management.get_torch_device()
    return comfy.model_patcher.ModelPatcher(base, device, comfy.model_management.unet_offload_device())


def bundled_photograph() -> Tensor:
    """The bundled photograph, an IMAGE."""
    with Image.open(PHOTOGRAPH) as photo:
        return torch.from_numpy(np.asarray(photo.convert("RGB"), dtype=np.float32) / 255).unsqueeze(0)


def fitted_picture(image: Tensor) -> Tensor:
    """IMAGE (batch, height, width, channels) as (batch, 3, h, w) in [-1, 1], in a size that suits the network.

    Raises:
        ValueError: ``image`` has another shape.
    """
    if image.ndim != 4 or image.shape[-1] not in (1, 3, 4) or 0 in image.shape:
        raise ValueError(f"image has shape {tuple(image.shape)}: connect an IMAGE of (batch, height, width, channels)")
    picture = image[..., :3].float().cpu().movedim(-1, 1).clamp(0, 1)
    picture = picture.expand(-1, 3, -1, -1)
    scale = min(1.0, math.sqrt(MOST_PIXELS / (picture.shape[2] * picture.shape[3])))
    size = [max(2, round(side * scale / MULTIPLE)) * MULTIPLE for side in picture.shape[2:]]
    if list(picture.shape[2:]) != size:
        picture = F.interpolate(picture, size, mode="bicubic", antialias=True).clamp(0, 1)
    return 2 * picture - 1


def pixel_vae() -> comfy.sd.VAE:
    """ComfyUI's VAE for models of pixels: it changes nothing but the range of values."""
    return comfy.sd.VAE(sd={"pixel_space_vae": torch.tensor(1.0)}, dtype=torch.float32)


def conditioning(**more: Tensor) -> list[list[Any]]:
    """A CONDITIONING without text."""
    return [[torch.zeros(1, 1, 1), more]]


class SelectiveSigmaDemoModelNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        out: Mapping[str, str] = words.DEMO_OUT
        return node_schema(
            node_id="SelectiveSigmaDemoModelNode",
            display_name="Selective Sigma Demo Model",
            category=DEMO,
            description=words.DEMO,
            is_experimental=True,
            inputs=[
                io.Image.Input("image", optional=True, tooltip=words.DEMO_IMAGE),
                io.Combo.Input("family", options=list(FAMILIES), default=FAMILIES[0], tooltip=words.DEMO_FAMILY),
            ],
            outputs=[
                io.Model.Output("model_out", display_name="model", tooltip=out["model"]),
                io.Conditioning.Output("positive_out", display_name="positive", tooltip=out["positive"]),
                io.Conditioning.Output("negative_out", display_name="negative", tooltip=out["negative"]),
                io.Vae.Output("vae_out", display_name="vae", tooltip=out["vae"]),
                io.Latent.Output("latent_out", display_name="latent", tooltip=out["latent"]),
            ],
        )

    @classmethod
    def execute(cls, image: Tensor | None = None, family: str = FAMILIES[0]) -> io.NodeOutput:
        picture = fitted_picture(bundled_photograph() if image is None else image)
        positive = conditioning(**{THUMBNAIL: thumbnail(picture, FACTOR)})
        latent = {"samples": torch.zeros_like(picture), "downscale_ratio_spacial": 1}
        return io.NodeOutput(demo_model(family), positive, conditioning(), pixel_vae(), latent)
