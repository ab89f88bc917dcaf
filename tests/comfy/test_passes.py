"""Patches that tell steps apart by their noise level: caches, context windows, Differential Diffusion."""

from __future__ import annotations

from functools import cache, partial
from typing import Any

import pytest
import tiny
import torch
from comfy_extras import nodes_context_windows, nodes_differential_diffusion, nodes_easycache
from torch import Tensor

from selective_sigma import Settings
from selective_sigma.comfy.capture import Capture
from selective_sigma.comfy.passes import Passes
from selective_sigma.comfy.sampler import wrap

KINDS = {"eps": tiny.EPS, "flow": tiny.FLOW}
both = pytest.mark.parametrize("kind", KINDS)
PASSES: Any = pytest.mark.parametrize("passes", ["two", "economy"])


@cache
def base(kind: str, axes: int = 2) -> Any:
    return tiny.model(KINDS[kind], axes)


def euler(settings: Settings | None = None, name: str = "euler", **given: Any) -> Any:
    sampler = tiny.sampler(name)
    return sampler if settings is None else wrap(sampler, settings, **given)


@both
@PASSES
@pytest.mark.parametrize("node", ["EasyCacheNode", "LazyCacheNode"])
@pytest.mark.parametrize("name", ["euler", "euler_cfg_pp"])
@pytest.mark.parametrize("steps", [10, 20, 30])
def test_caches(kind: str, passes: Any, node: str, name: str, steps: int):
    model = getattr(nodes_easycache, node).execute(base(kind), 0.2, 0.15, 0.95, False).result[0]
    sigmas, calls = tiny.schedule(model, steps), tiny.calls(model)
    run = partial(tiny.sample, model, sigmas=sigmas)
    calls.clear()
    bare = run(sampler=euler(name=name))
    cached = steps - len(calls)
    assert cached > 0 or steps == 10
    for settings in (Settings(passes=passes), Settings(strength=1.0, passes=passes), Settings(coverage=1.0)):
        capture = Capture()
        calls.clear()
        ours = run(sampler=euler(settings, name, capture=capture))
        assert ours.isfinite().all()
        assert not torch.equal(ours, bare)
        assert capture.report is not None
        assert len(calls) < capture.report.calls or steps == 10
    assert torch.equal(run(sampler=euler(Settings(mask_override="zeros"), name)), bare)
    assert model.model_options["transformer_options"]["easycache"].start_t == 0.0


@both
@PASSES
def test_context_windows(kind: str, passes: Any):
    model = base(kind, 3)
    node = nodes_context_windows.ContextWindowsManualNode
    windowed = node.execute(model, 4, 1, "standard_static", 1, False, "pyramid", 2).result[0]
    run = partial(tiny.sample, sigmas=tiny.schedule(model, 10), shape=(1, 4, 9, 6, 6))
    bare = run(windowed, euler())
    ours = run(windowed, euler(Settings(passes=passes)))
    assert ours.isfinite().all()
    assert not torch.equal(ours, bare)
    assert torch.equal(run(windowed, euler(Settings(mask_override="zeros"))), bare)


def test_sample_sigmas_name_the_told_level_in_the_lied_pass():
    levels = torch.tensor([10.0, 5.0, 2.0, 0.0])
    options = {"transformer_options": {"sample_sigmas": levels}, "other": 1}
    true, told = torch.tensor([5.0]), torch.tensor([4.5])
    with Passes().options(options, true, told, True) as seen:
        assert seen["transformer_options"]["sample_sigmas"].tolist() == [10.0, 4.5, 2.0, 0.0]
        assert seen["other"] == 1
    assert options["transformer_options"]["sample_sigmas"] is levels
    with Passes().options(options, true, true, False) as seen:
        assert seen is options


@both
def test_differential_diffusion_sees_the_true_level(kind: str):
    model = nodes_differential_diffusion.DifferentialDiffusion.execute(base(kind)).result[0]
    seen: list[float] = []
    function = model.model_options["denoise_mask_function"]

    def spy(sigma: Tensor, mask: Tensor, extra_options: Any) -> Tensor:
        seen.append(float(sigma[0]))
        return function(sigma, mask, extra_options=extra_options)

    model.set_model_denoise_mask_function(spy)
    sigmas = tiny.schedule(model, 8)
    ramp = (torch.arange(8).expand(1, 1, 8, 8) / 8).float()
    picture = torch.zeros(1, 4, 8, 8)
    tiny.sample(model, euler(Settings(passes="two")), sigmas, latent=picture, mask=ramp)
    assert set(seen) == {float(s) for s in sigmas[:-1]}
    assert len(seen) > 8
