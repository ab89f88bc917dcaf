"""The questions: each yields a model's rows; every comparison of methods is at equal gain of fine detail inside."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import cache, partial
from importlib import import_module
from itertools import product
from statistics import fmean, stdev
from unittest import mock

import torch
from torch import Tensor

from selective_sigma import Settings
from selective_sigma import mask as response_mask

from .figures import Effect, Made, Row, Value, compare
from .learning import learning
from .methods import EVERYWHERE, METHODS, OURS, THEIRS, ours, plain, published_cfg_pp
from .models import MODELS, mixture8
from .overhead import step_time
from .samplers import SCHEDULES, Method, Run, sample

TARGET = 0.15
"""Every method is turned until it gains this share of fine-detail energy inside."""
FIRST, NEAR, MOST, RUNS = 0.05, 0.06, 0.9, 7
"""Where the search for it begins, how near the gain must come, the most that a strength is turned up, and the runs."""
STRENGTH, STEPS, VE, FLOW = 0.1, 20, "VE Karras", "flow, shift 3"
FOUR = ("euler", "euler_ancestral", "dpmpp_2m", "dpmpp_sde")
COUNTS = (4, 6, 8, 12, 20, 30, 50)
PHOTOS, DRAWN = "photographs", ("photographs", "mixture 8x8", "mixture 4x4")


@cache
def bare(model: str, schedule: str, sampler: str, steps: int) -> Run:
    """The bare sampler's run."""
    return sample(MODELS[model](), plain, 0.0, sampler, schedule, steps)


@dataclass(frozen=True)
class Place:
    """Where methods are compared, for which question; an effect's first fields."""

    question: str
    model: str
    schedule: str = VE
    sampler: str = "euler"
    steps: int = STEPS

    def run(self, method: Method, strength: float = STRENGTH) -> Run:
        return sample(MODELS[self.model](), method, strength, self.sampler, self.schedule, self.steps)

    def effect(self, label: str, method: Method, strength: float = STRENGTH) -> Effect:
        """What a method does at one strength."""
        usual, run = bare(self.model, self.schedule, self.sampler, self.steps), self.run(method, strength)
        return self.compared(run.picture, usual.picture, run.calls / usual.calls, label, strength)

    def compared(self, detailed: Tensor, usual: Tensor, calls: float, label: str, strength: float = STRENGTH) -> Effect:
        """Detailed pictures of the model beside the usual ones of the same seeds, (batch, channels, H, W)."""
        model = MODELS[self.model]()
        size = len(model.seeds) // model.groups
        parts = [slice(i, i + size) for i in range(0, len(model.seeds), size)]
        leaks = [compare(detailed, usual, model, part).leak for part in parts]
        spread = stdev(leaks) if len(leaks) > 1 else 0.0
        whole = asdict(compare(detailed, usual, model))
        return Effect(**whole, **asdict(self), label=label, strength=strength, leak_spread=spread, calls=calls)

    def matched(self, label: str, method: Method, strength: float = FIRST, target: float = TARGET) -> Effect:
        """What a method does at the strength that gains ``target``, or nearest to it."""
        found = [self.effect(label, method, strength)]
        while len(found) < RUNS and abs(found[-1].gain / target - 1) >= NEAR:
            if strength >= MOST and found[-1].gain < target:
                break
            strength = min(MOST, strength * min(3.0, max(0.3, target / max(found[-1].gain, 1e-3))))
            found.append(self.effect(label, method, strength))
        return min(found, key=lambda effect: abs(effect.gain - target))

    def lit(self, label: str, method: Method, after: int = 0) -> Value:
        """Mean of the masks from step ``after`` on."""
        detailer = self.run(method).detailer
        assert detailer is not None
        masks = [record.mask for record in detailer.masks if record.step >= after]
        mean = fmean(float(m.mean()) for m in masks if isinstance(m, Tensor))
        return Value(self.question, self.model, label, mean, self.schedule)


def leak(model: str) -> Iterator[Row]:
    """How much detail comes where it does not belong, at equal detail where it does."""
    for label, method in METHODS.items():
        places = list(product((VE, FLOW), FOUR))
        if model == PHOTOS:  # The network takes its time.
            places = [*places[: len(FOUR)], (FLOW, "euler")] if label in (OURS, THEIRS, EVERYWHERE) else [(VE, "euler")]
        strength = FIRST
        for schedule, sampler in places:
            row = Place("leak", model, schedule, sampler).matched(label, method, strength)
            strength = row.strength if row.gain > 0 else FIRST
            yield row


def mask(model: str) -> Iterator[Row]:
    """What the mask is made from; power, trust and floor of the response mask; at equal gain."""
    default = {name: getattr(response_mask, name) for name in ("POWER", "TRUST", "FLOOR")}
    for schedule in (VE, FLOW):
        place, strength = Place("mask", model, schedule), FIRST
        for changed in (default, {"POWER": 3.0}, {"TRUST": 0.25}, {"TRUST": 1.0}, {"FLOOR": 0.0}, {"FLOOR": 0.03}):
            label = ", ".join(f"{name.lower()} {value:g}" for name, value in changed.items())
            with mock.patch.multiple(response_mask, **changed):  # type: ignore[arg-type]
                row = place.matched(label, METHODS[OURS], strength)
            strength = row.strength
            yield row
        yield place.matched("change", METHODS["ours, published mask"])
        yield place.matched("first", ours(mask_source="first"))


def every(model: str) -> Iterator[Row]:
    """What it does to lie at every n-th step only, with the dose of n, at one strength."""
    samplers = ("euler",) if model == PHOTOS else FOUR
    for schedule, sampler, n in product((VE, FLOW), samplers, (1, 2, 3, 4)):
        yield Place("every", model, schedule, sampler).effect(f"every {n}", ours(every=n))


def steps(model: str) -> Iterator[Row]:
    """Whether one strength does the same at any number of steps."""
    few = model == PHOTOS  # The network takes its time.
    places = product((VE, FLOW), ("euler",), (4, 8, 20, 50)) if few else product(SCHEDULES, FOUR, COUNTS)
    for schedule, sampler, count in places:
        place = Place("steps", model, schedule, sampler, count)
        yield place.effect(OURS, METHODS[OURS])
        if sampler == "euler" and not few:
            yield place.effect(THEIRS, METHODS[THEIRS])


def start(model: str) -> Iterator[Row]:
    """When to begin, at one strength."""
    for schedule, value in product((VE, FLOW), (0.0, 0.2, 0.4, 0.6)):
        yield Place("start", model, schedule).effect(f"start {value:g}", ours(start=value))


def coverage(model: str) -> Iterator[Row]:
    """How far the slider moves the mean of the mask, over all lied steps of a run."""
    for schedule, value in product((VE, FLOW), (0.1, 0.3, 0.5, 0.7, 0.9)):
        yield Place("coverage", model, schedule).lit(f"coverage {value:g}", ours(coverage=value))


def smooth(model: str) -> Iterator[Row]:
    """How much of a picture without any detail is lit after the first third of the run, and its detail at the end."""
    for schedule, label in product((VE, FLOW), (OURS, THEIRS, EVERYWHERE)):
        place = Place("smooth", model, schedule)
        yield place.lit(label, METHODS[label], STEPS // 3)
        yield Value("smooth", model, f"{label}: detail", 1 + place.effect(label, METHODS[label]).gain, schedule)


def cfg_pp(model: str) -> Iterator[Row]:
    """Gain on Euler CFG++ over that on Euler at one strength, by number of steps; guidance 2."""
    for label in (EVERYWHERE, OURS, THEIRS):
        other = published_cfg_pp if label == THEIRS else METHODS[label]
        ratios: list[float] = []
        for count in (8, 12, 20, 50):
            usual = Place("cfg_pp", model, steps=count).effect(label, METHODS[label])
            ratios.append(Place("cfg_pp", model, VE, "euler_cfg_pp", count).effect(label, other).gain / usual.gain)
            yield Value("cfg_pp", label, f"{count} steps", ratios[-1])
        yield Value("cfg_pp", label, "largest / smallest", max(ratios) / min(ratios))


def calls(_: str) -> Iterator[Row]:
    """Model calls over those of the plain sampler, 20 steps, which no model changes."""
    model = mixture8([0], size=16)
    for schedule, sampler, label in product(SCHEDULES, FOUR, (THEIRS, OURS)):
        made, usual = (sample(model, m, STRENGTH, sampler, schedule, STEPS) for m in (METHODS[label], plain))
        yield Value("calls", f"{schedule}, {sampler}", label, made.calls / usual.calls)


def comfyui(model: str) -> Iterator[Row]:
    """Gain, leak and calls of every sampler of ComfyUI itself, at ``every`` 1 and 2."""
    from . import comfyui as host

    for schedule, sampler in product(host.SCHEDULES, host.SAMPLERS):
        draw = partial(host.draw, MODELS[model](), schedule, sampler, STEPS)
        usual, once = draw(None)
        for n in (1, 2):
            detailed, calls = draw(Settings(strength=STRENGTH, every=n))
            yield Place("comfyui", model, schedule, sampler).compared(detailed, usual, calls / once, f"every {n}")


QUESTIONS: dict[str, tuple[Callable[[str], Iterator[Row]], tuple[str, ...]]] = {
    **{ask.__name__: (ask, DRAWN) for ask in (leak, mask, every, start, coverage)},
    "steps": (steps, (PHOTOS, "mixture 4x4")),
    "smooth": (smooth, (PHOTOS, "defocused")),
    "cfg_pp": (cfg_pp, ("mixture 8x8, guided",)),
    "calls": (calls, ("none",)),
    "step_time": (step_time, ("none",)),
    "learning": (learning, ("none",)),
    "comfyui": (comfyui, ("mixture 4x4",)),
}
"""Each question, and the models it is asked about; ``none`` where no pictures answer."""


def answer(asked: tuple[str, str], commit: str) -> list[Row]:
    """A question's rows about a model, behind how they were made."""
    question, model = asked
    began, found = time.perf_counter(), list[Row]()
    for row in QUESTIONS[question][0](model):
        found.append(row)
        print(f"{time.perf_counter() - began:6.0f} s  {row.key}\n", end="", flush=True)
    device = f"{platform.machine()}, torch {torch.__version__}, {torch.get_num_threads()} threads"
    if question == "comfyui":
        device = f"ComfyUI {import_module('comfyui_version').__version__}, {device}"
    return [Made(question, model, commit, device, time.perf_counter() - began), *found]
