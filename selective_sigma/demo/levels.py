"""Stable Diffusion's noise table, on which diffusers runs the embedded network."""

from __future__ import annotations

import torch
from torch import Tensor


def log_sigma_table() -> Tensor:
    """log(sigma) of the 1000 noise levels, ascending, (1000,)."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    alphas = torch.cumprod(1 - betas, 0)
    return (0.5 * ((1 - alphas) / alphas).log()).float()


def to_log_sigma(timestep: Tensor, table: Tensor) -> Tensor:
    """log(sigma) at positions in the table, (batch,), with fractions, held at its ends."""
    low = timestep.clamp(0, len(table) - 1).floor().long().clamp(max=len(table) - 2)
    return table[low] + (timestep.clamp(0, len(table) - 1) - low) * (table[low + 1] - table[low])
