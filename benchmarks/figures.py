"""What a method did to pictures, in numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from selective_sigma.demo.measure import low_pass

from .rows import Figures

if TYPE_CHECKING:
    from torch import Tensor

    from .models import Model


def energy(values: Tensor, where: Tensor) -> float:
    """Mean square over channels and the pixels ``where`` (batch, 1, H, W); each picture counts alike."""
    squares = values.square().mean(1, keepdim=True) * where
    return float((squares.flatten(1).sum(1) / where.flatten(1).sum(1)).mean())


def compare(detailed: Tensor, plain: Tensor, model: Model, part: slice = slice(None)) -> Figures:
    """Measure a ``part`` of the model's pictures (batch, channels, H, W) against its truth; pooled over the part."""
    detailed, plain, inside, outside = detailed[part], plain[part], model.inside[part], model.outside[part]
    before, after = model.fine(plain), model.fine(detailed)
    added = energy(after, inside) - energy(before, inside)
    differs = energy(after - before, inside)
    shift = (detailed.flatten(1).mean(1) - plain.flatten(1).mean(1)).abs() / plain.flatten(1).std(1)
    contrast = low_pass(detailed).flatten(1).std(1) / low_pass(plain).flatten(1).std(1) - 1
    return Figures(
        gain=added / energy(before, inside),
        leak=(energy(after, outside) - energy(before, outside)) / added if added else 0.0,
        leak_rms=(energy(after - before, outside) / differs) ** 0.5 if differs else 0.0,
        mean=float(shift.mean()),
        contrast=float(contrast.mean()),
    )
