"""Wrapping a SAMPLER or a MODEL: what is kept, what is forwarded, what is refused."""

from __future__ import annotations

import copy
import functools
import inspect
import logging
from functools import cache
from typing import Any

import comfy.k_diffusion.sampling
import comfy.model_base
import comfy.model_management
import comfy.model_sampling
import comfy.patcher_extension
import comfy.samplers
import pytest
import tiny
import torch
from torch import Tensor

from selective_sigma import Settings
from selective_sigma.comfy import latent
from selective_sigma.comfy.capture import Capture
from selective_sigma.comfy.model_patch import patch
from selective_sigma.comfy.sampler import wrap

base = cache(tiny.model)
flow = cache(functools.partial(tiny.model, tiny.FLOW))


def sigmas(steps: int = 10) -> Tensor:
    return tiny.schedule(base(), steps)


def euler(settings: Settings | None = None, **given: Any) -> Any:
    sampler = tiny.sampler("euler")
    return sampler if settings is None else wrap(sampler, settings, **given)


class Special(comfy.samplers.KSAMPLER):
    pass


def test_copy_keeps_class_options_name_and_signature():
    def sample_mine(model, x, sigmas, extra_args=None, callback=None, disable=None, factor=1.0):
        assert factor == 3.0
        return x

    sampler = Special(sample_mine, extra_options={"factor": 3.0}, inpaint_options={"random": True})
    sampler.note = object()
    wrapped = wrap(sampler, Settings())
    assert type(wrapped) is Special
    assert wrapped is not sampler
    assert sampler.sampler_function is sample_mine
    assert wrapped.extra_options is sampler.extra_options
    assert wrapped.inpaint_options is sampler.inpaint_options
    assert wrapped.note is sampler.note
    assert wrapped.sampler_function.__name__ == "sample_mine"
    assert inspect.signature(wrapped.sampler_function) == inspect.signature(sample_mine)
    tiny.sample(base(), wrapped, sigmas())


def test_every_attribute_is_forwarded():
    seen = []

    def sample_curious(model, x, sigmas, extra_args=None, callback=None, disable=None):
        assert model.inner_model.inner_model is base().model
        assert model.sigmas is sigmas
        assert isinstance(model.noise, Tensor)
        assert not hasattr(model, "no_such_thing")
        model.mark = 5
        seen.append(model.mark)
        twin = copy.copy(model)
        assert twin.mark == 5
        del model.mark
        assert not hasattr(twin, "mark")
        with pytest.raises(AttributeError, match="no_such_thing"):
            _ = model.no_such_thing
        return model(x, sigmas[:1], extra_args.get("denoise_mask"), extra_args["model_options"], 3)

    tiny.sample(base(), wrap(comfy.samplers.KSAMPLER(sample_curious), Settings()), sigmas())
    assert seen == [5]


def test_plain_calls_reach_the_model_untouched():
    """Outside start..end the model gets the very objects the sampler gave."""
    given: list[tuple[Any, ...]] = []
    passed: list[tuple[Any, ...]] = []

    class Inner:
        inner_model = type("Guider", (), {"inner_model": base().model})

        def __call__(self, x: Tensor, sigma: Tensor, **named: Any) -> Tensor:
            given.append((x, sigma, named["model_options"]))
            return x

    def sample(model, x, sigmas, extra_args=None, callback=None, disable=None):
        sigma, options = sigmas[:1], {"transformer_options": {}}
        passed.append((x, sigma, options))
        return model(x, sigma, model_options=options)

    x = torch.zeros(1, 4, 8, 8)
    result = wrap(comfy.samplers.KSAMPLER(sample), Settings()).sampler_function(Inner(), x, sigmas(), extra_args={})
    assert result is x
    assert all(a is b for a, b in zip(given[0], passed[0], strict=True))


def test_a_sampler_without_a_function_is_named():
    class Strange(comfy.samplers.Sampler):
        pass

    with pytest.raises(TypeError, match=r"Strange has no sampler_function.*\(Model\)"):
        wrap(Strange(), Settings())
    strange = Strange()
    assert wrap(strange, Settings(strength=0.0)) is strange


class Direct(comfy.samplers.Sampler):
    """A Sampler that keeps its function to itself: Euler on the guider."""

    def sample(self, model_wrap, sigmas, extra_args, callback, noise, *_):
        x = noise * sigmas[0]
        for i in range(len(sigmas) - 1):
            sigma = sigmas[i : i + 1]
            denoised = model_wrap(x, sigma, model_options=extra_args["model_options"], seed=extra_args["seed"])
            x = denoised + (x - denoised) * (sigmas[i + 1] / sigma)
        return x


def test_the_model_patch_reaches_it_all_the_same():
    levels = sigmas()
    bare = tiny.sample(base(), Direct(), levels)
    zeros = tiny.sample(patch(base(), Settings(mask_override="zeros")), Direct(), levels)
    ours = tiny.sample(patch(base(), Settings()), Direct(), levels)
    assert torch.equal(zeros, bare)
    assert 1e-3 < tiny.effect(ours, bare) / float(bare.norm()) < 0.5


def test_never_applied_twice():
    sampler, model = wrap(euler(), Settings()), patch(base(), Settings())
    with pytest.raises(ValueError, match="twice"):
        wrap(sampler, Settings())
    with pytest.raises(ValueError, match="twice"):
        patch(model, Settings())
    with pytest.raises(ValueError, match="twice"):
        tiny.sample(model, sampler, sigmas())

    @functools.wraps(sampler.sampler_function)
    def hidden(model, x, sigmas, **given):
        return sampler.sampler_function(model, x, sigmas, **given)

    with pytest.raises(ValueError, match="twice"):
        wrap(comfy.samplers.KSAMPLER(hidden), Settings())
    del hidden.__dict__["selective_sigma_run"]
    with pytest.raises(ValueError, match="twice"):
        tiny.sample(base(), wrap(comfy.samplers.KSAMPLER(hidden), Settings()), sigmas())


def test_patch_leaves_the_model_alone():
    model = tiny.model()
    before = tiny.sample(model, euler(), sigmas())
    patched = patch(model, Settings())
    assert patched is not model
    assert torch.equal(tiny.sample(model, euler(), sigmas()), before)
    assert not torch.equal(tiny.sample(patched, euler(), sigmas()), before)
    assert patch(model, Settings(strength=0.0)) is model


def test_other_sampler_wrappers_still_run_around_the_patch():
    order: list[str] = []

    def other(name: str) -> Any:
        def wrapper(executor, *args, **kwargs):
            order.append(name)
            return executor(*args, **kwargs)

        return wrapper

    kind, add = comfy.patcher_extension.WrappersMP.SAMPLER_SAMPLE, "add_wrapper_with_key"
    model = base().clone()
    getattr(model, add)(kind, "before", other("before"))
    model = patch(model, Settings())
    getattr(model, add)(kind, "after", other("after"))
    assert torch.equal(tiny.sample(model, euler(), sigmas()), tiny.sample(base(), euler(Settings()), sigmas()))
    assert order == ["before", "after"]


def test_one_log_line_a_run(caplog: pytest.LogCaptureFixture):
    tiny.sample(base(), euler(Settings(passes="two")), sigmas())
    lines = [r.getMessage() for r in caplog.records if r.name.startswith("selective_sigma")]
    assert lines == [
        "Selective Sigma on euler: 16 model calls for 10 (true 10, lied 6, held 0); without detail: schedule 4"
    ]
    assert caplog.records[-1].levelno == logging.INFO


def test_capture_keeps_the_latest_run():
    capture = Capture()
    assert capture.masks == ()
    assert capture.report is None
    sampler = euler(Settings(), capture=capture)
    tiny.sample(base(), sampler, sigmas(), shape=(2, 4, 8, 8))
    first = capture.run
    assert [sigma for sigma, _ in first.masks] == sorted((sigma for sigma, _ in first.masks), reverse=True)
    for _, mask in first.masks:
        assert mask.shape == (2, 1, 8, 8)
        assert mask.dtype is torch.float32
        assert 0 <= mask.min() <= mask.max() <= 1
    assert first.report is not None
    assert len(first.masks) == first.report.lied + first.report.held
    tiny.sample(base(), sampler, sigmas()[:2])  # A run too short for detail must not show the one before.
    assert capture.masks == ()
    tiny.sample(base(), sampler, sigmas(6))
    assert capture.run is not first
    assert capture.masks[0][1].shape == (1, 1, 8, 8)


def interrupted(kind: str) -> tuple[Any, Any]:
    if kind == "interrupt":
        return (
            comfy.model_management.InterruptProcessingException,
            comfy.model_management.InterruptProcessingException(),
        )
    return comfy.model_management.OOM_EXCEPTION, comfy.model_management.OOM_EXCEPTION("out of memory")


@pytest.mark.parametrize("kind", ["interrupt", "out of memory"])
@pytest.mark.parametrize("at", range(1, 14))
def test_breaking_off_leaves_nothing_behind(kind: str, at: int):
    expected, error = interrupted(kind)
    model, capture = tiny.model(), Capture()
    sampler = wrap(tiny.sampler("euler_cfg_pp"), Settings(passes="two"), capture=capture)
    clean = tiny.sample(model, wrap(tiny.sampler("euler_cfg_pp"), Settings(passes="two")), sigmas(8))
    calls = 0

    def broken(apply: Any, args: dict[str, Any]) -> Tensor:
        nonlocal calls
        calls += 1
        if calls == at:
            if kind == "interrupt":
                comfy.model_management.interrupt_current_processing()
                comfy.model_management.throw_exception_if_processing_interrupted()
            raise error
        return apply(args["input"], args["timestep"], **args["c"])

    breaking = model.clone()
    breaking.set_model_unet_function_wrapper(broken)
    with pytest.raises(expected) as raised:
        tiny.sample(breaking, sampler, sigmas(8))
    assert kind == "interrupt" or raised.value is error
    assert capture.masks == ()
    assert torch.equal(tiny.sample(model, sampler, sigmas(8)), clean)


def test_one_sampler_serves_runs_within_runs():
    """A callback that samples with the same SAMPLER object must not meet the outer run."""
    sampler = euler(Settings())
    expected = tiny.sample(base(), sampler, sigmas())
    inner: list[Tensor] = []

    def callback(step: int, *_: Any) -> None:
        if step == 4:
            inner.append(tiny.sample(tiny.model(), sampler, sigmas(6), shape=(2, 4, 6, 6), seed=3))

    assert torch.equal(tiny.sample(base(), sampler, sigmas(), callback=callback), expected)
    assert torch.equal(inner[0], tiny.sample(base(), euler(Settings()), sigmas(6), shape=(2, 4, 6, 6), seed=3))


@pytest.mark.parametrize("kind", list(comfy.model_base.ModelType))
def test_family_is_told_by_noising(kind: Any):
    sampling = comfy.model_base.model_sampling(tiny.config({}, {}), kind)
    expected = "flow" if isinstance(sampling, comfy.model_sampling.CONST) else "ve"
    assert latent.family(sampling) == expected
    x0, noise, sigma = torch.tensor([2.0]), torch.tensor([-1.0]), torch.tensor(0.3)
    alpha = 1 - 0.3 if expected == "flow" else 1.0
    assert torch.allclose(sampling.noise_scaling(sigma, noise.clone(), x0), alpha * x0 + sigma * noise)


def test_uni_pc_writes_into_sigmas_as_it_does_when_bare():
    for sampler in (tiny.sampler("uni_pc"), wrap(tiny.sampler("uni_pc"), Settings())):
        levels = sigmas().clone()
        comfy.samplers.sample(
            base(), torch.randn(1, 4, 8, 8), tiny.prompt(1), tiny.prompt(2), 2.0, torch.device("cpu"), sampler, levels,
            latent_image=torch.zeros(1, 4, 8, 8), disable_pbar=True, seed=1,
        )  # fmt: skip
        assert levels[-1] == pytest.approx(0.001)
