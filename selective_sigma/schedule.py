"""WHEN: how strong the lie is over the run, looked up by sigma."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence

from .settings import Settings

TAPER = 0.15
"""Share of the run over which the strength fades to zero before ``end``."""


def flat(steps: int, start: float = Settings.start, end: float = Settings.end, taper: float = TAPER) -> list[float]:
    """Weights in [0, 1] for each step: flat, then a linear taper, clean at both ends.

    The first and the last step are always zero, so that composition is set, and the last
    noise removed, by the plain model. Not divided by the step count: the sampler's own steps
    already weigh the effect. (method.md section 5)
    """
    weights = [0.0] * steps
    last = steps - 1
    first = max(1, round(start * last))
    stop = min(last - 1, round(end * last))
    if stop < first:
        return weights
    fade = min(max(first + 1, round((end - taper) * last)), stop)
    for i in range(first, max(fade, first + 1)):
        weights[i] = 1.0
    for i in range(fade, stop + 1):
        if stop > fade:
            weights[i] = 1.0 - (i - fade) / (stop - fade)
    return weights


def cosine(
    steps: int,
    start: float = 0.2,
    end: float = 0.8,
    bias: float = 0.5,
    exponent: float = 1.0,
    start_offset: float = 0.0,
    end_offset: float = 0.0,
    fade: float = 0.0,
    smooth: bool = True,
) -> list[float]:
    """Detail Daemon's curve (Jonseed, MIT), for comparison: weights for each step.

    Rises from ``start`` to the peak, which ``bias`` places between ``start`` and ``end``,
    falls again, each side raised to ``exponent``; offsets outside; scaled by ``1 - fade``.
    """
    last = steps - 1
    low, high = round(start * last), round(end * last)
    middle = round(last * (start + bias * (end - start)))
    weights: list[float] = []
    for i in range(steps):
        if i < low or i > high:
            weights.append(start_offset if i < low else end_offset)
            continue
        span = middle - low if i <= middle else high - middle
        u = 1.0 - abs(i - middle) / span if span else 1.0
        rise = (0.5 - 0.5 * math.cos(math.pi * u) if smooth else u) ** exponent
        base = start_offset if i <= middle else end_offset
        weights.append(base + (1.0 - base) * rise)
    return [w * (1.0 - fade) for w in weights]


class Schedule:
    """Weights over a run's noise levels, interpolated between them."""

    def __init__(self, sigmas: Sequence[float], weights: Sequence[float]):
        """Args:
        sigmas: the run's noise levels, descending, one more than there are steps.
        weights: one weight per step.
        """
        if len(weights) != max(len(sigmas) - 1, 0):
            raise ValueError(f"weights has {len(weights)} values for {len(sigmas)} sigmas: give one per step")
        for weight in weights:
            if not math.isfinite(weight):
                raise ValueError(f"weights holds {weight!r}: give finite numbers")
        # An ascending run adds noise (unsampling); there is no detail to add on the way up.
        descends = len(sigmas) > 1 and sigmas[0] > sigmas[-1]
        pairs = sorted(zip(sigmas, weights, strict=False), key=lambda pair: pair[0]) if descends else []
        self._sigmas = [sigma for sigma, _ in pairs]
        self._weights = [weight for _, weight in pairs]
        self.low = sigmas[-1] if descends else math.inf
        self.high = sigmas[0] if descends else -math.inf

    def covers(self, sigma: float) -> bool:
        """Whether ``sigma`` belongs to this run; solvers also probe outside it."""
        return self.low < sigma <= self.high

    def at(self, sigma: float) -> float:
        """The weight at ``sigma``, linear in sigma between two steps, 0 outside the run.

        By value and never by call count: samplers call several times a step, or in between.
        """
        if not self.covers(sigma):
            return 0.0
        right = bisect_left(self._sigmas, sigma)
        if right == 0:
            return self._weights[0]
        if right == len(self._sigmas):
            return self._weights[-1]
        below, above = self._sigmas[right - 1], self._sigmas[right]
        share = (sigma - below) / (above - below)
        return self._weights[right - 1] * (1.0 - share) + self._weights[right] * share
