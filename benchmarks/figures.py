"""What a method did to pictures, in numbers, one for each picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from statistics import fmean, stdev

import torch
from scipy.stats import rankdata
from torch import Tensor

from selective_sigma.demo.measure import high_pass, low_pass, rms, split


@dataclass
class Figures:
    """A detailed picture beside the plain one of the same seed; lists of one value a picture.

    NaN where a picture has no such part. Units are those of the pictures, 0 to 1.
    """

    inside: list[float]
    """RMS of the fine detail added where the region map says detail belongs."""
    outside: list[float]
    """The same where it does not, clear of the border."""
    energy_in: list[float]
    """Mean high-frequency energy gained inside."""
    energy_out: list[float]
    base_in: list[float]
    """Mean high-frequency energy of the plain picture inside."""
    change: list[float]
    """RMS of the whole difference."""
    mean: list[float]
    """Change of the mean."""
    contrast: list[float]
    """Relative change of the standard deviation of the low-passed picture."""
    colour: list[float]
    """RMS over channels of the change of channel means, the common part taken out."""
    steps: int
    """Calls the plain sampler makes."""
    calls: int

    @property
    def cost(self) -> float:
        """Model calls for each of the plain sampler's."""
        return self.calls / self.steps

    @property
    def gain(self) -> list[float]:
        """Relative gain of high-frequency energy inside."""
        return [e / b for e, b in zip(self.energy_in, self.base_in, strict=True)]


PER_PICTURE = tuple(f.name for f in fields(Figures) if f.name not in ("steps", "calls"))


def compare(detailed: Tensor, plain: Tensor, region: Tensor, calls: int, steps: int) -> Figures:
    """Measure pictures (batch, channels, H, W) under region maps (batch, 1, H, W)."""
    difference = detailed - plain
    inside, outside = split(region)
    fine, before, after = high_pass(difference), high_pass(plain), high_pass(detailed)
    base = rms(before, inside).square()
    shift = difference.mean((2, 3))
    contrast = low_pass(detailed).flatten(1).std(1) / low_pass(plain).flatten(1).std(1) - 1
    values = {
        "inside": rms(fine, inside),
        "outside": rms(fine, outside),
        "energy_in": rms(after, inside).square() - base,
        "energy_out": rms(after, outside).square() - rms(before, outside).square(),
        "base_in": base,
        "change": difference.square().flatten(1).mean(1).sqrt(),
        "mean": shift.mean(1),
        "contrast": contrast,
        "colour": (shift - shift.mean(1, keepdim=True)).square().mean(1).sqrt(),
    }
    return Figures(**{name: v.tolist() for name, v in values.items()}, steps=steps, calls=calls)


def auc(score: Tensor, truth: Tensor) -> float:
    """Chance that a pixel that belongs scores above one that does not, ties counting half.

    The rank statistic of Mann & Whitney (1947); NaN where one of the two is missing.
    """
    hit = truth.flatten() > 0.5
    inside, outside = int(hit.sum()), int((~hit).sum())
    if not inside or not outside:
        return float("nan")
    ranks = torch.from_numpy(rankdata(score.flatten().numpy()))
    return float((ranks[hit].sum() - inside * (inside + 1) / 2) / (inside * outside))


def spread(values: Sequence[float]) -> dict[str, float]:
    """Mean, and standard deviation over seeds, of one value a seed; NaN left out."""
    real = [v for v in values if v == v]
    if not real:
        return {"mean": float("nan"), "std": float("nan")}
    return {"mean": fmean(real), "std": stdev(real) if len(real) > 1 else 0.0}
