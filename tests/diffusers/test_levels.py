"""The noise level read from a scheduler is the one that its model input has."""

from __future__ import annotations

import pytest
import torch

from selective_sigma.diffusers.levels import SUPPORTED, Levels, check

from .schedulers import FLOW_SCHEDULERS, UNET_SCHEDULERS


def walk(scheduler):
    """Every model call of a run: where the scheduler is, the given timestep, scaled and raw latent."""
    scheduler.set_timesteps(7)
    x = torch.ones(1, 4, 4, 4) * getattr(scheduler, "init_noise_sigma", 1.0)
    levels = None
    torch.manual_seed(0)
    for t in scheduler.timesteps:
        shown = scheduler.scale_model_input(x, t) if hasattr(scheduler, "scale_model_input") else x
        levels = levels or Levels(scheduler, t)
        levels.move(t)
        yield levels, t, shown, x
        x = scheduler.step(torch.zeros_like(x) + 0.1, t, x, return_dict=False)[0]


@pytest.mark.parametrize("name", UNET_SCHEDULERS)
def test_variance_exploding(name):
    scheduler = UNET_SCHEDULERS[name]()
    seen = []
    for levels, t, shown, x in walk(scheduler):
        sigma = torch.tensor([levels.sigma])
        # Schedulers round timesteps, or interpolate sigma linearly between them.
        assert float(levels._position(sigma)) == pytest.approx(float(t), abs=0.51)
        scale = float((x / shown).mean())
        assert scale == pytest.approx(1.0) or scale == pytest.approx(float((sigma**2 + 1).sqrt()), rel=1e-5)
        assert float(levels.timestep(t, sigma, sigma)) == pytest.approx(float(t), rel=1e-7)
        told = levels.timestep(t, sigma, sigma * 0.8)
        assert float(told) < float(t) or float(t) == 0
        seen.append(levels.sigma)
    assert levels.sigmas[0] == seen[0]
    assert levels.sigmas == sorted(levels.sigmas, reverse=True)
    assert len(levels.sigmas) == 8


@pytest.mark.parametrize("name", FLOW_SCHEDULERS)
@pytest.mark.parametrize("unit", [1.0, 0.001])
def test_flow(name, unit):
    for levels, t, _, _ in walk(FLOW_SCHEDULERS[name]()):
        sigma = torch.tensor([levels.sigma])
        assert 1000 * levels.sigma == pytest.approx(float(t), abs=1.0)
        assert levels.kind.family == "flow"
        for shape in ((1,), (2,), (2, 5)):
            given = (t * unit).expand(shape)
            told = levels.timestep(given, sigma, (sigma * 0.9).expand(shape[0]))
            assert told.shape == shape
            torch.testing.assert_close(told, given * 0.9, check_dtype=False)


def test_every_supported_scheduler_is_tested():
    made = [make() for make in (*UNET_SCHEDULERS.values(), *FLOW_SCHEDULERS.values())]
    assert {type(scheduler).__name__ for scheduler in made} == set(SUPPORTED)
    assert all(check(scheduler) for scheduler in made)
