"""The noise levels, the times and the readings that are learned from a scheduler."""

from __future__ import annotations

import math

import pytest
import torch
from diffusers import (
    CogVideoXDPMScheduler,
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EDMEulerScheduler,
    FlowMatchEulerDiscreteScheduler,
    KDPM2DiscreteScheduler,
    MiniMaxH3Scheduler,
    PNDMScheduler,
    SASolverScheduler,
    UniPCMultistepScheduler,
)

from selective_sigma.diffusers.noise import HIGHEST, Noise

from .schedulers import FLOW_SCHEDULERS, SD, UNET_SCHEDULERS


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
        assert noise.curve.time(sigma) == pytest.approx(float(t), abs=0.6)
        if noise.curve.time(sigma) > 1:
            assert noise.curve.time(0.8 * sigma) < noise.curve.time(sigma)
        x = torch.ones(1, 4, 4, 4)
        model_input = scheduler.scale_model_input(x, t)
        scale = float((x / model_input).mean())
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
        assert noise.curve.time(0.9 * sigma) == pytest.approx(900 * sigma, abs=1.0)


def test_timesteps_apart_from_noise_levels():
    """CogView 4: evenly spaced timesteps, with shifted noise levels."""
    scheduler = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, time_shift_type="exponential")
    times = torch.linspace(1000, 100, 10).tolist()
    scheduler.set_timesteps(timesteps=times, sigmas=[t / 1000 for t in times], mu=0.7)
    noise = Noise(scheduler)
    assert noise.times == pytest.approx(times)
    for share in (0.95, 0.5, 0.33, 0.15):
        odds = math.exp(0.7) * share / (1 - share)
        assert noise.curve.time(odds / (1 + odds)) == pytest.approx(1000 * share, rel=1e-3)


def test_reversed():
    """Mochi's scheduler: its sigmas are shares of signal, which rise from 0."""
    scheduler = FlowMatchEulerDiscreteScheduler(invert_sigmas=True)
    scheduler.set_timesteps(7)
    noise = Noise(scheduler)
    assert noise.sign == -1
    assert noise.sigmas == sorted(noise.sigmas, reverse=True)
    assert noise.curve.time(0.3) == pytest.approx(700, abs=1)


FLOW_LEVELS = {"use_flow_sigmas": True, "flow_shift": 3.0}
UNREAD = {
    "dpmpp_2m, epsilon": lambda: DPMSolverMultistepScheduler(**FLOW_LEVELS),
    "unipc, epsilon": lambda: UniPCMultistepScheduler(**FLOW_LEVELS),
    "dpmpp_2m, v": lambda: DPMSolverMultistepScheduler(**FLOW_LEVELS, prediction_type="v_prediction"),
    "unipc, v": lambda: UniPCMultistepScheduler(**FLOW_LEVELS, prediction_type="v_prediction"),
}
PREDICTION_TYPES = {
    "dpmpp_2m, sample": (
        lambda: DPMSolverMultistepScheduler(**FLOW_LEVELS, prediction_type="sample"),
        ("flow", "sample", 1),
    ),
    "unipc, sample": (
        lambda: UniPCMultistepScheduler(**FLOW_LEVELS, prediction_type="sample"),
        ("flow", "sample", 1),
    ),
    "minimax": (MiniMaxH3Scheduler, ("flow", "flow_prediction", -1)),
    "mochi": (lambda: FlowMatchEulerDiscreteScheduler(invert_sigmas=True), ("flow", "flow_prediction", -1)),
    "stochastic": (
        lambda: FlowMatchEulerDiscreteScheduler(stochastic_sampling=True),
        ("flow", "flow_prediction", 1),
    ),
    "edm": (EDMEulerScheduler, ("ve", "v_prediction", -1)),
    "edm, v": (lambda: EDMEulerScheduler(prediction_type="v_prediction"), ("ve", "v_prediction", 1)),
    "ddim, sample": (lambda: DDIMScheduler(**SD, prediction_type="sample"), ("ve", "sample", 1)),
    "learned variance": (
        lambda: DDPMScheduler(variance_type="learned_range", thresholding=True),
        ("ve", "epsilon", 1),
    ),
    "cogvideox": (
        lambda: CogVideoXDPMScheduler(prediction_type="v_prediction", rescale_betas_zero_snr=True),
        ("ve", "v_prediction", 1),
    ),
    "kdpm2": (lambda: KDPM2DiscreteScheduler(**SD), ("ve", "epsilon", 1)),
    "pndm": (lambda: PNDMScheduler(**SD), ("ve", "epsilon", 1)),
}


@pytest.mark.parametrize("steps", [2, 7, 50])
@pytest.mark.parametrize("name", UNREAD)
def test_flow_levels_with_another_prediction_are_refused(name, steps):
    scheduler = UNREAD[name]()
    scheduler.set_timesteps(steps)
    with pytest.raises(
        ValueError, match=r"prediction_type '\w+' and these noise levels it makes something else"
    ) as caught:
        Noise(scheduler)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("steps", [4, 7, 50])
@pytest.mark.parametrize("name", PREDICTION_TYPES)
def test_what_a_scheduler_makes_of_an_answer(name, steps):
    make, wanted = PREDICTION_TYPES[name]
    scheduler = make()
    scheduler.set_timesteps(steps)
    noise = Noise(scheduler)
    assert (noise.family, noise.prediction, noise.sign) == wanted


@pytest.mark.parametrize("sigmas", [None, torch.linspace(1, 0.1, 10).tolist(), torch.linspace(0.5, 0.05, 10).tolist()])
@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_the_window_on_flow_is_of_the_models_range(sigmas, shift):
    scheduler = FlowMatchEulerDiscreteScheduler(shift=shift)
    scheduler.set_timesteps(None if sigmas else 7, sigmas=sigmas)
    high, low = Noise(scheduler).window(0.2, 0.9)
    assert high == pytest.approx(shift * 4 / (1 + shift * 4), rel=1e-6)
    assert low == pytest.approx(shift / 9 / (1 + shift / 9), rel=1e-6)


def test_a_dynamic_shift_is_that_of_the_levels():
    scheduler = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
    scheduler.set_timesteps(sigmas=torch.linspace(1, 0.1, 10).tolist(), mu=1.15)
    assert Noise(scheduler).window(0.2, 0.9)[0] == pytest.approx(
        math.exp(1.15) * 4 / (1 + math.exp(1.15) * 4), rel=1e-3
    )


def test_window():
    scheduler = UNET_SCHEDULERS["euler"]()
    scheduler.set_timesteps(7)
    high, low = Noise(scheduler).window(0.2, 0.9)
    alphas = scheduler.alphas_cumprod.double()
    table = ((1 - alphas) / alphas).sqrt()
    assert high == pytest.approx(float(table[799]), rel=1e-2)
    assert low == pytest.approx(float(table[100]), rel=1e-2)
    assert Noise(scheduler).window(0.0, 1.0) == (HIGHEST, 0.0)


@pytest.mark.parametrize(("shift", "steps"), [(7.0, 2), (15.0, 2), (15.0, 3)])
@pytest.mark.parametrize("kind", [DPMSolverMultistepScheduler, UniPCMultistepScheduler])
def test_a_negated_picture_is_no_prediction_type(kind, shift, steps):
    """v_prediction on flow levels, over few steps with a large shift, must not pass for a negated ``sample``."""
    scheduler = kind(use_flow_sigmas=True, prediction_type="v_prediction", flow_shift=shift)
    scheduler.set_timesteps(steps)
    with pytest.raises(ValueError, match="is not supported"):
        Noise(scheduler)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize(("steps", "spacing"), [(3, "leading"), (3, "trailing"), (6, "linspace"), (20, "linspace")])
def test_what_ddim_makes_of_an_answer(kind, steps, spacing):
    scheduler = DDIMScheduler(**SD, timestep_spacing=spacing, prediction_type=kind)
    scheduler.set_timesteps(steps)
    assert Noise(scheduler).prediction == kind


def test_ddim_over_few_steps_of_linspace_is_refused():
    """Its step goes down the table by a stride of its own, which ends far from the run's next level."""
    scheduler = DDIMScheduler(**SD, timestep_spacing="linspace")
    scheduler.set_timesteps(4)
    with pytest.raises(ValueError, match="is not supported"):
        Noise(scheduler)


@pytest.mark.parametrize("kind", ["epsilon", "sample", "v_prediction", "flow_prediction"])
def test_a_scheduler_that_adds_noise_by_another_table_is_refused(kind):
    scheduler = SASolverScheduler(use_flow_sigmas=True, prediction_type=kind)
    scheduler.set_timesteps(8)
    with pytest.raises(ValueError, match="adds noise by another table"):
        Noise(scheduler)
