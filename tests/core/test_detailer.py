"""THE STEP: the blend, what it returns and counts, samples apart, masks shared, streams."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from selective_sigma import Detailer, Prediction, Settings
from selective_sigma.detailer import _blend
from selective_sigma.settings import CHOICES

from .runs import DTYPES, IMAGE, SHAPES, Denoiser, bare, detailed, euler, karras, start

SOURCES = CHOICES["mask_source"]
ALL = {"every": 1, "start": 0.0}


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1))
def test_the_blend_is_linear_in_the_mask_and_exact_at_both_ends(a, b, share):
    plain, lied = start(IMAGE, seed=0), start(IMAGE, seed=1)

    def at(value):
        return _blend(plain, lied, torch.full((2, 1, 12, 12), value, dtype=torch.float64))

    torch.testing.assert_close(at(a + share * (b - a)), at(a) + share * (at(b) - at(a)), rtol=1e-9, atol=1e-9)
    assert torch.equal(at(0.0), plain)
    assert torch.equal(at(1.0), lied)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_rounded_once(dtype):
    plain, lied, mask = start(IMAGE, dtype, 0), start(IMAGE, dtype, 1), torch.rand(2, 1, 12, 12)
    exact = (plain.double() * (1 - mask.double()) + lied.double() * mask.double()).to(dtype)
    blended = _blend(plain, lied, mask)
    assert blended.dtype == dtype
    assert (blended != exact).double().mean() < 0.01


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("source", SOURCES)
def test_a_blended_step_is_made_of_both_calls_under_its_mask(source, shape, dtype):
    levels, x, model = karras(12), start(shape, dtype), Denoiser(shape, dtype)
    detailer, blended = Detailer(Settings(strength=0.5, mask_source=source), levels, record=True), []
    for i, sigma in enumerate(levels[:-1]):
        model.seen.clear()
        out = detailer.step(model, x, sigma)
        plain, lied = (model.denoise(call.x, call.sigma) for call in (model.seen[0], model.seen[-1]))
        assert out.index == i
        assert out.kind == ("plain" if len(model.seen) == 1 else "blended")
        assert out.denoised.dtype == dtype
        if out.kind == "blended":
            blended.append(i)
            assert [call.kind for call in model.seen] == ["plain", "lied"]
            assert out.mask is detailer.mask is detailer.masks[-1].mask
            assert out.mask.dtype == torch.float32
            assert out.mask.shape == (shape[0], 1, *shape[2:])
            assert 0 <= out.mask.min() < out.mask.max() <= 1
            m = out.mask.double()
            expected = (plain.double() * (1 - m) + lied.double() * m).to(dtype)
            torch.testing.assert_close(out.denoised, expected)
            torch.testing.assert_close(out.others["half"], expected * 0.5)
        x = out.denoised + (x - out.denoised) * (levels[i + 1] / sigma).to(dtype)
    steps = {step.index: step for step in detailer._schedule.steps}
    assert [record.step for record in detailer.masks] == blended
    assert all((r.sigma, r.strength) == (steps[r.step].high, steps[r.step].strength) for r in detailer.masks)
    due = [i for i, step in steps.items() if step.strength]
    assert blended == (due[1:] if source == "change" else due)


def test_a_one_pass_step_is_what_the_lied_call_said():
    levels, said = karras(10), []

    def model(call):
        said.append(Prediction(call.x * 0.5, {"uncond": call.x * 2}))
        return said[-1]

    out = Detailer(Settings(coverage=1.0, every=1), levels).step(model, start(IMAGE), levels[6])
    assert (out.kind, out.index, len(said)) == ("lied", 6, 1)
    assert out.denoised is said[0].denoised
    assert out.others["uncond"] is said[0].others["uncond"]
    assert torch.equal(out.mask, torch.ones(2, 1, 12, 12))


def test_masks_are_kept_only_when_asked_for():
    levels, model, x = karras(12), Denoiser(IMAGE), start(IMAGE)
    for coverage in (0.5, 1.0):
        _, run = detailed(model, x, levels, Settings(coverage=coverage))
        assert run.masks == []
        assert run.mask.shape == (2, 1, 12, 12)
        _, run = detailed(model, x, levels, Settings(coverage=coverage), record=True)
        assert len(run.masks) == run.report.lied
    assert torch.equal(run.mask, torch.ones(2, 1, 12, 12))


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("coverage", [0.1, 0.5, 1.0])
def test_a_sample_does_not_depend_on_its_batch(source, coverage):
    shape, levels = (3, 4, 8, 8), karras(16)
    model, x = Denoiser(shape), start(shape)
    x[2] *= 30
    chosen = Settings(mask_source=source, coverage=coverage, strength=0.4)
    whole, _ = detailed(model, x, levels, chosen)
    for j in range(3):
        alone, _ = detailed(model, x[j : j + 1], levels, chosen)
        torch.testing.assert_close(whole[j : j + 1], alone, rtol=1e-6, atol=1e-7)


def test_two_runs_never_meet():
    levels, model, x = karras(14), Denoiser(IMAGE), start(IMAGE)
    for source in SOURCES:
        alone, _ = detailed(model, x, levels, Settings(mask_source=source))
        one, two = (Detailer(Settings(mask_source=source), levels) for _ in range(2))

        def step(x, sigma, one=one, two=two):
            two.step(model, start(IMAGE, seed=9), sigma)
            return one.step(model, x, sigma).denoised

        assert torch.equal(euler(step, x, levels), alone)


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


@pytest.mark.parametrize("source", SOURCES)
def test_latents_grow_and_batches_change(source):
    levels = karras(20)
    detailer, blended = Detailer(Settings(mask_source=source, **ALL), levels), 0
    for i in range(20):
        shape = (2, 4, 8, 8) if i < 7 else (2, 4, 12, 16) if i < 12 else (1, 4, 12, 16) if i < 15 else (3, 4, 12, 16)
        out = detailer.step(Denoiser(shape), start(shape, seed=i), levels[i])
        assert out.denoised.shape == shape
        assert out.denoised.isfinite().all()
        blended += out.kind == "blended" and out.mask.shape == (shape[0], 1, *shape[2:])
    assert blended >= 14


def test_one_level_per_call_however_it_is_shaped():
    levels, model, x = karras(14), Denoiser(IMAGE), start(IMAGE)
    for sigma in levels[4:9]:
        outs = [Detailer(Settings(), levels).step(model, x, s) for s in (sigma, sigma.reshape(1), sigma.expand(2))]
        assert torch.equal(outs[0].denoised, outs[1].denoised)
        assert torch.equal(outs[0].denoised, outs[2].denoised)
    assert model.seen[-1].sigma.shape == (2,)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("every", [1, 2])
def test_a_level_in_half_precision_is_its_own_step_s(dtype, every):
    levels, model, x = torch.linspace(1, 0, 21), Denoiser(IMAGE), start(IMAGE)
    exact, half = (Detailer(Settings(every=every), levels, "flow") for _ in range(2))
    for i, sigma in enumerate(levels[:-1]):
        assert half.step(model, x, sigma.to(dtype)).index == exact.step(model, x, sigma).index == i
    assert half.report.lied == exact.report.lied > 0


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


def test_calls_outside_the_run_are_plain_and_say_so():
    model, x, levels = Denoiser(IMAGE), start(IMAGE), karras(10)
    for sigmas, asked, reason in (
        (levels.flip(0), levels, "ascending"),
        (levels, torch.tensor([0.0, 99.0]), "outside"),
        ([], torch.tensor([1.0]), "outside"),
    ):
        detailer = Detailer(Settings(**ALL), sigmas)
        for sigma in asked:
            out = detailer.step(model, x, sigma)
            assert (out.kind, out.index) == ("plain", -1)
            assert model.seen[-1].index == -1
        assert detailer.report.skipped == {reason: len(asked)}


def test_the_effect_grows_with_strength_and_turns_with_its_sign():
    model, x, levels = Denoiser(IMAGE), start(IMAGE), karras(20)
    expected = bare(model, x, levels)
    moved = {s: detailed(model, x, levels, Settings(strength=s))[0] - expected for s in (-0.1, 0.05, 0.1, 0.2)}
    sizes = [float(moved[s].norm()) for s in (0.05, 0.1, 0.2)]
    assert sizes[1] / sizes[0] == pytest.approx(2, rel=0.2)
    assert sizes[2] / sizes[1] == pytest.approx(2, rel=0.3)
    assert torch.nn.functional.cosine_similarity(moved[-0.1].flatten(), -moved[0.1].flatten(), 0) > 0.9
