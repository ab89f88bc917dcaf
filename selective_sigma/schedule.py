"""WHEN: how strong the lie is at each step of a run, looked up by sigma."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from .lie import e_folds, noise_to_signal
from .report import Reason
from .settings import RANGES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .settings import Family, Settings

CHURN = math.sqrt(2.0)
"""A sampler's own noise raises sigma_hat by at most this factor (Karras et al. 2022, algorithm 2)."""
SLACK = 1 + 1e-6
"""A level may come back from a host rounded to single precision."""
LAST = 0.5
"""Share of the strength that is told at a step that ends at zero noise (method.md section 5).

Such a step adds the whole effect of its lie to the picture; any other step adds a part of it.
"""
LONG = 0.6
"""E-folds of the noise-to-signal ratio beyond which a step is a group of its own (method.md section 4).

Multistep solvers extrapolate from the step before. Over steps this long, the rest of the run does not
compensate for a dose that was told at another step.
"""
MOST_STEPS = int(RANGES["every"][1])
"""Largest dose, in steps: that of the largest group that ``every`` allows. Missed doses add up to no more than this."""


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a run: it begins at ``high`` and ends at ``low``."""

    index: int
    high: float
    low: float
    group: int = -1
    """Number of the group of steps that share one dose; -1 where no lie is ever told."""
    reason: Reason | None = None
    """Why no lie is ever told; None in a step of a group."""
    e_folds: float = 0.0
    """The step's part of its group's dose, -ln(1 - strength)."""


OUTSIDE = Step(-1, math.inf, math.inf, reason=Reason.OUTSIDE)
ASCENDING = Step(-1, math.inf, math.inf, reason=Reason.ASCENDING)


class Schedule:
    """The steps of a run, and which of them is told the dose of its group.

    - The dose of a group is told at the first of its steps that the model is called in.
    - If the model is called in no step of a group, its dose is added to that of the next group.
    - A sampler that skips steps reuses its latest prediction, and with it the effect. A dose therefore counts
      once more for each step that is skipped after it, and after a skip the next dose is divided by the number
      of steps that were skipped last.
    - A run begins at the first step that is entered. Doses of earlier groups are not missed.

    For each call of the model, ``enter`` notes the step, ``dose`` returns what to tell in it, and ``mark_told``
    notes that it was told.
    """

    def __init__(
        self,
        sigmas: Sequence[float],
        settings: Settings,
        family: Family = "ve",
        window: tuple[float, float] | None = None,
    ):
        """Args:
        sigmas: the run's noise levels, descending, one more than there are steps. A step that rises is plain.
        window: noise levels (high, low) between which the lie is told. None takes ``start`` and ``end`` as shares
            of ``sigmas``.
        """
        # Some samplers pad their schedule with a leading zero.
        first = next((i for i, sigma in enumerate(sigmas) if sigma > 0), len(sigmas))
        levels = sigmas[first:]
        self.steps: list[Step] = []
        self.doses: list[float] = []
        """Dose of each group in e-folds, before any is missed."""
        self._told: dict[int, tuple[int, float]] = {}
        """Of each group that was told its dose: the index of the step, and the dose."""
        self._next_group, self._missed = 0, 0.0
        self._entered_index: int | None = None
        self._latest_dose, self._stride = 0.0, 1
        """The dose in the latest prediction, and how many steps the one before it was used for."""
        self._largest_dose = MOST_STEPS * abs(e_folds(settings.strength))
        # A run that ascends adds noise (unsampling).
        ascends = len(levels) > 1 and levels[0] < levels[-1]
        self._outside = ASCENDING if ascends else OUTSIDE
        if len(levels) < 2 or ascends:
            return
        parts = [e_folds(settings.strength * share) for share in self._strength_shares(levels, settings, window)]
        groups = _groups(parts, _lengths(levels, family), settings.every)
        self.doses = [0.0] * (1 + max(groups))
        for i, ((high, low), part, group) in enumerate(zip(pairwise(levels), parts, groups, strict=True)):
            reason = Reason.ASCENDING if high < low else Reason.IDLE if not settings.strength else Reason.WINDOW
            self.steps.append(Step(first + i, high, low, group, None if part else reason, part))
            if part:
                self.doses[group] += part

    def enter(self, step: Step) -> float:
        """Note that the model is called in ``step``.

        Returns:
            The doses that count for the steps skipped since the last call, in e-folds.
        """
        if step.index < 0:
            return 0.0
        skipped = 0.0
        if self._entered_index is None:
            self._next_group = min((s.group for s in self.steps if s.index >= step.index and s.group >= 0), default=0)
        elif step.index > self._entered_index:
            gap = step.index - self._entered_index
            skipped = self._latest_dose * (gap - 1)
            self._missed -= skipped
            # No prediction is used for more steps than are left.
            self._stride = min(gap, self.steps[-1].index - step.index + 1)
        if step.index != self._entered_index:
            self._entered_index, self._latest_dose = step.index, 0.0
        return skipped

    def dose(self, step: Step) -> float:
        """E-folds of the lie to tell at ``step``; 0 where its group was told at another step."""
        if step.group in self._told:
            index, dose = self._told[step.group]
            return dose if index == step.index else 0.0
        if step.group < self._next_group:
            return 0.0  # The group's dose was passed on, or there is no group.
        due = self._due(step) / self._stride
        return math.copysign(min(abs(due), self._largest_dose), due) if due * step.e_folds > 0 else 0.0

    def mark_told(self, step: Step) -> float:
        """Note that the dose of ``step`` was told.

        Returns:
            The dose in e-folds at the first call in a step, 0 at further ones.
        """
        dose = self._latest_dose = self.dose(step)
        if step.group in self._told or not dose:
            return 0.0
        self._missed = self._due(step) - dose
        self._told[step.group] = step.index, dose
        self._next_group = self._last_group(step) + 1
        return dose

    def _due(self, step: Step) -> float:
        """Sum of the doses that are due at ``step``.

        These are the dose of its own group, those of earlier groups that were missed, and those of the groups
        that a prediction at ``step`` will be used for.
        """
        group = step.group
        others = [*self.doses[self._next_group : group], *self.doses[group + 1 : self._last_group(step) + 1]]
        return self.doses[group] + (self._missed + sum(others))

    def _last_group(self, step: Step) -> int:
        """The group of the last step that a prediction at ``step`` is expected to be used for."""
        ahead = step.index + self._stride - 1
        return max((s.group for s in self.steps if s.index <= ahead), default=step.group)

    def _strength_shares(
        self, levels: Sequence[float], settings: Settings, window: tuple[float, float] | None
    ) -> list[float]:
        """The share of ``strength`` that each step is told."""
        high, low = window or levels_at(levels, settings.start, settings.end)
        # A level that is repeated, as zeros at the end may be, makes a step that does nothing.
        return [
            float(low <= a * SLACK and a <= high * SLACK and a > b) * (LAST if b == 0 else 1.0)
            for a, b in pairwise(levels)
        ]

    def at(self, sigma: float, slack: float = SLACK) -> Step:
        """The step that a call at noise level ``sigma`` belongs to.

        Steps are found by level and never by counting calls: samplers call several times in a step, or between
        two levels.

        Args:
            slack: factor by which ``sigma`` may have been rounded.

        Returns:
            The step, or ``OUTSIDE`` (``ASCENDING`` in an ascending run) if the level belongs to none.
        """
        for step in self.steps:
            # To a step that rises, its first level alone belongs.
            low = step.low * slack if step.low <= step.high else step.high / slack**2
            if low < sigma <= step.high * slack:
                return step
        if self.steps:
            # A sampler that adds noise of its own calls above the first level.
            if self.steps[0].high < sigma <= self.steps[0].high * CHURN * slack:
                return self.steps[0]
            # A run that ends above zero may be called once more at its lowest level.
            if 0 < self.steps[-1].low / slack <= sigma <= self.steps[-1].low * slack:
                return self.steps[-1]
        return self._outside


def levels_at(levels: Sequence[float], start: float, end: float) -> tuple[float, float]:
    """The noise levels at the shares ``start`` and ``end`` of a schedule, linear between its levels."""

    def interpolate(share: float) -> float:
        position = share * (len(levels) - 1)
        i = min(int(position), len(levels) - 2)
        return levels[i] + (position - i) * (levels[i + 1] - levels[i])

    return interpolate(start), interpolate(end)


def _lengths(levels: Sequence[float], family: Family) -> list[float]:
    """E-folds of the noise-to-signal ratio that each step covers; infinite for a step that ends at zero."""
    ratios = [noise_to_signal(level, family) for level in levels]
    return [math.log(a / b) if a > 0 and b > 0 else math.inf for a, b in pairwise(ratios)]


def _groups(parts: Sequence[float], lengths: Sequence[float], every: int) -> list[int]:
    """The group of each step; -1 for a step in which no lie is told.

    A group is up to ``every`` active steps in a row. A step is a group of its own if

    - it is longer than ``LONG``,
    - the step after it is longer than ``LONG`` and does not end at zero noise, or
    - it ends at zero noise itself, as no later step compensates for what it misses.
    """
    groups: list[int] = []
    first, number = 0, -1
    for i, part in enumerate(parts):
        alone = lengths[i] > LONG or (i + 1 < len(lengths) and LONG < lengths[i + 1] < math.inf)
        joins = i > first and i - first < every and not alone and lengths[first] <= LONG and parts[first]
        if part and not joins:
            first, number = i, number + 1
        elif not part:
            first = i
        groups.append(number if part else -1)
    return groups
