"""One detailer for each run of a pipeline, one mask for each step."""

from __future__ import annotations

import pytest
import torch

from selective_sigma.diffusers import detail, disable, enable

from .pipes import PIPES, build, sd3, sdxl, sdxl_img2img, wan
from .schedulers import UNET_SCHEDULERS


@pytest.mark.parametrize("pipe", PIPES)
def test_each_call_of_a_pipe_is_a_run(pipe):
    tiny = build(pipe)
    with detail(tiny.pipe) as run:
        first = tiny()
        report = run.report
        mask = run.mask
        again = tiny()
        assert torch.equal(again, first)
        assert run.report is not report
        assert run.report.as_dict() == report.as_dict()
        assert torch.equal(run.mask, mask)
        tiny(num_inference_steps=5)
        assert run.report.steps == report.steps * 5 // 8
        # A run that breaks off leaves nothing behind for the next one.
        with pytest.raises(KeyboardInterrupt):
            tiny(callback_on_step_end=_interrupt)
        assert torch.equal(tiny(), first)


def _interrupt(_, step, __, kwargs):
    if step == 2:
        raise KeyboardInterrupt
    return kwargs


@pytest.mark.parametrize("pipe", ["sdxl", "flux_true_cfg", "wan"])
def test_samples_do_not_meet(pipe):
    """Each sample of a batch gets what it gets alone; batch sizes may differ between runs."""
    tiny = build(pipe)
    size = {"num_videos_per_prompt" if pipe == "wan" else "num_images_per_prompt": 2}
    with detail(tiny.pipe, coverage=0.6) as run:
        alone = tiny()
        alone_mask = run.mask
        both = tiny(**size)
        assert run.mask.shape[0] == 2
        assert both.shape[0] == 2
        assert torch.equal(tiny(), alone)
    plain = tiny(**size)
    assert (both - plain).flatten(1).norm(dim=1).min() > 0
    # The first sample draws the same noise in both where the batch does not change how it is drawn.
    with detail(tiny.pipe, coverage=0.6) as run:
        latents = torch.randn(2, *_latent_shape(pipe), generator=torch.Generator().manual_seed(1))
        both = tiny(latents=latents, **size)
        masks = run.mask
        alone = tiny(latents=latents[:1])
        torch.testing.assert_close(both[:1], alone, atol=2e-3, rtol=2e-3)
        torch.testing.assert_close(masks[:1], run.mask, atol=2e-2, rtol=0)
    assert alone_mask.shape == run.mask.shape


def _latent_shape(pipe):
    return {"sdxl": (4, 16, 12), "flux_true_cfg": (48, 16), "wan": (4, 3, 16, 12)}[pipe]


@pytest.mark.parametrize("name", ["euler", "heun", "dpmpp_2m_karras", "ddim", "lcm"])
def test_image_to_image(name):
    """With ``strength`` below 1 the run begins inside the schedule."""
    tiny = sdxl_img2img(UNET_SCHEDULERS[name]())
    changes = {"num_inference_steps": 10, "strength": 0.6}
    plain = tiny(**changes)
    with detail(tiny.pipe, record=True) as run:
        out = tiny(**changes)
    assert torch.equal(tiny(**changes), plain)
    assert not torch.equal(out, plain)
    assert run.report.steps == {"heun": 11}.get(name, 6)
    if name != "heun":
        assert run.report.lied + sum(run.report.skipped.values()) == run.report.steps
    sigmas = [record.sigma for record in run.masks]
    assert sigmas == sorted(sigmas, reverse=True)
    with detail(tiny.pipe, mask_override="zeros"):
        assert torch.equal(tiny(**changes), plain)


def test_run_that_begins_later_than_the_last_one_broke_off():
    tiny = sdxl_img2img()
    with detail(tiny.pipe) as run:
        wanted = tiny(strength=0.5)
        report = run.report.as_dict()
        with pytest.raises(KeyboardInterrupt):
            tiny(strength=1.0, callback_on_step_end=_interrupt)
        assert torch.equal(tiny(strength=0.5), wanted)
        assert run.report.as_dict() == report


def test_masks_and_limit():
    tiny = sdxl()
    plain = tiny()
    limit = torch.zeros(1, 1, 16, 12)
    limit[..., :6] = 1
    with detail(tiny.pipe, strength=0.2, limit=limit, record=True) as run:
        assert run.mask is None
        tiny()
    assert len(run.masks) == run.report.lied
    assert torch.equal(run.masks[-1].mask, run.mask)
    assert run.mask.shape == (1, 1, 16, 12)
    assert 0 < run.mask[..., :6].max() <= 1
    assert run.mask[..., 6:].max() == 0
    with detail(tiny.pipe, strength=0.2, coverage=1.0, limit=torch.zeros(1, 1, 4, 4)) as run:
        assert torch.equal(tiny(), plain)


def test_second_call_of_a_step_has_the_mask_of_the_first():
    """Wan calls its model twice in a step; the mask is made of the first call's answers."""
    tiny = wan()
    with detail(tiny.pipe, record=True) as run:
        tiny()
        masks = run.masks
        other = -3 * tiny.arguments["negative_prompt_embeds"]
        # At guidance 1 the guided picture, and so the mask, is that of the condition alone.
        tiny(negative_prompt_embeds=other, guidance_scale=1.0 + 1e-12)
        close = run.masks
        tiny(guidance_scale=1.0)
    assert len(masks) == len(close) == len(run.masks) == 5
    for one, two in zip(close, run.masks, strict=True):
        torch.testing.assert_close(one.mask, two.mask, atol=1e-3, rtol=0)


def test_guidance_in_one_batch_or_in_two_calls():
    """[uncond, cond] in one batch, and cond then uncond in two calls, give nearly the same effect."""
    tiny = sdxl()
    unet, scheduler = tiny.pipe.unet, tiny.pipe.scheduler
    a = tiny.arguments
    cond, uncond = ((a[f"{n}prompt_embeds"], a[f"{n}pooled_prompt_embeds"]) for n in ("", "negative_"))
    ids = torch.zeros(1, 6)

    def call(x, t, *sides):
        text, pooled = (torch.cat(parts) for parts in zip(*sides, strict=True))
        added = {"text_embeds": pooled, "time_ids": ids.repeat(len(sides), 1)}
        return unet(x.repeat(len(sides), 1, 1, 1), t, text, added_cond_kwargs=added).sample.chunk(len(sides))

    @torch.no_grad()
    def sample(batch):
        scheduler.set_timesteps(8)
        x = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0)) * scheduler.init_noise_sigma
        for t in scheduler.timesteps:
            model_input = scheduler.scale_model_input(x, t)
            if batch:
                u, c = call(model_input, t, uncond, cond)
            else:
                (c,), (u,) = call(model_input, t, cond), call(model_input, t, uncond)
            x = scheduler.step(u + 4 * (c - u), t, x, return_dict=False)[0]
        return x

    tiny.pipe._guidance_scale = 4.0
    plain = sample(True)
    with detail(tiny.pipe) as run, run.attached():
        one = sample(True)
        once = run.report.as_dict()
        two = sample(False)
        twice = run.report.as_dict()
    effect = one - plain
    assert effect.norm() > 1e-3
    # The lie is the same; but of two calls the first has no guided picture whose detail the mask counts as held.
    assert (two - one).norm() < 0.3 * effect.norm()
    # Of the two calls of a step the first alone is made with the lie too.
    assert twice["lied"] == once["lied"]
    assert twice["steps"] == twice["plain"] == 2 * once["steps"] == 2 * once["plain"]


def test_calls_that_only_some_steps_make():
    """SD3's skip-layer guidance makes a further call, on half the batch, from the second step on."""
    tiny = sd3()
    changes = {"skip_guidance_layers": [0], "skip_layer_guidance_stop": 0.9}
    plain = tiny(**changes)
    with detail(tiny.pipe, mask_override="zeros"):
        assert torch.equal(tiny(**changes), plain)
    with detail(tiny.pipe) as run:
        assert not torch.equal(tiny(**changes), plain)
    assert run.report.steps == 15


def test_guidance_that_stops_on_the_way():
    """As in diffusers' documentation: a callback ends guidance, and the batch halves."""
    tiny = sdxl()

    def stop(pipe, step, _, kwargs):
        if step == 3:
            pipe._guidance_scale = 0.0
            kwargs = {name: value.chunk(2)[-1] for name, value in kwargs.items()}
        return kwargs

    names = ["prompt_embeds", "add_text_embeds", "add_time_ids"]
    changes = {"callback_on_step_end": stop, "callback_on_step_end_tensor_inputs": names}
    plain = tiny(**changes)
    with detail(tiny.pipe, mask_override="zeros"):
        assert torch.equal(tiny(**changes), plain)
    with detail(tiny.pipe) as run:
        out = tiny(**changes)
    assert out.isfinite().all()
    assert not torch.equal(out, plain)
    assert run.report.steps == 8


def test_enable_and_disable():
    tiny = sdxl()
    plain = tiny()
    run = enable(tiny.pipe, strength=0.3)
    changed = tiny()
    assert not torch.equal(changed, plain)
    assert run.report.steps == 8
    disable(tiny.pipe)
    disable(tiny.pipe)
    assert torch.equal(tiny(), plain)
    assert "model calls for 8" in str(run.report)


def test_loop_that_sets_its_timesteps_once():
    """A run also begins where the timesteps start over without having been set."""
    scheduler = UNET_SCHEDULERS["ddim"]()
    scheduler.set_timesteps(6)
    tiny = sdxl(scheduler)
    a = tiny.arguments
    added = {"text_embeds": a["pooled_prompt_embeds"], "time_ids": torch.zeros(1, 6)}

    @torch.no_grad()
    def sample():
        x = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0))
        for t in scheduler.timesteps:
            output = tiny.module(x, t, a["prompt_embeds"], added_cond_kwargs=added).sample
            x = scheduler.step(output, t, x, return_dict=False)[0]
        return x

    with detail(tiny.pipe) as run, run.attached():
        first = sample()
        assert torch.equal(sample(), first)
        assert run.report.steps == 6


@pytest.mark.parametrize("tuples", [True, False])
@pytest.mark.parametrize("settings", [{"strength": 0.0}, {"mask_override": "zeros"}, {"coverage": 1.0, "every": 1}, {}])
def test_a_look_at_the_latents_in_a_callback_is_no_step(settings, tuples):
    """A preview calls the model with the latest latents once more, with ``return_dict`` as the pipe has it or not."""
    tiny, embeds = build("sdxl"), []

    def keep(_module, _args, kwargs):
        embeds.append({name: kwargs[name] for name in ("encoder_hidden_states", "added_cond_kwargs")})

    def look(pipe, step, time, kwargs):
        if step == 3:
            latents = kwargs["latents"].repeat(2, 1, 1, 1)
            pipe.unet(pipe.scheduler.scale_model_input(latents, time), time, **embeds[-1], return_dict=not tuples)
        return kwargs

    hook = tiny.pipe.unet.register_forward_pre_hook(keep, with_kwargs=True)
    try:
        with detail(tiny.pipe, **settings) as run:
            alone, steps = tiny(), run.report.steps
            looked = tiny(callback_on_step_end=look)
    finally:
        hook.remove()
    assert torch.equal(looked, alone)
    # At strength 0 nothing is learned, and every call is counted.
    assert run.report.steps == steps + run.settings.idle
