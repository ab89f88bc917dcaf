"""The questions. Each yields the rows of a model. Methods are compared at equal gain of fine detail inside."""

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

from .figures import Effect, Provenance, Row, Value, compare, kind
from .learning import learning
from .methods import EVERYWHERE, METHODS, OURS, THEIRS, ours, plain, published_cfg_pp
from .models import MODELS, WHOLE, mixture8
from .samplers import SCHEDULES, Method, MethodRun, sample

TARGET = 0.15
"""The strength of every method is chosen so that it gains this share of fine-detail energy inside."""
FIRST, NEAR, MOST, RUNS = 0.05, 0.06, 0.9, 7
"""Search for that strength: first strength, tolerance of the gain, largest strength, largest number of runs."""
STRENGTH, STEPS, VE, FLOW = 0.1, 20, "VE Karras", "flow, shift 3"
FOUR = ("euler", "euler_ancestral", "dpmpp_2m", "dpmpp_sde")
COUNTS = (4, 6, 8, 12, 20, 30, 50)
GUIDED = ("mixture 8x8, guidance 2", "mixture 8x8, guidance 4")
PHOTOGRAPH, PHOTOS, DRAWN = "the photograph", "photographs", ("photographs", "mixture 8x8", "mixture 4x4")


@cache
def bare(model: str, schedule: str, sampler: str, steps: int) -> MethodRun:
    """The bare sampler's run."""
    return sample(MODELS[model](), plain, 0.0, sampler, schedule, steps)


@dataclass(frozen=True)
class Setup:
    """A question, and the model, schedule and sampler to compare methods on; the first fields of an ``Effect``."""

    question: str
    model: str
    schedule: str = VE
    sampler: str = "euler"
    steps: int = STEPS

    def run(self, method: Method, strength: float = STRENGTH) -> MethodRun:
        return sample(MODELS[self.model](), method, strength, self.sampler, self.schedule, self.steps)

    def effect(self, label: str, method: Method, strength: float = STRENGTH) -> Effect:
        """The effect of a method at one strength."""
        usual, run = bare(self.model, self.schedule, self.sampler, self.steps), self.run(method, strength)
        effect = self.compared(run.picture, usual.picture, run.calls / usual.calls, label, strength)
        if run.detailer is None:
            return effect
        inside, outside = (lit(run, where) for where in (run.model.inside, run.model.outside))
        return replace(effect, lit_inside=inside, lit_outside=outside)

    def compared(self, detailed: Tensor, usual: Tensor, calls: float, label: str, strength: float = STRENGTH) -> Effect:
        """The effect, from detailed and plain pictures of the same seeds, (batch, channels, H, W)."""
        model = MODELS[self.model]()
        size = len(model.seeds) // model.groups
        parts = [slice(i, i + size) for i in range(0, len(model.seeds), size)]
        leaks = [compare(detailed, usual, model, part).leak for part in parts]
        spread = stdev(leaks) if len(leaks) > 1 else 0.0
        whole = asdict(compare(detailed, usual, model))
        whole |= {} if model.picture is None else kind(detailed, model.inside)
        return Effect(**whole, **asdict(self), label=label, strength=strength, leak_spread=spread, calls=calls)

    def matched(self, label: str, method: Method, strength: float = FIRST, target: float = TARGET) -> Effect:
        """The effect of a method at the strength whose gain is ``target``, or nearest to it among those tried."""
        effects = [self.effect(label, method, strength)]
        while len(effects) < RUNS and abs(effects[-1].gain / target - 1) >= NEAR:
            if strength >= MOST and effects[-1].gain < target:
                break
            strength = min(MOST, strength * min(3.0, max(0.3, target / max(effects[-1].gain, 1e-3))))
            effects.append(self.effect(label, method, strength))
        return min(effects, key=lambda effect: abs(effect.gain - target))


def lit(run: MethodRun, where: Tensor | None = None, after: int = 0) -> float:
    """Mean of a run's masks from step ``after`` on, over ``where`` (batch, 1, H, W) or everywhere."""
    assert run.detailer is not None
    masks = [r.mask for r in run.detailer.masks if r.step >= after and isinstance(r.mask, Tensor)]
    return fmean(float((mask if where is None else mask[where]).mean()) for mask in masks) if masks else 0.0


def leak(model: str) -> Iterator[Row]:
    """How much detail is added outside, at equal detail added inside."""
    for label, method in METHODS.items():
        places = list(product((VE, FLOW), FOUR))
        if model == PHOTOS:  # The network is slow.
            places = [*places[: len(FOUR)], (FLOW, "euler")] if label in (OURS, THEIRS, EVERYWHERE) else [(VE, "euler")]
        strength = FIRST
        for schedule, sampler in places:
            row = Setup("leak", model, schedule, sampler).matched(label, method, strength)
            strength = row.strength if row.gain > 0 else FIRST
            yield row


def mask(model: str) -> Iterator[Row]:
    """Mask sources, and constants of the response mask, at equal gain."""
    default = {name: getattr(response_mask, name) for name in ("POWER", "HELD_POWER", "FLOOR")}
    for schedule in (VE, FLOW):
        setup, strength = Setup("mask", model, schedule), FIRST
        changes = ({"POWER": 3.0}, {"HELD_POWER": 0.25}, {"HELD_POWER": 1.0}, {"FLOOR": 0.0}, {"FLOOR": 0.03})
        for constants in (default, *changes):
            label = ", ".join(f"{name.lower()} {value:g}" for name, value in constants.items()).replace("_", " ")
            with mock.patch.multiple(response_mask, **constants):  # type: ignore[arg-type]
                row = setup.matched(label, METHODS[OURS], strength)
            strength = row.strength
            yield row
        yield setup.matched("change", METHODS["ours, published mask"])
        yield setup.matched("first", ours(mask_source="first"))


def steps(model: str) -> Iterator[Row]:
    """Whether one strength has the same effect at any number of steps."""
    few = model == PHOTOS  # The network is slow.
    places = product((VE, FLOW), ("euler",), (4, 8, 20, 50)) if few else product(SCHEDULES, FOUR, COUNTS)
    for schedule, sampler, count in places:
        setup = Setup("steps", model, schedule, sampler, count)
        yield setup.effect(OURS, METHODS[OURS])
        if sampler == "euler" and not few:
            yield setup.effect(THEIRS, METHODS[THEIRS])


AT_ONE_STRENGTH: dict[str, dict[str, Method]] = {
    "every": {f"every {n}": ours(every=n) for n in (1, 2, 3, 4)},
    "start": {f"start {share:g}": ours(start=share) for share in (0.0, 0.2, 0.4, 0.6)},
    "coverage": {f"coverage {share:g}": ours(coverage=share) for share in (0.1, 0.3, 0.5, 0.7, 0.9)},
}
"""Methods with the settings that each of these questions compares, by label."""


def at_one_strength(question: str, model: str) -> Iterator[Row]:
    samplers = FOUR if question == "every" and model != PHOTOS else ("euler",)
    for schedule, sampler, (label, method) in product((VE, FLOW), samplers, AT_ONE_STRENGTH[question].items()):
        yield Setup(question, model, schedule, sampler).effect(label, method)


def smooth(model: str) -> Iterator[Row]:
    """On pictures without detail: the mean mask after the first third of the run, and the detail at the end."""
    for schedule, label in product((VE, FLOW), (OURS, THEIRS, EVERYWHERE)):
        setup = Setup("smooth", model, schedule)
        yield Value("smooth", model, label, lit(setup.run(METHODS[label]), after=STEPS // 3), schedule)
        yield Value("smooth", model, f"{label}: detail", 1 + setup.effect(label, METHODS[label]).gain, schedule)


def kinds(model: str) -> Iterator[Row]:
    """The kind of detail of photographs, of plain pictures, and of methods at the gain of ours at one strength."""
    reference, setup, usual = MODELS[model](), Setup("kinds", model), bare(model, VE, "euler", STEPS).picture
    assert reference.picture is not None
    yield setup.compared(reference.picture, usual, 1.0, PHOTOGRAPH, 0.0)
    yield setup.compared(usual, usual, 1.0, "plain", 0.0)
    yield from at_our_gain(setup)


def guidance(model: str) -> Iterator[Row]:
    """The leak under guidance, and what one strength gains there."""
    for schedule in (VE,) if PHOTOS in model else (VE, FLOW):
        yield from at_our_gain(Setup("guidance", model, schedule))


def at_our_gain(setup: Setup) -> Iterator[Row]:
    """Ours at one strength, and others at the gain that it has."""
    yield (effect := setup.effect(OURS, METHODS[OURS]))
    yield from (setup.matched(label, METHODS[label], target=effect.gain) for label in (THEIRS, EVERYWHERE))


def cfg_pp(model: str) -> Iterator[Row]:
    """Gain on Euler CFG++ over that on Euler at one strength, by number of steps."""
    for label, count in product((EVERYWHERE, OURS, THEIRS), (8, 12, 20, 50)):
        other = published_cfg_pp if label == THEIRS else METHODS[label]
        usual = Setup("cfg_pp", model, steps=count).effect(label, METHODS[label])
        ratio = Setup("cfg_pp", model, VE, "euler_cfg_pp", count).effect(label, other).gain / usual.gain
        yield Value("cfg_pp", model, f"{count} steps", ratio, label)


def calls(_: str) -> Iterator[Row]:
    """Calls and rows of the model over those of the plain sampler, 20 steps, with guidance; the same on all models."""
    model = mixture8([0], size=16, guidance=2.0)
    for schedule, sampler in product(SCHEDULES, FOUR):
        usual, theirs, mine = (
            sample(model, m, STRENGTH, sampler, schedule, STEPS) for m in (plain, METHODS[THEIRS], METHODS[OURS])
        )
        counts = {f"{THEIRS}, calls and rows": theirs.rows / usual.rows, f"{OURS}, calls": mine.calls / usual.calls}
        for label, value in {**counts, f"{OURS}, rows with guidance": mine.rows / usual.rows}.items():
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
"""Each question with its models; ``none`` where no pictures are drawn."""
OF_COMFYUI = ("comfyui", "overhead")
"""Questions that only ComfyUI's own Python can answer."""


def answer(task: tuple[str, str], commit: str) -> list[Row]:
    """The rows of a question about a model, after a ``Provenance``."""
    question, model = task
    began, rows = time.perf_counter(), list[Row]()
    for row in QUESTIONS[question][0](model):
        rows.append(row)
        print(f"{time.perf_counter() - began:6.0f} s  {row.key}\n", end="", flush=True)
    device = f"{platform.machine()}, torch {torch.__version__}, {torch.get_num_threads()} threads"
    device = f"ComfyUI {import_module('comfyui_version').__version__}, {device}" if question in OF_COMFYUI else device
    return [Provenance(question, model, commit, device, time.perf_counter() - began), *rows]
