import itertools
import math

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


@pytest.mark.parametrize("source", ["change", "structure", "first"])
@pytest.mark.parametrize("family", ["ve", "flow"])
def test_economy_that_always_refreshes_is_two_passes(source, family):
    levels = sigmas(12) if family == "ve" else torch.linspace(1, 0, 13)
    model, x = Denoiser(IMAGE), start(IMAGE, top=float(levels[0]))
    two, _ = detailed(model, x, levels, Settings(passes="two", mask_source=source), family=family)
    often, run = detailed(model, x, levels, Settings(passes="economy", refresh=0.0, mask_source=source), family=family)
    assert torch.equal(two, often)
    assert run.report.held == 0
    assert run.report.lied > 5


@pytest.mark.parametrize("steps", [8, 12, 20, 40])
def test_economy_calls_and_error(steps):
    levels = sigmas(steps).double()
    model, x = Denoiser(IMAGE), start(IMAGE)
    bare = plain(model, x, levels)
    two, _ = detailed(model, x, levels, Settings(passes="two"))
    model.calls = 0
    result, run = detailed(model, x, levels, Settings(passes="economy"))
    # The rule of method.md section 4, counted by hand.
    held, lied = None, 0
    for sigma, weight in zip(levels.tolist(), flat(steps), strict=False):
        if weight and (held is None or math.log(held / sigma) >= 0.6):
            held, lied = sigma, lied + 1
    assert run.report.lied == lied
    assert run.report.held == sum(w > 0 for w in flat(steps)) - lied
    assert model.calls == run.report.calls == steps + lied
    assert (result - two).norm() / (two - bare).norm() < 0.1


def test_economy_calls_at_the_mean_lie():
    """Where the mask is one value all over, nothing is corrected: held and two passes are one lie."""
    levels = sigmas(40).double()
    model, x = Denoiser(IMAGE), start(IMAGE)
    detailer = Detailer(Settings(strength=0.2, mask_source="structure"), levels)
    detailer.step(model, x, levels[20])
    measured = detailer.mask
    detailer.step(model, x, levels[21])
    assert detailer.report.held == 1
    true, lied = model(x, levels[20]).denoised, model(x, levels[20] * 0.8).denoised
    weight = (lied - true).float() ** 2
    mean = ((measured * weight).flatten(1).sum(1) / weight.flatten(1).sum(1)).double()
    told = model.seen[2][1].double() / levels[21]
    torch.testing.assert_close(told, 1 - 0.2 * mean, rtol=1e-5, atol=0)


def test_economy_measures_anew_where_the_lie_outgrows_the_held_one():
    levels = sigmas(20)
    model, x = Denoiser(IMAGE), start(IMAGE)
    weights = [0.0, 0.001, 0.0015, 1.0, 0.0, 1.0, -1.0, *[0.0] * 13]
    detailer = Detailer(Settings(mask_source="structure", refresh=9.0), levels, weights=weights)
    kinds = []
    for i in range(7):
        before = detailer.report.lied, detailer.report.held
        detailer.step(model, x, levels[i])
        kinds.append((detailer.report.lied - before[0], detailer.report.held - before[1]))
    assert kinds == [(0, 0), (1, 0), (0, 1), (1, 0), (0, 0), (0, 1), (1, 0)]


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


def test_where_the_lie_failed_nothing_is_held():
    """A sample whose lied pass was NaN is told the truth until the effect is measured again."""
    levels = sigmas(40).double()
    sane, x = Denoiser(IMAGE), start(IMAGE)

    def model(x, sigma):
        prediction = sane(x, sigma)
        if sane.calls == 2:
            prediction.denoised[0, 0, 0, 0] = math.nan
        return prediction

    detailer = Detailer(Settings(mask_source="structure"), levels)
    detailer.step(model, x, levels[20])
    result = detailer.step(model, x, levels[21])
    assert detailer.report.held == 1
    assert sane.seen[2][1][0] == levels[21]
    assert sane.seen[2][1][1] < levels[21]
    assert torch.equal(result.denoised[0], sane(x, levels[21]).denoised[0])


def test_sums_in_half_precision_do_not_overflow():
    big = torch.full((2, 4, 64, 64), 6e4, dtype=torch.float16)
    assert Prediction(big).sound().all()
    assert Prediction(big, (big * 2,)).sound().any().item() is False


def test_every_tensor_is_blended_alike():
    levels = sigmas(20)
    model, x = Denoiser(IMAGE), start(IMAGE)
    for passes in PASSES:
        detailer = Detailer(Settings(passes=passes), levels)
        for i in range(18):
            result = detailer.step(model, x, levels[i])
            torch.testing.assert_close(result.alike[0], result.denoised * 0.5)
            x = start(IMAGE, seed=i, top=float(levels[i]))


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


def test_two_runs_never_meet():
    levels = sigmas(14)
    model, x = Denoiser(IMAGE), start(IMAGE)
    alone, _ = detailed(model, x, levels, Settings())
    one, two = (Detailer(Settings(), levels) for _ in range(2))

    def step(x, sigma):
        two.step(model, start(IMAGE, seed=9), sigma)
        return one.step(model, x, sigma).denoised

    assert torch.equal(euler(step, x, levels), alone)
