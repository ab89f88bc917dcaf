"""What a run leaves beside its result: a log line, masks, nothing after an exception."""

from __future__ import annotations

import gc
import logging
import pickle
import re
import weakref
from functools import partial
from typing import Any

import comfy.model_base
import comfy.model_management
import comfy.model_sampling
import comfy.samplers
import pytest
import tiny
import torch
from torch import Tensor

from selective_sigma import Report, Settings
from selective_sigma.comfy.run import capture as capture_module
from selective_sigma.comfy.run import latent
from selective_sigma.comfy.run.capture import Capture
from selective_sigma.comfy.run.sampler import wrap
from selective_sigma.comfy.run.sampler_run import MARK

euler = partial(tiny.sampler, "euler")


def sigmas(steps: int = 10) -> Tensor:
    return tiny.schedule(tiny.shared_model(), steps)


def sample(sampler: Any, levels: Tensor | None = None, **options: Any) -> Tensor:
    return tiny.sample(tiny.shared_model(), sampler, levels, **options)


def test_one_log_line_a_run(caplog: pytest.LogCaptureFixture):
    sample(euler(Settings()))
    lines = [r.getMessage() for r in caplog.records if r.name.startswith("selective_sigma")]
    start = "Selective Sigma on euler: detail on 6 of 10 steps, in "
    assert len(lines) == 1
    # Only the positive conditioning gets the lie, half of the rows of a call.
    end = " % of the picture, for 1.30x the work (1.60x the model calls)"
    assert re.fullmatch(re.escape(start) + r"\d+" + re.escape(end), lines[0])
    assert caplog.records[-1].levelno == logging.INFO


@pytest.mark.parametrize("side", [3, 16, 64])
def test_runs_that_differ_in_a_small_region_are_told_apart(side: int):
    """As inpainted pictures of two seeds."""
    one = torch.randn(1, 4, 128, 128, generator=torch.Generator().manual_seed(1))
    for top in range(5, 120 - side, 23):
        other, capture = one.clone(), Capture()
        other[..., top : top + side, 40 : 40 + side] = torch.randn(1, 4, side, side)
        capture.store([], Report(steps=101), [one])
        capture.store([], Report(steps=202), [other])
        assert [capture.of(latent).report.steps for latent in (one, other)] == [101, 202]


def test_capture_keeps_runs_by_the_latent_that_came_out():
    capture = Capture()
    sampler = euler(Settings(), capture=capture)
    pair = sample(sampler, shape=(2, 4, 8, 8))
    run = capture.of(pair)
    assert run is not None
    assert [record.sigma for record in run.masks] == sorted((record.sigma for record in run.masks), reverse=True)
    for mask in (record.mask for record in run.masks):
        assert mask.shape == (2, 1, 8, 8)
        assert mask.dtype is torch.float32
        assert 0 <= mask.min() <= mask.max() <= 1
    assert len(run.masks) == run.report.lied
    first, second = (sample(sampler, seed=seed) for seed in (1, 2))
    short = sample(sampler, sigmas()[:2])  # Too short for detail.
    of = [capture.of(latent) for latent in (pair, first, second, short)]
    assert len(set(map(id, of))) == 4
    assert None not in of
    assert not of[3].masks
    # Rounding to half precision keeps a latent recognisable. A crop or a mixture is another latent.
    assert capture.of(first.half()) is of[1]
    assert capture.of(first[:, :, :4]) is None
    assert capture.of(first + 0.1 * second) is None


def test_the_denoised_output_belongs_to_its_run_too():
    """SamplerCustom's second output differs from the first if a run ends above noise level 0."""
    capture, seen = Capture(), {}
    sampler = euler(Settings(), capture=capture)
    levels = sigmas()[:6]
    noisy = sample(sampler, levels, callback=lambda step, x0, *_: seen.update({step: x0}))
    denoised = tiny.shared_model().model.process_latent_out(seen[4].cpu())
    assert not torch.allclose(noisy, denoised, rtol=0.1)
    assert capture.of(denoised) is capture.of(noisy) is not None


def test_a_capture_forgets_the_oldest_runs_first(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(capture_module, "MOST_BYTES", 4000)
    capture = Capture()
    sampler = euler(Settings(), capture=capture)  # Six masks of 256 bytes a run.
    latents = [sample(sampler, seed=seed) for seed in range(4)]
    assert [capture.of(latent) is None for latent in latents] == [True, True, False, False]


def interruption(kind: str) -> tuple[Any, Any]:
    if kind == "interrupt":
        return (
            comfy.model_management.InterruptProcessingException,
            comfy.model_management.InterruptProcessingException(),
        )
    return comfy.model_management.OOM_EXCEPTION, comfy.model_management.OOM_EXCEPTION("out of memory")


@pytest.mark.parametrize("kind", ["interrupt", "out of memory"])
@pytest.mark.parametrize("at", [1, 2, 3, 4, 7, 8])
def test_an_interrupted_run_leaves_nothing_behind(kind: str, at: int):
    expected, error = interruption(kind)
    model, capture = tiny.model(), Capture()
    sampler = wrap(tiny.sampler("euler_cfg_pp"), Settings(), capture=capture)
    clean = tiny.sample(model, wrap(tiny.sampler("euler_cfg_pp"), Settings()), sigmas(8))
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
    assert capture.run is None
    assert torch.equal(tiny.sample(model, sampler, sigmas(8)), clean)


def test_one_sampler_serves_runs_within_runs():
    """A callback that samples with the same SAMPLER object starts an independent run."""
    sampler = euler(Settings())
    expected = sample(sampler)
    inner: list[Tensor] = []

    def callback(step: int, *_: Any) -> None:
        if step == 4:
            inner.append(tiny.sample(tiny.model(), sampler, sigmas(6), shape=(2, 4, 6, 6), seed=3))

    assert torch.equal(sample(sampler, callback=callback), expected)
    assert torch.equal(inner[0], sample(euler(Settings()), sigmas(6), shape=(2, 4, 6, 6), seed=3))


@pytest.mark.parametrize("kind", list(comfy.model_base.ModelType))
def test_the_family_is_how_noise_and_latent_are_mixed(kind: Any):
    sampling = comfy.model_base.model_sampling(tiny.config({}, {}), kind)
    x0, noise, sigma = torch.tensor([2.0]), torch.tensor([-1.0]), torch.tensor(0.3)
    mixed = sampling.noise_scaling(sigma, noise.clone(), x0)
    family = latent.family_of(sampling)
    if torch.equal(mixed, x0):  # Models such as Lotus, without noise.
        assert family is None
        return
    assert torch.allclose(mixed, (0.7 if family == "flow" else 1.0) * x0 + sigma * noise)
    assert (family == "flow") == isinstance(sampling, comfy.model_sampling.CONST)


def test_a_flow_model_may_noise_its_latent_in_its_own_way():
    class UnusualFlow(comfy.model_sampling.ModelSamplingDiscreteFlow, comfy.model_sampling.CONST):
        def noise_scaling(self, sigma: Tensor, noise: Tensor, latent_image: Tensor, *_: Any) -> Tensor:
            return 0.9 * sigma * noise + (1.0 - sigma) ** 0.9 * latent_image

    assert latent.family_of(UnusualFlow(tiny.config({}, {"shift": 1.0}))) == "flow"


def test_a_latent_without_noise_is_left_plain(caplog: pytest.LogCaptureFixture):
    """An image-to-image model without noise in its latent."""
    model = tiny.model()

    class Noiseless(type(model.model.model_sampling)):
        def noise_scaling(self, _sigma: Tensor, _noise: Tensor, latent_image: Tensor, *_: Any) -> Tensor:
            return latent_image

    model.add_object_patch("model_sampling", Noiseless(model.model.model_config))
    picture = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(2))
    bare = tiny.sample(model, euler(), latent=picture)
    assert torch.equal(tiny.sample(model, euler(Settings()), latent=picture), bare)
    assert "this model's latent holds no noise" in caplog.text


def test_a_run_is_free_when_it_ends():
    """Without the garbage collector: a reference cycle would keep the latents in memory."""
    references: list[weakref.ref] = []

    def traced_euler(model: Any, x: Tensor, sigmas: Tensor, extra_args: Any, callback: Any, disable: Any) -> Tensor:
        references.append(weakref.ref(getattr(model, MARK)))
        return comfy.samplers.sampler_object("euler").sampler_function(model, x, sigmas, extra_args, callback, disable)

    gc.disable()
    try:
        sample(wrap(comfy.samplers.KSAMPLER(traced_euler), Settings(), capture=Capture()))
        assert references[0]() is None
    finally:
        gc.enable()


@pytest.mark.compat("Workers", "a wrapped sampler can be pickled where the bare one can")
@pytest.mark.parametrize("capture", [None, Capture()], ids=["plain", "debug"])
def test_a_wrapped_sampler_can_be_sent_to_a_worker(capture: Capture | None):
    sampler = wrap(tiny.sampler("dpmpp_2m"), Settings(), capture=capture, limit=torch.ones(1, 8, 8))
    sent = pickle.loads(pickle.dumps(sampler))
    assert torch.equal(sample(sent), sample(sampler))


def test_uni_pc_writes_into_sigmas_as_it_does_when_bare():
    for sampler in (tiny.sampler("uni_pc"), wrap(tiny.sampler("uni_pc"), Settings())):
        levels = sigmas().clone()
        comfy.samplers.sample(
            tiny.shared_model(), torch.randn(1, 4, 8, 8), tiny.prompt(1), tiny.prompt(2), 2.0, torch.device("cpu"),
            sampler, levels, latent_image=torch.zeros(1, 4, 8, 8), disable_pbar=True, seed=1,
        )  # fmt: skip
        assert levels[-1] == pytest.approx(0.001)
