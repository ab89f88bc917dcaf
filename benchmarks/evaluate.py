"""The questions: each yields a model's rows; every comparison of methods is at equal gain of fine detail inside."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import cache
from itertools import product
from statistics import fmean, stdev
from unittest import mock

from torch import Tensor

from selective_sigma import mask as response_mask

from . import figures, models, overhead
from .methods import CHANGE, DEFAULT, EVERYWHERE, METHODS, PUBLISHED, PUBLISHED_CFG_PP, ours, plain
from .rows import Effect, Row, Value
from .samplers import SCHEDULES, Method, Result, sample

TARGET = 0.15
"""Every method is turned until it gains this share of fine-detail energy inside."""
NEAR, MOST, RUNS = 0.06, 0.9, 7
"""How near the gain must come, the most that a strength is turned up, and the runs that the search may take."""
STRENGTH, STEPS, VE, FLOW = 0.1, 20, "VE Karras", "flow, shift 3"
FIRST = 0.05
"""Where a search begins."""
MAIN = ("ours", "published 0.1.1", "the same lie everywhere")
FOUR = ("euler", "euler_ancestral", "dpmpp_2m", "dpmpp_sde")
COUNTS = (4, 6, 8, 12, 20, 30, 50)
PHOTOS, MIXTURES, GUIDED = "photographs", ("mixture 8x8", "mixture 4x4"), "mixture 8x8, guided"


@cache
def model(name: str) -> models.Model:
    """A model by name; mixtures of three seed groups of four pictures."""
    seeds = range(12)
    return {
        "mixture 8x8": lambda: models.mixture8(seeds, 3),
        "mixture 4x4": lambda: models.mixture4(seeds, 3),
        GUIDED: lambda: models.mixture8(seeds, 3, guidance=2.0),
        PHOTOS: models.photographs,
        "defocused": lambda: models.photographs(smooth=True),
    }[name]()


@cache
def bare(name: str, schedule: str, sampler: str, steps: int) -> Result:
    """The bare sampler's run."""
    return sample(model(name), plain, 0.0, sampler, schedule, steps)


@dataclass(frozen=True)
class Place:
    """Where methods are compared, for which question; an effect's first fields."""

    question: str
    model: str
    schedule: str = VE
    sampler: str = "euler"
    steps: int = STEPS

    def run(self, method: Method, strength: float = STRENGTH) -> Result:
        return sample(model(self.model), method, strength, self.sampler, self.schedule, self.steps)

    def effect(self, label: str, method: Method, strength: float = STRENGTH) -> Effect:
        """What a method does at one strength."""
        usual, m = bare(self.model, self.schedule, self.sampler, self.steps), model(self.model)
        result, size = self.run(method, strength), len(m.seeds) // m.groups
        parts = [slice(i, i + size) for i in range(0, len(m.seeds), size)]
        leaks = [figures.compare(result.picture, usual.picture, m, part).leak for part in parts]
        return Effect(
            **asdict(figures.compare(result.picture, usual.picture, m)),
            **asdict(self),
            label=label,
            strength=strength,
            leak_spread=stdev(leaks) if len(leaks) > 1 else 0.0,
            calls=result.calls / usual.calls,
        )

    def matched(self, label: str, method: Method, strength: float = FIRST, target: float = TARGET) -> Effect:
        """What a method does at the strength that gains ``target``, or nearest to it."""
        found = [self.effect(label, method, strength)]
        while len(found) < RUNS and abs(found[-1].gain / target - 1) >= NEAR:
            if strength >= MOST and found[-1].gain < target:
                break
            strength = min(MOST, strength * min(3.0, max(0.3, target / max(found[-1].gain, 1e-3))))
            found.append(self.effect(label, method, strength))
        return min(found, key=lambda effect: abs(effect.gain - target))

    def lit(self, method: Method, after: int = 0) -> float:
        """Mean of the masks from step ``after`` on."""
        detailer = self.run(method).detailer
        assert detailer is not None
        masks = [record.mask for record in detailer.masks if record.step >= after]
        return fmean(float(m.mean()) for m in masks if isinstance(m, Tensor))


def leak(name: str) -> Iterator[Row]:
    """How much detail comes where it does not belong, at equal detail where it does."""
    places = list(product((VE, FLOW), FOUR))
    for label, method in sorted(METHODS.items(), key=lambda item: item[0] not in MAIN):
        if name == PHOTOS:
            # The network takes its time.
            places = [*product((VE,), FOUR), (FLOW, "euler")] if label in MAIN else [(VE, "euler")]
        strength = FIRST
        for schedule, sampler in places:
            row = Place("leak", name, schedule, sampler).matched(label, method, strength)
            strength = row.strength if row.gain > 0 else FIRST
            yield row


def mask(name: str) -> Iterator[Row]:
    """What the mask is made from; power, trust and floor of the response mask; at equal gain."""
    place, strength = Place("mask", name), FIRST
    default = {"POWER": response_mask.POWER, "TRUST": response_mask.TRUST, "FLOOR": response_mask.FLOOR}
    for changed in ({}, {"POWER": 3.0}, {"TRUST": 0.25}, {"TRUST": 1.0}, {"FLOOR": 0.0}, {"FLOOR": 0.03}):
        label = ", ".join(f"{k.lower()} {v:g}" for k, v in (changed or default).items())
        now = {**default, **changed}
        with mock.patch.multiple(response_mask, POWER=now["POWER"], TRUST=now["TRUST"], FLOOR=now["FLOOR"]):
            row = place.matched(label, DEFAULT, strength)
        strength = row.strength
        yield row
    yield place.matched("change", CHANGE)
    yield place.matched("first", ours(mask_source="first"))


def every(name: str) -> Iterator[Row]:
    """What it does to lie at every n-th step only, with the dose of n, at one strength."""
    for sampler, n in product(("euler",) if name == PHOTOS else FOUR, (1, 2, 3, 4)):
        yield Place("every", name, sampler=sampler).effect(f"every {n}", ours(every=n))


def steps(name: str) -> Iterator[Row]:
    """Whether one strength does the same at any number of steps."""
    # The network takes its time.
    few = name == PHOTOS
    places = product((VE, FLOW), ("euler",), (4, 8, 20, 50)) if few else product(SCHEDULES, FOUR, COUNTS)
    for schedule, sampler, count in places:
        place = Place("steps", name, schedule, sampler, count)
        yield place.effect("ours", DEFAULT)
        if sampler == "euler" and not few:
            yield place.effect("published 0.1.1", PUBLISHED)


def start(name: str) -> Iterator[Row]:
    """When to begin, at one strength."""
    for value in (0.0, 0.2, 0.4, 0.6):
        yield Place("start", name).effect(f"start {value:g}", ours(start=value))


def coverage(name: str) -> Iterator[Row]:
    """How far the slider moves the mean of the mask, over all lied steps of a run."""
    for value in (0.1, 0.3, 0.5, 0.7, 0.9) if name == PHOTOS else [n / 10 for n in range(1, 10)]:
        yield Value("coverage", name, f"coverage {value:g}", Place("", name).lit(ours(coverage=value)))


def smooth(name: str) -> Iterator[Row]:
    """How much of a picture without any detail is lit, after the first third of the run."""
    for label in ("ours", "published 0.1.1"):
        yield Value("smooth", name, label, Place("", name).lit(METHODS[label], STEPS // 3))


def cfg_pp(name: str) -> Iterator[Row]:
    """Gain on Euler CFG++ over that on Euler at one strength, by number of steps; guidance 2."""
    pairs = {"the same lie everywhere": (EVERYWHERE, EVERYWHERE), "ours": (DEFAULT, DEFAULT)}
    pairs["published 0.1.1"] = (PUBLISHED, PUBLISHED_CFG_PP)
    for label, pair in pairs.items():
        ratios: list[float] = []
        for count in (8, 12, 20, 50):
            usual, other = (
                Place("cfg_pp", name, VE, sampler, count).effect(label, method).gain
                for sampler, method in zip(("euler", "euler_cfg_pp"), pair, strict=True)
            )
            ratios.append(other / usual)
            yield Value("cfg_pp", label, f"{count} steps", ratios[-1])
        yield Value("cfg_pp", label, "largest / smallest", max(ratios) / min(ratios))


def step_time(_: str) -> Iterator[Row]:
    """What a step costs beside the model, in milliseconds and against the published arithmetic."""
    for shape in overhead.SHAPES:
        name, found = "x".join(map(str, shape)), overhead.measure(shape)
        for label, value in found.items():
            yield Value("step_time", name, f"{label}, ms", value)
        yield Value("step_time", name, "every 2 / published", found["every 2"] / found["published"])


def calls(_: str) -> Iterator[Row]:
    """Model calls over those of the plain sampler, 20 steps, which no model changes."""
    for schedule, sampler, label in product(SCHEDULES, FOUR, ("published 0.1.1", "ours")):
        made, usual = (
            sample(models.mixture8([0], size=16), method, STRENGTH, sampler, schedule, STEPS)
            for method in (METHODS[label], plain)
        )
        yield Value("calls", f"{schedule}, {sampler}", label, made.calls / usual.calls)


Question = Callable[[str], Iterator[Row]]
QUESTIONS: dict[str, tuple[Question, tuple[str, ...]]] = {
    "leak": (leak, (PHOTOS, *MIXTURES)),
    "mask": (mask, (PHOTOS, *MIXTURES)),
    "every": (every, (PHOTOS, *MIXTURES)),
    "steps": (steps, (PHOTOS, "mixture 4x4")),
    "start": (start, (PHOTOS, *MIXTURES)),
    "coverage": (coverage, (PHOTOS, *MIXTURES)),
    "smooth": (smooth, (PHOTOS, "defocused")),
    "cfg_pp": (cfg_pp, (GUIDED,)),
    "step_time": (step_time, ("none",)),
    "calls": (calls, ("none",)),
}
"""Each question, and the models it is asked about; ``none`` where no pictures answer."""
MODELS = tuple(dict.fromkeys(name for _, names in QUESTIONS.values() for name in names))
