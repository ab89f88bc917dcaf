"""THE STEP where it is made of several calls or several latents: one mask shared, streams."""

from __future__ import annotations

import pytest
import torch

from selective_sigma import Detailer, Prediction, Settings
from selective_sigma.settings import CHOICES

from .runs import IMAGE, Denoiser, detailed, karras, start

SOURCES = CHOICES["mask_source"]
ALL = {"every": 1, "start": 0.0}


@pytest.mark.parametrize("source", SOURCES)
def test_one_mask_shared_by_several_calls_of_a_step(source):
    """As hosts do that call their model for cond and for uncond: the second sees the first's mask, and leaves it."""
    levels, cond, uncond = karras(12), Denoiser(IMAGE), Denoiser(IMAGE, seed=3)
    detailer = Detailer(Settings(mask_source=source), levels)
    x, expected = start(IMAGE), detailed(cond, start(IMAGE), levels, Settings(mask_source=source))[0]
    for i, sigma in enumerate(levels[:-1]):
        first = detailer.step(cond, x, sigma)
        if first.mask is not None:
            uncond.seen.clear()
            second = detailer.step(uncond, x, sigma, mask=first.mask)
            plain, lied = (uncond.denoise(call.x, call.sigma) for call in uncond.seen)
            torch.testing.assert_close(second.denoised, plain + (lied - plain) * first.mask.double())
            assert torch.equal(second.mask, first.mask)
            # At the published mask's first step there is nothing to show yet.
            assert detailer.mask is first.mask or first.kind == "plain"
        x = first.denoised + (x - first.denoised) * (levels[i + 1] / sigma)
    assert torch.equal(x, expected)
    assert detailer.report.lied >= 6


@pytest.mark.parametrize("source", SOURCES)
def test_streams_are_stepped_as_if_alone_and_blended_alike(source):
    shapes = [(2, 4, 8, 8), (2, 3, 20)]
    models, levels = [Denoiser(shape, seed=i) for i, shape in enumerate(shapes)], karras(12)
    x = [start(shape, seed=i) for i, shape in enumerate(shapes)]
    chosen = Settings(mask_source=source, strength=0.3)
    alone = [detailed(model, value, levels, chosen)[0] for model, value in zip(models, x, strict=True)]

    def model(call):
        said = [m.denoise(value, call.sigma) for m, value in zip(models, call.x, strict=True)]
        return Prediction(said, {"half": [value * 0.5 for value in said]})

    detailer = Detailer(chosen, levels)
    for i, sigma in enumerate(levels[:-1]):
        out = detailer.step(model, x, sigma)
        for value, half in zip(out.denoised, out.others["half"], strict=True):
            torch.testing.assert_close(half, value * 0.5)
        x = [d + (value - d) * (levels[i + 1] / sigma) for d, value in zip(out.denoised, x, strict=True)]
    assert [tuple(m.shape) for m in detailer.mask] == [(2, 1, 8, 8), (2, 1, 20)]
    for together, single in zip(x, alone, strict=True):
        torch.testing.assert_close(together, single, rtol=1e-6, atol=1e-7)


def test_limit_and_within_concern_the_first_stream():
    levels, x = karras(12), [start((1, 4, 8, 8)), start((1, 4, 8, 8), seed=2)]

    def model(call):
        return Prediction([Denoiser((1, 4, 8, 8)).denoise(value, call.sigma) for value in call.x])

    free, bound = Detailer(Settings(**ALL), levels), Detailer(Settings(**ALL), levels, limit=torch.zeros(1, 1, 4, 4))
    free.step(model, x, levels[6])
    bound.step(model, x, levels[6])
    assert torch.equal(bound.mask[0], torch.zeros(1, 1, 8, 8))
    assert torch.equal(bound.mask[1], free.mask[1])
    assert free.mask[1].max() > 0
    part = torch.zeros(1, 1, 8, 8)
    part[..., :3] = 1
    for source in ("response", "change"):
        settings = Settings(mask_source=source, every=1, start=0.1)
        free, inside = Detailer(settings, levels), Detailer(settings, levels, within=part)
        for sigma in levels[2:5]:
            free.step(model, x, sigma)
            inside.step(model, x, sigma)
        assert not torch.equal(inside.mask[0], free.mask[0])
        assert torch.equal(inside.mask[1], free.mask[1])


def test_two_calls_share_a_mask_from_the_first_step_on():
    """As sampler-loop.md has it: what the first call came to is handed to the second, whatever that was."""
    levels, model = karras(12), Denoiser(IMAGE)
    detailer = Detailer(Settings(mask_source="change", every=1, start=0.1, end=0.9), levels)
    alone = Detailer(Settings(mask_source="change", every=1, start=0.1, end=0.9), levels)
    for i, sigma in enumerate(levels[:-1]):
        one, two, mine = start(IMAGE, seed=i), start(IMAGE, seed=50 + i), alone.step(model, start(IMAGE, seed=i), sigma)
        cond = detailer.step(model, one, sigma)
        uncond = detailer.step(model, two, sigma, cond.mask)
        assert torch.equal(cond.denoised, mine.denoised)
        if cond.kind == "plain":
            assert torch.equal(uncond.denoised, bare_call(model, two, sigma))


def bare_call(model, x, sigma):
    return Detailer(Settings(strength=0.0), []).step(model, x, sigma).denoised
