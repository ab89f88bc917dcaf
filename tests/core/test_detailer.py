"""THE STEP: the blend, the output and the counts; samples do not affect each other."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from selective_sigma import Detailer, Prediction, Settings
from selective_sigma.blend import _blend
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
        lied, plain = (model.denoise(call.x, call.sigma) for call in (model.seen[0], model.seen[-1]))
        assert out.index == i
        assert out.kind == ("plain" if len(model.seen) == 1 else "blended")
        assert out.denoised.dtype == dtype
        if out.kind == "blended":
            blended.append(i)
            assert [(call.kind, call.is_first_of_two) for call in model.seen] == [("lied", True), ("plain", False)]
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
    doses = {i: detailer._schedule.dose(step) for i, step in steps.items()}
    assert all((r.sigma, r.strength) == (steps[r.step].high, -math.expm1(-doses[r.step])) for r in detailer.masks)
    due = [i for i, dose in doses.items() if dose]
    assert blended == due
    # The published mask has nothing to compare with at the first due step, whose group it is then told in later.
    assert detailer.report.skipped.get("first", 0) == (source == "change")


def test_a_one_pass_step_returns_the_prediction_of_the_lied_call():
    levels, predictions = karras(10), []

    def model(call):
        predictions.append(Prediction(call.x * 0.5, {"uncond": call.x * 2}))
        return predictions[-1]

    out = Detailer(Settings(coverage=1.0, every=1), levels).step(model, start(IMAGE), levels[6])
    assert (out.kind, out.index, len(predictions)) == ("lied", 6, 1)
    assert out.denoised is predictions[0].denoised
    assert out.others["uncond"] is predictions[0].others["uncond"]
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


def test_two_runs_share_no_state():
    levels, model, x = karras(14), Denoiser(IMAGE), start(IMAGE)
    for source in SOURCES:
        alone, _ = detailed(model, x, levels, Settings(mask_source=source))
        one, two = (Detailer(Settings(mask_source=source), levels) for _ in range(2))

        def step(x, sigma, one=one, two=two):
            two.step(model, start(IMAGE, seed=9), sigma)
            return one.step(model, x, sigma).denoised

        assert torch.equal(euler(step, x, levels), alone)


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
