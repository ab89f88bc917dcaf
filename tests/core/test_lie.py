"""WHAT: the noise level to tell, and the latent to match."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from selective_sigma import Detailer, Prediction, Settings
from selective_sigma.lie import SMALLEST_KEEP, Lie, noise_to_signal

from .runs import DTYPES, IMAGE, Denoiser, detailed, start

strengths = st.floats(-1, 0.99)
LIES = ("noise_to_signal", "fixed_input")


def lie(strength, family="ve", kind="noise_to_signal"):
    return Lie(max(1 - strength, SMALLEST_KEEP), family, kind)


@given(st.floats(0.001, 0.999), strengths)
def test_flow_is_ve_under_x_over_alpha(sigma, strength):
    """method.md section 1: v' = (1 - s) v, sigma' = v' / (1 + v'), x' = x (1 - sigma') / (1 - sigma)."""
    v = (1 - strength) * sigma / (1 - sigma)
    assert lie(strength, "flow").tell(sigma) == pytest.approx(v / (1 + v), rel=1e-9)
    assert lie(strength, "flow").scale(sigma) == pytest.approx((1 - v / (1 + v)) / (1 - sigma), rel=1e-9)
    assert lie(strength).tell(sigma) == pytest.approx(sigma * (1 - strength))
    assert lie(strength).scale(sigma) == 1


@pytest.mark.parametrize(
    ("sigma", "tell", "scale"),
    [(1.0, 1.0, 1 / 0.9), (0.9999, 0.9998889, 1.1110988), (0.5, 9 / 19, 20 / 19), (1e-4, 9.00009e-5, 1.00001)],
)
def test_the_lie_at_both_ends_of_a_flow_model_s_range(sigma, tell, scale):
    """Nothing is inverted: at sigma 1, where the latent holds no signal, the network is told 1 and shown x / 0.9."""
    expected = lie(0.1, "flow")
    assert (expected.tell(sigma), expected.scale(sigma)) == (
        pytest.approx(tell, rel=1e-6),
        pytest.approx(scale, rel=1e-6),
    )
    level = torch.tensor([sigma], dtype=torch.float64)
    assert torch.equal(expected.tell(level), torch.tensor([expected.tell(sigma)], dtype=torch.float64))
    assert torch.equal(expected.scale(level), torch.tensor([expected.scale(sigma)], dtype=torch.float64))


@given(st.floats(0, 1), st.floats(-1, 1), st.sampled_from(LIES))
def test_flow_never_leaves_the_model_s_range(sigma, strength, kind):
    expected = lie(strength, "flow", kind)
    assert 0 <= expected.tell(sigma) <= 1 + 1e-9
    assert 0 < expected.scale(sigma) <= 1 / SMALLEST_KEEP * (1 + 1e-9)


@given(st.floats(0, 1), st.sampled_from(["ve", "flow"]), st.sampled_from(LIES))
def test_strength_zero_is_the_identity_exactly(sigma, family, kind):
    assert (lie(0.0, family, kind).tell(sigma), lie(0.0, family, kind).scale(sigma)) == (sigma, 1.0)


def test_fixed_input_is_a_lie_about_sigma_alone():
    assert (lie(0.1, "flow", "fixed_input").tell(0.5), lie(0.1, "flow", "fixed_input").scale(0.5)) == (0.45, 1.0)
    # More noise than there is, at most.
    assert lie(-1.0, "flow", "fixed_input").tell(0.8) == 1
    assert lie(-1.0, "flow", "fixed_input").tell(torch.tensor([0.3, 0.8])).tolist() == pytest.approx([0.6, 1])
    assert lie(0.1, "ve", "fixed_input").tell(0.5) == lie(0.1).tell(0.5)


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


@pytest.mark.parametrize("kind", LIES)
@pytest.mark.parametrize("family", ["ve", "flow"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_lied_call_is_shown_what_the_lie_says(dtype, family, kind):
    model, x, levels = Denoiser(IMAGE, dtype, family), start(IMAGE, dtype, top=1.0), torch.linspace(0.95, 0.05, 10)
    detailer = Detailer(Settings(strength=0.2, lie=kind, every=1), levels, family, window=(1.0, 0.0))
    for sigma in levels[:-1]:
        detailer.step(model, x, sigma)
        lied, plain = model.seen[-2:]
        expected = lie(0.2, family, kind)
        assert plain.x is x
        assert plain.lie is None
        assert (lied.lie.keep, lied.lie.family, lied.lie.kind) == (pytest.approx(expected.keep), family, kind)
        assert plain.sigma is plain.true_sigma is lied.true_sigma is sigma
        torch.testing.assert_close(lied.sigma, expected.tell(sigma))
        # A factor rounded to bfloat16 first would be up to 0.4 % off, everywhere.
        exact = (x.double() * expected.scale(float(sigma))).to(dtype)
        torch.testing.assert_close(lied.x, exact)
        assert dtype in (torch.float32, torch.float64) or (lied.x != exact).double().mean() < 0.01
        assert lied.x.dtype == dtype
        assert (lied.x is x) == (family == "ve" or kind == "fixed_input")


@pytest.mark.parametrize("top", [1.0, 0.9999])
def test_at_the_top_of_a_flow_model_s_range_every_stream_is_shown_its_noise(top):
    seen = []

    def model(call):
        seen.append(call)
        return Prediction([value * 0.5 for value in call.x])

    x = [start((2, 4, 8, 8), top=1.0), start((2, 3, 20), top=1.0)]
    levels = torch.tensor([top, 0.7, 0.3, 1e-4, 0.0])
    detailer = Detailer(Settings(every=1, start=0.0), levels, "flow")
    for sigma in levels[:-1]:
        detailer.step(model, x, sigma)
        lied = seen[-2]
        assert (lied.kind, float(lied.sigma)) == ("lied", pytest.approx(float(lied.lie.tell(sigma))))
        for value, lied_value in zip(x, lied.x, strict=True):
            torch.testing.assert_close(lied_value, value * lied.lie.scale(float(sigma)))
    assert len(seen) == 8
