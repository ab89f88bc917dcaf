"""Other packs' ways with a sampler: they look again, copy, loop, and keep guidance in forms of their own."""

from __future__ import annotations

import inspect
import logging
from functools import cache, partial
from typing import Any

import comfy.samplers
import pytest
import tiny
import torch
from comfy_extras import nodes_context_windows
from torch import Tensor

from selective_sigma import Settings
from selective_sigma.comfy.run.capture import Capture
from selective_sigma.comfy.run.sampler import wrap

KINDS = {"eps": tiny.EPS, "flow": tiny.FLOW}
both = pytest.mark.parametrize("kind", KINDS)
ZEROS, ONES = Settings(mask_override="zeros", every=1), Settings(mask_override="ones", every=1)
FULL = Settings(coverage=1.0, every=1)
SEEN: list[Any] = []


@cache
def base(kind: str = "eps", axes: int = 2) -> Any:
    return tiny.model(KINDS[kind], axes)


def euler(settings: Settings | None = None, **given: Any) -> Any:
    sampler = tiny.sampler("euler")
    return sampler if settings is None else wrap(sampler, settings, **given)


def guided(guider: Any, sampler: Any, steps: int = 10) -> Tensor:
    guider.set_conds(tiny.prompt(1), tiny.prompt(2))
    noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(7))
    sigmas = tiny.schedule(guider.model_patcher, steps)
    with torch.inference_mode():
        return guider.sample(noise, torch.zeros(1, 4, 8, 8), sampler, sigmas, disable_pbar=True, seed=7)


def identities(run: Any) -> Tensor:
    """The effect of a run, after what must hold of it bit for bit."""
    bare = run(None)
    assert torch.equal(run(ZEROS), bare)
    assert torch.equal(run(ONES), run(FULL))
    return run(Settings()) - bare


class Listed(comfy.samplers.CFGGuider):
    """As ScheduledCFGGuidance does: one cfg a step."""

    def predict_noise(self, x: Tensor, timestep: Tensor, model_options: Any = {}, seed: Any = None) -> Tensor:  # noqa: B006
        conds = (self.conds.get("negative"), self.conds.get("positive"))
        return comfy.samplers.sampling_function(self.inner_model, x, timestep, *conds, self.cfg[0], model_options, seed)


class Copying(comfy.samplers.CFGGuider):
    """Asks about cond and uncond in two requests, the second about a copy of the latent."""

    def predict_noise(self, x: Tensor, timestep: Tensor, model_options: Any = {}, seed: Any = None) -> Tensor:  # noqa: ARG002, B006
        ask = partial(comfy.samplers.calc_cond_batch, self.inner_model)
        cond = ask([self.conds["positive"]], x, timestep, model_options)[0]
        uncond = ask([self.conds["negative"]], x.clone(), timestep, model_options)[0]
        return uncond + 4.0 * (cond - uncond)


@both
def test_a_cfg_for_each_step(kind: str):
    def run(settings: Settings | None) -> Tensor:
        guider = Listed(base(kind))
        guider.set_cfg([3.0] * 10)
        return guided(guider, euler(settings))

    assert float(identities(run).norm()) > 0.1


@both
def test_a_second_request_about_a_copy_gets_the_same_effect(kind: str):
    """Else guidance would multiply it."""

    def plain(settings: Settings | None) -> Tensor:
        guider = comfy.samplers.CFGGuider(base(kind))
        guider.set_cfg(4.0)
        return guided(guider, euler(settings))

    copied = identities(lambda settings: guided(Copying(base(kind)), euler(settings)))
    together = plain(Settings()) - plain(None)
    assert 0.5 < float(copied.norm() / together.norm()) < 1.5


class Again(comfy.samplers.KSAMPLER):
    """As LanPaint does: the model is asked several times in one call of it, and the last answer counts."""

    def sample(self, guider: Any, sigmas: Tensor, extra_args: Any, callback: Any, noise: Tensor, *rest: Any) -> Tensor:
        def twice(x: Tensor, sigma: Tensor, model_options: Any = {}, seed: Any = None) -> Tensor:  # noqa: B006
            first = guider(x, sigma, model_options=model_options, seed=seed)
            return guider(x + 0.01 * (first - x), sigma, model_options=model_options, seed=seed)

        for name in ("inner_model", "model_patcher", "conds", "cfg", "model_options"):
            setattr(twice, name, getattr(guider, name))
        return super().sample(twice, sigmas, extra_args, callback, noise, *rest)


@pytest.mark.compat("Samplers that look several times in one call (LanPaint)", "each look gets detail")
@both
def test_a_sampler_that_looks_twice_in_one_call(kind: str):
    model, sigmas = base(kind), tiny.schedule(base(kind), 10)
    again = Again(tiny.sampler("euler").sampler_function)

    def run(settings: Settings | None) -> Tensor:
        return tiny.sample(model, again if settings is None else wrap(again, settings), sigmas)

    once = tiny.sample(model, euler(Settings()), sigmas) - tiny.sample(model, euler(), sigmas)
    assert 0.5 < float(identities(run).norm() / once.norm()) < 2


def sample_twice(model: Any, x: Tensor, sigmas: Tensor, extra_args: Any = None, **_: Any) -> Tensor:
    """Runs its levels, adds noise again, and runs them once more."""
    for _ in range(2):
        x = x + sigmas[0]
        for i in range(len(sigmas) - 1):
            denoised = model(x, sigmas[i : i + 1], **extra_args)
            x = denoised + (x - denoised) * (sigmas[i + 1] / sigmas[i])
    return x


@both
def test_a_sampler_that_runs_its_levels_twice(kind: str):
    model, capture = base(kind), Capture()
    sampler, sigmas = comfy.samplers.KSAMPLER(sample_twice), tiny.schedule(base(kind), 8)

    def run(settings: Settings | None) -> Tensor:
        one = sampler if settings is None else wrap(sampler, settings, capture=capture)
        return tiny.sample(model, one, sigmas)

    assert float(identities(run).norm()) > 0.1
    steps = [record.step for record in capture.run.masks]
    assert steps[: len(steps) // 2] == steps[len(steps) // 2 :]


@pytest.mark.compat("Context windows", "a clip that fits into one is asked about as a whole")
@both
def test_a_clip_that_needs_no_windows(kind: str):
    node = nodes_context_windows.ContextWindowsManualNode
    named = {"freenoise": False} if "freenoise" in inspect.signature(node.execute).parameters else {}
    windowed = node.execute(base(kind, 3), 4, 2, "looped_uniform", 1, True, "pyramid", 2, **named).result[0]
    sigmas = tiny.schedule(windowed, 8)

    def run(settings: Settings | None) -> Tensor:
        return tiny.sample(windowed, euler(settings), sigmas, shape=(1, 4, 4, 6, 6))

    assert float(identities(run).norm()) > 0.1


@both
def test_a_wrapper_that_copies_conditionings_costs_no_rows(kind: str):
    def rows(settings: Settings, copies: bool) -> int:
        model = base(kind).clone()
        if copies:
            copied = lambda executor, model, conds, *rest: executor(  # noqa: E731
                model, [None if cond is None else [dict(entry) for entry in cond] for cond in conds], *rest
            )
            model.add_wrapper_with_key("calc_cond_batch", "copies", copied)
        model.add_wrapper_with_key("diffusion_model", "count", count)
        SEEN.clear()
        tiny.sample(model, euler(settings), tiny.schedule(model, 10))
        return sum(SEEN)

    assert rows(Settings(), copies=True) == rows(Settings(), copies=False)


def count(executor: Any, x: Tensor, *args: Any, **named: Any) -> Any:
    SEEN.append(len(x))
    return executor(x, *args, **named)


def test_a_positive_conditioning_that_is_not_active_is_named(caplog: pytest.LogCaptureFixture):
    model, sigmas = base(), tiny.schedule(base(), 10)
    early = [[cond, {**more, "start_percent": 0.0, "end_percent": 0.1}] for cond, more in tiny.prompt(1)]
    noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(7))
    with caplog.at_level(logging.INFO), torch.inference_mode():
        comfy.sample.sample_custom(
            model, noise, 2.0, euler(Settings()), sigmas, early, tiny.prompt(2), torch.zeros_like(noise),
            disable_pbar=True, seed=7,
        )  # fmt: skip
    assert "no detail (the positive conditioning is not active at the steps that are due)" in caplog.text
    assert "past ComfyUI" not in caplog.text
