"""What people and pipelines do with a scheduler while it is listened to."""

from __future__ import annotations

import copy

import torch

from selective_sigma.diffusers import detail

from .pipes import flux, sdxl


def test_a_scheduler_whose_attributes_are_copied_and_given_back():
    tiny = sdxl()
    plain = tiny()
    heard = []
    kept: list[dict[str, object]] = []

    def keep(pipe, *_):
        # The copy is what the scheduler is then given back.
        kept.append(copy.deepcopy(pipe.scheduler.__dict__))
        pipe.scheduler.__dict__.update(kept[-1])
        heard.append(pipe.scheduler.step)
        return {}

    with detail(tiny.pipe) as run:
        wanted = tiny()
        report = run.report.as_dict()
        assert torch.equal(tiny(callback_on_step_end=keep), wanted)
        assert run.report.as_dict() == report
    # One listener, the same in all the steps.
    assert len(kept) == 8
    assert len({id(step) for step in heard}) == 1
    assert "step" not in vars(tiny.pipe.scheduler)
    # Given back after the run, attributes of it do no harm, neither to a plain run nor to the next.
    tiny.pipe.scheduler.__dict__.update(kept[3])
    assert torch.equal(tiny(), plain)
    with detail(tiny.pipe):
        assert torch.equal(tiny(), wanted)
    assert "step" not in vars(tiny.pipe.scheduler)
    assert torch.equal(tiny(), plain)


def test_timesteps_that_are_set_once_more_at_the_end():
    """Wan Animate does so for a clip that does not come: the run's mask and report stay."""
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
    """They tell nothing of where the sample is; the second step does."""
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
    own = tiny.pipe.scheduler.step
    calls = []

    def anything(*args, **kwargs):
        calls.append(1)
        return own(*args, **kwargs)

    tiny.pipe.scheduler.step = anything
    with detail(tiny.pipe):
        assert torch.equal(tiny(), wanted)
    assert len(calls) == 8
    assert tiny.pipe.scheduler.step is anything
