"""Unusual inputs: clean frames of a video, masks outside 0 and 1, black masks, the highest noise level."""

from __future__ import annotations

import logging
from functools import partial
from typing import Any

import comfy.model_base
import comfy.samplers
import pytest
import tiny
import torch
from comfy_extras import nodes_differential_diffusion
from torch import Tensor

from selective_sigma import Settings
from selective_sigma.comfy.run.capture import Capture
from selective_sigma.lie import Lie

CALLS: list[tuple[float, float, Tensor]] = []
"""True noise level, timestep and input of each call of the network. At module level, since a lied call's changes to
closures are undone."""


def record_call(executor: Any, x: Tensor, timestep: Tensor, *args: Any, **named: Any) -> Any:
    options = next(value for value in (*args, *named.values()) if isinstance(value, dict) and "sigmas" in value)
    CALLS.append((float(options["sigmas"][0]), float(timestep.flatten()[0]), x.clone()))
    return executor(x, timestep, *args, **named)


def recording_calls(model: Any) -> Any:
    CALLS.clear()
    model = model.clone()
    model.add_wrapper_with_key("diffusion_model", "record", record_call)
    return model


euler = partial(tiny.sampler, "euler")


class UnscaledFrames(comfy.model_base.BaseModel):
    """Clean frames reach the network as they are, as in Wan 2.2, LTXV and HunyuanVideo."""

    def scale_latent_inpaint(self, latent_image: Tensor, **_: Any) -> Tensor:
        return latent_image


class PremultipliedFrames(comfy.model_base.BaseModel):
    """Clean frames are scaled so that the network's own input scaling makes them clean, as in Cosmos."""

    def scale_latent_inpaint(self, sigma: Tensor, latent_image: Tensor, **_: Any) -> Tensor:
        return latent_image * (sigma.reshape(-1, 1, 1, 1, 1) ** 2 + 1) ** 0.5


def video_model(kind: Any, family: type) -> Any:
    settings = {"shift": 3.0} if kind is tiny.FLOW else {}
    config = tiny.config({"axes": 3, "flow": kind is tiny.FLOW}, settings)
    return tiny.patcher(family(config, kind, device=torch.device("cpu"), unet_model=tiny.TinyNet))


@pytest.mark.compat("Clean frames (Wan 2.2, LTXV, HunyuanVideo, Cosmos)", "reach the network clean in both passes")
@pytest.mark.parametrize(
    ("kind", "family"), [("flow", UnscaledFrames), ("eps", PremultipliedFrames)], ids=["flow", "eps"]
)
@pytest.mark.parametrize("strength", [1.0, 0.7], ids=["clean", "in part"])
@pytest.mark.parametrize("change", [None, "differential"])
def test_clean_frames_are_not_brightened(kind: str, family: type, strength: float, change: str | None):
    model = recording_calls(video_model(tiny.KINDS[kind], family))
    if change:
        model = nodes_differential_diffusion.DifferentialDiffusion.execute(model).result[0]
    frames = torch.randn(1, 4, 5, 6, 6, generator=torch.Generator().manual_seed(3))
    mask = torch.ones(1, 1, 5, 6, 6)
    mask[:, :, 0] = 1 - strength
    sigmas = tiny.schedule(model, 8)
    sample = partial(tiny.sample, model, sigmas=sigmas, latent=frames, mask=mask, cfg=1.0)
    bare = sample(euler())
    clean = model.model.process_latent_in(frames)[:, :, 0]
    CALLS.clear()
    ours = sample(euler(Settings(every=1)))
    steps = [(sigma, [x for other, _, x in CALLS if other == sigma]) for sigma in map(float, sigmas[:-1])]
    due = [(sigma, *inputs) for sigma, inputs in steps if len(inputs) == 2]
    assert len(due) >= 4
    lie = Lie(0.9, "flow" if kind == "flow" else "ve")
    for sigma, lied, plain in due[:-1] if change is None else ():  # The last step has half the lie.
        # Noise and noisy signal are scaled. The share of the clean frame stays the same.
        factor = lie.scale(sigma) if kind == "flow" else ((sigma**2 + 1) / (lie.tell(sigma) ** 2 + 1)) ** 0.5
        expected = factor * (plain[:, :, 0] - strength * clean) + strength * clean
        torch.testing.assert_close(lied[:, :, 0], expected, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(lied[:, :, 1:], factor * plain[:, :, 1:], rtol=1e-4, atol=1e-5)
    assert not torch.equal(ours, bare)
    assert torch.equal(sample(euler(Settings(mask_override="zeros"))), bare)


def blurred(mask: Tensor, sigma: float) -> Tensor:
    """Blurred as by other packs: with a float32 kernel, whose sum is 1 but for rounding."""
    size = 2 * int(3 * sigma) + 1
    taps = torch.exp(-0.5 * ((torch.arange(size) - size // 2) / sigma) ** 2)
    kernel = torch.outer(taps, taps)
    kernel = (kernel / kernel.sum()).reshape(1, 1, size, size)
    padded = torch.nn.functional.pad(mask, [size // 2] * 4, mode="replicate")
    return torch.nn.functional.conv2d(padded, kernel)


@pytest.mark.compat("Soft inpainting masks", "clamped where rounding took them past 0 or 1")
@tiny.each_kind
def test_soft_masks_are_clamped_and_not_refused(kind: str):
    """Packs such as FaceDetailer blur and resize their masks."""
    model = tiny.shared_model(kind)
    mask = torch.zeros(1, 1, 16, 16)
    mask[..., 4:12, 4:12] = 1
    picture = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(2))
    run = partial(tiny.sample, model, sigmas=tiny.schedule(model, 8), latent=picture)
    past = 0
    soft = [blurred(mask, sigma) for sigma in (0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 3.0)]
    soft.append(torch.nn.functional.interpolate(torch.ones(1, 1, 64, 64) * 1.0000001, (48, 76), mode="bicubic"))
    for soft_mask in soft:
        past += bool((soft_mask > 1).any() or (soft_mask < 0).any())
        ours = run(sampler=euler(Settings(), limit=soft_mask[0]), mask=soft_mask)
        assert ours.isfinite().all()
        assert torch.equal(
            run(sampler=euler(Settings(mask_override="zeros")), mask=soft_mask), run(sampler=euler(), mask=soft_mask)
        )
    assert past


@tiny.each_kind
@pytest.mark.parametrize("name", ["limit", "inpainting"])
def test_a_black_mask_makes_the_run_plain_costs_nothing_and_says_so(
    kind: str, name: str, caplog: pytest.LogCaptureFixture
):
    model, capture = tiny.shared_model(kind), Capture()
    black = torch.zeros(1, 1, 8, 8)
    options: dict[str, Any] = {"mask": black} if name == "inpainting" else {}
    limit = {"limit": black[0]} if name == "limit" else {}
    sigmas = tiny.schedule(model, 8)
    bare = tiny.sample(model, euler(), sigmas, **options)
    tiny.calls(model).clear()
    with caplog.at_level(logging.INFO):
        ours = tiny.sample(model, euler(Settings(), capture=capture, **limit), sigmas, **options)
    assert torch.equal(ours, bare)
    assert len(tiny.calls(model)) == 8
    assert "no detail (the mask that detail is limited to is black)" in caplog.text
    assert capture.run.report.skipped == {"empty": 8}


@pytest.mark.parametrize("top", [1.0, 0.9999, 0.5, 1e-4])
def test_the_lie_of_a_flow_model_at_every_level(top: float):
    """At sigma 1 (start 0 on the Debug node) the network gets the noise divided by 1 - strength, and level 1."""
    model = recording_calls(tiny.shared_model("flow"))
    sigmas = torch.tensor([top, top / 2, 0.0])
    settings = Settings(strength=0.1, start=0.0, every=1)
    bare = tiny.sample(model, euler(), sigmas, cfg=1.0)
    plain = CALLS[0]
    CALLS.clear()
    ours = tiny.sample(model, euler(settings), sigmas, cfg=1.0)
    lied = CALLS[0]
    lie = Lie(0.9, "flow")
    level = float(tiny.shared_model("flow").get_model_object("model_sampling").timestep(torch.tensor(lie.tell(top))))
    assert lied[1] == pytest.approx(level, rel=1e-5)
    torch.testing.assert_close(lied[2], plain[2] * lie.scale(top), rtol=1e-5, atol=1e-6)
    assert lied[2].abs().max() > 0
    assert ours.isfinite().all()
    assert not torch.equal(ours, bare)
    assert torch.equal(tiny.sample(model, euler(Settings(mask_override="zeros", start=0.0)), sigmas, cfg=1.0), bare)
    ones, full = Settings(mask_override="ones", start=0.0), Settings(coverage=1.0, start=0.0)
    assert torch.equal(tiny.sample(model, euler(ones), sigmas), tiny.sample(model, euler(full), sigmas))


@pytest.mark.parametrize("top", [1.0, 0.9999])
def test_beside_detail_daemon_the_same_share_of_its_level_is_hidden(top: float):
    model = recording_calls(tiny.shared_model("flow"))
    sigmas = torch.tensor([top, 0.6, 0.0])
    tiny.sample(model, tiny.detail_daemon(euler(Settings(strength=0.1, start=0.0, every=1))), sigmas, cfg=1.0)
    lie, sampling = Lie(0.9, "flow"), tiny.shared_model("flow").get_model_object("model_sampling")
    wanted = [sampling.timestep(torch.tensor(level)) for level in (lie.tell(0.98 * top), 0.98 * top)]
    assert [level for _, level, _ in CALLS[:2]] == pytest.approx([float(level) for level in wanted], rel=1e-5)
    torch.testing.assert_close(CALLS[0][2], CALLS[1][2] * lie.scale(0.98 * top), rtol=1e-5, atol=1e-6)


@tiny.each_kind
def test_a_mask_of_nan_is_refused_by_name_before_any_model_call(kind: str):
    model = tiny.shared_model(kind)
    tiny.calls(model).clear()
    mask = torch.full((1, 1, 8, 8), float("nan"))
    with pytest.raises(ValueError, match="within holds NaN"):
        tiny.sample(model, euler(Settings()), tiny.schedule(model, 8), mask=mask)
    assert not tiny.calls(model)
