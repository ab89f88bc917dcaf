"""WHAT: the noise level that the model is told in place of the true one, and the factor for its input."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from torch import Tensor

if TYPE_CHECKING:
    from .settings import Family, LieKind

Level = TypeVar("Level", float, Tensor)

SMALLEST_KEEP = 1e-6
"""Smallest ``Lie.keep``: a model cannot be told that there is no noise."""


@dataclass(frozen=True, slots=True)
class Lie:
    """The noise level to tell a model in place of the true one (method.md section 1).

    With k = ``keep`` and the true level t::

        family, kind             tell(t)                  scale(t)
        ve                       k t                      1
        flow, noise_to_signal    k t / (1 - (1 - k) t)    1 / (1 - (1 - k) t)
        flow, fixed_input        min(k t, 1)              1

    Both methods take a float or a tensor of any shape, and are defined from level 0 to the highest one. Pass the
    ``Lie`` itself on, not the two levels: at the highest level a flow model is told the true level, and the two levels
    no longer say what ``keep`` is.

    >>> Lie(0.9, "flow").tell(1.0), Lie(0.9, "flow").scale(0.5)
    (1.0, 1.0526315789473684)
    """

    keep: float
    """Factor on the noise-to-signal ratio, 1 - strength. It exceeds 1 at negative strength."""
    family: Family = "ve"
    """How the model adds noise: ``ve`` is x = x0 + sigma n, ``flow`` is x = (1 - sigma) x0 + sigma n."""
    kind: LieKind = "noise_to_signal"
    """What ``keep`` multiplies on flow models: the noise-to-signal ratio, or (``fixed_input``) the noise level."""

    @classmethod
    def of_dose(cls, dose: float, family: Family, kind: LieKind) -> Lie:
        """The lie of a dose in e-folds (``to_e_folds``)."""
        return cls(max(math.exp(-dose), SMALLEST_KEEP), family, kind)

    def tell(self, level: Level) -> Level:
        """The noise level to tell the model in place of ``level``."""
        if self.family == "ve":
            return level * self.keep
        if self.kind == "fixed_input":
            # The highest noise level of a flow model is 1.
            lower = level * self.keep
            return lower.clamp(max=1.0) if isinstance(lower, Tensor) else min(lower, 1.0)
        return level * self.keep * self.scale(level)

    def scale(self, level: Level) -> Level:
        """The factor by which to multiply the model's input, so that its signal has the scale of the level told."""
        if self.family == "ve" or self.kind == "fixed_input":
            return level * 0 + 1.0
        return 1.0 / (1.0 - (1.0 - self.keep) * level)


def noise_to_signal(sigma: float, family: Family) -> float:
    """The noise-to-signal ratio, sigma / alpha. It is finite at sigma = 1 too.

    In this ratio a step has the same size on flow and on VE models.
    """
    return sigma if family == "ve" else sigma / max(1.0 - sigma, 1e-4)


def to_e_folds(strength: float) -> float:
    """The dose of a lie in e-folds, -ln(1 - strength). Doses add up. To first order the effect is proportional."""
    return -math.log(max(1.0 - strength, SMALLEST_KEEP))


def to_strength(dose: float) -> float:
    """The strength of a lie of this dose, 1 - exp(-dose); inverse of ``to_e_folds``."""
    return -math.expm1(-dose)
