"""Copying, sharing and exchanging parts of a pipe work while detail is enabled on it."""

from __future__ import annotations

import copy
import gc
import pickle
import types
import weakref

import pytest
import torch
from diffusers import EulerDiscreteScheduler, StableDiffusionXLImg2ImgPipeline, StableDiffusionXLPipeline

from selective_sigma.diffusers import detail, enable

from .pipes import build, sdxl, sdxl_img2img
from .schedulers import SD


def lied(run):
    return run.report.lied


def test_between_calls_nothing_is_left():
    tiny = sdxl()
    before = {name: (type(part), dict(vars(part))) for name, part in tiny.pipe.components.items() if part is not None}
    kind = type(tiny.pipe)
    with detail(tiny.pipe):
        tiny()
        assert isinstance(tiny.pipe, kind)
        assert type(tiny.pipe).__name__ == kind.__name__
        for name, (part, attributes) in before.items():
            now = getattr(tiny.pipe, name)
            assert type(now) is part
            assert set(vars(now)) == set(attributes) | ({"is_scale_input_called"} & set(vars(now)))
        copied = copy.deepcopy(tiny.pipe.unet)
        assert type(copied) is type(tiny.pipe.unet)
        assert type(copy.deepcopy(tiny.pipe)) is kind
    assert type(tiny.pipe) is kind
    with pytest.raises(RuntimeError, match="mine"), detail(tiny.pipe):
        tiny(callback_on_step_end=_break)
    assert type(tiny.pipe) is kind
    assert type(tiny.pipe.unet) is before["unet"][0]
    assert "step" not in vars(tiny.pipe.scheduler)


def _break(*_):
    raise RuntimeError("mine")


def test_copies_made_in_a_call_are_plain():
    tiny = sdxl()
    kept = []

    def keep(pipe, step, _, kwargs):
        if step == 4:
            kept.append(copy.deepcopy(pipe.unet))
        return kwargs

    with detail(tiny.pipe):
        tiny(callback_on_step_end=keep)
    assert type(kept[0]) is type(tiny.pipe.unet)
    a = tiny.arguments
    added = {"text_embeds": a["pooled_prompt_embeds"], "time_ids": torch.zeros(1, 6)}
    call = (torch.zeros(1, 4, 16, 12), torch.tensor(5), a["prompt_embeds"])
    with torch.no_grad():
        assert torch.equal(
            kept[0](*call, added_cond_kwargs=added)[0], tiny.pipe.unet(*call, added_cond_kwargs=added)[0]
        )


def test_copies_of_a_scheduler_made_in_a_call_are_plain():
    tiny = sdxl()
    kept = []

    def keep(pipe, step, _, kwargs):
        if step == 4:
            kept.extend([copy.copy(pipe.scheduler), copy.deepcopy(pipe.scheduler)])
        return kwargs

    with detail(tiny.pipe):
        tiny(callback_on_step_end=keep)
    for scheduler in kept:
        assert vars(scheduler).keys() == vars(tiny.pipe.scheduler).keys()
        assert scheduler.step.__self__ is scheduler
        assert type(scheduler) is type(tiny.pipe.scheduler)
    plain = tiny()
    for tiny.pipe.scheduler in kept:
        assert torch.equal(tiny(), plain)


def test_an_enabled_pipe_is_not_pickled():
    tiny = sdxl()
    with detail(tiny.pipe), pytest.raises(pickle.PicklingError):
        pickle.dumps(tiny.pipe)
    assert type(pickle.loads(pickle.dumps(tiny.pipe))) is type(tiny.pipe)


def test_pipes_that_share_parts():
    """Only the enabled pipe gets detail, by its own scheduler's noise levels."""
    tiny = sdxl()
    other = StableDiffusionXLPipeline.from_pipe(
        tiny.pipe, scheduler=EulerDiscreteScheduler(**SD, use_karras_sigmas=True)
    )
    other.set_progress_bar_config(disable=True)

    def call(pipe):
        torch.manual_seed(0)
        return pipe(generator=torch.Generator().manual_seed(0), **tiny.arguments)[0]

    plain, other_plain = call(tiny.pipe), call(other)
    with detail(tiny.pipe):
        mine = call(tiny.pipe)
        assert torch.equal(call(other), other_plain)
        with detail(other, strength=0.2) as run:
            theirs = call(other)
            assert lied(run) > 0
            assert torch.equal(call(tiny.pipe), mine)
        assert torch.equal(call(other), other_plain)
        assert torch.equal(call(tiny.pipe), mine)
    assert not torch.equal(mine, plain)
    assert not torch.equal(theirs, other_plain)
    with detail(tiny.pipe):
        other_kind = StableDiffusionXLImg2ImgPipeline.from_pipe(tiny.pipe, vae=sdxl_img2img().pipe.vae)
    assert type(other_kind) is StableDiffusionXLImg2ImgPipeline


def test_parts_replaced_while_enabled():
    tiny = sdxl()
    with detail(tiny.pipe) as run:
        wanted = tiny()
        old = tiny.pipe.unet
        tiny.pipe.unet = copy.deepcopy(old)
        assert torch.equal(tiny(), wanted)
        tiny.pipe.scheduler = EulerDiscreteScheduler(**SD, use_karras_sigmas=True)
        assert not torch.equal(tiny(), wanted)
        assert lied(run) > 0
    assert type(old) is type(tiny.pipe.unet)


def test_three_pictures_of_one_latent():
    """Equal rows are three pictures here, not copies of one for guidance."""
    tiny = build("flux")
    latents = torch.randn(1, 48, 16, generator=torch.Generator().manual_seed(1)).repeat(3, 1, 1)
    with detail(tiny.pipe) as run:
        alone = tiny(latents=latents[:1])
        three = tiny(latents=latents, num_images_per_prompt=3)
        assert run.mask.shape[0] == 3
    torch.testing.assert_close(three[2:], alone, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("make", "changes"),
    [(sdxl, {"num_inference_steps": 1}), (sdxl_img2img, {"num_inference_steps": 5, "strength": 0.2})],
)
def test_one_step_stays_plain(make, changes):
    tiny = make()
    plain = tiny(**changes)
    message = "added nothing: after the first step, which stays plain, the model was not called in the same form"
    with detail(tiny.pipe), pytest.warns(UserWarning, match=message):
        assert torch.equal(tiny(**changes), plain)


def test_loop_of_ones_own():
    tiny = sdxl()
    holder = types.SimpleNamespace(unet=tiny.pipe.unet, scheduler=tiny.pipe.scheduler)
    with detail(tiny.pipe):
        wanted = tiny()
    run = enable(holder)
    with run.attached():
        assert torch.equal(tiny(), wanted)
    assert lied(run) > 0
    with pytest.warns(UserWarning, match="added nothing: the scheduler's step was not called"), run.attached():
        pass


@pytest.mark.parametrize("called", [False, True])
def test_an_enabled_pipe_can_be_forgotten(called):
    tiny = sdxl()
    run = enable(tiny.pipe)
    if called:
        tiny()
    parts = [weakref.ref(part) for part in (tiny.pipe, tiny.pipe.unet, run)]
    del tiny, run
    gc.collect()
    assert [part() for part in parts] == [None] * 3


def test_nothing_large_is_kept_after_an_error():
    tiny = sdxl()
    run = enable(tiny.pipe)
    answers = []

    def hear(_, __, answer):
        answers.append(weakref.ref(answer[0]))

    hook = tiny.pipe.unet.register_forward_hook(hear)
    with pytest.raises(RuntimeError, match="mine"):
        tiny(callback_on_step_end=_break)
    hook.remove()
    gc.collect()
    assert run.report.steps == 1
    assert [answer() for answer in answers] == [None]
