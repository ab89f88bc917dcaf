"""Wrapping a SAMPLER or a MODEL: what is kept, forwarded and refused."""

from __future__ import annotations

import copy
import functools
import inspect
from functools import partial
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
from selective_sigma.comfy.run.model_patch import patch
from selective_sigma.comfy.run.sampler import wrap

euler = partial(tiny.sampler, "euler")


def sigmas(steps: int = 10) -> Tensor:
    return tiny.schedule(tiny.shared_model(), steps)


def sample(sampler: Any, levels: Tensor | None = None, **options: Any) -> Tensor:
    return tiny.sample(tiny.shared_model(), sampler, levels, **options)


class SpecialSampler(comfy.samplers.KSAMPLER):
    pass


def test_copy_keeps_class_options_name_and_signature():
    def sample_mine(model, x, sigmas, extra_args=None, callback=None, disable=None, factor=1.0):  # noqa: ARG001
        assert factor == 3.0
        return x

    sampler = SpecialSampler(sample_mine, extra_options={"factor": 3.0}, inpaint_options={"random": True})
    sampler.note = object()
    wrapped = wrap(sampler, Settings())
    assert type(wrapped) is SpecialSampler
    assert wrapped is not sampler
    assert sampler.sampler_function is sample_mine
    assert wrapped.extra_options is sampler.extra_options
    assert wrapped.inpaint_options is sampler.inpaint_options
    assert wrapped.note is sampler.note
    assert wrapped.sampler_function.__name__ == "sample_mine"
    assert inspect.signature(wrapped.sampler_function) == inspect.signature(sample_mine)
    sample(wrapped)


def test_every_attribute_is_forwarded():
    seen = []

    def sample_curious(model, x, sigmas, extra_args=None, **_):
        assert model.inner_model.inner_model is tiny.shared_model().model
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

    sample(wrap(comfy.samplers.KSAMPLER(sample_curious), Settings()))
    assert seen == [5]


def test_plain_calls_reach_the_model_untouched():
    """Outside start and end, the model gets the same objects that the sampler passed."""
    received: list[tuple[Any, ...]] = []
    passed: list[tuple[Any, ...]] = []

    class Inner:
        def __init__(self):
            self.inner_model = comfy.samplers.CFGGuider(tiny.shared_model())
            self.inner_model.inner_model = tiny.shared_model().model

        def __call__(self, x: Tensor, sigma: Tensor, **named: Any) -> Tensor:
            received.append((x, sigma, named["model_options"]))
            return x

    def sample(model, x, sigmas, **_):
        sigma, options = sigmas[:1], {"transformer_options": {}}
        passed.append((x, sigma, options))
        return model(x, sigma, model_options=options)

    x = torch.zeros(1, 4, 8, 8)
    result = wrap(comfy.samplers.KSAMPLER(sample), Settings()).sampler_function(Inner(), x, sigmas(), extra_args={})
    assert result is x
    assert all(a is b for a, b in zip(received[0], passed[0], strict=True))


def test_a_sampler_without_a_function_is_named():
    class FunctionlessSampler(comfy.samplers.Sampler):
        pass

    with pytest.raises(TypeError, match=r"FunctionlessSampler has no sampler_function.*\(Model\)"):
        wrap(FunctionlessSampler(), Settings())
    sampler = FunctionlessSampler()
    assert wrap(sampler, Settings(strength=0.0)) is sampler


class DirectSampler(comfy.samplers.Sampler):
    """Euler on the guider, in a Sampler that has no ``sampler_function``."""

    def sample(self, model_wrap, sigmas, extra_args, _callback, noise, *_):
        x = noise * sigmas[0]
        for i in range(len(sigmas) - 1):
            sigma = sigmas[i : i + 1]
            denoised = model_wrap(x, sigma, model_options=extra_args["model_options"], seed=extra_args["seed"])
            x = denoised + (x - denoised) * (sigmas[i + 1] / sigma)
        return x


@pytest.mark.compat("Samplers without a function", "by the Model node")
def test_the_model_patch_reaches_a_sampler_without_a_function():
    levels = sigmas()
    bare = sample(DirectSampler(), levels)
    zeros = tiny.sample(patch(tiny.shared_model(), Settings(mask_override="zeros")), DirectSampler(), levels)
    ours = tiny.sample(patch(tiny.shared_model(), Settings()), DirectSampler(), levels)
    assert torch.equal(zeros, bare)
    assert 1e-3 < tiny.effect(ours, bare) / float(bare.norm()) < 0.5


def test_never_applied_twice():
    sampler, model = wrap(euler(), Settings()), patch(tiny.shared_model(), Settings())
    with pytest.raises(ValueError, match="twice"):
        wrap(sampler, Settings())
    with pytest.raises(ValueError, match="twice"):
        patch(model, Settings())
    with pytest.raises(ValueError, match="twice"):
        tiny.sample(model, sampler)

    @functools.wraps(sampler.sampler_function)
    def hidden(model, x, sigmas, **options):
        return sampler.sampler_function(model, x, sigmas, **options)

    with pytest.raises(ValueError, match="twice"):
        wrap(comfy.samplers.KSAMPLER(hidden), Settings())
    del hidden.__dict__["selective_sigma_run"]
    with pytest.raises(ValueError, match="twice"):
        sample(wrap(comfy.samplers.KSAMPLER(hidden), Settings()))


def test_patch_leaves_the_model_alone():
    model = tiny.model()
    before = tiny.sample(model, euler())
    patched = patch(model, Settings())
    assert patched is not model
    assert torch.equal(tiny.sample(model, euler()), before)
    assert not torch.equal(tiny.sample(patched, euler()), before)
    assert patch(model, Settings(strength=0.0)) is model


def test_other_sampler_wrappers_still_run_around_the_patch():
    order: list[str] = []

    def other(name: str) -> Any:
        def wrapper(executor, *args, **kwargs):
            order.append(name)
            return executor(*args, **kwargs)

        return wrapper

    kind, add = comfy.patcher_extension.WrappersMP.SAMPLER_SAMPLE, "add_wrapper_with_key"
    model = tiny.shared_model().clone()
    getattr(model, add)(kind, "before", other("before"))
    model = patch(model, Settings())
    getattr(model, add)(kind, "after", other("after"))
    assert torch.equal(tiny.sample(model, euler()), sample(euler(Settings())))
    assert order == ["before", "after"]
