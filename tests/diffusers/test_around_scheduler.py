"""What users and pipelines do with a scheduler during a run with detail."""

from __future__ import annotations

import copy

import torch

from selective_sigma.diffusers import detail

from .pipes import flux, sdxl


def test_a_scheduler_whose_attributes_are_copied_and_given_back():
    tiny = sdxl()
    plain = tiny()
    kept: list[dict[str, object]] = []

    def keep(pipe, *_):
        # As panorama pipelines do: they deep-copy the attributes and update the scheduler with the copy.
        kept.append(copy.deepcopy(pipe.scheduler.__dict__))
        pipe.scheduler.__dict__.update(kept[-1])
        return {}

    with detail(tiny.pipe) as run:
        wanted = tiny()
        report = run.report.as_dict()
        assert torch.equal(tiny(callback_on_step_end=keep), wanted)
        assert run.report.as_dict() == report
    # The copies hold nothing of ours, and the scheduler may be updated with them after the run as well.
    assert len(kept) == 8
    assert all("step" not in attributes for attributes in kept)
    tiny.pipe.scheduler.__dict__.update(kept[3])
    assert torch.equal(tiny(), plain)
    with detail(tiny.pipe):
        assert torch.equal(tiny(), wanted)
    assert torch.equal(tiny(), plain)


def test_a_scheduler_whose_class_is_compared():
    """Bria's pipeline compares it at each step, with !=."""
    tiny = sdxl()
    kind = type(tiny.pipe.scheduler)
    same, different = [], []

    def compare(pipe, *_):
        now = type(pipe.scheduler)
        same.append(now == kind and kind == now and now in {kind} and isinstance(pipe.scheduler, kind))
        different.append(now != kind or now == type(pipe.unet))  # noqa: E721
        return {}

    with detail(tiny.pipe) as run:
        tiny(callback_on_step_end=compare)
        assert run.report.lied > 0
    assert same == [True] * 8
    assert different == [False] * 8
    assert type(tiny.pipe.scheduler) is kind


def test_timesteps_that_are_set_once_more_at_the_end():
    """Wan Animate sets them for a further clip, which does not follow: the run's mask and report stay."""
    tiny = sdxl()

    def end(pipe, step, _, kwargs):
        if step == 7:
            pipe.scheduler.set_timesteps(8)
        return kwargs

    with detail(tiny.pipe, record=True) as run:
        tiny()
        wanted = run.report.as_dict(), len(run.masks), run.mask
        tiny(callback_on_step_end=end)
        assert (run.report.as_dict(), len(run.masks)) == wanted[:2]
        assert torch.equal(run.mask, wanted[2])


def test_initial_latents_of_zero():
    """Zeros do not show where the model gets the sample: it is learned at the second step instead."""
    tiny = flux()
    zero = torch.zeros(1, 48, 16)
    plain = tiny(latents=zero)
    with detail(tiny.pipe, mask_override="zeros") as run:
        assert torch.equal(tiny(latents=zero), plain)
        assert run.report.steps == 8
        assert run.report.skipped["learning"] == 2
    with detail(tiny.pipe) as run:
        assert not torch.equal(tiny(latents=zero), plain)
        assert run.report.lied > 0


def test_a_step_that_is_wrapped_in_anything():
    tiny = sdxl()
    with detail(tiny.pipe):
        wanted = tiny()
    step = tiny.pipe.scheduler.step
    calls = []

    def anything(*args, **kwargs):
        calls.append(1)
        return step(*args, **kwargs)

    tiny.pipe.scheduler.step = anything
    with detail(tiny.pipe):
        assert torch.equal(tiny(), wanted)
    assert len(calls) == 8
    assert tiny.pipe.scheduler.step is anything
