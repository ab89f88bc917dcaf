"""WHEN: how strong the lie is at each step of a run, looked up by sigma."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

from .lie import SMALLEST, noise_to_signal
from .settings import Family, Settings

if TYPE_CHECKING:
    from collections.abc import Sequence

CHURN = math.sqrt(2.0)
"""A sampler's own noise raises sigma_hat by at most this factor (Karras et al. 2022, algorithm 2)."""
LONGEST = 1.5
"""Cap of the compensation for long steps: beyond it, the scales it averages over are not in pictures."""
TAPER = 0.15
"""Published method: share of the run over which the strength fades to zero before ``end``."""


class Step(NamedTuple):
    """One step of a run: it begins at ``high`` and ends at ``low``."""

    index: int
    high: float
    low: float
    strength: float
    """Fraction of the noise-to-signal ratio to remove; 0 where no lie is told."""
    reason: str = ""
    """Why no lie is told: ``window``, or ``every`` where another step carries this one's dose."""


OUTSIDE = Step(-1, math.inf, math.inf, 0.0, "outside")


class Schedule:
    """The steps of a run, each with its dose."""

    def __init__(
        self,
        sigmas: Sequence[float],
        settings: Settings,
        family: Family = "ve",
        window: tuple[float, float] | None = None,
        weights: Sequence[float] | None = None,
    ):
        """Args:
        sigmas: the run's noise levels, descending, one more than there are steps.
        window: noise levels (high, low) between which the lie is told; None for the shares
            ``start`` and ``end`` of ``sigmas`` itself.
        weights: one factor of the strength per step, in place of window and compensation.
        """
        # A resampling chain pads its schedule with a zero; it descends all the same.
        first = next((i for i, sigma in enumerate(sigmas) if sigma > 0), len(sigmas))
        levels = sigmas[first:]
        self.steps: list[Step] = []
        if weights is not None and len(weights) != max(len(sigmas) - 1, 0):
            raise ValueError(f"weights has {len(weights)} values for {len(sigmas)} sigmas: give one per step")
        # An ascending run adds noise (unsampling); there is no detail to add on the way up.
        if len(levels) < 2 or levels[0] < levels[-1]:
            return
        if weights is None and settings.mask_source != "response":
            weights = [0.0] * first + published(len(levels) - 1, settings.start, settings.end)
        e_fold = -math.log(max(1.0 - settings.strength, SMALLEST))
        if weights is None:
            high, low = window or shares(levels, settings.start, settings.end)
            efolds = [
                e_fold * compensation(a, b, family) if low <= a * (1 + 1e-6) and a <= high * (1 + 1e-6) else 0.0
                for a, b in pairwise(levels)
            ]
        else:
            for weight in weights:
                if not math.isfinite(weight):
                    raise ValueError(f"weights holds {weight!r}: give finite numbers")
            efolds = [-math.log(max(1.0 - settings.strength * w, SMALLEST)) for w in weights[first:]]
        doses = _due(efolds, settings.every, ends_clean=levels[-1] == 0)
        for i, ((a, b), efold, dose) in enumerate(zip(pairwise(levels), efolds, doses, strict=True)):
            reason = "" if dose else "every" if efold else "window"
            self.steps.append(Step(first + i, a, b, -math.expm1(-dose), reason))

    def at(self, sigma: float) -> Step:
        """The step that a call at ``sigma`` belongs to; ``OUTSIDE`` for what is in none.

        By value and never by call count: samplers call several times a step, or in between.
        """
        for step in self.steps:
            if step.low < sigma <= step.high:
                return step
        if self.steps:
            # Added noise lifts a step's call above its level; a last look lies on a part run's lowest level.
            if self.steps[0].high < sigma <= self.steps[0].high * CHURN:
                return self.steps[0]
            if sigma == self.steps[-1].low > 0:
                return self.steps[-1]
        return OUTSIDE


def shares(levels: Sequence[float], start: float, end: float) -> tuple[float, float]:
    """The noise levels at the shares ``start`` and ``end`` of a whole schedule, linear between its steps."""

    def at(share: float) -> float:
        place = share * (len(levels) - 1)
        i = min(int(place), len(levels) - 2)
        return levels[i] + (place - i) * (levels[i + 1] - levels[i])

    return at(start), at(end)


def compensation(sigma: float, sigma_next: float, family: Family) -> float:
    """What a step's lie must be multiplied by so that long and short steps add the same detail.

    A step in which the noise-to-signal ratio falls by h e-folds passes on the share 1 - e^-h of the
    lie's effect; followed to the end of the run and averaged over detail of all sizes, that adds
    2 tanh(h / 2) for the h that short steps would add (method.md section 5).
    """
    if sigma_next <= 0:
        return 1.0
    h = math.log(noise_to_signal(sigma, family) / noise_to_signal(sigma_next, family))
    return min(0.5 * h / math.tanh(0.5 * h), LONGEST) if h > 1e-6 else 1.0


def _due(efolds: list[float], every: int, ends_clean: bool) -> list[float]:
    """E-folds of the lie at each step: the first of every group carries those of the group.

    The step that ends at zero noise is a group of its own: what is missed there is never made up.
    """
    doses = [0.0] * len(efolds)
    last = len(efolds) - 1 if ends_clean else len(efolds)
    active = [i for i, efold in enumerate(efolds) if efold and i != last]
    for group in (active[i : i + every] for i in range(0, len(active), every)):
        doses[group[0]] = sum(efolds[i] for i in group)
    if last < len(efolds):
        doses[last] = efolds[last]
    return doses


def published(steps: int, start: float, end: float) -> list[float]:
    """The published method's weights in [0, 1], one per step: by place in the run, flat, then a taper.

    The first and the last step are always clean.
    """
    weights = [0.0] * steps
    last = steps - 1
    first = max(1, round(start * last))
    stop = min(last - 1, round(end * last))
    if stop < first:
        return weights
    fade = min(max(first + 1, round((end - TAPER) * last)), stop)
    for i in range(first, max(fade, first + 1)):
        weights[i] = 1.0
    for i in range(fade, stop + 1):
        if stop > fade:
            weights[i] = 1.0 - (i - fade) / (stop - fade)
    return weights
