"""Stable Diffusion's noise table, on which the embedded network was trained."""

from __future__ import annotations

import torch
from torch import Tensor


def log_sigma_table() -> Tensor:
    """log(sigma) of the 1000 noise levels, ascending, (1000,)."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    kept = torch.cumprod(1 - betas, 0)
    return (0.5 * ((1 - kept) / kept).log()).float()


def to_timestep(log_sigma: Tensor, table: Tensor) -> Tensor:
    """Position of each log(sigma) in the table, with fractions, held at its ends."""
    high = torch.searchsorted(table, log_sigma.contiguous()).clamp(1, len(table) - 1)
    low = high - 1
    return low + ((log_sigma - table[low]) / (table[high] - table[low])).clamp(0, 1)
