"""The questions: each yields rows; every comparison of methods is at equal gain of fine detail inside."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import asdict
from functools import cache
from itertools import product
from statistics import fmean, stdev
from typing import TYPE_CHECKING
from unittest import mock

import torch
from torch import Tensor

from selective_sigma import mask as response_mask

from . import figures, models, overhead
from .methods import CHANGE, DEFAULT, EVERYWHERE, METHODS, PUBLISHED, PUBLISHED_CFG_PP, ours, plain
from .rows import Effect, Row, Value
from .samplers import SCHEDULES, Method, Result, sample

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .models import Model

TARGET = 0.15
"""Every method is turned until it gains this share of fine-detail energy inside."""
NEAR, MOST, RUNS = 0.06, 0.9, 4
"""How near the gain must come, the most that a strength is turned up, and the runs that the search may take."""
STRENGTH, STEPS, VE, FLOW = 0.1, 20, "VE Karras", "flow, shift 3"
FIRST = 0.05
"""Where a search begins."""
MAIN = ("ours", "published 0.1.1", "the same lie everywhere")
FOUR = ("euler", "euler_ancestral", "dpmpp_2m", "dpmpp_sde")
COUNTS = (4, 6, 8, 12, 20, 30, 50)
MIXTURES = ("mixture 8x8", "mixture 4x4")
MODELS = ("photographs", "defocused", *MIXTURES, "mixture 8x8, guided", "none")
CHOSEN = set(MODELS)
"""What is asked about; ``none`` stands for questions that no pictures answer."""


def chosen(*names: str) -> list[str]:
    """Those of the models that are asked about."""
    return [name for name in names if name in CHOSEN]


@cache
def model(name: str) -> Model:
    """A model by name; mixtures of three seed groups of four pictures."""
    seeds = range(12)
    return {
        "mixture 8x8": lambda: models.mixture8(seeds, 3),
        "mixture 4x4": lambda: models.mixture4(seeds, 3),
        "mixture 8x8, guided": lambda: models.mixture8(seeds, 3, guidance=2.0),
        "photographs": models.photographs,
        "defocused": lambda: models.photographs(smooth=True),
    }[name]()


@cache
def plain_picture(name: str, schedule: str, sampler: str, steps: int) -> Tensor:
    """What the bare sampler draws."""
    return sample(model(name), plain, 0.0, sampler, schedule, steps).picture


class Place:
    """A model, a schedule, a sampler and a number of steps, at which methods are compared."""

    def __init__(self, question: str, name: str, schedule: str = VE, sampler: str = "euler", steps: int = STEPS):
        self.question, self.name, self.schedule, self.sampler, self.steps = question, name, schedule, sampler, steps

    def run(self, method: Method, strength: float) -> Result:
        """One run."""
        return sample(model(self.name), method, strength, self.sampler, self.schedule, self.steps)

    def effect(self, label: str, method: Method, strength: float = STRENGTH) -> Effect:
        """What a method does at one strength."""
        bare = plain_picture(self.name, self.schedule, self.sampler, self.steps)
        result, m = self.run(method, strength), model(self.name)
        size = len(bare) // m.groups
        parts = [figures.compare(result.picture, bare, m, slice(i, i + size)) for i in range(0, len(bare), size)]
        usual = 2 * self.steps - 1 if self.sampler == "dpmpp_sde" else self.steps
        return Effect(
            question=self.question,
            model=self.name,
            schedule=self.schedule,
            sampler=self.sampler,
            steps=self.steps,
            label=label,
            strength=strength,
            leak_spread=stdev(f.leak for f in parts) if len(parts) > 1 else 0.0,
            calls=result.calls / usual,
            **asdict(figures.compare(result.picture, bare, m)),
        )

    def matched(self, label: str, method: Method, strength: float = STRENGTH, target: float = TARGET) -> Effect:
        """What a method does at the strength that gains ``target``, or nearest to it."""
        best: Effect | None = None
        for _ in range(RUNS):
            found = self.effect(label, method, strength)
            if best is None or abs(found.gain - target) < abs(best.gain - target):
                best = found
            if abs(found.gain / target - 1) < NEAR or (strength >= MOST and found.gain < target):
                break
            strength = min(MOST, strength * min(3.0, max(0.3, target / max(found.gain, 1e-3))))
        assert best is not None
        return best


def leak() -> Iterator[Row]:
    """How much detail comes where it does not belong, at equal detail where it does."""
    photographs = [(name, VE, sampler) for name in chosen("photographs") for sampler in FOUR]
    photographs += [(name, FLOW, "euler") for name in chosen("photographs")]
    mixtures = list(product(chosen(*MIXTURES), (VE, FLOW), FOUR))
    for label, method in sorted(METHODS.items(), key=lambda item: item[0] not in MAIN):
        strength = FIRST
        # The network takes its time: the others on Euler alone.
        for name, schedule, sampler in [*photographs[: None if label in MAIN else 1], *mixtures]:
            row = Place("leak", name, schedule, sampler).matched(label, method, strength)
            strength = row.strength if row.gain > 0 else FIRST
            yield row


def mask() -> Iterator[Row]:
    """What the mask is made from; power, trust and floor of the response mask; at equal gain."""
    for name in chosen("photographs", *MIXTURES):
        place, strength = Place("mask", name), FIRST
        for changed in ({}, {"POWER": 3.0}, {"TRUST": 0.25}, {"TRUST": 1.0}, {"FLOOR": 0.0}, {"FLOOR": 0.03}):
            label = ", ".join(f"{k.lower()} {v:g}" for k, v in changed.items()) or "power 4, trust 0.5, floor 0.1"
            with mock.patch.multiple(response_mask, **changed) if changed else nullcontext():
                row = place.matched(label, DEFAULT, strength)
            strength = row.strength
            yield row
        yield place.matched("change", CHANGE, FIRST)
        yield place.matched("first", ours(mask_source="first"), FIRST)


def every() -> Iterator[Row]:
    """What it does to lie at every n-th step only, with the dose of n, at one strength."""
    for name in chosen("photographs", *MIXTURES):
        for sampler in ("euler",) if name == "photographs" else FOUR:
            for n in (1, 2, 3, 4):
                yield Place("every", name, sampler=sampler).effect(f"every {n}", ours(every=n))


def steps() -> Iterator[Row]:
    """Whether one strength does the same at any number of steps."""
    places = [(name, schedule, s) for name in chosen("mixture 4x4") for schedule in SCHEDULES for s in FOUR]
    places += [(name, schedule, "euler") for name in chosen("photographs") for schedule in (VE, FLOW)]
    for name, schedule, sampler in places:
        for count in (4, 8, 20, 50) if name == "photographs" else COUNTS:
            yield Place("steps", name, schedule, sampler, count).effect("ours", DEFAULT)
            if name != "photographs" and sampler == "euler":
                yield Place("steps", name, schedule, sampler, count).effect("published 0.1.1", PUBLISHED)


def start() -> Iterator[Row]:
    """When to begin, at one strength."""
    for name, value in product(chosen("photographs", *MIXTURES), (0.0, 0.2, 0.4, 0.6)):
        yield Place("start", name).effect(f"start {value:g}", ours(start=value))


def coverage() -> Iterator[Row]:
    """How far the slider moves the mean of the mask, over all lied steps of a run."""
    for name in chosen("photographs", *MIXTURES):
        for value in (0.1, 0.3, 0.5, 0.7, 0.9) if name == "photographs" else [n / 10 for n in range(1, 10)]:
            yield Value("coverage", name, f"coverage {value:g}", _lit(name, ours(coverage=value, record=True), 0))


def smooth() -> Iterator[Row]:
    """How much of a picture without any detail is lit, after the first third of the run."""
    for name in chosen("defocused", "photographs"):
        for label, method in (
            ("ours", ours(record=True)),
            (
                "published 0.1.1",
                ours(mask_source="change", every=1, lie="fixed_input", start=0.1, end=0.9, record=True),
            ),
        ):
            yield Value("smooth", name, label, _lit(name, method, STEPS // 3))


def _lit(name: str, method: Method, after: int) -> float:
    detailer = Place("", name).run(method, STRENGTH).detailer
    assert detailer is not None
    masks = [record.mask for record in detailer.masks if record.step >= after]
    return fmean(float(m.mean()) for m in masks if isinstance(m, Tensor))


def cfg_pp() -> Iterator[Row]:
    """Gain on Euler CFG++ over that on Euler at one strength, by number of steps; guidance 2."""
    pairs = {"the same lie everywhere": (EVERYWHERE, EVERYWHERE), "ours": (DEFAULT, DEFAULT)}
    pairs["published 0.1.1"] = (PUBLISHED, PUBLISHED_CFG_PP)
    for name, (label, pair) in product(chosen("mixture 8x8, guided"), pairs.items()):
        ratios: dict[int, float] = {}
        for count in (8, 12, 20, 50):
            usual, other = (
                Place("cfg_pp", name, VE, sampler, count).effect(label, method).gain
                for sampler, method in zip(("euler", "euler_cfg_pp"), pair, strict=True)
            )
            ratios[count] = other / usual
            yield Value("cfg_pp", label, f"{count} steps", ratios[count])
        yield Value("cfg_pp", label, "largest / smallest", max(ratios.values()) / min(ratios.values()))


def step_time() -> Iterator[Row]:
    """What a step costs beside the model, in milliseconds and against the published arithmetic."""
    found = {(shape, label): value for shape, label, value in (overhead.measure() if chosen("none") else ())}
    for (shape, label), value in found.items():
        yield Value("step_time", shape, f"{label}, ms", value)
    for shape in dict.fromkeys(shape for shape, _ in found):
        yield Value("step_time", shape, "every 2 / published", found[shape, "every 2"] / found[shape, "published"])


def calls() -> Iterator[Row]:
    """Model calls over those of the plain sampler, 20 steps."""
    small = models.gaussian(torch.full((1, 1, 8, 8), 0.5), [0])
    for schedule, sampler in product(SCHEDULES if chosen("none") else (), FOUR):
        for label in ("published 0.1.1", "ours"):
            made = sample(small, METHODS[label], STRENGTH, sampler, schedule, STEPS)
            usual = 2 * STEPS - 1 if sampler == "dpmpp_sde" else STEPS
            yield Value("calls", f"{schedule}, {sampler}", label, made.calls / usual)


QUESTIONS: dict[str, Callable[[], Iterator[Row]]] = {
    f.__name__: f for f in (leak, mask, every, steps, start, coverage, smooth, cfg_pp, step_time, calls)
}
