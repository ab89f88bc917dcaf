"""The held effect: calls saved, and what they cost."""

import math

import pytest
import torch

from selective_sigma import Detailer, Settings
from selective_sigma.schedule import flat
from selective_sigma.settings import CHOICES

from .runs import Denoiser, detailed, each, euler, plain, sigmas, start

PASSES = CHOICES["passes"]
IMAGE = (2, 4, 12, 12)


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
    # The rule of method.md section 4, counted by hand, at our own threshold.
    held, lied = None, 0
    for sigma, weight in zip(levels.tolist(), flat(steps), strict=False):
        if weight and (held is None or math.log(held / sigma) >= Settings.refresh):
            held, lied = sigma, lied + 1
    assert run.report.lied == lied
    assert run.report.held == sum(w > 0 for w in flat(steps)) - lied
    assert model.calls == run.report.calls == steps + lied
    assert (result - two).norm() / (two - bare).norm() < 0.1


def test_economy_calls_at_the_mean_lie():
    """Where the mask is one value all over, nothing is corrected: held and two passes are one lie."""
    levels = sigmas(40).double()
    model, x = Denoiser(IMAGE), start(IMAGE)
    detailer = Detailer(Settings(strength=0.2, passes="economy"), levels)
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
    detailer = Detailer(Settings(passes="economy", refresh=9.0), levels, weights=weights)
    kinds = []
    for i in range(7):
        before = detailer.report.lied, detailer.report.held
        detailer.step(model, x, levels[i])
        kinds.append((detailer.report.lied - before[0], detailer.report.held - before[1]))
    assert kinds == [(0, 0), (1, 0), (0, 1), (1, 0), (0, 0), (0, 1), (1, 0)]


def test_where_the_lie_failed_nothing_is_held():
    """A sample whose lied pass was NaN is told the truth until the effect is measured again."""
    levels = sigmas(40).double()
    sane, x = Denoiser(IMAGE), start(IMAGE)

    def model(x, sigma):
        prediction = sane(x, sigma)
        if sane.calls == 2:
            prediction.denoised[0, 0, 0, 0] = math.nan
        return prediction

    detailer = Detailer(Settings(passes="economy"), levels)
    detailer.step(model, x, levels[20])
    result = detailer.step(model, x, levels[21])
    assert detailer.report.held == 1
    assert sane.seen[2][1][0] == levels[21]
    assert sane.seen[2][1][1] < levels[21]
    assert torch.equal(result.denoised[0], sane(x, levels[21]).denoised[0])


@pytest.mark.parametrize("passes", PASSES)
@pytest.mark.parametrize("source", ["structure", "change"])
def test_flow_is_ve_in_other_words(passes, source):
    """A flow model is a VE model under x / (1 - sigma): same calls, same picture, same masks."""
    levels = sigmas(16, top=60.0).double()
    model, x = Denoiser(IMAGE), start(IMAGE, top=60.0)
    told = levels / (1 + levels)

    def flowing(y, sigma):
        signal = each(1 - sigma, y)
        return model(y / signal, sigma / (1 - sigma))

    settings = Settings(strength=0.2, passes=passes, mask_source=source)
    ve, flow = Detailer(settings, levels), Detailer(settings, told, "flow")
    expected = euler(lambda y, sigma: ve.step(model, y, sigma).denoised, x, levels)
    index = iter(told)

    def step(y, sigma):
        now = next(index)
        return flow.step(flowing, y * (1 - now), now).denoised

    result = euler(step, x, levels)
    assert flow.report.as_dict() == ve.report.as_dict()
    # The two schedules are looked up by other sigmas, but at the same steps.
    assert (result - expected).norm() / (expected - plain(model, x, levels)).norm() < 1e-4
