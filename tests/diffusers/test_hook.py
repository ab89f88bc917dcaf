"""Enabling and disabling, other hooks on the model, and the errors for bad input, each one line."""

from __future__ import annotations

import pytest
import torch
from diffusers import (
    CMStochasticIterativeScheduler,
    DDIMScheduler,
    EulerDiscreteScheduler,
    IPNDMScheduler,
)
from diffusers.hooks import HookRegistry, ModelHook

from selective_sigma.diffusers import detail, disable, enable

from .pipes import flux, sdxl
from .schedulers import SD


class Scale(ModelHook):
    """A hook that scales the model's output: after its forward, or (``ScaleForward``) in place of it."""

    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def post_forward(self, module, output):  # noqa: ARG002
        return (output[0] * self.factor, *output[1:])


class ScaleForward(Scale):
    def new_forward(self, module, *args, **kwargs):
        return super().post_forward(module, self.fn_ref.original_forward(*args, **kwargs))

    def post_forward(self, module, output):  # noqa: ARG002
        return output


@pytest.mark.parametrize("settings", [{"strength": 0}, {"coverage": 0.0}])
@pytest.mark.parametrize("scheduler", [None, IPNDMScheduler])
def test_idle_counts_and_does_nothing(settings, scheduler):
    tiny = sdxl(scheduler and scheduler())
    kind = type(tiny.pipe)
    plain = tiny()
    with detail(tiny.pipe, **settings) as run:
        assert torch.equal(tiny(), plain)
    assert run.mask is None
    assert run.report.steps == run.report.calls == run.report.plain == 8
    assert run.report.skipped == {"idle": 8}
    assert type(tiny.pipe) is kind


@pytest.mark.parametrize("kind", [Scale, ScaleForward])
@pytest.mark.parametrize("order", ["before", "after"])
def test_beside_another_hook(kind, order):
    tiny = sdxl()
    bare = tiny()
    registry = HookRegistry.check_if_exists_or_initialize(tiny.module)
    if order == "before":
        registry.register_hook(kind(0.9), "scale")
        scaled = tiny()
        with detail(tiny.pipe, mask_override="zeros"):
            assert torch.equal(tiny(), scaled)
    else:
        enable(tiny.pipe, mask_override="zeros")
        registry.register_hook(kind(0.9), "scale")
        scaled = tiny()
        disable(tiny.pipe)
    assert not torch.equal(scaled, bare)
    assert torch.equal(tiny(), scaled)
    registry.remove_hook("scale")
    assert torch.equal(tiny(), bare)


def test_twice_is_refused():
    tiny = sdxl()
    with detail(tiny.pipe):
        with pytest.raises(ValueError, match=r"already enabled on this pipe.*disable"):
            enable(tiny.pipe)
        changed = tiny()
    with detail(tiny.pipe):
        assert torch.equal(tiny(), changed)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"strength": float("nan")}, "strength"),
        ({"coverage": 2}, "coverage"),
        ({"start": 0.9, "end": 0.1}, "start"),
        ({"mask_source": "no"}, "mask_source"),
        ({"limit": torch.ones(4, 4)}, "limit has shape"),
        ({"limit": torch.ones(1, 1, 1, 2, 4, 4)}, "limit has shape"),
        ({"within": torch.full((1, 1, 4, 4), torch.nan)}, "within holds NaN"),
        ({"limit": torch.ones(1, 1, 4, 0)}, "limit has shape"),
        ({"limit": [[1.0]]}, "limit is a list: give a torch tensor"),
    ],
)
def test_bad_settings(settings, message):
    tiny = sdxl()
    kind = type(tiny.pipe)
    with pytest.raises((ValueError, TypeError), match=message) as caught, detail(tiny.pipe, **settings):
        pass
    assert "\n" not in str(caught.value)
    assert type(tiny.pipe) is kind


@pytest.mark.parametrize(
    ("scheduler", "message"),
    [
        (None, "NoneType is not supported"),
        (IPNDMScheduler(), r"IPNDMScheduler.*does not say how noise is added"),
        (CMStochasticIterativeScheduler(), "no training noise levels"),
    ],
)
def test_refused_at_once(scheduler, message):
    tiny = sdxl()
    tiny.pipe.scheduler = scheduler
    with pytest.raises(ValueError, match=message):
        enable(tiny.pipe)


@pytest.mark.parametrize(
    ("scheduler", "message"),
    [
        (
            lambda: EulerDiscreteScheduler(use_karras_sigmas=True, sigma_min=20.0, sigma_max=700.0),
            "by a rule of its own",
        ),
        (lambda: DDIMScheduler(prediction_type="odd"), "prediction_type given as odd"),
    ],
)
def test_refused_at_the_first_step(scheduler, message):
    tiny = sdxl(scheduler())
    calls = []
    with (
        pytest.raises(ValueError, match=f"cannot work with StableDiffusionXLPipeline: .*{message}") as caught,
        detail(tiny.pipe),
    ):
        tiny(callback_on_step_end=lambda *_: calls.append(1) or {})
    assert "\n" not in str(caught.value)
    assert not calls


@pytest.mark.parametrize(
    ("name", "shape"), [("limit", (1, 1, 3, 4, 4)), ("limit", (3, 1, 4, 4)), ("within", (1, 1, 9))]
)
def test_a_map_that_does_not_go_with_the_latent_is_refused_at_the_first_step(name, shape):
    tiny = flux()
    calls = []
    message = rf"{name} has shape .* for a latent of \(1, 4, 16, 12\): give \(1 or 1, 1, \*space\) with 2 space axes"
    with pytest.raises(ValueError, match=message) as caught, detail(tiny.pipe, **{name: torch.ones(shape)}):
        tiny(callback_on_step_end=lambda *_: calls.append(1) or {})
    assert "\n" not in str(caught.value)
    assert not calls


def test_scheduler_changed_while_enabled():
    tiny = sdxl()
    with detail(tiny.pipe) as run:
        tiny()
        tiny.pipe.scheduler = EulerDiscreteScheduler(**SD, use_karras_sigmas=True)
        tiny()
        assert run.report.steps == 8
        tiny.pipe.scheduler = CMStochasticIterativeScheduler()
        with pytest.raises(ValueError, match="CMStochasticIterativeScheduler is not supported"):
            tiny()


def test_unknown_setting():
    with pytest.raises(TypeError, match=r"foo is no setting: give limit, .*strength, coverage") as caught:
        detail(sdxl().pipe, foo=1).__enter__()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda _: None, "pipe is None: give a diffusers pipeline"),
        (lambda _: "pipe", "pipe is 'pipe': give a diffusers pipeline"),
        (lambda _: object(), "pipe is a object, without a scheduler: give"),
        (lambda tiny: tiny.pipe.unet, "pipe is the model UNet2DConditionModel: give the pipeline"),
    ],
)
def test_what_is_no_pipe(make, message):
    with pytest.raises(TypeError, match=message) as caught, detail(make(sdxl())):
        pass
    assert "\n" not in str(caught.value)


def test_no_denoiser():
    class Empty:
        scheduler = EulerDiscreteScheduler()

    with pytest.raises(ValueError, match="Empty has no modules"):
        enable(Empty())


@pytest.mark.parametrize("answer", [0.0, float("nan")])
def test_a_model_that_says_nothing_stays_plain(answer):
    """Answers that are all zero or not finite: the result is that of the bare pipe, with a warning."""
    tiny = sdxl()
    hook = tiny.module.register_forward_hook(lambda _, __, output: (output[0] * answer, *output[1:]))
    plain = tiny()
    message = "added nothing: the sample or the model's answers were all zero, or not finite"
    with detail(tiny.pipe), pytest.warns(UserWarning, match=message):
        assert torch.equal(tiny().nan_to_num(), plain.nan_to_num())
    hook.remove()
