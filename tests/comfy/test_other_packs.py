"""Samplers, guiders and wrappers of other packs, which call the model in unusual ways."""

from __future__ import annotations

import logging
from functools import partial
from typing import Any

import comfy.samplers
import pytest
import tiny
import torch
from torch import Tensor

from selective_sigma import Settings
from selective_sigma.comfy.run.capture import Capture
from selective_sigma.comfy.run.sampler import wrap

euler = partial(tiny.sampler, "euler")


def run_guider(guider: Any, sampler: Any, steps: int = 10) -> Tensor:
    guider.set_conds(tiny.prompt(1), tiny.prompt(2))
    noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(7))
    sigmas = tiny.schedule(guider.model_patcher, steps)
    with torch.inference_mode():
        return guider.sample(noise, torch.zeros(1, 4, 8, 8), sampler, sigmas, disable_pbar=True, seed=7)


def checked_effect(run: Any) -> Tensor:
    """Checks what must hold bit for bit; returns the effect of a run with detail."""
    bare = run(None)
    assert torch.equal(run(tiny.ZEROS), bare)
    assert torch.equal(run(tiny.ONES), run(tiny.FULL))
    return run(Settings()) - bare


class CfgListGuider(comfy.samplers.CFGGuider):
    """A list with a cfg for each step, as ScheduledCFGGuidance keeps."""

    def predict_noise(self, x: Tensor, timestep: Tensor, model_options: Any = {}, seed: Any = None) -> Tensor:  # noqa: B006
        conds = (self.conds.get("negative"), self.conds.get("positive"))
        return comfy.samplers.sampling_function(self.inner_model, x, timestep, *conds, self.cfg[0], model_options, seed)


class CopyingGuider(comfy.samplers.CFGGuider):
    """Requests cond and uncond one after the other, the second with a copy of the latent."""

    def predict_noise(self, x: Tensor, timestep: Tensor, model_options: Any = {}, seed: Any = None) -> Tensor:  # noqa: ARG002, B006
        ask = partial(comfy.samplers.calc_cond_batch, self.inner_model)
        cond = ask([self.conds["positive"]], x, timestep, model_options)[0]
        uncond = ask([self.conds["negative"]], x.clone(), timestep, model_options)[0]
        return uncond + 4.0 * (cond - uncond)


@tiny.each_kind
def test_a_cfg_for_each_step(kind: str):
    def run(settings: Settings | None) -> Tensor:
        guider = CfgListGuider(tiny.shared_model(kind))
        guider.set_cfg([3.0] * 10)
        return run_guider(guider, euler(settings))

    assert float(checked_effect(run).norm()) > 0.1


@tiny.each_kind
def test_a_second_request_about_a_copy_gets_the_same_effect(kind: str):
    """Without the effect in uncond, guidance would multiply it."""

    def plain(settings: Settings | None) -> Tensor:
        guider = comfy.samplers.CFGGuider(tiny.shared_model(kind))
        guider.set_cfg(4.0)
        return run_guider(guider, euler(settings))

    copied = checked_effect(lambda settings: run_guider(CopyingGuider(tiny.shared_model(kind)), euler(settings)))
    together = plain(Settings()) - plain(None)
    assert 0.5 < float(copied.norm() / together.norm()) < 1.5


class AskingTwice(comfy.samplers.KSAMPLER):
    """Calls the guider twice in one call of the model and returns the second answer, as LanPaint does."""

    def sample(self, guider: Any, sigmas: Tensor, extra_args: Any, callback: Any, noise: Tensor, *rest: Any) -> Tensor:
        def twice(x: Tensor, sigma: Tensor, model_options: Any = {}, seed: Any = None) -> Tensor:  # noqa: B006
            first = guider(x, sigma, model_options=model_options, seed=seed)
            return guider(x + 0.01 * (first - x), sigma, model_options=model_options, seed=seed)

        for name in ("inner_model", "model_patcher", "conds", "cfg", "model_options"):
            setattr(twice, name, getattr(guider, name))
        return super().sample(twice, sigmas, extra_args, callback, noise, *rest)


@pytest.mark.compat("Samplers that look several times in one call (LanPaint)", "each look gets detail")
@tiny.each_kind
def test_a_sampler_that_looks_twice_in_one_call(kind: str):
    model, sigmas = tiny.shared_model(kind), tiny.schedule(tiny.shared_model(kind), 10)
    asking_twice = AskingTwice(tiny.sampler("euler").sampler_function)

    def run(settings: Settings | None) -> Tensor:
        return tiny.sample(model, asking_twice if settings is None else wrap(asking_twice, settings), sigmas)

    once = tiny.sample(model, euler(Settings()), sigmas) - tiny.sample(model, euler(), sigmas)
    assert 0.5 < float(checked_effect(run).norm() / once.norm()) < 2


def sample_twice(model: Any, x: Tensor, sigmas: Tensor, extra_args: Any = None, **_: Any) -> Tensor:
    """Runs through its noise levels twice, with noise added in between."""
    for _ in range(2):
        x = x + sigmas[0]
        for i in range(len(sigmas) - 1):
            denoised = model(x, sigmas[i : i + 1], **extra_args)
            x = denoised + (x - denoised) * (sigmas[i + 1] / sigmas[i])
    return x


@tiny.each_kind
def test_a_sampler_that_runs_its_levels_twice(kind: str):
    model, capture = tiny.shared_model(kind), Capture()
    sampler, sigmas = comfy.samplers.KSAMPLER(sample_twice), tiny.schedule(tiny.shared_model(kind), 8)

    def run(settings: Settings | None) -> Tensor:
        one = sampler if settings is None else wrap(sampler, settings, capture=capture)
        return tiny.sample(model, one, sigmas)

    assert float(checked_effect(run).norm()) > 0.1
    steps = [record.step for record in capture.run.masks]
    assert steps[: len(steps) // 2] == steps[len(steps) // 2 :]


@pytest.mark.compat("Context windows", "a clip that fits into one is asked about as a whole")
@tiny.each_kind
def test_a_clip_that_needs_no_windows(kind: str):
    windowed = tiny.windowed(tiny.shared_model(kind, 3), 4, 2, "looped_uniform", 1, True, "pyramid", 2)
    sigmas = tiny.schedule(windowed, 8)

    def run(settings: Settings | None) -> Tensor:
        return tiny.sample(windowed, euler(settings), sigmas, shape=(1, 4, 4, 6, 6))

    assert float(checked_effect(run).norm()) > 0.1


@tiny.each_kind
def test_a_wrapper_that_copies_conditionings_costs_no_rows(kind: str):
    def rows(settings: Settings, copies: bool) -> int:
        model = tiny.shared_model(kind).clone()
        if copies:
            copied = lambda executor, model, conds, *rest: executor(  # noqa: E731
                model, [None if cond is None else [dict(entry) for entry in cond] for cond in conds], *rest
            )
            model.add_wrapper_with_key("calc_cond_batch", "copies", copied)
        model = tiny.counting_rows(model)
        tiny.ROWS.clear()
        tiny.sample(model, euler(settings))
        return sum(tiny.ROWS)

    assert rows(Settings(), copies=True) == rows(Settings(), copies=False)


def test_a_positive_conditioning_that_is_not_active_is_named(caplog: pytest.LogCaptureFixture):
    model, sigmas = tiny.shared_model(), tiny.schedule(tiny.shared_model(), 10)
    early = [[cond, {**more, "start_percent": 0.0, "end_percent": 0.1}] for cond, more in tiny.prompt(1)]
    noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(7))
    with caplog.at_level(logging.INFO), torch.inference_mode():
        comfy.sample.sample_custom(
            model, noise, 2.0, euler(Settings()), sigmas, early, tiny.prompt(2), torch.zeros_like(noise),
            disable_pbar=True, seed=7,
        )  # fmt: skip
    assert "no detail (the positive conditioning is not active at the steps that are due)" in caplog.text
    assert "past ComfyUI" not in caplog.text
