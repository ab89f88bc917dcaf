"""The embedded denoiser: diffusers' UNet2DModel on 2x2 pixel blocks, told the scene and region.

It predicts ``v`` on Stable Diffusion's own noise table, so every diffusers scheduler and
ComfyUI's stock v-prediction code run it unchanged. Its latent is the picture itself times
``LATENT_SCALE`` (about unit variance): (batch, 3, 64, 64), no autoencoder.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from diffusers import ModelMixin, UNet2DModel
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.unets.unet_2d import UNet2DOutput
from torch import Tensor

from .scenes import KINDS

LATENT_SCALE = 2.0
NULL_CLASS = len(KINDS)
NULL_REGION = -1.0
PATCH = 2


class SceneUNet(ModelMixin, ConfigMixin):
    """``v`` from a noisy latent (batch, 3, H, W), H and W multiples of 8 x ``PATCH``."""

    @register_to_config
    def __init__(self, block_out_channels: tuple[int, ...] = (32, 64, 128), sample_size: int = 64):
        super().__init__()
        self.net = UNet2DModel(
            sample_size=sample_size // PATCH,
            in_channels=4 * PATCH**2,
            out_channels=3 * PATCH**2,
            layers_per_block=1,
            block_out_channels=block_out_channels,
            down_block_types=("DownBlock2D", "DownBlock2D", "AttnDownBlock2D"),
            up_block_types=("AttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
            num_class_embeds=NULL_CLASS + 1,
            norm_num_groups=16,
            attention_head_dim=32,
        )

    def forward(
        self,
        sample: Tensor,
        timestep: Tensor | float | int,
        class_labels: Tensor | None = None,
        region: Tensor | None = None,
        return_dict: bool = True,
    ) -> UNet2DOutput | tuple[Tensor]:
        """Predict ``v``.

        Args:
            sample: noisy latent already scaled to unit variance, ``x / sqrt(sigma^2 + 1)``.
            timestep: position in the noise table, 0 to 999, fractions allowed.
            class_labels: (batch,) index into ``KINDS``; ``NULL_CLASS`` or None for any scene.
            region: (batch, 1, H, W) in [0, 1], where detail belongs; ``NULL_REGION`` or None
                for anywhere.
        """
        batch = sample.shape[0]
        if class_labels is None:
            class_labels = torch.full((batch,), NULL_CLASS, device=sample.device)
        if region is None:
            region = sample.new_full((batch, 1, *sample.shape[2:]), NULL_REGION)
        blocks = F.pixel_unshuffle(torch.cat([sample, region.to(sample)], 1), PATCH)
        v = F.pixel_shuffle(self.net(blocks, timestep, class_labels).sample, PATCH)
        return UNet2DOutput(sample=v) if return_dict else (v,)
