"""WHEN: the dose of the lie at each step of a run. Steps are looked up by noise level."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from .lie import noise_to_signal, to_e_folds
from .report import Reason
from .settings import RANGES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .settings import Family, Settings

CHURN_FACTOR = math.sqrt(2.0)
"""Largest factor by which a sampler raises a noise level with noise of its own (Karras et al. 2022, algorithm 2)."""
LEVEL_TOLERANCE = 1 + 1e-6
"""Factor by which a noise level may be off, since hosts round levels to single precision."""
LAST_STEP_SHARE = 0.5
"""Share of the strength that is told at a step that ends at zero noise (method.md section 5).

Such a step adds the whole effect of its lie to the picture. Any other step adds a part of it.
"""
LONG_STEP = 0.6
"""Length beyond which a step is a group of its own, in e-folds of the noise-to-signal ratio (method.md section 4).

Multistep solvers extrapolate from the step before. If steps are this long, the rest of the run does not compensate
for a dose that was told at another step.
"""
LARGEST_GROUP = int(RANGES["every"][1])
"""Number of steps in the largest group that ``every`` allows. A larger dose is told in several parts."""


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a run: it begins at ``high`` and ends at ``low``."""

    index: int
    high: float
    low: float
    group: int = -1
    """Number of the group of steps that share one dose; -1 if the step is in no group."""
    reason: Reason | None = None
    """Why the lie is never told in the step; None if it may be told."""
    scheduled_dose: float = 0.0
    """What the step adds to the dose of its group, in e-folds."""


OUTSIDE = Step(-1, math.inf, math.inf, reason=Reason.OUTSIDE)
ASCENDING = Step(-1, math.inf, math.inf, reason=Reason.ASCENDING)


class Schedule:
    """The steps of a run, and the dose of the lie that is told at each of them.

    A dose is the size of a lie in e-folds, -ln(1 - strength). A group of steps shares one dose.

    - The dose of a group is told at the first of its steps in which the model is called.
    - If the model is called in no step of a group, its dose is added to that of the next group.
    - A sampler that skips steps uses its latest prediction again, and with it the effect. A dose therefore counts
      once more for each step that is skipped after it.
    - After a skip, the next prediction is expected to be used for as many steps as the one before it. The doses
      due in these steps are summed, and divided by their number.
    - A run begins at the first step that is entered. Doses of earlier groups do not count as missed.

    For each call of the model, call ``enter`` with the step and ``dose`` for the dose to tell. After the dose was told,
    call ``mark_told``.

    Args:
        sigmas: the run's noise levels, descending, one more than there are steps. A step that rises is plain.
        window: noise levels (high, low) between which the lie is told. None takes ``start`` and ``end`` as shares of
            ``sigmas``.
    """

    def __init__(
        self,
        sigmas: Sequence[float],
        settings: Settings,
        family: Family = "ve",
        window: tuple[float, float] | None = None,
    ):
        # Some samplers pad their schedule with a leading zero.
        first_index = next((i for i, sigma in enumerate(sigmas) if sigma > 0), len(sigmas))
        levels = sigmas[first_index:]
        self.steps: list[Step] = []
        self.group_doses: list[float] = []
        """The dose of each group, without doses that other groups missed."""
        self._told_doses: dict[int, tuple[int, float]] = {}
        """For each group whose dose was told: the index of the step, and the dose."""
        self._next_group = 0
        """The first group whose dose was neither told nor passed on."""
        self._missed_dose = 0.0
        """Dose that earlier groups had to tell and did not; negative if they told more than they had to."""
        self._entered_index: int | None = None
        self._latest_dose = 0.0
        """The dose told at the step that was entered last."""
        self._steps_per_prediction = 1
        """The number of steps that the prediction before the latest one was used for."""
        self._largest_dose = LARGEST_GROUP * abs(to_e_folds(settings.strength))
        # A run that ascends adds noise (unsampling).
        ascends = len(levels) > 1 and levels[0] < levels[-1]
        self._outside = ASCENDING if ascends else OUTSIDE
        if len(levels) < 2 or ascends:
            return
        doses = [to_e_folds(settings.strength * share) for share in self._strength_shares(levels, settings, window)]
        groups = _groups(doses, _lengths(levels, family), settings.every)
        self.group_doses = [0.0] * (1 + max(groups))
        for i, ((high, low), dose, group) in enumerate(zip(pairwise(levels), doses, groups, strict=True)):
            reason = Reason.ASCENDING if high < low else Reason.IDLE if not settings.strength else Reason.WINDOW
            self.steps.append(Step(first_index + i, high, low, group, None if dose else reason, dose))
            if dose:
                self.group_doses[group] += dose

    def enter(self, step: Step) -> float:
        """Record that the model is called in ``step``.

        Returns:
            The dose that counts for the steps skipped since the last call.
        """
        if step.index < 0:
            return 0.0
        skipped_dose = 0.0
        if self._entered_index is None:
            self._next_group = min((s.group for s in self.steps if s.index >= step.index and s.group >= 0), default=0)
        elif step.index > self._entered_index:
            advance = step.index - self._entered_index
            skipped_dose = self._latest_dose * (advance - 1)
            self._missed_dose -= skipped_dose
            # No prediction is used for more steps than are left.
            self._steps_per_prediction = min(advance, self.steps[-1].index - step.index + 1)
        if step.index != self._entered_index:
            self._entered_index, self._latest_dose = step.index, 0.0
        return skipped_dose

    def dose(self, step: Step) -> float:
        """The dose to tell at ``step``; 0 if the dose of its group was told at another step."""
        if step.group in self._told_doses:
            index, dose = self._told_doses[step.group]
            return dose if index == step.index else 0.0
        if step.group < self._next_group:
            return 0.0  # The group's dose was passed on, or there is no group.
        due = self._due_dose(step) / self._steps_per_prediction
        return math.copysign(min(abs(due), self._largest_dose), due) if due * step.scheduled_dose > 0 else 0.0

    def mark_told(self, step: Step) -> float:
        """Record that the dose of ``step`` was told.

        Returns:
            The dose after the first call in a step, 0 after further calls.
        """
        dose = self._latest_dose = self.dose(step)
        if step.group in self._told_doses or not dose:
            return 0.0
        self._missed_dose = self._due_dose(step) - dose
        self._told_doses[step.group] = step.index, dose
        self._next_group = self._last_group(step) + 1
        return dose

    def _due_dose(self, step: Step) -> float:
        """Sum of the doses that are due at ``step``.

        These are the dose of its own group, those of earlier groups that were missed, and those of the groups
        that a prediction at ``step`` will be used for.
        """
        group = step.group
        earlier = self.group_doses[self._next_group : group]
        later = self.group_doses[group + 1 : self._last_group(step) + 1]
        return self.group_doses[group] + (self._missed_dose + sum([*earlier, *later]))

    def _last_group(self, step: Step) -> int:
        """The group of the last step that a prediction at ``step`` is expected to be used for."""
        last_index = step.index + self._steps_per_prediction - 1
        return max((s.group for s in self.steps if s.index <= last_index), default=step.group)

    def _strength_shares(
        self, levels: Sequence[float], settings: Settings, window: tuple[float, float] | None
    ) -> list[float]:
        """The share of ``strength`` that each step is told."""
        highest, lowest = window or levels_at(levels, settings.start, settings.end)
        # A repeated level, such as a second zero at the end, makes a step that does nothing.
        return [
            float(lowest <= high * LEVEL_TOLERANCE and high <= highest * LEVEL_TOLERANCE and high > low)
            * (LAST_STEP_SHARE if low == 0 else 1.0)
            for high, low in pairwise(levels)
        ]

    def at(self, sigma: float, tolerance: float = LEVEL_TOLERANCE) -> Step:
        """The step that a call at noise level ``sigma`` belongs to.

        Steps are found by level and never by counting calls: samplers call several times in a step, or between
        two levels.

        Args:
            tolerance: factor by which ``sigma`` may be off.

        Returns:
            The step, or ``OUTSIDE`` (``ASCENDING`` in an ascending run) if the level belongs to none.
        """
        for step in self.steps:
            # Only the first level of a rising step belongs to it.
            low = step.low * tolerance if step.low <= step.high else step.high / tolerance**2
            if low < sigma <= step.high * tolerance:
                return step
        if self.steps:
            # Samplers that add noise of their own may call above the first level.
            if self.steps[0].high < sigma <= self.steps[0].high * CHURN_FACTOR * tolerance:
                return self.steps[0]
            # If a run ends above zero, a sampler may call once more at its lowest level.
            if 0 < self.steps[-1].low / tolerance <= sigma <= self.steps[-1].low * tolerance:
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
    """The length of each step in e-folds of the noise-to-signal ratio; infinite for a step that ends at zero."""
    ratios = [noise_to_signal(level, family) for level in levels]
    return [math.log(high / low) if high > 0 and low > 0 else math.inf for high, low in pairwise(ratios)]


def _groups(doses: Sequence[float], lengths: Sequence[float], every: int) -> list[int]:
    """The number of the group of each step; -1 for a step whose dose is 0.

    A group is up to ``every`` active steps in a row. A step is a group of its own if

    - it is longer than ``LONG_STEP``,
    - the step after it is longer than ``LONG_STEP`` and does not end at zero noise, or
    - it ends at zero noise itself, since no later step compensates for what it misses.
    """
    groups: list[int] = []
    first, number = 0, -1
    for i, dose in enumerate(doses):
        is_alone = lengths[i] > LONG_STEP or (i + 1 < len(lengths) and LONG_STEP < lengths[i + 1] < math.inf)
        joins_group = i > first and i - first < every and not is_alone and lengths[first] <= LONG_STEP and doses[first]
        if dose and not joins_group:
            first, number = i, number + 1
        elif not dose:
            first = i
        groups.append(number if dose else -1)
    return groups
