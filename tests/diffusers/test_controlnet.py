"""A ControlNet is called once a step, with the true sample and time. Its answers serve both calls of the model."""

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
            calls.append((part, tensors([args, kwargs]), tensors(answer)))

        getattr(tiny.pipe, part).register_forward_hook(keep, with_kwargs=True)
    return calls


def tensors(tree):
    """Copies of all tensors in a tree, since networks change their arguments."""
    if isinstance(tree, torch.Tensor):
        return [tree.clone()]
    values = tree.values() if isinstance(tree, dict) else tree if isinstance(tree, (list, tuple)) else ()
    return [t for value in values for t in tensors(value)]


def holds(arguments, tensor):
    """Whether arguments hold a tensor, or its last rows alone, which belong to the condition."""
    return any(
        tensor.shape[1:] == other.shape[1:] and torch.equal(tensor[-len(other) :] if tensor.ndim else tensor, other)
        for other in arguments
    )


@pytest.mark.parametrize("name", DENOISERS)
def test_both_calls_of_the_model_get_its_answers(name):
    tiny = build(name)
    calls = listen(tiny, DENOISERS[name])
    with detail(tiny.pipe, every=1, start=0.0) as run:
        tiny()
    assert run.report.lied > 4
    assert sum(part == "controlnet" for part, *_ in calls) == run.report.steps
    answers, shared = [], []
    for part, arguments, answer in calls:
        if part == "controlnet":
            answers, given = answer, arguments
            continue
        # The latest answers arrive unchanged.
        assert answers
        assert all(holds(arguments, tensor) for tensor in answers)
        shared.append(sum(holds(arguments, tensor) for tensor in given))
    # Only the plain calls have the sample and the time of the ControlNet's call.
    assert shared.count(max(shared)) == run.report.plain
    assert all(count <= max(shared) - 2 for count in shared if count < max(shared))


def test_with_a_mask_of_zeros_it_changes_nothing():
    """With guess_mode the pipeline pads its answers with zeros for the unconditional half."""
    tiny = build("SDXL ControlNet")
    for options in ({}, {"guess_mode": True}):
        plain = tiny(**options)
        with detail(tiny.pipe, mask_override="zeros") as run:
            assert torch.equal(tiny(**options), plain)
            assert run.report.lied > 0
        with detail(tiny.pipe):
            assert not torch.equal(tiny(**options), plain)
