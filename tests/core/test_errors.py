"""Bad input raises a message of one line, before any model call."""

import math

import pytest
import torch

from selective_sigma import Detailer, Prediction, Settings

from .runs import karras


def refuse(call):
    raise AssertionError(f"the model was called: {call}")


@pytest.mark.parametrize(
    ("x", "sigma", "error", "message"),
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
def test_bad_input_raises_before_the_model_is_called(x, sigma, error, message):
    with pytest.raises(error, match=message):
        Detailer(Settings(), karras(10)).step(refuse, x, sigma)


@pytest.mark.parametrize("name", ["limit", "within"])
def test_maps_that_do_not_fit_raise_before_the_model_is_called(name):
    for shape in ((3, 1, 8, 8), (1, 1, 8)):
        detailer = Detailer(Settings(), karras(10), **{name: torch.ones(shape)})
        with pytest.raises(ValueError, match=f"{name} has shape .* for a latent of"):
            detailer.step(refuse, torch.ones(2, 4, 8, 8), torch.tensor(1.0))
    for bad, message in ((torch.full((1, 1, 4), math.nan), "holds"), (torch.ones(1, 2, 4), "has shape")):
        with pytest.raises(ValueError, match=f"{name} {message}"):
            Detailer(Settings(), karras(10), **{name: bad})


@pytest.mark.parametrize("x", [None, [], "latent", 1.0])
def test_an_x_that_is_not_a_latent_raises_before_the_model_is_called(x):
    with pytest.raises(TypeError, match=r"x is .*: give a tensor"):
        Detailer(Settings(), karras(10)).step(refuse, x, torch.tensor(1.0))


@pytest.mark.parametrize("kind", ["plain", "lied"])
def test_an_answer_that_breaks_the_contract_raises_in_one_line(kind):
    x, levels = torch.ones(2, 4, 8, 8), karras(10)

    def answer(with_kind, bad):
        return lambda call: bad if call.kind == with_kind else Prediction(x * 0.5)

    for bad, error, text in (
        (x, TypeError, "evaluate returned a Tensor: return Prediction"),
        (None, TypeError, "evaluate returned a NoneType"),
        (Prediction(None), TypeError, "evaluate returned denoised as NoneType"),
        (Prediction(x, {"uncond": None}), TypeError, "evaluate returned uncond as NoneType"),
        (Prediction(x.int()), TypeError, "evaluate returned denoised as Tensor"),
        (Prediction(x[:1]), ValueError, r"evaluate returned denoised of shape \[\(1, 4, 8, 8\)\] for x of"),
        (Prediction(x, {"uncond": x[..., :4]}), ValueError, "evaluate returned uncond of shape"),
        (Prediction([x, x]), TypeError, "evaluate returned denoised as list"),
    ):
        with pytest.raises(error, match=text):
            Detailer(Settings(every=1), levels).step(answer(kind, bad), x, levels[6])
    if kind == "lied":
        with pytest.raises(ValueError, match="evaluate returned uncond in one call of a step alone"):
            Detailer(Settings(every=1), levels).step(answer(kind, Prediction(x, {"uncond": x})), x, levels[6])
    with pytest.raises(ValueError, match="evaluate returned uncond in one call of a step alone"):
        Detailer(Settings(mask_override="half", every=1), levels).step(
            answer(kind, Prediction(x, {"uncond": x})), x, levels[6]
        )


def test_a_second_run_is_refused():
    levels, x = karras(10), torch.ones(2, 4, 8, 8)
    detailer = Detailer(Settings(), levels)
    for sigma in levels[:-1]:
        detailer.step(lambda call: Prediction(call.x * 0.5), x, sigma)
    with pytest.raises(RuntimeError, match="make one for each run"):
        detailer.step(refuse, x, levels[0])
    # A host whose sampler may run its levels again says so.
    detailer, twice = Detailer(Settings(), levels, allow_restart=True), [*levels[:-1], *levels[:-1]]
    kinds = [detailer.step(lambda call: Prediction(call.x * 0.5), x, sigma).kind for sigma in twice]
    assert kinds[:10] == kinds[10:]


def test_settings_are_settings():
    with pytest.raises(TypeError, match=r"settings is a dict: give selective_sigma.Settings"):
        Detailer({"strength": 0.1}, karras(10))


@pytest.mark.parametrize("sigmas", [None, 1.0, "karras", ["a"]])
def test_noise_levels_are_numbers(sigmas):
    with pytest.raises(TypeError, match=r"sigmas is .*: give a sequence or a tensor of noise levels"):
        Detailer(Settings(), sigmas)


def test_bad_runs_raise_when_made():
    for bad in ([2.0, math.nan, 0.0], [math.inf, 1.0], [1.0, -1.0]):
        with pytest.raises(ValueError, match="sigmas holds"):
            Detailer(Settings(), bad)
    with pytest.raises(ValueError, match="family is 'vp': choose ve or flow"):
        Detailer(Settings(), [1.0, 0.0], "vp")
    for window in ((0.0, 4.0), (3.0, 2.0, 1.0), (1.0,)):
        with pytest.raises(ValueError, match=r"window is .*: give two noise levels, the higher one first"):
            Detailer(Settings(), [1.0, 0.0], window=window)
    for window in ((math.nan, 0.0), (1.0, math.nan), (1.0, -1.0)):
        with pytest.raises(ValueError, match="window holds"):
            Detailer(Settings(), [1.0, 0.0], window=window)
    with pytest.raises(TypeError, match=r"window is 1\.0: give"):
        Detailer(Settings(), [1.0, 0.0], window=1.0)
