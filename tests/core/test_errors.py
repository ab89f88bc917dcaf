"""What cannot be raises in one line, before any model call."""

import math

import pytest
import torch

from selective_sigma import Detailer, Settings

from .runs import karras


def refuse(call):
    raise AssertionError(f"the model was called: {call}")


@pytest.mark.parametrize(
    ("x", "sigma", "error", "said"),
    [
        (torch.ones(1, 4, 8, 8, dtype=torch.int64), torch.tensor(1.0), TypeError, "x is torch.int64"),
        (torch.ones(8, 8), torch.tensor(1.0), ValueError, r"x has shape \(8, 8\)"),
        (torch.ones(1, 1, 2, 2, 2, 2), torch.tensor(1.0), ValueError, "x has shape"),
        ([torch.ones(1, 4, 8), torch.ones(8)], torch.tensor(1.0), ValueError, r"x has shape \(8,\)"),
        (torch.ones(2, 4, 8), torch.tensor(math.nan), ValueError, "sigma holds nan"),
        (torch.ones(2, 4, 8), torch.tensor([1.0, math.inf]), ValueError, "sigma holds inf"),
        (torch.ones(2, 4, 8), torch.tensor([1.0, -1.0]), ValueError, "sigma holds -1.0"),
        (torch.ones(2, 4, 8), torch.ones(3), ValueError, "sigma has 3 values for a batch of 2"),
        (torch.ones(2, 4, 8), 1.0, TypeError, "sigma is 1.0: give a floating-point tensor"),
        (torch.ones(2, 4, 8), torch.tensor(1), TypeError, r"sigma is tensor\(1\): give a floating-point tensor"),
        (
            torch.ones(2, 4, 8),
            torch.tensor([1.0, 2.0]),
            ValueError,
            r"several noise levels \(1 to 2\): give one a call",
        ),
    ],
)
def test_bad_input_raises_before_the_model_is_called(x, sigma, error, said):
    with pytest.raises(error, match=said):
        Detailer(Settings(), karras(10)).step(refuse, x, sigma)


@pytest.mark.parametrize("name", ["limit", "within"])
def test_maps_that_do_not_fit_raise_before_the_model_is_called(name):
    for shape in ((3, 1, 8, 8), (1, 1, 8)):
        detailer = Detailer(Settings(), karras(10), **{name: torch.ones(shape)})
        with pytest.raises(ValueError, match=f"{name} has shape .* for a latent of"):
            detailer.step(refuse, torch.ones(2, 4, 8, 8), torch.tensor(1.0))
    for bad, said in ((torch.full((1, 1, 4), math.nan), "holds"), (torch.ones(1, 2, 4), "has shape")):
        with pytest.raises(ValueError, match=f"{name} {said}"):
            Detailer(Settings(), karras(10), **{name: bad})


def test_a_mask_and_streams_that_do_not_fit_raise_before_the_model_is_called():
    x, sigma = torch.ones(2, 4, 8, 8), torch.tensor(1.0)
    for mask in (torch.ones(1, 1, 8, 8), torch.ones(2, 1, 4, 4), [torch.ones(2, 1, 8, 8)] * 2):
        with pytest.raises(ValueError, match=r"mask has shape .*: hand on Output\.mask"):
            Detailer(Settings(), karras(10)).step(refuse, x, sigma, mask)
    with pytest.raises(ValueError, match="stream_sigma has 1 functions for 2 streams"):
        Detailer(Settings(), karras(10), stream_sigma=[float]).step(refuse, [x, x], sigma)


def test_bad_runs_raise_when_made():
    for bad in ([2.0, math.nan, 0.0], [math.inf, 1.0], [1.0, -1.0]):
        with pytest.raises(ValueError, match="sigmas holds"):
            Detailer(Settings(), bad)
    with pytest.raises(ValueError, match="family is 'vp': choose ve or flow"):
        Detailer(Settings(), [1.0, 0.0], "vp")
    for window in ((0.0, 4.0), (math.nan, 0.0), (1.0, math.nan), (1.0, -1.0)):
        with pytest.raises(ValueError, match=r"window is .*: give two noise levels, the higher one first"):
            Detailer(Settings(), [1.0, 0.0], window=window)
