"""A ControlNet hears the lie too: its answers in the lied pass are those for what the model is shown there."""

from __future__ import annotations

import pytest
import torch

from selective_sigma.diffusers import detail

from .zoo import build

HEARD = {"SDXL ControlNet": "unet", "SDXL two ControlNets": "unet", "Flux ControlNet": "transformer"}


def listen(tiny, name):
    """Calls of the ControlNet and of the denoiser in their order: (name, arguments, answer)."""
    calls = []
    for part in ("controlnet", name):

        def keep(_, args, kwargs, answer, part=part):
            calls.append((part, [*args, *kwargs.values()], answer))

        getattr(tiny.pipe, part).register_forward_hook(keep, with_kwargs=True)
    return calls


def tensors(found):
    if isinstance(found, torch.Tensor):
        return [found]
    values = found.values() if isinstance(found, dict) else found if isinstance(found, (list, tuple)) else ()
    return [t for value in values for t in tensors(value)]


@pytest.mark.parametrize("name", HEARD)
def test_hears_what_the_model_hears(name):
    tiny = build(name)
    calls = listen(tiny, HEARD[name])
    with detail(tiny.pipe, every=1, start=0.0) as run:
        tiny()
    # One call of it for one of the denoiser, plain or lied.
    heard = [call for call in calls if call[0] == "controlnet"]
    told = [call for call in calls if call[0] != "controlnet"]
    assert len(heard) == len(told) == run.report.calls
    assert run.report.lied > 4
    for _, given, _ in told:
        # Its answers arrive untouched, and sample and time are the denoiser's own.
        assert any(
            all(holds(given, answer) for answer in tensors(said))
            and sum(holds(given, argument) for argument in tensors(arguments)) >= 2
            for _, arguments, said in heard
        )


def holds(given, tensor):
    """Whether a tensor is among these, or the part of it that belongs to the condition, which comes last."""
    return any(
        tensor.shape[1:] == other.shape[1:] and torch.equal(tensor[-len(other) :] if tensor.ndim else tensor, other)
        for other in tensors(given)
    )


def test_answers_that_the_pipeline_changes_stay_plain():
    """guess_mode pads them for the unconditional half: what they are then is the pipeline's affair."""
    tiny = build("SDXL ControlNet")
    plain = tiny(guess_mode=True)
    with detail(tiny.pipe, mask_override="zeros") as run:
        assert torch.equal(tiny(guess_mode=True), plain)
        assert run.report.lied > 0
    with detail(tiny.pipe):
        assert not torch.equal(tiny(guess_mode=True), plain)
