"""The samplers, compared with the exact solution for a Gaussian: in distribution, or pixel by pixel."""

from itertools import pairwise

import pytest
import torch

from benchmarks.methods import EVERYWHERE, METHODS, OURS, PUBLISHED, bare, ours
from benchmarks.models import mixture8
from benchmarks.samplers import SAMPLERS, SCHEDULES, MethodRun, sample, seeded_noise

from .gaussian import gaussian

STD, MEAN = 0.5, 0.3
DETERMINISTIC = ("euler", "dpmpp_2m")


def model_of(batch=2, size=32):
    return gaussian(torch.full((batch, 1, size, size), STD), range(batch), MEAN)


def bare_picture(sampler, steps, schedule="VE Karras", batch=2):
    return sample(model_of(batch), bare, 0.0, sampler, schedule, steps).picture


def exact(model, high):
    """The end of the probability-flow ODE of a Gaussian, on which x - mean shrinks like sqrt(std^2 + sigma^2)."""
    x = seeded_noise(model.seeds, model.shape)() * high
    return MEAN + (x - MEAN) * STD / (STD**2 + high**2) ** 0.5


@pytest.mark.parametrize("schedule", ["VE Karras", "VE normal", "flow, shift 3"])
@pytest.mark.parametrize("sampler", DETERMINISTIC)
def test_deterministic_samplers_converge_to_the_ode(sampler, schedule):
    high = SCHEDULES[schedule].ratios(10)[0]
    errors = [(bare_picture(sampler, n, schedule) - exact(model_of(), high)).abs().mean() for n in (10, 100)]
    assert errors[1] < errors[0] / 3
    assert errors[1] < (0.05 if sampler == "euler" else 0.01)


def test_second_order_is_better():
    pictures = {sampler: bare_picture(sampler, 40) for sampler in DETERMINISTIC}
    errors = {sampler: (pictures[sampler] - exact(model_of(), 14.61)).abs().mean() for sampler in pictures}
    assert errors["dpmpp_2m"] < errors["euler"] / 3


@pytest.mark.parametrize("sampler", [sampler for sampler in SAMPLERS if sampler != "euler_cfg_pp"])
def test_every_sampler_draws_the_distribution(sampler):
    pictures = bare_picture(sampler, 100, batch=8)
    assert pictures.mean() == pytest.approx(MEAN, abs=0.03)
    assert pictures.std() == pytest.approx(STD, rel=0.06)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_calls_are_counted_and_runs_repeat(sampler):
    first, second = (sample(model_of(), bare, 0.0, sampler, steps=7) for _ in range(2))
    assert first.calls == (13 if sampler == "dpmpp_sde" else 7)
    assert torch.equal(first.picture, second.picture)
    assert not torch.equal(first.picture, sample(model_of(), METHODS[EVERYWHERE], 0.1, sampler, steps=7).picture)


def test_a_picture_is_the_same_in_any_batch():
    assert torch.equal(seeded_noise([3, 5], (2, 4))()[1], seeded_noise([5], (1, 4))()[0])


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
def test_noise_descends_to_zero_and_the_window_lies_in_it(schedule):
    ratios = schedule.ratios(6)
    assert len(ratios) == 7
    assert ratios[-1] == 0
    assert all(high > low for high, low in pairwise(ratios))
    high, low = schedule.window(0.2, 0.9)
    assert schedule.to_sigma(ratios[0]) > high > low > 0
    assert schedule.window(0, 1) == (1e9, 0)


def test_the_range_is_that_of_the_models():
    # The ends of Stable Diffusion's range as k-diffusion prints them, and SD3's sigma at a fifth of its range, shift 3.
    assert SCHEDULES["VE normal"].ratios(20)[0] == pytest.approx(14.6146, abs=1e-3)
    assert SCHEDULES["VE normal"].ratios(20)[19] == pytest.approx(0.0292, abs=1e-4)
    assert SCHEDULES["flow, shift 3"].window(0.2, 0.9)[0] == pytest.approx(3 * 0.8 / (1 + 2 * 0.8))


def test_mask_ones_and_full_coverage_agree():
    methods = ours(coverage=1.0), ours(mask_override="ones")
    full, ones = (sample(model_of(), method, 0.2, steps=8).picture for method in methods)
    assert torch.equal(full, ones)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_step_of_a_run_is_found_by_its_sigma(sampler, schedule):
    run = sample(model_of(1, 8), ours(every=1, start=0.0), 0.1, sampler, schedule, 9)
    assert list(dict.fromkeys(record.step for record in run.detailer.masks)) == list(range(9))


def test_a_run_holds_its_sigmas_in_the_models_own_terms():
    run = sample(model_of(), bare, 0.0, schedule="flow, shift 3", steps=5)
    assert isinstance(run, MethodRun)
    assert all(0 <= sigma < 1 for sigma in run.sigmas)


def test_rows_are_counted_with_guidance_and_samplers_step_with_the_guided_picture():
    models = [mixture8([0], guidance=guidance, size=16) for guidance in (1.0, 2.0)]
    unguided, guided = (sample(model, bare, 0.0, steps=5) for model in models)
    assert (unguided.calls, unguided.rows) == (5, 5)
    assert (guided.calls, guided.rows) == (5, 10)
    assert not torch.allclose(unguided.picture, guided.picture, atol=1e-2)
    detailed = sample(models[1], METHODS[OURS], 0.1, steps=5)
    # A lied call has the row of the positive conditioning alone.
    assert detailed.rows == 2 * 5 + detailed.detailer.report.lied
    assert detailed.calls == 5 + detailed.detailer.report.lied
    published = sample(models[1], METHODS[PUBLISHED], 0.1, steps=20)
    assert published.rows == 2 * published.calls > 40
