"""WHAT: the noise level to tell the model instead of the true one, and the input to match."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from torch import Tensor

if TYPE_CHECKING:
    from .settings import Family, LieKind

Level = TypeVar("Level", float, Tensor)

SMALLEST = 1e-6
"""Least share of the noise that a lie leaves: a model cannot be told of none."""


@dataclass(frozen=True, slots=True)
class Lie:
    """What to tell a model in place of its noise level (method.md section 1).

    Both methods take the true level as a float or as a tensor of any shape. They go forward only, from the
    true level to the lie, and hold at every level from 0 to the highest.

    >>> Lie(0.9, "flow").tell(1.0), Lie(0.9, "flow").scale(0.5)
    (1.0, 1.0526315789473684)
    """

    keep: float
    """Share of the noise-to-signal ratio that the model is still told of, 1 - strength; above 1 it is told of more."""
    family: Family = "ve"
    kind: LieKind = "noise_to_signal"

    def tell(self, level: Level) -> Level:
        """The level to tell a model that would hear ``level``."""
        if self.family == "ve":
            return level * self.keep
        if self.kind == "fixed_input":
            # A flow model knows of no more noise than 1.
            lower = level * self.keep
            return lower.clamp(max=1.0) if isinstance(lower, Tensor) else min(lower, 1.0)
        return level * self.keep * self.scale(level)

    def scale(self, level: Level) -> Level:
        """The factor by which to multiply the model's input, so that its signal has the scale of the level told."""
        if self.family == "ve" or self.kind == "fixed_input":
            return level * 0 + 1.0
        return 1.0 / (1.0 - (1.0 - self.keep) * level)


def noise_to_signal(sigma: float, family: Family) -> float:
    """sigma / alpha: in it a step has the same size on flow as on VE; finite also at sigma = 1."""
    return sigma if family == "ve" else sigma / max(1.0 - sigma, 1e-4)


def e_folds(strength: float) -> float:
    """Size of a lie, -ln(1 - strength): doses add in it, and effects scale with it."""
    return -math.log(max(1.0 - strength, SMALLEST))
