"""The embedded denoiser: redraws a photograph from a thumbnail of it.

A small convolutional U-Net in plain torch, so that any host with torch and safetensors can run it.
Pictures are in [-1, 1], under ``x = picture + sigma * noise``. Preconditioned as in Karras et al. 2022
(table 1, "Ours"), with the thumbnail as the mean of the data: what is left to predict is what a
thumbnail does not hold. Nothing in it looks at the whole picture (no attention, and each pixel is
normalised by itself), so height and width may be any multiples of ``MULTIPLE``.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

WEIGHTS = Path(__file__).with_name("weights.safetensors")
SIGMA_DATA, SIGMA_DETAIL = 0.5, 0.12
"""Standard deviations of pictures (without a thumbnail), and of what they differ by from their thumbnails."""
SIGMA_MIN, SIGMA_MAX = 0.01, 10.0
"""Where sampling ends and begins; training covered both ends."""
MULTIPLE = 8
"""Height and width are multiples of this: 2x2 blocks, then two halvings."""
WIDTHS = (48, 96, 144)
BLOCKS = 2
TIME = 192


class Normed(nn.Module):
    """Each pixel's channels divided by their root mean square: the same at any picture size."""

    def forward(self, x: Tensor) -> Tensor:
        return x * (x.square().mean(1, keepdim=True) + 1e-6).rsqrt()


class Block(nn.Module):
    """A residual block, told the noise level as a scale and a shift between its convolutions."""

    def __init__(self, wide_in: int, wide_out: int):
        super().__init__()
        self.norm = Normed()
        self.conv1 = nn.Conv2d(wide_in, wide_out, 3, padding=1)
        self.conv2 = nn.Conv2d(wide_out, wide_out, 3, padding=1)
        self.time = nn.Linear(TIME, 2 * wide_out)
        self.skip = nn.Conv2d(wide_in, wide_out, 1) if wide_in != wide_out else nn.Identity()
        nn.init.zeros_(self.conv2.weight)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        scale, shift = self.time(time)[:, :, None, None].chunk(2, 1)
        hidden = self.conv1(F.silu(self.norm(x)))
        hidden = self.conv2(F.silu(self.norm(hidden) * (1 + scale) + shift))
        return self.skip(x) + hidden


class Network(nn.Module):
    """The U-Net; ``denoise`` is what samplers call."""

    def __init__(self, widths: tuple[int, ...] = WIDTHS, blocks: int = BLOCKS):
        super().__init__()
        self.time = nn.Sequential(nn.Linear(TIME, TIME), nn.SiLU(), nn.Linear(TIME, TIME), nn.SiLU())
        self.first = nn.Conv2d(7 * 4, widths[0], 3, padding=1)
        self.encoder, self.decoder = nn.ModuleList(), nn.ModuleList()
        self.shrink, self.grow = nn.ModuleList(), nn.ModuleList()
        wide = widths[0]
        for level, width in enumerate(widths):
            self.shrink.append(nn.Conv2d(wide, wide, 3, stride=2, padding=1) if level else nn.Identity())
            self.encoder.append(nn.ModuleList(Block(width if i else wide, width) for i in range(blocks)))
            wide = width
        self.middle = nn.ModuleList(Block(wide, wide) for _ in range(2))
        for width in reversed(widths):
            self.grow.append(nn.Conv2d(wide, width, 3, padding=1) if wide != width else nn.Identity())
            self.decoder.append(nn.ModuleList(Block(width, width) for _ in range(blocks)))
            wide = width
        self.last = nn.Sequential(Normed(), nn.SiLU(), nn.Conv2d(wide, 64, 3, padding=1), nn.PixelShuffle(2))
        first, out = nn.Conv2d(16 + 7, 24, 3, padding=1), nn.Conv2d(24, 3, 3, padding=1)
        nn.init.zeros_(out.weight)
        self.full = nn.Sequential(first, nn.SiLU(), out)

    def forward(self, x: Tensor, c_noise: Tensor) -> Tensor:
        """The raw output (batch, 3, h, w) for ``x`` (batch, 7, h, w) and ``c_noise`` (batch,)."""
        time = self.time(waves(c_noise))
        hidden = self.first(F.pixel_unshuffle(x, 2))
        skips: list[Tensor] = []
        for shrink, blocks in zip(self.shrink, self.encoder, strict=True):
            hidden = shrink(hidden)
            for block in blocks:  # type: ignore[union-attr]
                hidden = block(hidden, time)
                skips.append(hidden)
        for block in self.middle:
            hidden = block(hidden, time)
        for level, (grow, blocks) in enumerate(zip(self.grow, self.decoder, strict=True)):
            hidden = grow(F.interpolate(hidden, scale_factor=2.0) if level else hidden)
            for block in blocks:  # type: ignore[union-attr]
                hidden = block(hidden + skips.pop(), time)
        return self.full(torch.cat([self.last(hidden), x], 1))

    def denoise(self, x: Tensor, sigma: Tensor | float, thumbnail: Tensor | None = None) -> Tensor:
        """The denoised picture, float32.

        Args:
            x: (batch, 3, h, w), ``picture + sigma * noise``; h and w multiples of ``MULTIPLE``.
            sigma: the noise level, a float, () or (batch,).
            thumbnail: (batch or 1, 3, h, w) in [-1, 1], a small picture enlarged (``photos.thumbnail``);
                None for the unconditional prediction.
        """
        x = x.float()
        sigma = torch.as_tensor(sigma, dtype=torch.float32, device=x.device).reshape(-1)
        flag = x.new_full((len(x), 1, *x.shape[2:]), float(thumbnail is not None))
        small = torch.zeros_like(x) if thumbnail is None else thumbnail.to(x).expand_as(x)
        return self.preconditioned(x, sigma.expand(len(x)), torch.cat([small, flag], 1))

    def preconditioned(self, x: Tensor, sigma: Tensor, condition: Tensor) -> Tensor:
        """Karras et al. 2022, eq. 7; ``condition`` (batch, 4, h, w) is the thumbnail (or 0) and its flag."""
        small, flag = condition.split((3, 1), 1)
        sigma_data, wide = data_scale(flag), sigma[:, None, None, None]
        norm = (wide**2 + sigma_data**2).rsqrt()
        raw = self(torch.cat([(x - small) * norm, condition], 1), sigma.log() / 4).float()
        return small + (sigma_data * norm) ** 2 * (x - small) + wide * sigma_data * norm * raw


def data_scale(flag: Tensor) -> Tensor:
    """sigma_data, shaped like ``flag``, which is 1 where there is a thumbnail."""
    return SIGMA_DATA + (SIGMA_DETAIL - SIGMA_DATA) * flag


def waves(c_noise: Tensor) -> Tensor:
    """(batch,) to (batch, TIME): cosines and sines of geometrically spaced frequencies."""
    powers = torch.linspace(0, 1, TIME // 2, device=c_noise.device)
    angles = c_noise[:, None] * (64.0**powers) * math.pi / 2
    return torch.cat([angles.cos(), angles.sin()], 1)


def load(weights: Path = WEIGHTS) -> Network:
    """The trained network, ready to sample, in float32."""
    network = Network()
    network.load_state_dict({name: tensor.float() for name, tensor in load_file(weights).items()})
    # torch declares no such overload of Module.to, though it documents it.
    return network.eval().requires_grad_(False).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]


def facts(weights: Path = WEIGHTS) -> dict[str, Any]:
    """How the weights were made: steps, batch, hours, loss."""
    with safe_open(weights, "pt") as file:
        return {name: json.loads(value) for name, value in (file.metadata() or {}).items() if name != "format"}
