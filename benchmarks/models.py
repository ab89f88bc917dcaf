"""The embedded network as a denoiser of a batch of scenes, VE or rectified flow, guided or not.

A ``Model`` is a denoiser with its family and the truth about its pictures; ``exact.py`` has others.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from selective_sigma.demo import pipeline
from selective_sigma.demo.levels import log_sigma_table, to_timestep
from selective_sigma.demo.scene_network import LATENT_SCALE, NULL_CLASS, NULL_REGION, SceneUNet
from selective_sigma.demo.scenes import KINDS, draw
from selective_sigma.lie import per_sample
from selective_sigma.settings import Family

SIGMA_MAX, SIGMA_MIN = 14.6, 0.03


class Model(Protocol):
    """A denoiser of one batch of pictures."""

    family: Family
    shape: tuple[int, ...]
    region: Tensor
    """(batch, 1, H, W) in [0, 1], where detail belongs."""
    seeds: Sequence[int]
    """Of each picture's noise, (batch,)."""
    evaluations: int
    """Pictures denoised so far, one for each of them at each call."""

    def guided(self, x: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """``denoised`` and ``uncond`` of a latent in the model's own terms, sigma (batch,)."""
        ...

    def picture(self, latent: Tensor) -> Tensor:
        """What to measure, (batch, channels, H, W)."""
        ...


def as_ratio(x: Tensor, sigma: Tensor, family: Family) -> tuple[Tensor, Tensor]:
    """A latent and its noise level in VE terms, with noise-to-signal ratios as levels."""
    if family == "ve":
        return x, sigma
    signal = (1 - sigma).clamp(min=1e-4)
    return x / per_sample(signal, x), sigma / signal


class Scene(NamedTuple):
    """One picture to draw: its kind, and the seed of its region map and noise."""

    kind: str
    seed: int


class Embedded:
    """The embedded network on a batch of scenes, with classifier-free guidance if asked for."""

    def __init__(self, scenes: Sequence[Scene], family: Family = "ve", guidance: float = 1.0):
        self.family: Family = family
        self.guidance = guidance
        self.region = torch.cat([draw(scene.kind, 1, scene.seed).region for scene in scenes])
        self.labels = torch.tensor([KINDS.index(scene.kind) for scene in scenes])
        self.seeds = [scene.seed for scene in scenes]
        self.shape = (len(scenes), 3, *self.region.shape[2:])
        self.evaluations = 0
        self._table = log_sigma_table()

    def guided(self, x: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        x, sigma = as_ratio(x, sigma, self.family)
        cond = self._denoised(x, sigma, self.labels, self.region)
        if self.guidance == 1:
            return cond, cond
        nothing = torch.full_like(self.labels, NULL_CLASS), torch.full_like(self.region, NULL_REGION)
        uncond = self._denoised(x, sigma, *nothing)
        return uncond + self.guidance * (cond - uncond), uncond

    def picture(self, latent: Tensor) -> Tensor:
        """In [0, 1], not clamped: clipping would hide drift."""
        return latent / LATENT_SCALE / 2 + 0.5

    @torch.no_grad()
    def _denoised(self, x: Tensor, sigma: Tensor, labels: Tensor, region: Tensor) -> Tensor:
        self.evaluations += len(x)
        s = per_sample(sigma, x)
        scale = (s.square() + 1).rsqrt()
        v = unet()(x * scale, to_timestep(sigma.log(), self._table), labels, region, return_dict=False)[0]
        return scale * (x * scale - s * v)


_loaded: dict[str, SceneUNet] = {}


def unet() -> SceneUNet:
    """The network, loaded once from ``pipeline.WEIGHTS``."""
    where = str(pipeline.WEIGHTS)
    if where not in _loaded:
        _loaded[where] = pipeline.load(weights=pipeline.WEIGHTS).unet
    return _loaded[where]
