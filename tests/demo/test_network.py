"""The embedded network as diffusers runs it, and a checkpoint in its place."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from diffusers.models import AutoencoderKL
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer
from typer.testing import CliRunner

from selective_sigma import cli
from selective_sigma.demo import photos
from selective_sigma.demo.levels import log_sigma_table, to_log_sigma
from selective_sigma.demo.network import load
from selective_sigma.demo.pipeline import LATENT_SCALE, PhotoUNet, open_pipeline, thumbnail_of
from selective_sigma.demo.sample import redraw
from selective_sigma.demo.samplers import scheduler

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("flow", [False, True])
def test_on_a_table_and_on_flow_it_is_the_same_denoiser(flow: bool):
    network = load()
    unet = PhotoUNet(network, flow)
    picture = photos.photograph("wren", 64)
    thumbnail = photos.thumbnail(picture, 4)
    condition = torch.cat([thumbnail, torch.ones_like(thumbnail[:, :1])], 1)
    noise = torch.randn(picture.shape, generator=torch.Generator().manual_seed(0))
    for ratio in (0.1, 1.0, 9.0):
        sigma = ratio / (1 + ratio) if flow else ratio
        x = LATENT_SCALE * picture * (1 - sigma if flow else 1) + sigma * noise
        shown = x if flow else x / (ratio**2 + 1) ** 0.5
        table = log_sigma_table()
        position = torch.searchsorted(table, torch.tensor(ratio).log()).item() - 1
        part = (torch.tensor(ratio).log() - table[position]) / (table[position + 1] - table[position])
        time = torch.tensor([1000 * sigma]) if flow else position + part[None]
        predicted = unet(shown, time, condition, return_dict=False)[0]
        denoised = x - sigma * predicted
        expected = network.denoise(picture + ratio / LATENT_SCALE * noise, ratio / LATENT_SCALE, thumbnail)
        torch.testing.assert_close(denoised / LATENT_SCALE, expected, atol=2e-3, rtol=1e-3)


def test_the_noise_table_is_the_schedulers_own():
    kept = scheduler("euler").alphas_cumprod.double()
    table = log_sigma_table()
    torch.testing.assert_close(table.double(), 0.5 * ((1 - kept) / kept).log(), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(to_log_sigma(torch.tensor([0.0, 0.5, 999.0]), table)[[0, 2]], table[[0, -1]])
    assert table[0] < to_log_sigma(torch.tensor([0.5]), table) < table[1]


@pytest.mark.parametrize("flow", [False, True])
def test_what_it_draws_looks_like_the_thumbnail_and_is_sharper(flow: bool):
    """Drawn by diffusers or by hand, small again it is the thumbnail; fine detail lies where the photograph has it."""
    thumbnail = thumbnail_of("chelsea", 128)
    by_hand = redraw(load(), thumbnail, steps=12).picture
    piped = open_pipeline("euler", flow)(thumbnail, num_inference_steps=12) * 2 - 1
    for picture in (by_hand, piped):
        assert (photos.thumbnail(picture, photos.FACTOR) - thumbnail).abs().mean() < 0.05
        assert picture.diff(dim=-1).abs().mean() > 1.2 * thumbnail.diff(dim=-1).abs().mean()


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
    assert calls == [5, 9]
    assert (tmp_path / "out" / "sweep.png").is_file()
