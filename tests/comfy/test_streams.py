"""Packed picture and sound: ComfyUI's own classes for both, around a network of a few thousand weights."""

from __future__ import annotations

from functools import cache
from typing import Any

import comfy.latent_formats
import comfy.model_base
import comfy.patcher_extension
import comfy.sample
import comfy.samplers
import pytest
import tiny
import torch
from torch import Tensor

from selective_sigma import Settings
from selective_sigma.comfy.run.capture import Capture
from selective_sigma.comfy.run.model_patch import patch
from selective_sigma.comfy.run.sampler import wrap

if not hasattr(comfy.model_base, "MiniMaxH3"):
    pytest.skip("this ComfyUI packs no latents", allow_module_level=True)

from comfy.ldm.minimax.model import time_shift_sigma
from comfy.nested_tensor import NestedTensor
from comfy_extras.nodes_lt import LTXVConcatAVLatent, LTXVSeparateAVLatent

SIZES = ((1, 24, 2, 6, 4), (1, 32, 2, 9))
TEXT = 16
CALLS: list[Any] = []
"""Noise level and streams of each call. At module level, since a lied call's changes to closures are undone."""
SMALL: dict[str, Any] = {
    "image_model": "minimax_h3", "hidden_size": 64, "num_layers": 1, "token_refiner_num_layers": 1,
    "num_attention_heads": 1, "attention_head_dim": 128, "ffn_hidden_size": 64, "text_dim": TEXT,
    "timestep_input_dim": 32, "time_embed_hidden_size": 32, "time_embed_dim": 32,
}  # fmt: skip


@cache
def av() -> Any:
    """A MODEL whose sound has a noise schedule of its own."""
    config = tiny.config(SMALL, {"shift": 12.0, "audio_shift": 3.0})
    config.latent_format = comfy.latent_formats.MiniMaxH3AV()
    base = comfy.model_base.MiniMaxH3(config, device=torch.device("cpu"))
    tiny.randomise(base.diffusion_model)
    base.diffusion_model.rope.inv_freq.copy_(torch.linspace(0.1, 1.0, 16))
    return tiny.patcher(base)


def default_sigmas(steps: int = 8) -> Tensor:
    return tiny.schedule(av(), steps, "simple")


def joined_latent(value: float = 0.0) -> Any:
    """Picture and sound, joined by ComfyUI's own node."""
    video, audio = ({"samples": torch.full(size, value)} for size in SIZES)
    return LTXVConcatAVLatent.execute(video, audio).result[0]["samples"]


def sample(model: Any, sampler: Any, sigmas: Tensor | None = None, mask: Any = None, **options: Any) -> list[Tensor]:
    image = joined_latent(0.3 if mask is not None else 0.0)
    noise = comfy.sample.prepare_noise(image, 7)
    with torch.inference_mode():
        done = comfy.sample.sample_custom(
            model, noise, 2.0, sampler, default_sigmas() if sigmas is None else sigmas, tiny.prompt(1, TEXT),
            tiny.prompt(2, TEXT), image, noise_mask=mask, disable_pbar=True, seed=7, **options,
        )  # fmt: skip
    parts = LTXVSeparateAVLatent.execute({"samples": done}).result
    return [part["samples"] for part in parts]


def equal_streams(a: list[Tensor], b: list[Tensor]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.compat("Packed picture and sound", "zeros and ones hold in both streams")
@pytest.mark.parametrize("name", ["euler", "euler_cfg_pp", "dpmpp_2m_sde"])
@pytest.mark.parametrize("masked", [False, True], ids=["whole", "inpainting"])
def test_the_ends_are_exact_in_both_streams(name: str, masked: bool):
    mask = NestedTensor([torch.ones(1, 1, 2, 6, 4), torch.ones(1, 1, 1, 9)]) if masked else None
    if masked:
        mask.tensors[0][..., :2] = 0

    def run(settings: Settings | None) -> list[Tensor]:
        sampler = tiny.sampler(name)
        return sample(av(), sampler if settings is None else wrap(sampler, settings), mask=mask)

    bare, full = run(None), run(Settings(coverage=1.0))
    assert equal_streams(run(Settings(mask_override="zeros")), bare)
    assert equal_streams(run(Settings(mask_override="ones")), full)
    for ours, plain in zip(run(Settings()), bare, strict=True):
        assert ours.isfinite().all()
        assert 1e-5 < tiny.effect(ours, plain) / float(plain.norm()) < 0.5


def test_the_model_patch_is_the_sampler_wrap():
    assert equal_streams(
        sample(patch(av(), Settings()), tiny.sampler("euler")), sample(av(), wrap(tiny.sampler("euler"), Settings()))
    )


@pytest.mark.compat("Packed picture and sound", "a mask for each stream; callbacks see both")
def test_each_stream_has_a_mask_of_its_own():
    """With a limit that is black over the picture, only the sound has detail, in the first step that has any.

    In later steps the network mixes the two.
    """
    x0: dict[str, list[Any]] = {"bare": [], "ours": []}
    sampler = wrap(tiny.sampler("euler"), Settings(), limit=torch.full((1, 8, 8), 1e-30))
    for key, one in (("bare", tiny.sampler("euler")), ("ours", sampler)):
        sample(av(), one, callback=lambda _step, denoised, *_, key=key: x0[key].append(denoised.unbind()))
    assert all(isinstance(streams, list) and len(streams) == 2 for streams in x0["ours"])  # The callback sees both.
    first = next(i for i in range(8) if not equal_streams(x0["ours"][i], x0["bare"][i]))
    assert torch.equal(x0["ours"][first][0], x0["bare"][first][0])
    assert not torch.equal(x0["ours"][first][1], x0["bare"][first][1])


def record_call(executor: Any, x: list[Tensor], timestep: Tensor, *args: Any, **named: Any) -> Any:
    CALLS.append((float(timestep[0]) / 1000, *(stream.clone() for stream in x)))
    return executor(x, timestep, *args, **named)


@pytest.mark.compat("Packed picture and sound", "the same share of each stream's noise is hidden")
def test_the_lie_is_right_for_the_noise_of_each_stream():
    """Inputs of the network: both streams hide the same share of noise to signal, and each is scaled to match."""
    model = av().clone()
    model.add_wrapper_with_key(comfy.patcher_extension.WrappersMP.DIFFUSION_MODEL, "record", record_call)
    CALLS.clear()
    # In the first due step the lied call comes first.
    sample(model, wrap(tiny.sampler("euler"), Settings(strength=0.2, every=1)))
    index = next(i for i, (s, *_) in enumerate(CALLS) if not any(abs(s - float(t)) < 1e-6 for t in default_sigmas()))
    lied_level, *lied_streams = CALLS[index]
    true_level, *plain = (part[:1] if isinstance(part, Tensor) else part for part in CALLS[index + 1])
    shares = []
    levels_of_sound = [float(time_shift_sigma(torch.tensor(s), 12.0, 3.0)) for s in (lied_level, true_level)]
    for lied, true, lied_x, plain_x in (
        (lied_level, true_level, lied_streams[0], plain[0]),
        (*levels_of_sound, lied_streams[1], plain[1]),
    ):
        torch.testing.assert_close(lied_x, plain_x * (1 - lied) / (1 - true), rtol=1e-4, atol=1e-5)
        shares.append(lied / (1 - lied) / (true / (1 - true)))
    assert shares[0] == pytest.approx(shares[1], rel=1e-3)
    assert shares[0] < 0.9


def test_the_preview_finds_the_run_of_a_nested_latent():
    capture = Capture()
    done = sample(av(), wrap(tiny.sampler("euler"), Settings(), capture=capture))
    run = capture.of(NestedTensor(done))
    assert run is not None
    assert {record.mask.shape for record in run.masks} == {(1, 1, 2, 6, 4)}
    assert capture.of(NestedTensor([done[0], done[1] + 1])) is None
