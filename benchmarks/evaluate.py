"""The questions. Each yields the rows of a model. Methods are compared at equal gain of fine detail inside."""

import platform
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from importlib import import_module
from itertools import product
from statistics import fmean
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from torch import Tensor, nn

from selective_sigma import mask as response_mask
from selective_sigma.diffusers import enable

from .figures import Effect, Provenance, Row, Value, compare
from .methods import EVERYWHERE, METHODS, OURS, PUBLISHED, bare, ours, published_cfg_pp
from .models import MODELS, WHOLE_PHOTOGRAPHS, mixture8
from .samplers import FLOW, SCHEDULES, VE, Method, MethodRun, sample

TARGET_GAIN = 0.15
"""The strength of every method is chosen so that it gains this share of fine-detail energy inside."""
FIRST_STRENGTH, GAIN_TOLERANCE, MOST_STRENGTH, MOST_RUNS = 0.05, 0.06, 0.9, 7
"""The search for that strength."""
STRENGTH, STEPS = 0.1, 20
MAIN_SAMPLERS = {"euler": "Euler", "euler_ancestral": "Euler ancestral"}
MAIN_SAMPLERS |= {"dpmpp_2m": "DPM++ 2M", "dpmpp_sde": "DPM++ SDE"}
"""The samplers of most questions, and how the tables name them."""
STEP_COUNTS = (4, 6, 8, 12, 20, 30, 50)
PHOTOGRAPHS, GUIDED_PHOTOGRAPHS = "photographs", "photographs, guidance 4"
MAIN_MODELS = (PHOTOGRAPHS, "mixture 8x8", "mixture 4x4")
GUIDED_MIXTURES = ("mixture 8x8, guidance 2", "mixture 8x8, guidance 4")
TRUE_PICTURE = "the photograph"
"""The label of the photographs' own rows."""


@cache
def bare_run(model: str, schedule: str, sampler: str, steps: int) -> MethodRun:
    return sample(MODELS[model](), bare, 0.0, sampler, schedule, steps)


@dataclass(frozen=True)
class Setup:
    """A question, and the model, schedule, sampler and number of steps that it compares methods on."""

    question: str
    model: str
    schedule: str = VE
    sampler: str = "euler"
    steps: int = STEPS

    def run(self, method: Method, strength: float = STRENGTH) -> MethodRun:
        return sample(MODELS[self.model](), method, strength, self.sampler, self.schedule, self.steps)

    def effect(self, label: str, method: Method, strength: float = STRENGTH) -> Effect:
        reference, run = bare_run(self.model, self.schedule, self.sampler, self.steps), self.run(method, strength)
        effect = self.compare(run.picture, reference.picture, run.calls / reference.calls, label, strength)
        inside, outside = (mean_mask(run, region) for region in (run.model.inside, run.model.outside))
        return replace(effect, lit_inside=inside, lit_outside=outside)

    def compare(self, detailed: Tensor, reference: Tensor, calls: float, label: str, strength: float) -> Effect:
        """The effect, from detailed and bare pictures of the same seeds, (batch, channels, H, W)."""
        figures = compare(detailed, reference, MODELS[self.model]())
        return Effect(**figures, **asdict(self), label=label, strength=strength, calls=calls)

    def effect_at(self, gain: float, label: str, method: Method, strength: float = FIRST_STRENGTH) -> Effect:
        """The effect at the strength that has this gain; if none of those tried has, at the one that came nearest."""
        effects = [self.effect(label, method, strength)]
        while len(effects) < MOST_RUNS and abs(effects[-1].gain / gain - 1) >= GAIN_TOLERANCE:
            if strength >= MOST_STRENGTH and effects[-1].gain < gain:
                break
            strength = min(MOST_STRENGTH, strength * min(3.0, max(0.3, gain / max(effects[-1].gain, 1e-3))))
            effects.append(self.effect(label, method, strength))
        return min(effects, key=lambda effect: abs(effect.gain - gain))


def mean_mask(run: MethodRun, region: Tensor | None = None, first_step: int = 0) -> float:
    """Mean of a run's masks from ``first_step`` on, over a region (batch, 1, H, W) or everywhere; 0 without masks."""
    records = run.detailer.masks if run.detailer else []
    masks = [r.mask for r in records if r.step >= first_step and isinstance(r.mask, Tensor)]
    return fmean(float((mask if region is None else mask[region]).mean()) for mask in masks) if masks else 0.0


def leak(model: str) -> Iterator[Row]:
    """How much detail is added outside, at equal detail added inside."""
    for label, method in METHODS.items():
        setups = list(product((VE, FLOW), MAIN_SAMPLERS))
        if model == PHOTOGRAPHS:  # The network is slow.
            is_shown = label in (OURS, PUBLISHED, EVERYWHERE)
            setups = [*setups[: len(MAIN_SAMPLERS)], (FLOW, "euler")] if is_shown else [(VE, "euler")]
        strength = FIRST_STRENGTH
        for schedule, sampler in setups:
            row = Setup("leak", model, schedule, sampler).effect_at(TARGET_GAIN, label, method, strength)
            strength = row.strength if row.gain > 0 else FIRST_STRENGTH
            yield row


def mask(model: str) -> Iterator[Row]:
    """Mask sources, and constants of the response mask, at equal gain."""
    changes = {"POWER": 4.0, "HALF_LIT": 1.0, "HELD_POWER": 0.25, "BLUR_ROUNDS": 3, "FLOOR": 0.0, "MEAN_FLOOR": 0.0}
    defaults = {name: getattr(response_mask, name) for name in changes}
    for schedule in (VE, FLOW):
        setup, strength = Setup("mask", model, schedule), FIRST_STRENGTH
        for constants in (defaults, *({name: value} for name, value in changes.items())):
            label = ", ".join(f"{name.lower()} {value:g}" for name, value in constants.items()).replace("_", " ")
            with mock.patch.multiple(response_mask, **constants):  # type: ignore[arg-type]
                row = setup.effect_at(TARGET_GAIN, label, METHODS[OURS], strength)
            strength = row.strength
            yield row
        yield setup.effect_at(TARGET_GAIN, "change", METHODS["ours, published mask"])
        yield setup.effect_at(TARGET_GAIN, "first", ours(mask_source="first"))


def steps(model: str) -> Iterator[Row]:
    """Whether one strength has the same effect at any number of steps."""
    is_slow = model == PHOTOGRAPHS
    few, all_setups = ((VE, FLOW), ("euler",), (4, 8, 20, 50)), (SCHEDULES, MAIN_SAMPLERS, STEP_COUNTS)
    for schedule, sampler, count in product(*(few if is_slow else all_setups)):
        setup = Setup("steps", model, schedule, sampler, count)
        yield setup.effect(OURS, METHODS[OURS])
        if sampler == "euler" and not is_slow:
            yield setup.effect(PUBLISHED, METHODS[PUBLISHED])


SWEEPS: dict[str, Any] = {"every": (1, 2, 3, 4), "start": (0.0, 0.2, 0.4, 0.6), "coverage": (0.1, 0.3, 0.5, 0.7, 0.9)}
"""Settings, each a question, and their values, which are compared at one strength."""


def sweep(setting: str, model: str) -> Iterator[Row]:
    samplers = MAIN_SAMPLERS if setting == "every" and model != PHOTOGRAPHS else ("euler",)
    for schedule, sampler in product((VE, FLOW), samplers):
        for value in SWEEPS[setting]:
            yield Setup(setting, model, schedule, sampler).effect(f"{setting} {value:g}", ours(**{setting: value}))


def smooth(model: str) -> Iterator[Row]:
    """On pictures without detail: the mean mask after the first third of the run, and the detail at the end."""
    for schedule, label in product((VE, FLOW), (OURS, PUBLISHED, EVERYWHERE)):
        setup = Setup("smooth", model, schedule)
        late_mask = mean_mask(setup.run(METHODS[label]), first_step=STEPS // 3)
        yield Value("smooth", model, label, late_mask, schedule)
        yield Value("smooth", model, f"{label}: detail", 1 + setup.effect(label, METHODS[label]).gain, schedule)


def kinds(model: str) -> Iterator[Row]:
    """The kind of detail in photographs, in bare pictures, and in those of methods at equal gain."""
    setup, run = Setup("kinds", model), bare_run(model, VE, "euler", STEPS)
    assert run.model.photographs is not None
    yield setup.compare(run.model.photographs, run.picture, 1.0, TRUE_PICTURE, 0.0)
    yield setup.compare(run.picture, run.picture, 1.0, "plain", 0.0)
    yield from at_our_gain(setup)


def guidance(model: str) -> Iterator[Row]:
    """The leak under guidance, and what one strength gains there."""
    for schedule in (VE,) if model == GUIDED_PHOTOGRAPHS else (VE, FLOW):
        yield from at_our_gain(Setup("guidance", model, schedule))


def at_our_gain(setup: Setup) -> Iterator[Row]:
    """Our method at ``STRENGTH``, and others at the strengths that gain as much."""
    yield (effect := setup.effect(OURS, METHODS[OURS]))
    yield from (setup.effect_at(effect.gain, label, METHODS[label]) for label in (PUBLISHED, EVERYWHERE))


def cfg_pp(model: str) -> Iterator[Row]:
    """Gain with Euler CFG++ over gain with Euler at one strength, by number of steps."""
    for label, count in product((EVERYWHERE, OURS, PUBLISHED), (8, 12, 20, 50)):
        cfg_pp_method = published_cfg_pp if label == PUBLISHED else METHODS[label]
        euler = Setup("cfg_pp", model, steps=count).effect(label, METHODS[label])
        ratio = Setup("cfg_pp", model, VE, "euler_cfg_pp", count).effect(label, cfg_pp_method).gain / euler.gain
        yield Value("cfg_pp", model, f"{count} steps", ratio, label)


def calls(_: str) -> Iterator[Row]:
    """Calls and rows of the model over those of the bare sampler, with guidance; the same on all models."""
    model = mixture8([0], size=16, guidance=2.0)
    for schedule, sampler in product(SCHEDULES, MAIN_SAMPLERS):
        methods = (bare, METHODS[PUBLISHED], METHODS[OURS])
        reference, published, detailed = (sample(model, m, STRENGTH, sampler, schedule, STEPS) for m in methods)
        value = partial(Value, "calls", f"{schedule}, {sampler}")
        yield value(f"{PUBLISHED}, calls and rows", published.rows / reference.rows)
        yield value(f"{OURS}, calls", detailed.calls / reference.calls)
        yield value(f"{OURS}, rows with guidance", detailed.rows / reference.rows)


TIMED_RUNS = 9
FLUX_STEP = 2 * 12e9 * (4096 + 512) / 500e12
"""Seconds of a step of Flux.1 at 1024x1024 on an H100: two operations a weight and token, at 500 TFLOP/s."""


class InstantModel(nn.Module):
    """A model that answers at once. The answer for each row depends on its text."""

    def forward(self, hidden_states: Tensor, timestep: Tensor, **inputs: Tensor) -> tuple[Tensor]:  # noqa: ARG002
        text_means = inputs["text"].mean((1, 2)).reshape(-1, *[1] * (hidden_states.ndim - 1))
        return (0.3 * hidden_states.roll(1, -2) + 0.1 * text_means,)


@torch.no_grad()
def learning(_: str) -> Iterator[Value]:
    """CPU time on one thread in milliseconds, the least of ``TIMED_RUNS``, and its share of a step of Flux."""
    like_flux = {"text": torch.randn(1, 512, 4096), "pooled": torch.randn(1, 768), "txt_ids": torch.zeros(512, 3)}
    like_flux["img_ids"] = torch.cartesian_prod(torch.zeros(1), torch.arange(64.0), torch.arange(64.0))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    for name, x, inputs in (
        ("1x16x128x128 as tokens, 512 of text", torch.randn(1, 4096, 64), like_flux),
        ("1x16x128x128 twice, 77 of text", torch.randn(1, 16, 128, 128), {"text": torch.randn(2, 77, 4096)}),
    ):
        learns, idles = (min(first_step(x, inputs, s) for _ in range(TIMED_RUNS)) for s in (0.1, 0.0))
        yield Value("learning", name, "ms", 1e3 * (learns - idles))
        yield Value("learning", name, "% of a step of Flux on an H100", 100 * (learns - idles) / FLUX_STEP)
    torch.set_num_threads(threads)


def first_step(x: Tensor, inputs: dict[str, Tensor], strength: float) -> float:
    """Seconds of a run's first step; at strength 0 nothing is learned. Two rows of text are uncond and cond."""
    model, copies, seconds = InstantModel(), len(inputs["text"]), list[float]()
    scheduler: Any = FlowMatchEulerDiscreteScheduler(shift=3.0)
    with enable(SimpleNamespace(transformer=model, scheduler=scheduler), strength=strength).attached():
        scheduler.set_timesteps(28)
        # A run that ends after its first step is reported as one without detail.
        for t in scheduler.timesteps[:2]:
            began = time.process_time()
            answers = model(torch.cat([x] * copies), timestep=t.expand(copies), **inputs)[0].chunk(copies)
            answer = answers[0] if copies == 1 else answers[0] + 4 * (answers[1] - answers[0])
            x = scheduler.step(answer, t, x, return_dict=False)[0]
            seconds.append(time.process_time() - began)
    return seconds[0]


def in_comfyui(question: str, model: str) -> Iterator[Row]:
    """A question of ``comfyui.py``, which imports ComfyUI."""
    yield from getattr(import_module(".comfyui", __package__), question)(model)


QUESTIONS: dict[str, tuple[Callable[[str], Iterator[Row]], tuple[str, ...]]] = {
    **{question.__name__: (question, MAIN_MODELS) for question in (leak, mask)},
    **{setting: (partial(sweep, setting), MAIN_MODELS) for setting in SWEEPS},
    "steps": (steps, (PHOTOGRAPHS, "mixture 4x4")),
    "smooth": (smooth, (PHOTOGRAPHS, "defocused")),
    "kinds": (kinds, (PHOTOGRAPHS, WHOLE_PHOTOGRAPHS)),
    "guidance": (guidance, (GUIDED_PHOTOGRAPHS, "mixture 8x8", *GUIDED_MIXTURES)),
    "cfg_pp": (cfg_pp, GUIDED_MIXTURES),
    "calls": (calls, ("none",)),
    "learning": (learning, ("none",)),
    "overhead": (partial(in_comfyui, "overhead"), ("none",)),
    "comfyui": (partial(in_comfyui, "comfyui"), ("mixture 4x4",)),
}
"""Each question with its models; ``none`` where no pictures are drawn."""
COMFYUI_QUESTIONS = ("comfyui", "overhead")
"""Questions that only ComfyUI's own Python can answer."""


def answer(question: str, model: str, commit: str) -> list[Row]:
    """The rows of a question about a model, after a ``Provenance``."""
    began, rows = time.perf_counter(), list[Row]()
    for row in QUESTIONS[question][0](model):
        rows.append(row)
        print(f"{time.perf_counter() - began:6.0f} s  {row}", flush=True)
    device = f"{platform.machine()}, torch {torch.__version__}, {torch.get_num_threads()} threads"
    if question in COMFYUI_QUESTIONS:
        device = f"ComfyUI {import_module('comfyui_version').__version__}, {device}"
    return [Provenance(question, model, commit, device, time.perf_counter() - began), *rows]
