"""Every sampler of ComfyUI, on eps and flow models."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import comfy.samplers
import pytest
import tiny
import torch
from published import SETTINGS, Published, around
from torch import Tensor

from selective_sigma import Report, Settings
from selective_sigma.comfy.run.capture import Capture
from selective_sigma.comfy.run.model_patch import patch
from selective_sigma.comfy.run.sampler import wrap

NAMES = comfy.samplers.SAMPLER_NAMES
STEPS = 10
PUBLISHED = Settings(**SETTINGS)
every = pytest.mark.parametrize("name", NAMES)
# Warnings of two of ComfyUI's samplers, in bare runs too.
pytestmark = pytest.mark.filterwarnings("ignore:To copy construct", "ignore:Should have t")


class SamplerResult(NamedTuple):
    latent: Tensor
    calls: int
    report: Report | None


@cache
def run(kind: str, name: str, settings: Settings | None = None) -> SamplerResult:
    """A run, cached by its arguments."""
    model, capture = tiny.shared_model(kind), Capture()
    sampler = tiny.sampler(name)
    if settings is not None:
        sampler = wrap(sampler, settings, capture=capture)
    tiny.calls(model).clear()
    result = tiny.sample(model, sampler, tiny.schedule(model, STEPS))
    return SamplerResult(result, len(tiny.calls(model)), capture.run.report if capture.run else None)


@cache
def published(kind: str, name: str) -> tuple[Tensor, Published]:
    """The published method around the same sampler."""
    model, runs = tiny.shared_model(kind), list[Published]()
    return tiny.sample(model, around(tiny.sampler(name), runs), tiny.schedule(model, STEPS)), runs[0]


def test_every_sampler_has_a_function():
    assert {"euler", "ddim", "uni_pc", "dpm_adaptive"} <= set(NAMES)
    assert all(callable(tiny.sampler(name).sampler_function) for name in NAMES)


@tiny.each_kind
@every
def test_finite_and_changed(kind: str, name: str):
    ran = run(kind, name, Settings())
    assert ran.latent.isfinite().all()
    assert 1e-4 < tiny.effect(ran.latent, run(kind, name).latent) / float(ran.latent.norm()) < 0.5


@pytest.mark.compat("Every sampler, eps and flow", "zeros is the bare sampler, bit for bit")
@tiny.each_kind
@every
def test_zeros_is_the_bare_sampler(kind: str, name: str):
    ran = run(kind, name, Settings(mask_override="zeros"))
    assert torch.equal(ran.latent, run(kind, name).latent)
    assert ran.report is not None
    assert ran.report.lied > 0


@pytest.mark.compat("Every sampler, eps and flow", "ones is coverage 1")
@tiny.each_kind
@every
def test_ones_is_coverage_one(kind: str, name: str):
    ones, full = run(kind, name, Settings(mask_override="ones")), run(kind, name, Settings(coverage=1.0))
    assert torch.equal(ones.latent, full.latent)
    assert not torch.equal(ones.latent, run(kind, name).latent)


@every
def test_idle_settings_return_the_sampler_itself(name: str):
    sampler = tiny.sampler(name)
    assert wrap(sampler, Settings(strength=0.0)) is sampler
    assert wrap(sampler, Settings(coverage=0.0)) is sampler
    assert wrap(sampler, Settings()) is not sampler


@pytest.mark.compat("KSampler and all that samples by name", "by the Model node, bit-equal to the sampler node")
@tiny.each_kind
@every
def test_model_patch_is_the_sampler_wrap(kind: str, name: str):
    model = patch(tiny.shared_model(kind), Settings())
    result = tiny.sample(model, tiny.sampler(name), tiny.schedule(model, STEPS))
    assert torch.equal(result, run(kind, name, Settings()).latent)


@tiny.each_kind
@every
def test_calls_are_counted(kind: str, name: str):
    steps = run(kind, name).calls
    for settings in (Settings(), Settings(coverage=1.0)):
        ran = run(kind, name, settings)
        assert ran.report is not None
        assert ran.report.calls == ran.calls
        assert ran.report.steps == steps or name == "dpm_adaptive"  # It adapts its steps to the predictions.
    assert ran.calls == ran.report.steps


@tiny.each_kind
@every
def test_fewer_calls_than_published(kind: str, name: str):
    if name == "dpm_adaptive":
        pytest.skip("it adapts its steps to the predictions")
    if (name, kind) == ("dpm_fast", "flow"):
        pytest.skip("the published pack acts at 3 of its 10 calls only")
    assert run(kind, name, Settings()).calls < published(kind, name)[1].calls


@pytest.mark.compat("Graphs of the first published pack", "with its constants the same picture")
@pytest.mark.parametrize("name", [name for name in NAMES if "cfg_pp" not in name])
def test_published_constants_give_the_published_method(name: str):
    expected, _ = published("eps", name)
    result = run("eps", name, PUBLISHED).latent
    # Rounding, which differs between CPUs; a step size that adapts to the error amplifies it.
    rounding = 1e-4 if name == "dpm_adaptive" else 1e-5
    assert tiny.effect(result, expected) <= rounding * float(expected.norm())
    assert tiny.effect(expected, run("eps", name).latent) > 1e-3 * float(expected.norm())
