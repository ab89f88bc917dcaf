"""Pipes that sample within one another, or at the same time in several threads."""

from __future__ import annotations

import threading

import pytest
import torch
from diffusers import EulerDiscreteScheduler

from selective_sigma.diffusers import attach, detail, enable

from .pipes import sdxl
from .schedulers import SD


def test_a_pipe_called_within_another():
    """A callback makes a preview with another enabled pipe around the same model."""
    tiny, inner = sdxl(), sdxl()
    inner.pipe.unet = tiny.pipe.unet
    with detail(tiny.pipe):
        wanted = tiny()
    with detail(inner.pipe):
        preview = inner(num_inference_steps=4)
        previews = []

        def call(_, step, __, kwargs):
            if step == 5:
                previews.append(inner(num_inference_steps=4))
            return kwargs

        with detail(tiny.pipe):
            assert torch.equal(tiny(callback_on_step_end=call), wanted)
    assert torch.equal(previews[0], preview)


def test_a_plain_pipe_called_within_another():
    """It stays plain, and the run around it has the same result and report."""
    tiny, inner = sdxl(), sdxl()
    inner.pipe.unet = tiny.pipe.unet
    preview = inner()
    previews = []

    def call(_, step, __, kwargs):
        if step == 3:
            previews.append(inner())
        return kwargs

    with detail(tiny.pipe) as run:
        wanted = tiny()
        report = run.report.as_dict()
        assert torch.equal(tiny(callback_on_step_end=call), wanted)
        assert run.report.as_dict() == report
    assert torch.equal(previews[0], preview)
    assert report["steps"] == 8
    assert run.report.skipped["learning"] == 1


def shared():
    """Two pipes around one UNet, each with a scheduler of its own."""
    one, two = sdxl(), sdxl(EulerDiscreteScheduler(**SD, use_karras_sigmas=True))
    two.pipe.unet = one.pipe.unet
    return one, two


def at_once(*calls):
    """Results, or errors, of calls that run at the same time in threads of their own, in step with each other."""
    gate = threading.Barrier(len(calls), timeout=60)
    answers = [None] * len(calls)

    def turn(_, __, ___, kwargs):
        gate.wait()
        return kwargs

    def work(i, call):
        try:
            # With a generator of its own, as the global one is shared by all threads.
            answers[i] = call.pipe(
                generator=torch.Generator().manual_seed(0), callback_on_step_end=turn, **call.arguments
            )[0]
        except Exception as error:
            answers[i] = error
            gate.abort()

    threads = [threading.Thread(target=work, args=each) for each in enumerate(calls)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


@pytest.mark.parametrize("enabled", [(0,), (1,), (0, 1)])
def test_pipes_that_share_a_model_in_two_threads(enabled):
    pair = shared()
    kind = type(pair[0].pipe.unet)
    for i in enabled:
        enable(pair[i].pipe, strength=0.2)
    alone = [tiny() for tiny in pair]
    for _ in range(3):
        for result, wanted in zip(at_once(*pair), alone, strict=True):
            assert torch.equal(result, wanted)
    assert type(pair[0].pipe.unet) is kind
    assert not attach._listeners


def test_one_scheduler_in_two_threads_is_refused():
    one, two = shared()
    two.pipe.scheduler = one.pipe.scheduler
    enable(one.pipe)
    enable(two.pipe)
    answers = at_once(one, two)
    assert any("give each pipe a scheduler of its own" in str(answer) for answer in answers)
    assert "step" not in vars(one.pipe.scheduler)
    assert not attach._listeners


def test_one_pipe_called_in_another_thread_meanwhile():
    """The other thread's call is refused; the run in the first one goes on and has the same result."""
    tiny = sdxl()
    enable(tiny.pipe)
    wanted = tiny()
    refused = []

    def other():
        with pytest.raises(ValueError, match="give each pipe a scheduler of its own") as caught:
            tiny()
        refused.append(caught.value)

    def call(_, step, __, kwargs):
        if step == 4:
            thread = threading.Thread(target=other)
            thread.start()
            thread.join()
        return kwargs

    torch.manual_seed(0)
    result = tiny.pipe(generator=torch.Generator().manual_seed(0), callback_on_step_end=call, **tiny.arguments)[0]
    assert torch.equal(result, wanted)
    assert refused
