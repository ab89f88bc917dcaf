"""Samplers against the exact solution for a Gaussian, in distribution or point by point."""

from itertools import pairwise

import pytest
import torch

from benchmarks.exact import Gaussian
from benchmarks.methods import EVERYWHERE, Run, ours
from benchmarks.run import sample
from benchmarks.samplers import DETERMINISTIC, SAMPLERS, Noise, karras, shifted

STD, MEAN = 0.5, 0.3


def gaussian(family="ve", batch=2, size=32):
    return Gaussian(torch.full((batch, 1, size, size), STD), range(batch), MEAN, family)


def exact(model, high):
    """The probability-flow ODE of a Gaussian: x - mean shrinks as sqrt(std^2 + sigma^2)."""
    x = Noise(model.seeds).like(torch.empty(model.shape)) * high
    return MEAN + (x - MEAN) * STD / (STD**2 + high**2) ** 0.5


@pytest.mark.parametrize("family", ["ve", "flow"])
@pytest.mark.parametrize("sampler", DETERMINISTIC)
def test_deterministic_samplers_converge_to_the_ode(sampler, family):
    model, high = gaussian(family), 1000.0 if family == "flow" else 14.6
    errors = [(sample(model, sampler=sampler, steps=n).picture - exact(model, high)).abs().mean() for n in (10, 100)]
    assert errors[1] < errors[0] / 3
    assert errors[1] < (0.03 if sampler == "euler" else 0.005)


def test_second_order_is_better():
    model = gaussian()
    errors = {s: (sample(model, sampler=s, steps=40).picture - exact(model, 14.6)).abs().mean() for s in DETERMINISTIC}
    assert errors["dpmpp_2m"] < errors["euler"] / 3


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_draws_the_distribution(sampler):
    found = sample(gaussian(batch=8), sampler=sampler, steps=100).picture
    assert found.mean() == pytest.approx(MEAN, abs=0.03)
    assert found.std() == pytest.approx(STD, rel=0.06)


@pytest.mark.parametrize("sampler", [*SAMPLERS, "euler_cfg_pp"])
def test_calls_are_counted_and_runs_repeat(sampler):
    model = gaussian()
    first, second = (sample(model, sampler=sampler, steps=7) for _ in range(2))
    assert first.calls == (13 if sampler == "dpmpp_sde" else 7)
    assert torch.equal(first.picture, second.picture)
    assert not torch.equal(first.picture, sample(model, EVERYWHERE, 0.1, sampler, 7).picture)


def test_a_picture_is_alike_in_any_batch():
    assert torch.equal(Noise([3, 5]).like(torch.empty(2, 4))[1], Noise([5]).like(torch.empty(1, 4))[0])


@pytest.mark.parametrize("levels", [karras(6, 0.03, 14.6), shifted(6)])
def test_levels_descend_to_zero(levels):
    assert len(levels) == 7
    assert levels[-1] == 0
    assert all(a > b for a, b in pairwise(levels))


def test_mask_ones_and_full_coverage_agree():
    one, two = (
        sample(gaussian(), ours(**s), 0.2, steps=8).picture for s in ({"coverage": 1.0}, {"mask_override": "ones"})
    )
    assert torch.equal(one, two)


def test_run_holds_the_levels_in_the_models_own_terms():
    seen = []
    sample(gaussian("flow"), lambda run, strength: seen.append(run) or run.evaluate, steps=5)
    assert isinstance(seen[0], Run)
    assert all(0 <= sigma < 1 for sigma in seen[0].sigmas)
