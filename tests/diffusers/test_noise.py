"""The noise level that a scheduler is asked for is the one that its model input has."""

from __future__ import annotations

import math

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler

from selective_sigma.diffusers.noise import Noise

from .schedulers import FLOW_SCHEDULERS, UNET_SCHEDULERS


@pytest.mark.parametrize("name", UNET_SCHEDULERS)
def test_diffusion(name):
    scheduler = UNET_SCHEDULERS[name]()
    scheduler.set_timesteps(7)
    noise = Noise(scheduler)
    assert noise.family == "ve"
    assert noise.sigmas == sorted(noise.sigmas, reverse=True)
    for i, t in enumerate(scheduler.timesteps):
        sigma = noise.sigmas[i]
        # Schedulers round timesteps, or interpolate sigma linearly between them.
        assert noise.time(sigma) == pytest.approx(float(t), abs=0.6)
        if noise.time(sigma) > 1:
            assert noise.time(0.8 * sigma) < noise.time(sigma)
        x = torch.ones(1, 4, 4, 4)
        shown = scheduler.scale_model_input(x, t)
        scale = float((x / shown).mean())
        assert scale == pytest.approx(1.0) or scale == pytest.approx(math.hypot(1, sigma), rel=1e-4)
        scheduler.step(torch.zeros_like(x) + 0.1, t, x)


@pytest.mark.parametrize("name", FLOW_SCHEDULERS)
def test_flow(name):
    scheduler = FLOW_SCHEDULERS[name]()
    scheduler.set_timesteps(7)
    noise = Noise(scheduler)
    assert noise.family == "flow"
    for sigma, t in zip(noise.sigmas, noise.times, strict=True):
        assert 1000 * sigma == pytest.approx(t, abs=1.0)
        assert noise.time(0.9 * sigma) == pytest.approx(900 * sigma, abs=1.0)


def test_timesteps_apart_from_noise_levels():
    """CogView 4 tells its model of a straight line, and shifts only what its latent has."""
    scheduler = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, time_shift_type="exponential")
    times = torch.linspace(1000, 100, 10).tolist()
    scheduler.set_timesteps(timesteps=times, sigmas=[t / 1000 for t in times], mu=0.7)
    noise = Noise(scheduler)
    assert noise.times == pytest.approx(times)
    for share in (0.95, 0.5, 0.33, 0.15):
        odds = math.exp(0.7) * share / (1 - share)
        assert noise.time(odds / (1 + odds)) == pytest.approx(1000 * share, rel=1e-3)


def test_reversed():
    """Mochi's scheduler counts signal, from 0 up."""
    scheduler = FlowMatchEulerDiscreteScheduler(invert_sigmas=True)
    scheduler.set_timesteps(7)
    noise = Noise(scheduler)
    assert noise.sign == -1
    assert noise.sigmas == sorted(noise.sigmas, reverse=True)
    assert noise.time(0.3) == pytest.approx(700, abs=1)


def test_window():
    scheduler = UNET_SCHEDULERS["euler"]()
    scheduler.set_timesteps(7)
    high, low = Noise(scheduler).window(0.2, 0.9)
    alphas = scheduler.alphas_cumprod.double()
    table = ((1 - alphas) / alphas).sqrt()
    assert high == pytest.approx(float(table[799]), rel=1e-2)
    assert low == pytest.approx(float(table[100]), rel=1e-2)
    assert Noise(scheduler).window(0.0, 1.0) == (math.inf, 0.0)
