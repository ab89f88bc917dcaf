"""Samplers, latents and inputs that are not as one wishes."""

import itertools
import math

import pytest
import torch

from selective_sigma import Detailer, Prediction, Settings
from selective_sigma.settings import CHOICES

from .runs import Denoiser, detailed, plain, sigmas, start

SOURCES = CHOICES["mask_source"]
PASSES = CHOICES["passes"]
IMAGE = (2, 4, 12, 12)


def test_the_second_call_waits_for_a_mask_that_lights():
    levels = sigmas(12)
    model, x = Denoiser(IMAGE), start(IMAGE)
    bare = plain(model, x, levels)
    for chosen, more in (
        (Settings(coverage=0.0), {}),
        (Settings(), {"limit": torch.zeros(1, 1, 12, 12)}),
        (Settings(coverage=1.0), {"limit": torch.zeros(1, 1, 6, 6)}),
    ):
        model.calls = 0
        result, run = detailed(model, x, levels, chosen, **more)
        assert torch.equal(result, bare)
        assert model.calls == run.report.calls == 12
    flat_model = lambda x, sigma: Prediction(torch.ones_like(x))  # noqa: E731
    _, run = detailed(flat_model, x, levels, Settings())
    assert run.report.calls == 12
    assert run.report.skipped["empty"] > 0
    _, run = detailed(model, x, levels, Settings(mask_source="change_published"))
    assert run.report.skipped["first"] == 1


def test_limit_of_ones_and_zeros():
    levels = sigmas(12)
    model, x = Denoiser(IMAGE), start(IMAGE)
    for coverage in (0.5, 1.0):
        free, _ = detailed(model, x, levels, Settings(coverage=coverage, passes="two"))
        all_over, _ = detailed(
            model, x, levels, Settings(coverage=coverage, passes="two"), limit=torch.ones(1, 1, 12, 12)
        )
        assert torch.equal(free, all_over)
    # Full coverage asks no mask, so there is no first step without one.
    one_pass, _ = detailed(model, x, levels, Settings(coverage=1.0))
    for source in SOURCES:
        full = Settings(coverage=1.0, mask_source=source, passes="two")
        assert torch.equal(detailed(model, x, levels, full, limit=torch.ones(1, 1, 12, 12))[0], one_pass)
    half = torch.zeros(1, 1, 12, 12)
    half[..., :6] = 1
    bare = plain(model, x, levels)
    part, _ = detailed(model, x, levels, Settings(passes="two"), limit=half)
    # This denoiser works pixel by pixel, so what may not change does not.
    assert torch.equal(part[..., 6:], bare[..., 6:])
    assert not torch.equal(part[..., :6], bare[..., :6])


def heun(step, x, levels):
    """Calls twice at each sigma but the last, the second time on what came of the first."""
    for now, then in itertools.pairwise(levels):
        slope = (x - step(x, now)) / now
        guess = x + slope * (then - now)
        if then > 0:
            slope = (slope + (guess - step(guess, then)) / then) / 2
        x = x + slope * (then - now)
    return x


def restart(step, x, levels):
    """Goes up again in the middle, and probes above and between the run's own sigmas."""
    for now, then in zip([*levels[:8], *levels[3:-1]], [*levels[1:8], levels[3], *levels[4:]], strict=True):
        d = step(x, now)
        step(x, now * 1.0001)
        step(x, (now + then) / 2)
        x = d + (x - d) * then / now
    return x


@pytest.mark.parametrize("sampler", [heun, restart])
@pytest.mark.parametrize("passes", PASSES)
def test_samplers_that_call_twice_probe_or_go_up(sampler, passes):
    levels = sigmas(14).double()
    model, x = Denoiser(IMAGE), start(IMAGE)
    bare = sampler(lambda x, s: model(x, s).denoised, x, levels)
    two, run = (None, Detailer(Settings(passes=passes, strength=0.3), levels))
    two = sampler(lambda x, s: run.step(model, x, s).denoised, x, levels)
    assert two.isfinite().all()
    assert not torch.equal(two, bare)
    assert run.report.calls == run.report.true + run.report.lied + run.report.held
    zero = Detailer(Settings(passes=passes, mask_override="zeros"), levels)
    assert torch.equal(sampler(lambda x, s: zero.step(model, x, s).denoised, x, levels), bare)


def test_a_second_call_at_the_same_sigma_leaves_the_mask():
    levels = sigmas(14)
    model, x = Denoiser(IMAGE), start(IMAGE)
    detailer = Detailer(Settings(passes="two"), levels)
    for i in range(5):
        detailer.step(model, x, levels[i])
    before = detailer.mask
    detailer.step(model, x, levels[4])
    torch.testing.assert_close(detailer.mask, before)


def test_ascending_runs_and_sigmas_outside_are_plain():
    up = sigmas(10).flip(0)
    model, x = Denoiser(IMAGE), start(IMAGE)
    detailer = Detailer(Settings(), up)
    for sigma in up:
        detailer.step(model, x, sigma)
    assert detailer.report.skipped == {"range": 11}
    detailer = Detailer(Settings(), sigmas(10))
    detailer.step(model, x, torch.tensor(0.0))
    detailer.step(model, x, torch.tensor(99.0))
    assert detailer.report.skipped == {"range": 2}
    assert Detailer(Settings(), []).step(model, x, torch.tensor(1.0)).denoised.isfinite().all()


@pytest.mark.parametrize("passes", PASSES)
@pytest.mark.parametrize("source", SOURCES)
def test_latents_grow_and_batches_change(passes, source):
    levels = sigmas(20)
    detailer = Detailer(Settings(passes=passes, mask_source=source), levels)
    for i in range(20):
        shape = (2, 4, 8, 8) if i < 7 else (2, 4, 12, 16) if i < 12 else (1, 4, 12, 16) if i < 15 else (3, 4, 12, 16)
        result = detailer.step(Denoiser(shape), start(shape), levels[i])
        assert result.denoised.shape == shape
        assert result.denoised.isfinite().all()
    assert detailer.report.lied >= 3


def test_nothing_is_remembered_of_another_batch():
    levels = sigmas(20)
    model, x, other = Denoiser(IMAGE), start(IMAGE), start((1, *IMAGE[1:]))
    one, two = (Detailer(Settings(), levels) for _ in range(2))
    for i in range(6):
        one.step(model, x, levels[i])
    one.step(model, other, levels[6])
    two.step(model, other, levels[6])
    for i in range(7, 12):
        a, b = (d.step(model, x, levels[i]).denoised for d in (one, two))
        assert torch.equal(a, b)


@pytest.mark.parametrize("passes", PASSES)
@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("where", ["true", "lied"])
def test_nan_is_passed_through_counted_and_never_spread(passes, source, bad, where):
    levels = sigmas(20)
    sane, chosen = Denoiser(IMAGE), Settings(passes=passes, mask_source=source, strength=0.3)

    def run(poison):
        detailer, x, last, calls, results = Detailer(chosen, levels), start(IMAGE), [0, 0], [0], []

        def model(x, sigma):
            calls[0] += 1
            last[0] = sane(x, sigma)
            first = calls[0] == 1
            if poison and i == 8 and first == (where == "true"):
                hurt = last[0].denoised.clone()
                hurt[0, 1, 3, 3] = bad
                last[0] = Prediction(hurt, last[0].alike)
            if first:
                last[1] = last[0]
            return last[0]

        for i in range(20):
            calls[0] = 0
            results.append((detailer.step(model, x, levels[i]), last[1], calls[0]))
            x = start(IMAGE, seed=i)
        return results, detailer

    hurt, with_nan = run(True)
    good, without = run(False)
    two_calls = hurt[8][2] == 2
    expected = 1 if where == "true" or two_calls or good[8][2] == 2 else 0
    assert with_nan.report.nonfinite == expected
    assert without.report.nonfinite == 0
    # The sample in question is what the model said, bit for bit; its neighbour saw nothing.
    if expected:
        assert torch.equal(hurt[8][0].denoised[0].nan_to_num(), hurt[8][1].denoised[0].nan_to_num())
        assert torch.equal(hurt[8][0].alike[0][0], hurt[8][1].alike[0][0])
    for (a, _, _), (b, _, _) in zip(hurt, good, strict=True):
        torch.testing.assert_close(a.denoised[1], b.denoised[1], rtol=1e-6, atol=1e-7)
    for i, (a, _, _) in enumerate(hurt):
        assert i == 8 or a.denoised.isfinite().all()
    assert with_nan.mask.isfinite().all()


def test_sums_in_half_precision_do_not_overflow():
    big = torch.full((2, 4, 64, 64), 6e4, dtype=torch.float16)
    assert Prediction(big).sound().all()
    assert Prediction(big, (big * 2,)).sound().any().item() is False


def refuse(x, sigma):
    raise AssertionError("the model was called")


@pytest.mark.parametrize(
    ("x", "sigma", "error", "said"),
    [
        (torch.ones(1, 4, 8, 8, dtype=torch.int64), torch.tensor(1.0), TypeError, "int64"),
        (torch.ones(8, 8), torch.tensor(1.0), ValueError, r"x has shape \(8, 8\)"),
        (torch.ones(1, 1, 2, 2, 2, 2), torch.tensor(1.0), ValueError, "x has shape"),
        (torch.ones(2, 4, 8), torch.tensor(math.nan), ValueError, "sigma holds nan"),
        (torch.ones(2, 4, 8), torch.tensor([1.0, math.inf]), ValueError, "sigma holds inf"),
        (torch.ones(2, 4, 8), torch.tensor([1.0, -1.0]), ValueError, "sigma holds -1.0"),
        (torch.ones(2, 4, 8), torch.ones(3), ValueError, "sigma has 3 values for a batch of 2"),
    ],
)
def test_bad_input_raises_before_the_model_is_called(x, sigma, error, said):
    with pytest.raises(error, match=said):
        Detailer(Settings(), sigmas(10)).step(refuse, x, sigma)


@pytest.mark.parametrize("name", ["limit", "within"])
def test_maps_that_do_not_fit_raise_before_the_model_is_called(name):
    for shape in ((3, 1, 8, 8), (1, 1, 8)):
        with pytest.raises(ValueError, match=f"{name} has shape"):
            Detailer(Settings(), sigmas(10), **{name: torch.ones(shape)}).step(
                refuse, torch.ones(2, 4, 8, 8), torch.tensor(1.0)
            )
    with pytest.raises(ValueError, match=f"{name} holds"):
        Detailer(Settings(), sigmas(10), **{name: torch.full((1, 1, 4), math.nan)})


def test_bad_runs_raise_when_made():
    for bad in ([2.0, math.nan, 0.0], [math.inf, 1.0], [1.0, -1.0]):
        with pytest.raises(ValueError, match="sigmas holds"):
            Detailer(Settings(), bad)
    with pytest.raises(ValueError, match="family is 'vp': choose ve or flow"):
        Detailer(Settings(), [1.0, 0.0], "vp")
    with pytest.raises(ValueError, match="weights"):
        Detailer(Settings(), [1.0, 0.0], weights=[1.0, 1.0])


def test_scalar_and_per_sample_sigma_agree():
    levels = sigmas(14)
    model, x = Denoiser(IMAGE), start(IMAGE)
    runs = [Detailer(Settings(), levels) for _ in range(3)]
    for i in range(13):
        s = levels[i]
        a, b, c = (r.step(model, x, v).denoised for r, v in zip(runs, (s, s.reshape(1), s.expand(2)), strict=True))
        assert torch.equal(a, b)
        assert torch.equal(a, c)
