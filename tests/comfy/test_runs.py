"""What a run does beside its result: its log line, its masks, its end by an exception."""

from __future__ import annotations

import logging
from functools import cache
from typing import Any

import comfy.model_base
import comfy.model_management
import comfy.model_sampling
import comfy.samplers
import pytest
import tiny
import torch
from torch import Tensor

from selective_sigma import Settings
from selective_sigma.comfy import latent
from selective_sigma.comfy.capture import Capture
from selective_sigma.comfy.sampler import wrap

base = cache(tiny.model)


def sigmas(steps: int = 10) -> Tensor:
    return tiny.schedule(base(), steps)


def euler(settings: Settings | None = None, **given: Any) -> Any:
    sampler = tiny.sampler("euler")
    return sampler if settings is None else wrap(sampler, settings, **given)


def test_one_log_line_a_run(caplog: pytest.LogCaptureFixture):
    tiny.sample(base(), euler(Settings(passes="two")), sigmas())
    lines = [r.getMessage() for r in caplog.records if r.name.startswith("selective_sigma")]
    assert lines == [
        "Selective Sigma on euler: 16 model calls for 10 (true 10, lied 6, held 0); without detail: schedule 4"
    ]
    assert caplog.records[-1].levelno == logging.INFO


def test_capture_keeps_the_latest_run():
    capture = Capture()
    assert capture.masks == ()
    assert capture.report is None
    sampler = euler(Settings(), capture=capture)
    tiny.sample(base(), sampler, sigmas(), shape=(2, 4, 8, 8))
    first = capture.run
    assert [sigma for sigma, _ in first.masks] == sorted((sigma for sigma, _ in first.masks), reverse=True)
    for _, mask in first.masks:
        assert mask.shape == (2, 1, 8, 8)
        assert mask.dtype is torch.float32
        assert 0 <= mask.min() <= mask.max() <= 1
    assert first.report is not None
    assert len(first.masks) == first.report.lied + first.report.held
    tiny.sample(base(), sampler, sigmas()[:2])  # A run too short for detail must not show the one before.
    assert capture.masks == ()
    tiny.sample(base(), sampler, sigmas(6))
    assert capture.run is not first
    assert capture.masks[0][1].shape == (1, 1, 8, 8)


def interrupted(kind: str) -> tuple[Any, Any]:
    if kind == "interrupt":
        return (
            comfy.model_management.InterruptProcessingException,
            comfy.model_management.InterruptProcessingException(),
        )
    return comfy.model_management.OOM_EXCEPTION, comfy.model_management.OOM_EXCEPTION("out of memory")


@pytest.mark.parametrize("kind", ["interrupt", "out of memory"])
@pytest.mark.parametrize("at", range(1, 14))
def test_breaking_off_leaves_nothing_behind(kind: str, at: int):
    expected, error = interrupted(kind)
    model, capture = tiny.model(), Capture()
    sampler = wrap(tiny.sampler("euler_cfg_pp"), Settings(passes="two"), capture=capture)
    clean = tiny.sample(model, wrap(tiny.sampler("euler_cfg_pp"), Settings(passes="two")), sigmas(8))
    calls = 0

    def broken(apply: Any, args: dict[str, Any]) -> Tensor:
        nonlocal calls
        calls += 1
        if calls == at:
            if kind == "interrupt":
                comfy.model_management.interrupt_current_processing()
                comfy.model_management.throw_exception_if_processing_interrupted()
            raise error
        return apply(args["input"], args["timestep"], **args["c"])

    breaking = model.clone()
    breaking.set_model_unet_function_wrapper(broken)
    with pytest.raises(expected) as raised:
        tiny.sample(breaking, sampler, sigmas(8))
    assert kind == "interrupt" or raised.value is error
    assert capture.masks == ()
    assert torch.equal(tiny.sample(model, sampler, sigmas(8)), clean)


def test_one_sampler_serves_runs_within_runs():
    """A callback that samples with the same SAMPLER object must not meet the outer run."""
    sampler = euler(Settings())
    expected = tiny.sample(base(), sampler, sigmas())
    inner: list[Tensor] = []

    def callback(step: int, *_: Any) -> None:
        if step == 4:
            inner.append(tiny.sample(tiny.model(), sampler, sigmas(6), shape=(2, 4, 6, 6), seed=3))

    assert torch.equal(tiny.sample(base(), sampler, sigmas(), callback=callback), expected)
    assert torch.equal(inner[0], tiny.sample(base(), euler(Settings()), sigmas(6), shape=(2, 4, 6, 6), seed=3))


@pytest.mark.parametrize("kind", list(comfy.model_base.ModelType))
def test_family_is_told_by_noising(kind: Any):
    sampling = comfy.model_base.model_sampling(tiny.config({}, {}), kind)
    expected = "flow" if isinstance(sampling, comfy.model_sampling.CONST) else "ve"
    assert latent.family(sampling) == expected
    x0, noise, sigma = torch.tensor([2.0]), torch.tensor([-1.0]), torch.tensor(0.3)
    alpha = 1 - 0.3 if expected == "flow" else 1.0
    assert torch.allclose(sampling.noise_scaling(sigma, noise.clone(), x0), alpha * x0 + sigma * noise)


def test_uni_pc_writes_into_sigmas_as_it_does_when_bare():
    for sampler in (tiny.sampler("uni_pc"), wrap(tiny.sampler("uni_pc"), Settings())):
        levels = sigmas().clone()
        comfy.samplers.sample(
            base(), torch.randn(1, 4, 8, 8), tiny.prompt(1), tiny.prompt(2), 2.0, torch.device("cpu"), sampler, levels,
            latent_image=torch.zeros(1, 4, 8, 8), disable_pbar=True, seed=1,
        )  # fmt: skip
        assert levels[-1] == pytest.approx(0.001)
