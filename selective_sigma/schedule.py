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
"""Share of the lie at the step that ends at zero noise, which adds all of the lie's effect to the picture.

Earlier steps add the part that belongs to their length (method.md section 5).
"""
LONG = 0.6
"""A step that covers more e-folds of noise to signal than this shares its dose with no other step.

Solvers of higher order extrapolate from step to step; over steps as long the rest of the run does not make up
for a dose that was told in another one.
"""
MOST_STEPS = int(RANGES["every"][1])
"""A dose that takes over missed ones is at most that of so many steps, the largest group that ``every`` allows."""


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a run: it begins at ``high`` and ends at ``low``."""

    index: int
    high: float
    low: float
    group: int = -1
    """Number of the group of steps that it shares a dose with; -1 where no lie is ever told."""
    reason: Reason | None = None
    """Why no lie is ever told; None in a step that a dose belongs to."""
    e_folds: float = 0.0
    """What the step adds to the dose of its group."""


OUTSIDE = Step(-1, math.inf, math.inf, reason=Reason.OUTSIDE)
ASCENDING = Step(-1, math.inf, math.inf, reason=Reason.ASCENDING)


class Schedule:
    """The steps of a run, and which of them carries the dose of its group.

    A group's dose is told at the first of its steps that the model is asked in. What a whole group misses is
    added to the next group's dose. A sampler that skips steps goes on with its latest answer, and so with the
    effect in it: a dose counts once more for each step that is skipped after it. Once steps were skipped, the
    dose is shared out over as many steps as were skipped last. The run begins at the first step that is entered;
    groups before it are not missed.

    ``enter`` notes that the model is asked in a step, ``dose`` says what to tell there, ``carry`` notes that it was
    told.
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
        window: noise levels (high, low) between which the lie is told; None for the shares
            ``start`` and ``end`` of ``sigmas`` itself.
        """
        # A resampling chain pads its schedule with a zero; it descends all the same.
        first = next((i for i, sigma in enumerate(sigmas) if sigma > 0), len(sigmas))
        levels = sigmas[first:]
        self.steps: list[Step] = []
        self.doses: list[float] = []
        """E-folds of the lie, by group."""
        self._carriers: dict[int, tuple[int, float]] = {}
        self._next, self._owed = 0, 0.0
        self._entered: int | None = None
        self._latest, self._stride = 0.0, 1
        """The dose in the latest answer, and how many steps the one before it stood for."""
        self._most = MOST_STEPS * abs(e_folds(settings.strength))
        # An ascending run adds noise (unsampling); there is no detail to add on the way up.
        ascends = len(levels) > 1 and levels[0] < levels[-1]
        self._outside = ASCENDING if ascends else OUTSIDE
        if len(levels) < 2 or ascends:
            return
        shares = [e_folds(settings.strength * share) for share in self._shares(levels, settings, window)]
        groups = _groups(shares, _lengths(levels, family), settings.every)
        self.doses = [0.0] * (1 + max(groups))
        for i, ((high, low), share, group) in enumerate(zip(pairwise(levels), shares, groups, strict=True)):
            reason = Reason.ASCENDING if high < low else Reason.IDLE if not settings.strength else Reason.WINDOW
            self.steps.append(Step(first + i, high, low, group, None if share else reason, share))
            if share:
                self.doses[group] += share

    def enter(self, step: Step) -> float:
        """Note that the model is asked in ``step``; returns what the steps skipped before it were told, in e-folds."""
        if step.index < 0:
            return 0.0
        skipped = 0.0
        if self._entered is None:
            self._next = min((s.group for s in self.steps if s.index >= step.index and s.group >= 0), default=0)
        elif step.index > self._entered:
            gap = step.index - self._entered
            skipped = self._latest * (gap - 1)
            self._owed -= skipped
            # No answer stands for more steps than are left.
            self._stride = min(gap, self.steps[-1].index - step.index + 1)
        if step.index != self._entered:
            self._entered, self._latest = step.index, 0.0
        return skipped

    def dose(self, step: Step) -> float:
        """E-folds of the lie to tell at ``step``; 0 where another step carries them."""
        if step.group in self._carriers:
            carrier, dose = self._carriers[step.group]
            return dose if carrier == step.index else 0.0
        if step.group < self._next:
            return 0.0  # Passed on already, or no group at all.
        due = self._due(step) / self._stride
        return math.copysign(min(abs(due), self._most), due) if due * step.e_folds > 0 else 0.0

    def carry(self, step: Step) -> float:
        """Note that the dose of ``step`` was told; returns what is new of it, in e-folds: 0 at a second call."""
        dose = self._latest = self.dose(step)
        if step.group in self._carriers or not dose:
            return 0.0
        self._owed = self._due(step) - dose
        self._carriers[step.group] = step.index, dose
        self._next = self._last_group(step) + 1
        return dose

    def _due(self, step: Step) -> float:
        """The dose of a step's group, and those of the groups that were missed or that this answer will stand for."""
        group = step.group
        others = [*self.doses[self._next : group], *self.doses[group + 1 : self._last_group(step) + 1]]
        return self.doses[group] + (self._owed + sum(others))

    def _last_group(self, step: Step) -> int:
        """The group of the last step that an answer at ``step`` is likely to stand for."""
        ahead = step.index + self._stride - 1
        return max((s.group for s in self.steps if s.index <= ahead), default=step.group)

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
            # A step that rises holds its first level alone.
            low = step.low * slack if step.low <= step.high else step.high / slack**2
            if low < sigma <= step.high * slack:
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


def _groups(shares: Sequence[float], lengths: Sequence[float], every: int) -> list[int]:
    """The group of each step; -1 for a step that no lie is told in.

    A group is up to ``every`` active steps in a row. A step is a group of its own where

    - it is longer than ``LONG``,
    - the step after it is longer than ``LONG``, unless that is the last one and ends at zero noise, or
    - it ends at zero noise itself, as nothing later makes up for what it misses.
    """
    groups: list[int] = []
    first, number = 0, -1
    for i, share in enumerate(shares):
        alone = lengths[i] > LONG or (i + 1 < len(lengths) and LONG < lengths[i + 1] < math.inf)
        joins = i > first and i - first < every and not alone and lengths[first] <= LONG and shares[first]
        if share and not joins:
            first, number = i, number + 1
        elif not share:
            first = i
        groups.append(number if share else -1)
    return groups
