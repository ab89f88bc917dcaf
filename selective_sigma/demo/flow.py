"""The embedded network as a rectified-flow model: the same denoiser under x / (1 - sigma)."""

from __future__ import annotations

from diffusers import ModelMixin
from diffusers.models.unets.unet_2d import UNet2DOutput
from torch import Tensor

from .levels import log_sigma_table, to_timestep
from .scene_network import SceneUNet


class SceneFlow(ModelMixin):
    """Velocity ``noise - x0`` of ``x = (1 - sigma) x0 + sigma noise``, exactly converted.

    Dividing by 1 - sigma gives a VE latent at noise-to-signal ratio r = sigma / (1 - sigma);
    scaled to unit variance that is x / sqrt((1 - sigma)^2 + sigma^2), finite up to sigma = 1.
    """

    log_sigma: Tensor

    def __init__(self, unet: SceneUNet):
        super().__init__()
        self.unet = unet
        self.register_buffer("log_sigma", log_sigma_table(), persistent=False)

    def forward(
        self,
        sample: Tensor,
        timestep: Tensor,
        class_labels: Tensor | None = None,
        region: Tensor | None = None,
        return_dict: bool = True,
    ) -> UNet2DOutput | tuple[Tensor]:
        """As ``SceneUNet.forward``, with ``timestep`` = 1000 sigma, (batch,)."""
        sigma = timestep.float().reshape(-1).expand(len(sample)) / 1000
        signal = 1 - sigma
        t = to_timestep((sigma / signal.clamp(min=1e-4)).clamp(min=1e-6).log(), self.log_sigma)
        spread = (signal**2 + sigma**2).sqrt()
        a, b, s = (v.reshape(-1, 1, 1, 1) for v in (signal, sigma, spread))
        unit = sample / s
        v = self.unet(unit.to(sample.dtype), t, class_labels, region, return_dict=False)[0]
        # v-prediction in unit variance: x0 = a' u - b' v and noise = b' u + a' v, a' = a / s.
        denoised, noise = (a * unit - b * v) / s, (b * unit + a * v) / s
        velocity = (noise - denoised).to(sample.dtype)
        return UNet2DOutput(sample=velocity) if return_dict else (velocity,)
