"""WHAT: the noise level to tell, and the latent to match."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from selective_sigma import Detailer, Prediction, Settings
from selective_sigma.lie import SMALLEST, factors, noise_to_signal, rescale

from .runs import DTYPES, IMAGE, Denoiser, detailed, start

strengths = st.floats(-1, 0.99)
LIES = ("noise_to_signal", "fixed_input")


@given(st.floats(0.001, 0.999), strengths)
def test_flow_is_ve_under_x_over_alpha(sigma, strength):
    """method.md section 1: v' = (1 - s) v, sigma' = v' / (1 + v'), x' = x (1 - sigma') / (1 - sigma)."""
    of_sigma, of_x = factors(sigma, strength, "flow")
    v = (1 - strength) * sigma / (1 - sigma)
    assert sigma * of_sigma == pytest.approx(v / (1 + v), rel=1e-9)
    assert of_x == pytest.approx((1 - v / (1 + v)) / (1 - sigma), rel=1e-9)
    assert factors(sigma, strength, "ve") == (pytest.approx(1 - strength), 1.0)


@given(st.floats(0.001, 0.999), strengths)
def test_rescale_is_what_factors_says_of_the_latent(sigma, strength):
    of_sigma, of_x = factors(sigma, strength, "flow")
    assert rescale(sigma, sigma * of_sigma, "flow", "noise_to_signal") == pytest.approx(of_x, rel=1e-9)
    assert rescale(sigma, sigma * of_sigma, "flow", "fixed_input") == 1
    assert rescale(sigma, sigma * of_sigma, "ve", "noise_to_signal") == 1


@given(st.floats(0, 1), st.floats(-1, 1), st.sampled_from(LIES))
def test_flow_never_leaves_the_model_s_range(sigma, strength, lie):
    of_sigma, of_x = factors(sigma, strength, "flow", lie)
    assert 0 <= sigma * of_sigma <= 1 + 1e-9
    assert 0 < of_x <= 1 / SMALLEST * (1 + 1e-9)
    assert strength < 1 or factors(sigma, strength, "ve")[0] == SMALLEST


@given(st.floats(0, 1), st.sampled_from(["ve", "flow"]), st.sampled_from(LIES))
def test_strength_zero_is_the_identity_exactly(sigma, family, lie):
    assert factors(sigma, 0.0, family, lie) == (1.0, 1.0)


def test_fixed_input_is_a_lie_about_sigma_alone():
    assert factors(0.5, 0.1, "flow", "fixed_input") == (0.9, 1.0)
    assert factors(0.5, 0.1, "ve", "fixed_input") == factors(0.5, 0.1, "ve", "noise_to_signal")


def test_noise_to_signal_is_sigma_over_alpha_and_finite():
    assert noise_to_signal(0.8, "flow") == pytest.approx(4)
    assert noise_to_signal(0.8, "ve") == 0.8
    assert noise_to_signal(0.99, "flow") < noise_to_signal(1.0, "flow") < 1e6


@pytest.mark.parametrize("every", [1, 2])
@pytest.mark.parametrize("coverage", [0.3, 0.5, 1.0])
@pytest.mark.parametrize("strength", [0.1, -0.4])
def test_a_flow_run_is_the_ve_run_of_x_over_alpha(every, coverage, strength):
    """Lie, compensation, doses, window and mask at once: a change of variables changes nothing."""
    ve_levels = torch.cat([torch.logspace(1.5, -1.5, 12, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)])
    levels, x = ve_levels / (1 + ve_levels), start(IMAGE)
    chosen = Settings(strength=strength, coverage=coverage, every=every)
    ve, _ = detailed(Denoiser(IMAGE), x, ve_levels, chosen, window=(float(ve_levels[2]), float(ve_levels[-2])))
    flow, run = detailed(
        Denoiser(IMAGE, family="flow"), x * (1 - levels[0]), levels, chosen,
        window=(float(levels[2]), float(levels[-2])),
    )  # fmt: skip
    # The mask is single precision.
    torch.testing.assert_close(flow, ve, rtol=1e-5, atol=1e-6)
    assert run.report.lied > 3


@pytest.mark.parametrize("lie", LIES)
@pytest.mark.parametrize("family", ["ve", "flow"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_lied_call_is_shown_what_the_factors_say(dtype, family, lie):
    model, x, levels = Denoiser(IMAGE, dtype, family), start(IMAGE, dtype, top=1.0), torch.linspace(0.95, 0.05, 10)
    detailer = Detailer(Settings(strength=0.2, lie=lie, every=1), levels, family, window=(1.0, 0.0))
    for sigma in levels[:-1]:
        detailer.step(model, x, sigma)
        plain, lied = model.seen[-2:]
        of_sigma, of_x = factors(float(sigma), detailer._schedule.at(float(sigma)).strength, family, lie)
        assert plain.x is x
        assert plain.sigma is plain.true_sigma is lied.true_sigma is sigma
        assert torch.equal(lied.sigma, sigma * of_sigma)
        # A factor rounded to bfloat16 first would be up to 0.4 % off, everywhere.
        exact = (x.double() * of_x).to(dtype)
        torch.testing.assert_close(lied.x, exact)
        assert dtype in (torch.float32, torch.float64) or (lied.x != exact).double().mean() < 0.01
        assert lied.x.dtype == dtype
        assert (lied.x is x) == (family == "ve" or lie == "fixed_input")


@pytest.mark.parametrize("family", ["ve", "flow"])
def test_each_stream_is_shown_the_lie_by_the_noise_that_is_in_it(family):
    """A stream with a shift of its own stands at its own sigma; the model works that out from the first's."""

    def shift(sigma: float) -> float:
        return 3 * sigma / (1 + 2 * sigma)

    levels = torch.linspace(0.95, 0.05, 10)
    x, seen = [start((2, 4, 8, 8), top=1.0), start((2, 3, 20), top=1.0)], []

    def model(call):
        seen.append(call)
        return Prediction([value * 0.5 for value in call.x])

    detailer = Detailer(Settings(every=1), levels, family, window=(1.0, 0.0), stream_sigma=[float, shift])
    for sigma in levels[:-1]:
        detailer.step(model, x, sigma)
        lied = seen[-1]
        for value, shown, own in zip(x, lied.x, (float, shift), strict=True):
            if family == "ve":
                assert shown is value
            else:
                expected = value * ((1 - own(float(lied.sigma))) / (1 - own(float(sigma))))
                torch.testing.assert_close(shown, expected, rtol=1e-5, atol=1e-7)
    assert len(seen) == 2 * (len(levels) - 1)
