"""The embedded network: its weights, its scenes, its flow conversion, and a checkpoint in its place."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from diffusers.models import AutoencoderKL
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer
from typer.testing import CliRunner

from selective_sigma import cli
from selective_sigma.demo import scenes
from selective_sigma.demo.levels import log_sigma_table, to_timestep
from selective_sigma.demo.measure import added, high_pass
from selective_sigma.demo.pipeline import WEIGHTS, facts, load, regions
from selective_sigma.demo.samplers import scheduler


def test_weights_are_small_and_say_how_they_were_made():
    assert WEIGHTS.stat().st_size < 10e6
    assert facts().keys() >= {"steps", "batch", "hours", "loss"}


@pytest.mark.parametrize("kind", scenes.KINDS)
def test_scenes_are_repeatable_and_tell_where_detail_belongs(kind: str):
    scene = scenes.draw(kind, 8, 3)
    assert torch.equal(scene.image, scenes.draw(kind, 8, 3).image)
    assert not torch.equal(scene.image, scenes.draw(kind, 8, 4).image)
    assert scene.image.shape == (8, 3, 64, 64)
    assert scene.image.abs().max() <= 1
    assert 0 <= scene.region.min() <= scene.region.max() <= 1
    fine = high_pass(scene.image).square().mean(1, keepdim=True)
    outside = fine[scene.region < 0.01].mean()
    assert outside < 1e-4
    if kind == "smooth":
        assert scene.region.max() == 0
    else:
        assert fine[scene.region > 0.99].mean() > 20 * outside


@pytest.mark.parametrize("kind", scenes.KINDS)
def test_what_it_draws_is_busy_where_the_region_says(kind: str):
    """Trained, not noise: fine detail inside far above that outside, and a sky that is smooth."""
    picture = load()(kind, 4, seed=11, num_inference_steps=15)
    region = regions(kind, 4, 11)
    detail = added(picture, torch.zeros_like(picture), region)
    assert detail.outside.mean() < 0.04
    if kind != "smooth":
        assert (detail.inside.mean() / detail.outside.mean()) > 2


def test_the_flow_variant_is_the_same_denoiser():
    ve, flow = load().unet, load(flow=True).unet
    generator = torch.Generator().manual_seed(0)
    x0, noise = torch.randn((2, 2, 3, 64, 64), generator=generator)
    region, labels = regions("portrait", 2), torch.tensor([1, 1])
    for sigma in (0.2, 0.5, 0.9):
        x = (1 - sigma) * x0 + sigma * noise
        velocity = flow(x, torch.tensor([1000 * sigma]), labels, region, return_dict=False)[0]
        ratio = sigma / (1 - sigma)
        t = to_timestep(torch.tensor([ratio]).log(), log_sigma_table())
        scale = (ratio**2 + 1) ** -0.5
        v = ve(x / (1 - sigma) * scale, t, labels, region, return_dict=False)[0]
        denoised = scale * (x / (1 - sigma) * scale - ratio * v)
        torch.testing.assert_close(x - sigma * velocity, denoised, atol=2e-4, rtol=1e-4)


def test_the_noise_table_is_the_schedulers_own():
    kept = scheduler("euler").alphas_cumprod.double()
    torch.testing.assert_close(log_sigma_table().double(), 0.5 * ((1 - kept) / kept).log(), atol=1e-4, rtol=1e-4)


def checkpoint(folder: Path) -> Path:
    """A Stable Diffusion checkpoint of a few hundred kilobytes with random weights."""
    torch.manual_seed(0)
    words = {"<|startoftext|>": 0, "<|endoftext|>": 1, **{chr(97 + i) + "</w>": 2 + i for i in range(26)}}
    words |= {chr(97 + i): 28 + i for i in range(26)}
    (folder / "vocab.json").write_text(json.dumps(words))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    text = CLIPTextConfig(
        vocab_size=len(words),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )
    unet = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(16, 32),
        layers_per_block=1,
        norm_num_groups=8,
        attention_head_dim=8,
        cross_attention_dim=16,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
    )
    vae = AutoencoderKL(block_out_channels=(16,), norm_num_groups=8, latent_channels=4, sample_size=8)
    pipe = StableDiffusionPipeline(
        vae,
        CLIPTextModel(text),
        CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=16),
        unet,
        scheduler("euler"),
        None,
        None,
        requires_safety_checker=False,
    )
    pipe.save_pretrained(folder / "model")
    return folder / "model"


@pytest.mark.parametrize("sampler", ["own", "dpmpp_2m"])
def test_sweep_on_a_local_checkpoint(sampler: str, tmp_path: Path):
    args = ["sweep", "--model", str(checkpoint(tmp_path)), "--prompt", "a sky", "--sampler", sampler, "--steps", "5"]
    args += ["--strength", "0,0.3", "--coverage", "0.5", "--out", str(tmp_path / "out"), "--json"]
    done = CliRunner().invoke(cli.app, args)
    assert done.exit_code == 0, done.output
    calls = [cell["calls"] for cell in json.loads(done.stdout)["cells"]]
    assert calls == [5, 7]
    assert (tmp_path / "out" / "sweep.png").is_file()
