"""Latents of every shape: space axes, batches, inpainting, limits, growth, packed streams, stock loaders."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import comfy.sample
import comfy.samplers
import comfy.sd
import pytest
import tiny
import torch
from comfy_extras import nodes_advanced_samplers
from torch import Tensor

from selective_sigma import Settings
from selective_sigma.comfy.run import latent
from selective_sigma.comfy.run.capture import Capture
from selective_sigma.comfy.run.sampler import wrap

if TYPE_CHECKING:
    from pathlib import Path

LEFT = (torch.arange(8).expand(1, 1, 8, 8) < 4).float()


euler = partial(tiny.sampler, "euler")


@pytest.mark.compat("Sound, image and video latents", "a mask for each sample, over the whole clip")
@tiny.each_kind
@pytest.mark.parametrize("shape", [(1, 4, 24), (2, 4, 8, 12), (1, 4, 3, 8, 8)], ids=["sound", "batch", "video"])
@pytest.mark.parametrize("source", ["response", "change", "first"])
def test_one_to_three_axes(kind: str, shape: tuple[int, ...], source: Any):
    model, capture = tiny.shared_model(kind, len(shape) - 2), Capture()
    sigmas = tiny.schedule(model, 8)
    run = partial(tiny.sample, model, sigmas=sigmas, shape=shape)
    bare = run(sampler=euler())
    ours = run(sampler=euler(Settings(mask_source=source), capture=capture))
    assert ours.isfinite().all()
    assert not torch.equal(ours, bare)
    assert torch.equal(run(sampler=euler(Settings(mask_override="zeros"))), bare)
    assert {record.mask.shape for record in capture.run.masks} == {(shape[0], 1, *shape[2:])}


def test_samples_of_a_batch_are_independent():
    model = tiny.shared_model("eps")
    sigmas = tiny.schedule(model, 8)
    both = tiny.sample(model, euler(Settings()), sigmas, shape=(2, 4, 8, 8))
    torch.manual_seed(7)
    noise = comfy.sample.prepare_noise(torch.zeros(2, 4, 8, 8), 7)
    for i in range(2):
        with torch.inference_mode():
            one = comfy.sample.sample_custom(
                model, noise[i : i + 1], 2.0, euler(Settings()), sigmas.clone(), tiny.prompt(1), tiny.prompt(2),
                torch.zeros(1, 4, 8, 8), disable_pbar=True, seed=7,
            )  # fmt: skip
        assert torch.allclose(one[0], both[i], rtol=1e-4, atol=1e-4)


@pytest.mark.compat("Split runs, KSampler (Advanced)", "the parts add the detail of the whole, nearly so at every 2")
@tiny.each_kind
@pytest.mark.parametrize(("every", "near"), [(1, 1e-3), (2, 0.25)])
def test_split_schedules_add_the_detail_of_one(kind: str, every: int, near: float):
    """As with KSampler (Advanced): start and end are noise levels of the model, and not shares of the part sampled.

    Where the cut divides a group of steps with one dose into two groups, the sum of the doses stays the same.
    """
    model, settings = tiny.shared_model(kind), Settings(every=every)
    sigmas = tiny.schedule(model, 20)

    def run(settings: Settings | None, at: int | None) -> Tensor:
        parts = [sigmas] if at is None else [sigmas[: at + 1], sigmas[at:]]
        result = tiny.sample(model, euler(settings), parts[0])
        for part in parts[1:]:
            with torch.inference_mode():
                result = comfy.sample.sample_custom(
                    model, torch.zeros_like(result), 2.0, euler(settings), part, tiny.prompt(1), tiny.prompt(2), result,
                    disable_pbar=True, seed=7,
                )  # fmt: skip
        return result

    whole = run(settings, None) - run(None, None)
    split = run(settings, 10) - run(None, 10)
    assert tiny.effect(split, whole) < near * float(whole.norm())


@pytest.mark.compat("Inpainting", "the kept part stays; the mask compares within the rest")
@tiny.each_kind
@pytest.mark.parametrize("name", ["euler", "ddim", "euler_cfg_pp", "uni_pc"])
def test_inpainting_keeps_the_kept_part_and_the_identities(kind: str, name: str):
    model = tiny.shared_model(kind)
    sigmas = tiny.schedule(model, 10)
    picture = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(2))
    run = partial(tiny.sample, model, sigmas=sigmas, latent=picture, mask=LEFT)
    bare, ours = run(sampler=tiny.sampler(name)), run(sampler=tiny.sampler(name, Settings()))
    assert torch.equal(run(sampler=tiny.sampler(name, Settings(mask_override="zeros"))), bare)
    ones = run(sampler=tiny.sampler(name, Settings(mask_override="ones")))
    assert torch.equal(ones, run(sampler=tiny.sampler(name, Settings(coverage=1.0))))
    assert tiny.effect(ours[..., :4], bare[..., :4]) > 1e-3
    assert torch.allclose(ours[..., 4:], bare[..., 4:], atol=1e-4)


def test_ddim_keeps_its_own_noise_for_inpainting():
    model = tiny.shared_model("eps")
    sigmas = tiny.schedule(model, 8)
    picture = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(2))
    run = partial(tiny.sample, model, sigmas=sigmas, latent=picture, mask=LEFT)
    settings = Settings(mask_override="zeros")
    assert torch.equal(run(sampler=tiny.sampler("ddim", settings)), run(sampler=tiny.sampler("ddim")))
    assert not torch.equal(run(sampler=tiny.sampler("ddim", settings)), run(sampler=tiny.sampler("euler", settings)))


def test_inpainting_compares_places_within_the_regenerated_part():
    """Detail in the kept part must not darken the mask of the regenerated part."""
    model = tiny.shared_model("eps")
    mask = torch.zeros(1, 1, 48, 48)
    mask[..., 8:40, 8:40] = 1
    sigmas, means = tiny.schedule(model, 10), []
    for kept in (0.0, 1.0, 10.0):
        capture = Capture()
        picture = kept * torch.randn(1, 4, 48, 48, generator=torch.Generator().manual_seed(2)) * (1 - mask)
        tiny.sample(model, euler(Settings(), capture=capture), sigmas, latent=picture, mask=mask)
        inside = torch.stack([record.mask[..., 14:34, 14:34] for record in capture.run.masks])
        means.append(float(inside.mean()))
    assert means[1] > 0.9 * means[0] > 0.05  # Kept detail as strong as in real latents.
    # Ten times as strong: the blur of the mask spreads it across the border, into the region of the means.
    assert means[2] > 0.5 * means[0]


@tiny.each_kind
def test_limit_bounds_the_effect(kind: str):
    model = tiny.shared_model(kind)
    sigmas = tiny.schedule(model, 10)
    mask = torch.zeros(1, 128, 128)
    mask[..., :64] = 1
    run = partial(tiny.sample, model, sigmas=sigmas, shape=(1, 4, 16, 16))
    bare = run(sampler=euler())
    change = (run(sampler=euler(Settings(), limit=mask)) - bare).abs()
    assert change[..., :8].mean() > 1e-3
    assert change[..., 14:].mean() < 0.02 * change[..., :6].mean()
    assert torch.equal(run(sampler=euler(Settings(coverage=1.0), limit=0 * mask)), bare)


def test_limit_fits_every_latent():
    half = torch.zeros(1, 64, 64)
    half[..., :32] = 1
    image = latent.limit_for_latent(half, torch.zeros(2, 4, 8, 8), None)
    assert torch.equal(image, LEFT)
    assert torch.equal(latent.limit_for_latent(half[None], torch.zeros(2, 4, 8, 8), None), LEFT)
    assert latent.limit_for_latent(half.repeat(3, 1, 1), torch.zeros(2, 4, 8, 8), None).shape == (2, 1, 8, 8)
    assert latent.limit_for_latent(half.repeat(2, 1, 1), torch.zeros(3, 4, 8, 8), None).shape == (3, 1, 8, 8)
    assert latent.limit_for_latent(half, torch.zeros(1, 4, 5, 8, 8), None).shape == (1, 1, 1, 8, 8)
    assert latent.limit_for_latent(half.repeat(9, 1, 1), torch.zeros(1, 4, 5, 8, 8), None).shape == (1, 1, 9, 8, 8)
    assert torch.equal(latent.limit_for_latent(half, torch.zeros(1, 4, 8), None), LEFT[:, :, 0])
    assert latent.limit_for_latent(half, torch.zeros(1, 4, 256, 256), None).shape == (1, 1, 64, 64)
    assert latent.limit_for_latent(None, torch.zeros(1, 4, 8, 8), None) is None
    packed = [(1, 4, 3, 8, 8), (1, 2, 10)]
    assert latent.limit_for_latent(half, torch.zeros(1, 1, 788), packed).shape == (1, 1, 1, 8, 8)


@pytest.mark.parametrize("shape", [(1, 4, 24), (1, 4, 3, 8, 8)], ids=["sound", "video"])
def test_limit_on_sound_and_video(shape: tuple[int, ...]):
    model = tiny.shared_model("eps", len(shape) - 2)
    mask = torch.zeros(1, 64, 96)
    mask[..., :48] = 1
    sigmas, size = tiny.schedule(model, 10), shape[-1]
    bare = tiny.sample(model, euler(), sigmas, shape=shape)
    ours = tiny.sample(model, euler(Settings(), limit=mask), sigmas, shape=shape)
    change = (ours - bare).abs()
    assert change[..., : size // 2].mean() > 4 * change[..., -1:].mean()


@pytest.mark.compat("Samplers whose latent grows (LCM upscale)", "masks grow with it")
@pytest.mark.parametrize("source", ["response", "change", "first"])
def test_a_latent_that_grows(source: Any):
    model, capture = tiny.shared_model("eps"), Capture()
    sampler = nodes_advanced_samplers.SamplerLCMUpscale.execute(2.0, -1, "bislerp").result[0]
    settings = Settings(mask_source=source)
    ours = tiny.sample(model, wrap(sampler, settings, capture=capture), tiny.schedule(model, 10))
    assert ours.shape == (1, 4, 16, 16)
    assert ours.isfinite().all()
    sizes = [record.mask.shape[-1] for record in capture.run.masks]
    assert sizes == sorted(sizes)
    assert sizes[0] < sizes[-1]
    zeros = wrap(sampler, Settings(mask_override="zeros"))
    levels = tiny.schedule(model, 10)
    assert torch.equal(tiny.sample(model, zeros, levels), tiny.sample(model, sampler, levels))


@pytest.mark.compat("SD3 and Wan by the stock loaders", "zeros is the bare run")
@pytest.mark.parametrize("file", ["tiny_sd3.safetensors", "tiny_wan.safetensors"])
def test_stock_loaders(files: dict[str, Path], file: str):
    model = comfy.sd.load_diffusion_model(str(files[file]))
    shape = (1, 16, 3, 8, 8) if "wan" in file else (1, 16, 8, 8)
    more = {} if "wan" in file else {"pooled_output": torch.ones(1, 2048)}
    run = partial(tiny.sample, model, sigmas=tiny.schedule(model, 8, "simple"), shape=shape, width=4096, more=more)
    assert latent.family_of(model.model.model_sampling) == "flow"
    bare, ours = run(sampler=euler()), run(sampler=euler(Settings()))
    assert torch.equal(run(sampler=euler(Settings(mask_override="zeros"))), bare)
    assert ours.isfinite().all()
    assert not torch.equal(ours, bare)
