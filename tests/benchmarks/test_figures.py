"""The measures, on pictures whose measures are known."""

import dataclasses

import pytest
import torch

from benchmarks.evaluate import Setup
from benchmarks.figures import compare, kind_of_detail
from benchmarks.methods import EVERYWHERE, METHODS, OURS, TRUE_REGION, bare, cosine
from benchmarks.models import MODELS, mixture8

from .gaussian import gaussian


def half_textured(size=32):
    std = torch.full((2, 3, size, size), 0.1)
    std[..., size // 2 :] = 0.9
    return gaussian(std, [0, 1])


def checker(size=32):
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    return (1.0 - 2.0 * ((x + y) % 2)).expand(2, 3, size, size)


def test_leak_and_gain_of_known_detail():
    model = half_textured()
    before = 0.2 * checker()
    figures = compare(before + checker() * torch.where(model.inside, 0.1, 0.03), before, model)
    # The energies added are .3^2 - .2^2 inside and .23^2 - .2^2 outside. A few pixels at the border differ.
    assert figures["gain"] == pytest.approx(0.05 / 0.04, rel=0.05)
    assert figures["leak"] == pytest.approx(0.0129 / 0.05, rel=0.05)
    assert figures["leak_rms"] == pytest.approx(0.3, rel=0.05)


def test_side_effects_of_known_changes():
    before = torch.linspace(0, 1, 32).expand(2, 3, 32, 32).contiguous()
    figures = compare((before - 0.5) * 1.2 + 0.55, before, half_textured())
    assert figures["mean"] == pytest.approx(0.05 / float(before[0].std()), rel=1e-3)
    assert figures["contrast"] == pytest.approx(0.2, rel=1e-3)


def test_the_kind_of_known_detail():
    region = torch.ones(2, 1, 32, 32)
    region[..., :8, :] = region[..., -8:, :] = region[..., :8] = region[..., -8:] = 0
    grey, red = 0.2 * checker(), 0.2 * checker() * torch.tensor([1.0, 0.0, 0.0]).reshape(3, 1, 1)
    assert kind_of_detail(grey, region)["chroma"] == pytest.approx(0, abs=1e-9)
    # The luma of red 1 is .299, so that chroma over luma is (.701^2 + 2 * .299^2) / 3 over .299^2.
    assert kind_of_detail(red, region)["chroma"] == pytest.approx((0.701**2 + 2 * 0.299**2) / 3 / 0.299**2, rel=1e-4)
    coarse = grey.repeat_interleave(2, 2).repeat_interleave(2, 3)[..., :32, :32]
    assert kind_of_detail(grey, region)["finest"] > 100 * kind_of_detail(coarse, region)["finest"]


@pytest.fixture
def setup(monkeypatch):
    model = mixture8(range(4), 2)
    monkeypatch.setitem(MODELS, "test model", lambda: model)
    return Setup("test", "test model", steps=12)


def test_the_strength_of_a_method_is_searched_until_it_has_the_gain(setup):
    effect = setup.effect_at(0.1, "everywhere", METHODS[EVERYWHERE])
    assert effect.gain == pytest.approx(0.1, rel=0.06)
    assert setup.effect_at(0.1, "nothing", bare).gain == 0
    # A mask that knows the truth leaks nothing.
    assert abs(setup.effect_at(0.1, "true", METHODS[TRUE_REGION]).leak) < 1e-5
    assert setup.effect_at(0.1, OURS, METHODS[OURS]).leak > 1e-4


def test_mean_masks_are_taken_inside_and_outside(setup):
    everywhere, true_region = (setup.effect(label, METHODS[label]) for label in (EVERYWHERE, TRUE_REGION))
    assert (everywhere.lit_inside, everywhere.lit_outside) == (1, 1)
    assert (true_region.lit_inside, true_region.lit_outside) == (1, 0)
    assert setup.effect("bare", bare).lit_inside == 0


def test_spread_is_over_groups(setup, monkeypatch):
    assert setup.effect(OURS, METHODS[OURS]).leak_spread > 0
    one_group = dataclasses.replace(mixture8(range(4)), groups=1)
    monkeypatch.setitem(MODELS, "test model", lambda: one_group)
    assert setup.effect(OURS, METHODS[OURS]).leak_spread == 0


def test_detail_daemons_curve():
    weights = cosine(21)
    assert weights[10] == 1
    assert weights[4] == weights[16] == weights[0] == weights[20] == 0
    assert weights[7] == pytest.approx(0.5)
    assert weights == pytest.approx(weights[::-1])
