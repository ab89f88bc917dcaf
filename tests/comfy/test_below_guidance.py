"""Below guidance: how often ControlNets and the network are called, and doses where calls are skipped."""

from __future__ import annotations

from functools import partial
from typing import Any

import comfy.controlnet
import comfy.model_base
import comfy.samplers
import pytest
import tiny
import torch
from comfy_extras import (
    nodes_custom_sampler,
    nodes_easycache,
    nodes_pag,
    nodes_perpneg,
    nodes_sag,
)
from torch import Tensor

from selective_sigma import Settings
from selective_sigma.comfy.run.capture import Capture
from selective_sigma.comfy.run.model_patch import patch


def run(model: Any, settings: Settings | None = None, steps: int = 10, **options: Any) -> Tensor:
    return tiny.sample(model, tiny.sampler("euler", settings), tiny.schedule(model, steps), **options)


class CountingControlNet(comfy.controlnet.ControlBase):
    """Counts its calls. Its answer depends on latent, noise level and conditioning."""

    calls = 0

    def get_control(self, x: Tensor, t: Tensor, cond: Any, batched: int, options: Any) -> Any:
        del batched, options
        CountingControlNet.calls += 1
        answer = x + t.reshape(-1, 1, 1, 1) + cond["c_crossattn"].mean((1, 2)).reshape(-1, 1, 1, 1)
        return {"output": [answer], "middle": [], "input": []}

    def copy(self) -> CountingControlNet:
        copied = CountingControlNet()
        self.copy_to(copied)
        return copied


def with_control(model: Any) -> Any:
    """A network that adds the ControlNet's answer, and pops it from the list as real networks do."""
    model = model.clone()

    def controlled(
        executor: Any, x: Tensor, t: Tensor, context: Any, control: Any, options: Any, **more: Any
    ) -> Tensor:
        added = 0 if control is None else control["output"].pop()
        return executor(x, t, context, control, options, **more) + 1e-3 * added

    model.add_wrapper_with_key("diffusion_model", "control", controlled)
    return model


@pytest.mark.compat("ControlNets", "asked as often as in the bare run")
@tiny.each_kind
@pytest.mark.parametrize("everywhere", [True, False], ids=["both", "positive"])
def test_a_controlnet_is_asked_once_a_step_and_answers_both_passes(kind: str, everywhere: bool):
    control = CountingControlNet().set_cond_hint(torch.zeros(1, 3, 64, 64), 1.0, (0.0, 1.0))
    model, more = with_control(tiny.shared_model(kind)), {"control": control, "control_apply_to_uncond": everywhere}

    def counted(settings: Settings | None) -> tuple[Tensor, int]:
        CountingControlNet.calls = 0
        return run(model, settings, more=more), CountingControlNet.calls

    bare, once = counted(None)
    assert not torch.equal(bare, run(model))
    ours, asked = counted(Settings())
    assert asked == once >= 10
    assert not torch.equal(ours, bare)
    zeros, asked = counted(tiny.ZEROS)
    assert torch.equal(zeros, bare)
    assert asked == once
    assert torch.equal(counted(tiny.ONES)[0], counted(tiny.FULL)[0])
    # Both passes get the same answers for the same rows.
    without = tiny.effect(run(tiny.shared_model(kind), Settings()), run(tiny.shared_model(kind)))
    assert tiny.effect(ours, bare) == pytest.approx(without, rel=0.1)


@pytest.mark.parametrize(
    ("kind", "scheduler", "most"), [("eps", "karras", 1.2), ("eps", "normal", 1.25), ("flow", "simple", 1.25)]
)
def test_the_lie_costs_the_rows_of_the_positive_conditioning_alone(kind: str, scheduler: str, most: float):
    model = tiny.counting_rows(tiny.shared_model(kind))
    sigmas = tiny.schedule(model, 20, scheduler)
    tiny.ROWS.clear()
    tiny.sample(model, tiny.sampler("euler", Settings()), sigmas)
    assert 1.1 < sum(tiny.ROWS) / 40 <= most


@pytest.mark.parametrize("patch", ["PAG", "SAG"])
def test_further_requests_of_guidance_get_the_effect_without_another_lie(patch: str):
    """PAG makes a further request for the same latent, SAG for another one."""
    node, values = {
        "PAG": (nodes_pag.PerturbedAttentionGuidance, (3.0,)),
        "SAG": (nodes_sag.SelfAttentionGuidance, (0.5, 2.0)),
    }[patch]
    model, capture = tiny.counting_rows(node.execute(tiny.unet(), *values).result[0]), Capture()
    sample = partial(tiny.sample, model, sigmas=tiny.schedule(model, 10), shape=(1, 4, 16, 16))
    tiny.ROWS.clear()
    bare = sample(tiny.sampler())
    once = sum(tiny.ROWS)
    tiny.ROWS.clear()
    ours = sample(tiny.sampler("euler", Settings(), capture=capture))
    assert once == 30
    assert sum(tiny.ROWS) == once + capture.run.report.lied
    assert not torch.equal(ours, bare)
    assert torch.equal(sample(tiny.sampler("euler", tiny.ZEROS)), bare)
    assert torch.equal(sample(tiny.sampler("euler", tiny.ONES)), sample(tiny.sampler("euler", tiny.FULL)))


def sample_guider(kind: str, node: str, settings: Settings | None, on_model: bool = False) -> Tensor:
    """A run of one of ComfyUI's guiders, with one or three conditionings."""
    model, conds = tiny.shared_model(kind), [tiny.prompt(seed) for seed in (1, 2, 3)]
    model = patch(model, settings) if on_model and settings else model
    guider = {
        "dual": lambda: tiny.node(nodes_custom_sampler.DualCFGGuider, model, *conds, 3.0, 2.0, "regular"),
        "nested": lambda: tiny.node(nodes_custom_sampler.DualCFGGuider, model, *conds, 3.0, 2.0, "nested"),
        "perp": lambda: tiny.node(nodes_perpneg.PerpNegGuider, model, *conds, 3.0, 1.0),
        "basic": lambda: tiny.node(nodes_custom_sampler.BasicGuider, model, conds[0]),
    }[node]()
    noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(7))
    one = tiny.sampler("euler", None if on_model else settings)
    with torch.inference_mode():
        return guider.sample(noise, torch.zeros(1, 4, 8, 8), one, tiny.schedule(model, 10), disable_pbar=True, seed=7)


@pytest.mark.compat("Dual CFG, PerpNeg, Basic guider", "zeros and ones hold; one effect on all parts")
@tiny.each_kind
@pytest.mark.parametrize("node", ["dual", "nested", "perp", "basic"])
def test_guiders_with_other_numbers_of_conditionings(kind: str, node: str):
    if (node, kind) == ("perp", "flow"):
        pytest.skip("the bare guider gives NaN at the highest level of this network")
    bare, ours = sample_guider(kind, node, None), sample_guider(kind, node, Settings())
    assert torch.equal(sample_guider(kind, node, tiny.ZEROS), bare)
    assert torch.equal(sample_guider(kind, node, tiny.ONES), sample_guider(kind, node, tiny.FULL))
    assert torch.equal(sample_guider(kind, node, Settings(), on_model=True), ours)
    # Guidance does not multiply the effect.
    plain = tiny.effect(sample_guider(kind, "basic", Settings()), sample_guider(kind, "basic", None))
    assert 0.6 < tiny.effect(ours, bare) / plain < 1.6


class Momentum(comfy.samplers.CFGGuider):
    """Adds a running average of the guidance of all calls, as MomentumGuidance does."""

    def __init__(self, model: Any):
        super().__init__(model)
        self.average: Any = 0.0

    def predict_noise(self, x: Tensor, timestep: Tensor, model_options: Any = {}, seed: Any = None) -> Tensor:  # noqa: ARG002, B006
        conds = [self.conds["negative"], self.conds["positive"]]
        uncond = comfy.samplers.calc_cond_batch(self.inner_model, conds[:1], x, timestep, model_options)[0]
        cond = comfy.samplers.calc_cond_batch(self.inner_model, conds[1:], x, timestep, model_options)[0]
        self.average = 0.5 * self.average + (cond - uncond)
        return cond + self.average


@tiny.each_kind
def test_guidance_with_memory_that_requests_uncond_first(kind: str):
    """The first request lacks the positive conditioning, which is added to it."""

    def sample(settings: Settings | None) -> Tensor:
        guider = Momentum(tiny.shared_model(kind))
        guider.set_conds(tiny.prompt(1), tiny.prompt(2))
        noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(7))
        sigmas = tiny.schedule(tiny.shared_model(kind), 10)
        with torch.inference_mode():
            return guider.sample(
                noise, torch.zeros(1, 4, 8, 8), tiny.sampler("euler", settings), sigmas, disable_pbar=True, seed=7
            )  # fmt: skip

    bare, ours = sample(None), sample(Settings())
    assert torch.equal(sample(tiny.ZEROS), bare)
    assert torch.equal(sample(tiny.ONES), sample(tiny.FULL))
    plain = tiny.effect(sample_guider(kind, "basic", Settings()), sample_guider(kind, "basic", None))
    assert 0.5 < tiny.effect(ours, bare) / plain < 2


def doses(model: Any, sampler: Any, capture: Capture, sigmas: Tensor) -> float:
    tiny.sample(model, sampler, sigmas)
    return capture.run.report.e_folds


@pytest.mark.compat("EasyCache, LazyCache", "the doses of a run are about those without a cache; zeros and ones hold")
@tiny.each_kind
@pytest.mark.parametrize("node", ["EasyCacheNode", "LazyCacheNode"])
@pytest.mark.parametrize("steps", [20, 30])
def test_doses_beside_caches_are_those_without(kind: str, node: str, steps: int):
    """EasyCache answers in place of the network, without effect. LazyCache repeats an answer with its effect."""
    model = tiny.shared_model(kind)
    cached = getattr(nodes_easycache, node).execute(model, 0.2, 0.15, 0.95, False).result[0]
    sigmas, whole, skipped = tiny.schedule(model, steps), Capture(), Capture()
    expected = doses(model, tiny.sampler("euler", Settings(), capture=whole), whole, sigmas)
    near = 1e-6 if node == "EasyCacheNode" else 0.3
    assert doses(cached, tiny.sampler("euler", Settings(), capture=skipped), skipped, sigmas) == pytest.approx(
        expected, rel=near
    )
    bare = run(cached, None, steps)
    assert torch.equal(run(cached, tiny.ZEROS, steps), bare)
    assert torch.equal(run(cached, tiny.ONES, steps), run(cached, tiny.FULL, steps))


class SkippingGuider(comfy.samplers.CFGGuider):
    """Calls the model at every ``stride``-th step and repeats its answer in between."""

    def __init__(self, model: Any, stride: int):
        super().__init__(model)
        self.step, self.stride = -1, stride

    def predict_noise(self, x: Tensor, timestep: Tensor, model_options: Any = {}, seed: Any = None) -> Tensor:  # noqa: B006
        self.step += 1
        if self.step % self.stride == 0:
            self.kept = super().predict_noise(x, timestep, model_options, seed)
        return self.kept


@tiny.each_kind
@pytest.mark.parametrize("every", [1, 2])
@pytest.mark.parametrize("stride", [2, 3])
def test_a_guider_that_repeats_answers_neither_loses_nor_doubles_the_effect(kind: str, every: int, stride: int):
    """A repeated answer has the effect in it, which counts for each step that it is used in."""
    model, sigmas, effects = tiny.shared_model(kind), tiny.schedule(tiny.shared_model(kind), 48), []
    for skipped in (1, stride):
        pictures = []
        for settings in (None, Settings(strength=0.03, every=every)):
            guider, capture = SkippingGuider(model, skipped), Capture()
            guider.set_conds(tiny.prompt(1), tiny.prompt(2))
            guider.set_cfg(1.0)
            noise = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(7))
            one = tiny.sampler("euler", settings, capture=capture) if settings else tiny.sampler()
            with torch.inference_mode():
                pictures.append(
                    guider.sample(noise, torch.zeros(1, 4, 16, 16), one, sigmas, disable_pbar=True, seed=7)
                )  # fmt: skip
        effects.append(tiny.effect(pictures[1], pictures[0]))
    assert 0.6 < effects[1] / effects[0] < 1.5


@tiny.each_kind
def test_a_clip_under_context_windows_has_one_mask(kind: str):
    capture = Capture()
    windowed = tiny.windowed(tiny.shared_model(kind, 3), 4, 1, "standard_static", 1, False, "pyramid", 2)
    sample = partial(tiny.sample, windowed, sigmas=tiny.schedule(windowed, 10), shape=(1, 4, 9, 6, 6))
    bare = sample(tiny.sampler())
    ours = sample(tiny.sampler("euler", Settings(), capture=capture))
    assert {record.mask.shape for record in capture.run.masks} == {(1, 1, 9, 6, 6)}
    assert len(capture.run.masks) == capture.run.report.lied < 10
    assert not torch.equal(ours, bare)
    assert torch.equal(sample(tiny.sampler("euler", tiny.ZEROS)), bare)
    assert torch.equal(sample(tiny.sampler("euler", tiny.ONES)), sample(tiny.sampler("euler", tiny.FULL)))
