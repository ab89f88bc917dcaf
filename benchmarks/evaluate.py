"""The questions: each yields a model's rows; every comparison of methods is at equal gain of fine detail inside."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from importlib import import_module
from itertools import product
from statistics import fmean, stdev
from unittest import mock

import torch
from torch import Tensor

from selective_sigma import mask as response_mask

from .figures import Effect, Made, Row, Value, compare, kind
from .learning import learning
from .methods import EVERYWHERE, METHODS, OURS, THEIRS, ours, plain, published_cfg_pp
from .models import MODELS, WHOLE, mixture8
from .samplers import SCHEDULES, Method, Run, sample

TARGET = 0.15
"""Every method is turned until it gains this share of fine-detail energy inside."""
FIRST, NEAR, MOST, RUNS = 0.05, 0.06, 0.9, 7
"""Where the search for it begins, how near the gain must come, the most that a strength is turned up, and the runs."""
STRENGTH, STEPS, VE, FLOW = 0.1, 20, "VE Karras", "flow, shift 3"
FOUR = ("euler", "euler_ancestral", "dpmpp_2m", "dpmpp_sde")
COUNTS = (4, 6, 8, 12, 20, 30, 50)
GUIDED = ("mixture 8x8, guidance 2", "mixture 8x8, guidance 4")
PHOTOGRAPH, PHOTOS, DRAWN = "the photograph", "photographs", ("photographs", "mixture 8x8", "mixture 4x4")


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
        found = self.compared(run.picture, usual.picture, run.calls / usual.calls, label, strength)
        if run.detailer is None:
            return found
        inside, outside = (lit(run, where) for where in (run.model.inside, run.model.outside))
        return replace(found, lit_inside=inside, lit_outside=outside)

    def compared(self, detailed: Tensor, usual: Tensor, calls: float, label: str, strength: float = STRENGTH) -> Effect:
        """Detailed pictures of the model beside the usual ones of the same seeds, (batch, channels, H, W)."""
        model = MODELS[self.model]()
        size = len(model.seeds) // model.groups
        parts = [slice(i, i + size) for i in range(0, len(model.seeds), size)]
        leaks = [compare(detailed, usual, model, part).leak for part in parts]
        spread = stdev(leaks) if len(leaks) > 1 else 0.0
        whole = asdict(compare(detailed, usual, model))
        whole |= {} if model.picture is None else kind(detailed, model.inside)
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


def lit(run: Run, where: Tensor | None = None, after: int = 0) -> float:
    """Mean of a run's masks from step ``after`` on, ``where`` (batch, 1, H, W), or everywhere."""
    assert run.detailer is not None
    masks = [r.mask for r in run.detailer.masks if r.step >= after and isinstance(r.mask, Tensor)]
    return fmean(float((mask if where is None else mask[where]).mean()) for mask in masks) if masks else 0.0


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


def steps(model: str) -> Iterator[Row]:
    """Whether one strength does the same at any number of steps."""
    few = model == PHOTOS  # The network takes its time.
    places = product((VE, FLOW), ("euler",), (4, 8, 20, 50)) if few else product(SCHEDULES, FOUR, COUNTS)
    for schedule, sampler, count in places:
        place = Place("steps", model, schedule, sampler, count)
        yield place.effect(OURS, METHODS[OURS])
        if sampler == "euler" and not few:
            yield place.effect(THEIRS, METHODS[THEIRS])


AT_ONE_STRENGTH: dict[str, dict[str, Method]] = {
    "every": {f"every {n}": ours(every=n) for n in (1, 2, 3, 4)},
    "start": {f"start {share:g}": ours(start=share) for share in (0.0, 0.2, 0.4, 0.6)},
    "coverage": {f"coverage {share:g}": ours(coverage=share) for share in (0.1, 0.3, 0.5, 0.7, 0.9)},
}
"""The settings that each of these questions is about, by label."""


def at_one_strength(question: str, model: str) -> Iterator[Row]:
    samplers = FOUR if question == "every" and model != PHOTOS else ("euler",)
    for schedule, sampler, (label, method) in product((VE, FLOW), samplers, AT_ONE_STRENGTH[question].items()):
        yield Place(question, model, schedule, sampler).effect(label, method)


def smooth(model: str) -> Iterator[Row]:
    """How much of a picture without any detail is lit after the first third of the run, and its detail at the end."""
    for schedule, label in product((VE, FLOW), (OURS, THEIRS, EVERYWHERE)):
        place = Place("smooth", model, schedule)
        yield Value("smooth", model, label, lit(place.run(METHODS[label]), after=STEPS // 3), schedule)
        yield Value("smooth", model, f"{label}: detail", 1 + place.effect(label, METHODS[label]).gain, schedule)


def kinds(model: str) -> Iterator[Row]:
    """The kind of detail of photographs, of plain pictures, and of methods at the gain of ours at one strength."""
    known, place, usual = MODELS[model](), Place("kinds", model), bare(model, VE, "euler", STEPS).picture
    assert known.picture is not None
    yield place.compared(known.picture, usual, 1.0, PHOTOGRAPH, 0.0)
    yield place.compared(usual, usual, 1.0, "plain", 0.0)
    yield from at_our_gain(place)


def guidance(model: str) -> Iterator[Row]:
    """The leak under guidance, and what one strength gains there."""
    for schedule in (VE,) if PHOTOS in model else (VE, FLOW):
        yield from at_our_gain(Place("guidance", model, schedule))


def at_our_gain(place: Place) -> Iterator[Row]:
    """Ours at one strength, and others at the gain that it has."""
    yield (own := place.effect(OURS, METHODS[OURS]))
    yield from (place.matched(label, METHODS[label], target=own.gain) for label in (THEIRS, EVERYWHERE))


def cfg_pp(model: str) -> Iterator[Row]:
    """Gain on Euler CFG++ over that on Euler at one strength, by number of steps."""
    for label, count in product((EVERYWHERE, OURS, THEIRS), (8, 12, 20, 50)):
        other = published_cfg_pp if label == THEIRS else METHODS[label]
        usual = Place("cfg_pp", model, steps=count).effect(label, METHODS[label])
        ratio = Place("cfg_pp", model, VE, "euler_cfg_pp", count).effect(label, other).gain / usual.gain
        yield Value("cfg_pp", model, f"{count} steps", ratio, label)


def calls(_: str) -> Iterator[Row]:
    """Calls and rows of the model over those of the plain sampler, 20 steps, with guidance; the same on all models."""
    model = mixture8([0], size=16, guidance=2.0)
    for schedule, sampler in product(SCHEDULES, FOUR):
        usual, theirs, own = (
            sample(model, m, STRENGTH, sampler, schedule, STEPS) for m in (plain, METHODS[THEIRS], METHODS[OURS])
        )
        counts = {f"{THEIRS}, calls and rows": theirs.rows / usual.rows, f"{OURS}, calls": own.calls / usual.calls}
        for label, value in {**counts, f"{OURS}, rows with guidance": own.rows / usual.rows}.items():
            yield Value("calls", f"{schedule}, {sampler}", label, value)


def in_comfyui(question: str, model: str) -> Iterator[Row]:
    """A question of ``comfyui.py``, which imports ComfyUI."""
    yield from getattr(import_module(".comfyui", __package__), question)(model)


QUESTIONS: dict[str, tuple[Callable[[str], Iterator[Row]], tuple[str, ...]]] = {
    **{ask.__name__: (ask, DRAWN) for ask in (leak, mask)},
    **{question: (partial(at_one_strength, question), DRAWN) for question in AT_ONE_STRENGTH},
    "steps": (steps, (PHOTOS, "mixture 4x4")),
    "smooth": (smooth, (PHOTOS, "defocused")),
    "kinds": (kinds, (PHOTOS, WHOLE)),
    "guidance": (guidance, ("photographs, guidance 4", "mixture 8x8", *GUIDED)),
    "cfg_pp": (cfg_pp, GUIDED),
    "calls": (calls, ("none",)),
    "learning": (learning, ("none",)),
    "overhead": (partial(in_comfyui, "overhead"), ("none",)),
    "comfyui": (partial(in_comfyui, "comfyui"), ("mixture 4x4",)),
}
"""Each question, and the models it is asked about; ``none`` where no pictures answer."""
OF_COMFYUI = ("comfyui", "overhead")
"""Questions that only ComfyUI's own Python can answer."""


def answer(asked: tuple[str, str], commit: str) -> list[Row]:
    """A question's rows about a model, behind how they were made."""
    question, model = asked
    began, found = time.perf_counter(), list[Row]()
    for row in QUESTIONS[question][0](model):
        found.append(row)
        print(f"{time.perf_counter() - began:6.0f} s  {row.key}\n", end="", flush=True)
    device = f"{platform.machine()}, torch {torch.__version__}, {torch.get_num_threads()} threads"
    device = f"ComfyUI {import_module('comfyui_version').__version__}, {device}" if question in OF_COMFYUI else device
    return [Made(question, model, commit, device, time.perf_counter() - began), *found]
