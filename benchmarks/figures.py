"""What a method did to pictures, in numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .models import Model, low_pass

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Figures:
    """A batch of detailed pictures beside the plain ones of the same seeds."""

    gain: float
    """Fine-detail energy gained inside, as a share of what the plain pictures have there."""
    leak: float
    """Fine-detail energy gained per pixel outside, over that gained inside."""
    leak_rms: float
    """RMS of the fine detail that separates the two pictures, outside over inside."""
    mean: float
    """Change of a picture's mean, absolute, as a share of its own standard deviation."""
    contrast: float
    """Relative change of the standard deviation of the low-passed picture."""


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
