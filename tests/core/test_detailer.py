"""Identities, the blend, the published method: what a step is."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from selective_sigma import Detailer, Prediction, Settings
from selective_sigma.detailer import _blend
from selective_sigma.schedule import flat
from selective_sigma.settings import CHOICES

from .runs import Denoiser, detailed, each, euler, plain, sigmas, start

SHAPES = [(2, 3, 24), (2, 4, 8, 10), (2, 3, 3, 6, 8)]
DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
SOURCES = CHOICES["mask_source"]
PASSES = CHOICES["passes"]
IMAGE = (2, 4, 12, 12)


def full_lie(model, x, levels, strength=0.1):
    """One lied call per step, written from method.md sections 1 and 5."""
    weights = iter(flat(len(levels) - 1))

    def step(x, sigma):
        keep = torch.tensor(1.0) - torch.tensor(strength * next(weights), dtype=torch.float32)
        return model(x, (sigma * keep).expand(len(x))).denoised

    return euler(step, x, levels)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("family", ["ve", "flow"])
def test_identities_bit_for_bit(dtype, shape, family):
    levels = sigmas(10) if family == "ve" else torch.linspace(1, 0, 11)
    x, model = start(shape, dtype, top=float(levels[0])), Denoiser(shape, dtype)
    bare = plain(model, x, levels)
    model.calls = 0
    zeros, run = detailed(model, x, levels, Settings(mask_override="zeros"), family=family)
    assert torch.equal(zeros, bare)
    # The check is on the blend itself: both passes, wherever the schedule is on.
    assert run.report.lied == sum(w > 0 for w in flat(10))
    assert model.calls == run.report.calls
    ones, _ = detailed(model, x, levels, Settings(mask_override="ones"), family=family)
    full, run = detailed(model, x, levels, Settings(coverage=1.0), family=family)
    assert torch.equal(ones, full)
    assert not torch.equal(ones, bare)
    assert run.report.calls == 10
    if family == "ve":
        assert torch.equal(full, full_lie(model, x, levels))
    for idle in (Settings(strength=0.0), Settings(coverage=0.0)):
        result, run = detailed(model, x, levels, idle, family=family)
        assert torch.equal(result, bare)
        assert run.report.as_dict() == {
            "steps": 10, "calls": 10, "true": 10, "lied": 0, "held": 0, "nonfinite": 0, "skipped": {"idle": 10},
        }  # fmt: skip


@pytest.mark.parametrize("passes", PASSES)
def test_a_plain_step_returns_the_very_tensors(passes):
    levels, kept = sigmas(10), []

    def model(x, sigma):
        kept.append((x, sigma, Prediction(x * 0.5, (x * 2,))))
        return kept[-1][2]

    x = start(IMAGE)
    detailer = Detailer(Settings(passes=passes), levels)
    assert detailer.step(model, x, levels[0]) is kept[0][2]
    assert kept[0][0] is x
    assert kept[0][1].data_ptr() == levels.data_ptr()


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1))
def test_the_blend_is_linear_in_the_mask(a, b, share):
    n, d = (Prediction(start(IMAGE, seed=s), (start(IMAGE, seed=s + 2),)) for s in (0, 1))

    def at(value):
        return _blend(n, d, torch.full((2, 1, 12, 12), value, dtype=torch.float64))

    middle, low, high = at(a + share * (b - a)), at(a), at(b)
    for m, lo, hi in zip(
        (middle.denoised, *middle.alike), (low.denoised, *low.alike), (high.denoised, *high.alike), strict=True
    ):
        torch.testing.assert_close(m, lo + share * (hi - lo), rtol=1e-9, atol=1e-9)
    assert torch.equal(at(0.0).denoised, n.denoised)
    assert torch.equal(at(1.0).alike[0], d.alike[0])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_rounded_once(dtype):
    n, d = start(IMAGE, dtype, 0), start(IMAGE, dtype, 1)
    mask = torch.rand(2, 1, 12, 12)
    exact = (n.double() * (1 - mask.double()) + d.double() * mask.double()).to(dtype)
    blended = _blend(Prediction(n), Prediction(d), mask).denoised
    assert blended.dtype == dtype
    assert (blended != exact).double().mean() < 0.01


def test_half_is_half():
    levels = sigmas(10)
    model, x = Denoiser(IMAGE), start(IMAGE)
    half = Detailer(Settings(mask_override="half"), levels).step(model, x, levels[4])
    true, lied = model(x, levels[4]), model(x, levels[4] * 0.9)
    for h, t, d in zip(
        (half.denoised, *half.alike), (true.denoised, *true.alike), (lied.denoised, *lied.alike), strict=True
    ):
        torch.testing.assert_close(h, (t + d) / 2, rtol=1e-6, atol=1e-6)


def published(model, x, levels, strength, coverage, ema=0.9, clip=0.2):
    """The published method, from method.md sections 2 and 5: one Euler run."""
    weights = flat(len(levels) - 1)
    previous = memory = None
    for i, (now, then) in enumerate(itertools.pairwise(levels)):
        true = model(x, now).denoised
        denoised = true
        if weights[i]:
            if previous is not None:
                moved = (true - previous).abs().mean(1, keepdim=True)
                low = torch.quantile(moved.flatten(1), clip, dim=1).reshape(-1, 1, 1, 1)
                high = torch.quantile(moved.flatten(1), 1 - clip, dim=1).reshape(-1, 1, 1, 1)
                fresh = (moved.clamp(low, high) - low) / (high - low)
                memory = fresh if memory is None else ema * memory + (1 - ema) * fresh
                mask = (memory + 2 * (coverage - 0.5)).clamp(0, 1)
                lied = model(x, now * (1 - strength * weights[i])).denoised
                denoised = (1 - mask) * true + mask * lied
            previous = true
        x = denoised + (then / now) * (x - denoised)
    return x


@pytest.mark.parametrize("coverage", [0.4, 0.5, 0.7])
@pytest.mark.parametrize("strength", [0.1, 0.5, -0.3])
@pytest.mark.parametrize("steps", [6, 20])
def test_equal_to_the_published_method(coverage, strength, steps):
    shape, levels = (2, 4, 80, 72), sigmas(steps).double()
    model, x = Denoiser(shape), start(shape)
    chosen = Settings(
        strength=strength, coverage=coverage, mask_source="change_published", passes="two", lie="fixed_input"
    )
    result, _ = detailed(model, x, levels, chosen)
    expected = published(model, x, levels, strength, coverage)
    bare = plain(model, x, levels)
    assert (result - expected).norm() / expected.norm() < 1e-5
    assert (result - expected).norm() / (expected - bare).norm() < 1e-3


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("passes", PASSES)
def test_runs_in_every_type_and_rank(dtype, shape, source, passes):
    levels = sigmas(12)
    model, x = Denoiser(shape, dtype), start(shape, dtype)
    result, run = detailed(model, x, levels, Settings(strength=0.5, mask_source=source, passes=passes), record=True)
    bare = plain(model, x, levels)
    assert result.dtype == dtype
    assert result.isfinite().all()
    assert 0.001 < (result - bare).double().norm() / bare.double().norm() < 0.5
    assert run.mask.shape == (2, 1, *shape[2:])
    assert all(m.min() >= 0 and m.max() <= 1 for _, m in run.masks)
    assert [round(s, 4) for s, _ in run.masks] == [round(float(levels[i]), 4) for i in range(12) if flat(12)[i]][
        -len(run.masks) :
    ]


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("passes", PASSES)
@pytest.mark.parametrize("coverage", [0.1, 0.5, 1.0])
def test_a_sample_does_not_depend_on_its_batch(source, passes, coverage):
    """Also where samples stand at sigmas of their own, so that they refresh at other times."""
    shape = (3, 4, 8, 8)
    model, x = Denoiser(shape), start(shape)
    x[2] *= 30
    levels = sigmas(24)
    chosen = Settings(mask_source=source, passes=passes, coverage=coverage, strength=0.4)
    # The two sources kept for comparison begin with the batch's first active step: there, in step.
    lag = [0, 0, 0] if source in ("change_published", "first") else [0, 2, 7]
    rows = [[levels[max(i - j, 0)] for i in range(24)] for j in lag]

    def run(members):
        detailer, latent = Detailer(chosen, levels), x[members]
        for i in range(23):
            now, then = (torch.stack([rows[j][k] for j in members]) for k in (i, i + 1))
            d = detailer.step(model, latent, now).denoised
            latent = d + (latent - d) * each(then / now, latent)
        return latent, detailer

    whole, _ = run([0, 1, 2])
    for j in range(3):
        alone, _ = run([j])
        assert torch.allclose(whole[j : j + 1], alone, rtol=1e-6, atol=1e-7), (whole[j] - alone[0]).abs().max()


def test_every_tensor_is_blended_alike():
    levels = sigmas(20)
    model, x = Denoiser(IMAGE), start(IMAGE)
    for passes in PASSES:
        detailer = Detailer(Settings(passes=passes), levels)
        for i in range(18):
            result = detailer.step(model, x, levels[i])
            torch.testing.assert_close(result.alike[0], result.denoised * 0.5)
            x = start(IMAGE, seed=i, top=float(levels[i]))


def test_two_runs_never_meet():
    levels = sigmas(14)
    model, x = Denoiser(IMAGE), start(IMAGE)
    alone, _ = detailed(model, x, levels, Settings())
    one, two = (Detailer(Settings(), levels) for _ in range(2))

    def step(x, sigma):
        two.step(model, start(IMAGE, seed=9), sigma)
        return one.step(model, x, sigma).denoised

    assert torch.equal(euler(step, x, levels), alone)
