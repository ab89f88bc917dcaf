import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from selective_sigma.lie import depth, tell

from .runs import start

strengths = st.floats(-1, 0.99)


def column(value):
    return torch.tensor([value], dtype=torch.float64)


@given(st.floats(0.01, 0.99), strengths)
def test_flow_is_ve_under_x_over_alpha(sigma, strength):
    """The same denoiser seen as VE and as flow is told the same lie (method.md section 1)."""
    x = start((1, 2, 4, 4))
    flow = tell(x, column(sigma), column(strength), "flow")
    ve = tell(x / (1 - sigma), column(sigma / (1 - sigma)), column(strength), "ve")
    torch.testing.assert_close(flow.sigma / (1 - flow.sigma), ve.sigma, rtol=1e-12, atol=0)
    torch.testing.assert_close(flow.x / (1 - flow.sigma), ve.x, rtol=1e-12, atol=0)


@given(st.floats(0.01, 0.99), strengths)
def test_flow_formula(sigma, strength):
    """As method.md section 1 writes it."""
    v = (1 - strength) * sigma / (1 - sigma)
    told = tell(torch.ones(1, 1, 1, dtype=torch.float64), column(sigma), column(strength), "flow")
    assert told.sigma.item() == pytest.approx(v / (1 + v), rel=1e-12)
    assert told.x.item() == pytest.approx((1 - v / (1 + v)) / (1 - sigma), rel=1e-12)


@pytest.mark.parametrize("family", ["ve", "flow"])
@pytest.mark.parametrize("lie", ["noise_to_signal", "fixed_input"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_strength_zero_is_the_identity(family, lie, dtype):
    x, sigma = start((3, 2, 4), dtype, top=1.0), torch.tensor([0.1, 0.7, 1.0])
    told = tell(x, sigma, torch.zeros(3), family, lie)
    assert told.x.dtype == dtype
    assert torch.equal(told.x, x)
    assert torch.equal(told.sigma, sigma)


@given(st.floats(0, 1), st.floats(-1, 1))
def test_flow_never_leaves_the_model_s_range(sigma, strength):
    x = torch.ones(1, 1, 4)
    for lie in ("noise_to_signal", "fixed_input"):
        told = tell(x, torch.tensor([sigma]), torch.tensor([strength]), "flow", lie)
        assert 0 <= told.sigma.item() <= 1 + 1e-6
        assert told.x.isfinite().all()


def test_fixed_input_keeps_x_and_on_ve_the_two_are_one():
    x = start((2, 1, 4), torch.float32)
    strength, sigma = torch.tensor([0.1, 0.5]), torch.tensor([0.5, 0.8])
    told = tell(x, sigma, strength, "flow", "fixed_input")
    assert told.x is x
    torch.testing.assert_close(told.sigma, torch.tensor([0.45, 0.4]))
    for lie in ("noise_to_signal", "fixed_input"):
        told = tell(x, sigma, strength, "ve", lie)
        assert told.x is x
        torch.testing.assert_close(told.sigma, torch.tensor([0.45, 0.4]))


def test_half_precision_rescales_by_the_exact_factor():
    """A factor rounded to bfloat16 would be up to 0.4 % off: brighter or dimmer, everywhere."""
    x = torch.ones(1, 1, 1, dtype=torch.bfloat16) * 192
    told = tell(x, torch.tensor([0.9]), torch.tensor([0.1]), "flow")
    assert told.x.item() == pytest.approx(192 / 0.91, rel=2**-8)
    exact = torch.tensor(192 / 0.91).to(torch.bfloat16)
    assert told.x.item() == exact.item()


def test_depth_is_the_size_in_e_folds():
    torch.testing.assert_close(
        depth(torch.tensor([0.0, 0.1, -1.0])), torch.tensor([0.0, 0.10536, -0.69315]), atol=1e-5, rtol=0
    )
    assert depth(torch.tensor([1.0])).isfinite().all()
