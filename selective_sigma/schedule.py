"""WHEN: how strong the lie is at each step of a run, looked up by sigma."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from .lie import e_folds, noise_to_signal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .settings import Family, Settings

CHURN = math.sqrt(2.0)
"""A sampler's own noise raises sigma_hat by at most this factor (Karras et al. 2022, algorithm 2)."""
SLACK = 1 + 1e-6
"""A level may come back from a host rounded to single precision."""
LAST = 0.5
"""Share of the lie at the step that ends at zero noise, which passes on all of the lie's effect.

The steps before pass on as much as falls to their length, whatever that is (method.md section 5).
"""
LONG = 0.6
"""Steps that cover more e-folds of noise to signal than this carry no dose of others, and lend none.

Where solvers of higher order extrapolate over steps as long, a dose in the wrong step is not made up.
"""


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a run: it begins at ``high`` and ends at ``low``."""

    index: int
    high: float
    low: float
    strength: float
    """Fraction of the noise-to-signal ratio to remove; 0 where no lie is told."""
    reason: str = ""
    """Why no lie is told: ``window``, or ``every`` where another step carries this one's dose."""


OUTSIDE = Step(-1, math.inf, math.inf, 0.0, "outside")
ASCENDING = Step(-1, math.inf, math.inf, 0.0, "ascending")


class Schedule:
    """The steps of a run, each with its dose."""

    def __init__(
        self,
        sigmas: Sequence[float],
        settings: Settings,
        family: Family = "ve",
        window: tuple[float, float] | None = None,
    ):
        """Args:
        sigmas: the run's noise levels, descending, one more than there are steps.
        window: noise levels (high, low) between which the lie is told; None for the shares
            ``start`` and ``end`` of ``sigmas`` itself.
        """
        # A resampling chain pads its schedule with a zero; it descends all the same.
        first = next((i for i, sigma in enumerate(sigmas) if sigma > 0), len(sigmas))
        levels = sigmas[first:]
        self.steps: list[Step] = []
        # An ascending run adds noise (unsampling); there is no detail to add on the way up.
        ascends = len(levels) > 1 and levels[0] < levels[-1]
        self._outside = ASCENDING if ascends else OUTSIDE
        if len(levels) < 2 or ascends:
            return
        efolds = [e_folds(settings.strength * share) for share in self._shares(levels, settings, window)]
        doses = _due(efolds, _lengths(levels, family), settings.every)
        for i, ((a, b), efold, dose) in enumerate(zip(pairwise(levels), efolds, doses, strict=True)):
            reason = "" if dose else "every" if efold else "window"
            self.steps.append(Step(first + i, a, b, -math.expm1(-dose), reason))

    def _shares(self, levels: Sequence[float], settings: Settings, window: tuple[float, float] | None) -> list[float]:
        """Share of the strength that each step is told."""
        high, low = window or shares(levels, settings.start, settings.end)
        # A level that is repeated, as zeros at the end may be, makes a step that does nothing.
        return [
            float(low <= a * SLACK and a <= high * SLACK and a > b) * (LAST if b == 0 else 1.0)
            for a, b in pairwise(levels)
        ]

    def at(self, sigma: float, slack: float = SLACK) -> Step:
        """The step that a call at ``sigma`` belongs to; ``OUTSIDE`` (or ``ASCENDING``) for what is in none.

        By value and never by call count: samplers call several times a step, or in between.
        ``slack``: by how much ``sigma`` may be rounded, as a factor.
        """
        for step in self.steps:
            if step.low * slack < sigma <= step.high * slack:
                return step
        if self.steps:
            # Added noise lifts a step's call above its level; a last look lies on a part run's lowest level.
            if self.steps[0].high < sigma <= self.steps[0].high * CHURN * slack:
                return self.steps[0]
            if 0 < self.steps[-1].low / slack <= sigma <= self.steps[-1].low * slack:
                return self.steps[-1]
        return self._outside


def shares(levels: Sequence[float], start: float, end: float) -> tuple[float, float]:
    """The noise levels at the shares ``start`` and ``end`` of a whole schedule, linear between its steps."""

    def at(share: float) -> float:
        place = share * (len(levels) - 1)
        i = min(int(place), len(levels) - 2)
        return levels[i] + (place - i) * (levels[i + 1] - levels[i])

    return at(start), at(end)


def _lengths(levels: Sequence[float], family: Family) -> list[float]:
    """E-folds of noise to signal that each step covers; infinite for one that ends at zero."""
    ratios = [noise_to_signal(level, family) for level in levels]
    return [math.log(a / b) if a > 0 and b > 0 else math.inf for a, b in pairwise(ratios)]


def _due(efolds: Sequence[float], lengths: Sequence[float], every: int) -> list[float]:
    """E-folds of the lie at each step: the first of every group carries those of the group.

    A group is ``every`` active steps, none of them long nor followed by a long one, unless that is
    the last: the step that ends at zero noise is always a group of its own, as what it misses is
    never made up.
    """
    doses = [0.0] * len(efolds)
    first, last = 0, len(efolds) - 1
    for i, efold in enumerate(efolds):
        follows = i == last or lengths[i + 1] <= LONG or math.isinf(lengths[i + 1])
        joins = i > first and i - first < every and max(lengths[first : i + 1]) <= LONG and follows
        if not (joins and efold and doses[first]):
            first = i
        doses[first] += efold
    return doses
