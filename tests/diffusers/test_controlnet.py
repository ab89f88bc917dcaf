"""A ControlNet is told the lie too: in the lied pass it gets the sample and the time that the model gets there."""

from __future__ import annotations

import pytest
import torch

from selective_sigma.diffusers import detail

from .zoo import build

DENOISERS = {"SDXL ControlNet": "unet", "SDXL two ControlNets": "unet", "Flux ControlNet": "transformer"}


def listen(tiny, name):
    """Calls of the ControlNet and of the denoiser in their order: (name, arguments, answer)."""
    calls = []
    for part in ("controlnet", name):

        def keep(_, args, kwargs, answer, part=part):
            calls.append((part, [*args, *kwargs.values()], answer))

        getattr(tiny.pipe, part).register_forward_hook(keep, with_kwargs=True)
    return calls


def tensors(tree):
    if isinstance(tree, torch.Tensor):
        return [tree]
    values = tree.values() if isinstance(tree, dict) else tree if isinstance(tree, (list, tuple)) else ()
    return [t for value in values for t in tensors(value)]


@pytest.mark.parametrize("name", DENOISERS)
def test_gets_what_the_model_gets(name):
    tiny = build(name)
    calls = listen(tiny, DENOISERS[name])
    with detail(tiny.pipe, every=1, start=0.0) as run:
        tiny()
    # The ControlNet is called once for each call of the denoiser, plain or lied.
    control_calls = [call for call in calls if call[0] == "controlnet"]
    denoiser_calls = [call for call in calls if call[0] != "controlnet"]
    assert len(control_calls) == len(denoiser_calls) == run.report.calls
    assert run.report.lied > 4
    for _, arguments, _ in denoiser_calls:
        # Its answers arrive unchanged, and it has got the denoiser's sample and time.
        assert any(
            all(holds(arguments, part) for part in tensors(answer))
            and sum(holds(arguments, argument) for argument in tensors(control_arguments)) >= 2
            for _, control_arguments, answer in control_calls
        )


def holds(arguments, tensor):
    """Whether arguments hold a tensor, or its last rows alone, which belong to the condition."""
    return any(
        tensor.shape[1:] == other.shape[1:] and torch.equal(tensor[-len(other) :] if tensor.ndim else tensor, other)
        for other in tensors(arguments)
    )


def test_answers_that_the_pipeline_changes_stay_plain():
    """guess_mode pads them with zeros for the unconditional half: the plain ones are used in the lied pass too."""
    tiny = build("SDXL ControlNet")
    plain = tiny(guess_mode=True)
    with detail(tiny.pipe, mask_override="zeros") as run:
        assert torch.equal(tiny(guess_mode=True), plain)
        assert run.report.lied > 0
    with detail(tiny.pipe):
        assert not torch.equal(tiny(guess_mode=True), plain)
