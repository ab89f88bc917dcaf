"""Samples that are tokens: where they lie, which of them are clean, how the pipe unpacks them."""

from __future__ import annotations

import copy
import math
from types import SimpleNamespace

import pytest
import torch
from diffusers import (
    BriaPipeline,
    FlowMatchEulerDiscreteScheduler,
    Flux2Pipeline,
    FluxPipeline,
    Krea2Pipeline,
    UniPCMultistepScheduler,
)
from torch import nn

from selective_sigma.diffusers import detail, enable
from selective_sigma.diffusers.layout import Layout, learn_layout
from selective_sigma.diffusers.slots import parts_of

CLEAN, TOKENS, CHANNELS = 4, 20, 3


class Net(nn.Module):
    """Takes a time for each token, as models of clips do whose first frame is the user's own."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.mix = nn.Linear(CHANNELS, CHANNELS)
        self.seen = []

    def forward(self, tokens, timestep, ids=None):  # noqa: ARG002
        self.seen.append((tokens, timestep))
        return (torch.tanh(self.mix(tokens)) * (1 + timestep[..., None] / 1000),)


class Loop:
    def __init__(self, ids=None, copies=False):
        self.unet, self.scheduler = Net(), FlowMatchEulerDiscreteScheduler(shift=3.0)
        self.ids, self.copies = ids, copies

    @torch.no_grad()
    def __call__(self):
        x = torch.randn(2, TOKENS, CHANNELS, generator=torch.Generator().manual_seed(0))
        clean = x[:, :CLEAN].clone()
        self.scheduler.set_timesteps(8)
        scheduler = copy.deepcopy(self.scheduler) if self.copies else self.scheduler
        for t in scheduler.timesteps:
            time = t.expand(2, TOKENS).clone()
            time[:, :CLEAN] = 0
            x = scheduler.step(self.unet(x, time, self.ids)[0], t, x, return_dict=False)[0]
            x[:, :CLEAN] = clean
        return x


def test_clean_tokens_are_left_alone():
    """A lie that made all tokens less noisy would make the clean ones too bright."""
    pipe = Loop()
    plain = pipe()
    with detail(pipe, mask_override="zeros"):
        assert torch.equal(pipe(), plain)
    pipe.unet.seen.clear()
    with detail(pipe, every=1) as run:
        assert not torch.equal(pipe(), plain)
    assert run.report.lied > 3
    assert run.mask.shape == (2, 1, TOKENS)
    clean = pipe.unet.seen[0][0][:, :CLEAN]
    for tokens, time in pipe.unet.seen:
        assert torch.equal(tokens[:, :CLEAN], clean)
        assert not time[:, :CLEAN].any()
    levels = {float(time[0, -1]) for _, time in pipe.unet.seen}
    assert len(levels) == 8 + run.report.lied


def test_a_copy_of_the_scheduler_stays_plain():
    """Diffusion forcing has a scheduler for each frame."""
    pipe = Loop(copies=True)
    plain = pipe()
    with pytest.warns(UserWarning, match="added nothing: the scheduler's step was not called"), detail(pipe) as run:
        assert torch.equal(pipe(), plain)
    assert run.report.lied == 0


def test_tokens_that_fill_no_grid_are_refused():
    """Tokens of reference pictures are stepped with the picture's: there is no grid for a mask over both."""
    ids = torch.cartesian_prod(torch.arange(4), torch.arange(4)).float()
    pipe = Loop(ids=torch.cat([ids, ids[:4]]))
    with pytest.raises(ValueError, match="tokens fill no grid"), detail(pipe):
        pipe()


@pytest.mark.parametrize("kind", [FluxPipeline, BriaPipeline, Krea2Pipeline, Flux2Pipeline])
def test_unpacked_as_the_pipe_does(kind):
    """Tokens of 2x2 pixels, for pipes whose unpacking takes different arguments."""
    latents = torch.arange(2 * 4 * 12 * 8.0).reshape(2, 4, 12, 8)
    pipe = SimpleNamespace(vae_scale_factor=8, patch_size=2)
    ids = torch.cartesian_prod(torch.arange(1), torch.arange(6), torch.arange(4))
    pipe.components = {"vae": SimpleNamespace(decode=None, config={"latent_channels": 4})}
    layout = learn_layout(pipe, nn.Conv2d(1, 1, 1), (24, 16), parts_of({"img_ids": ids}), 0)
    tokens = layout.from_core(latents)
    assert torch.equal(layout.to_core(tokens), latents)
    if kind is Flux2Pipeline:
        assert torch.equal(kind._unpatchify_latents(tokens.movedim(1, 2).unflatten(2, (6, 4))), latents)
        return
    # Bria's scale factor is that of a token.
    more = () if kind is Krea2Pipeline else (16 if kind is BriaPipeline else 8,)
    unpack = vars(kind)["_unpack_latents"].__get__(pipe, kind)
    assert torch.equal(unpack(tokens, 96, 64, *more).reshape(latents.shape), latents)


@pytest.mark.parametrize("grid", [(4, 5), (3, 4, 5)])
def test_tokens_of_patches(grid):
    """Of pictures and of clips; a token has the values (channel, row, column) of a patch."""
    sample = torch.randn(2, math.prod(grid), 16)
    layout = Layout(1, grid, 2)
    latent = layout.to_core(sample)
    assert latent.shape == (2, 4, *grid[:-2], 8, 10)
    assert torch.equal(latent[:, 1, ..., 3, 7], sample.unflatten(1, grid)[..., 1, 3, 4 + 2 + 1])
    assert torch.equal(layout.from_core(latent), sample)


def test_channels_of_several_pictures():
    """A latent of four pictures side by side has as many channels as a picture of 2x2 patches."""
    pipe = SimpleNamespace(components={"vae": SimpleNamespace(decode=None, config={"latent_channels": 4})})
    latent = torch.zeros(1, 16, 16, 16)
    assert learn_layout(pipe, nn.Conv2d(1, 1, 1), (16, 16, 16), {}, 0).to_core(latent).shape == latent.shape


class Cached(Net):
    """As Qwen-Image 2.1: a call that fills a cache answers for text and picture, one that uses it for the picture."""

    def forward(self, tokens, timestep, mode="fill"):
        answer = super().forward(tokens, timestep)[0]
        return (torch.cat([answer[:, :3], answer], 1) if mode == "fill" else answer,)


def test_a_model_in_another_mode_is_learned_anew():
    pipe = Loop()
    pipe.unet = Cached()

    @torch.no_grad()
    def call():
        x = torch.randn(2, TOKENS, CHANNELS, generator=torch.Generator().manual_seed(0))
        pipe.scheduler.set_timesteps(8)
        for i, t in enumerate(pipe.scheduler.timesteps):
            answer = pipe.unet(x, t.expand(2, TOKENS), "use" if i else "fill")[0]
            x = pipe.scheduler.step(answer[:, -TOKENS:], t, x, return_dict=False)[0]
        return x

    holder = SimpleNamespace(unet=pipe.unet, scheduler=pipe.scheduler)
    plain = call()
    run = enable(holder, mask_override="zeros", every=1, start=0.0)
    with run.attached():
        assert torch.equal(call(), plain)
    assert run.report.lied == 6


def test_a_model_that_gets_the_noise_level_where_timesteps_are_rounded():
    """Cosmos 2.5's model gets sigma, and UniPC rounds its timesteps to whole numbers."""
    scheduler = UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=5.0)
    net = Net()

    @torch.no_grad()
    def call():
        x = torch.randn(2, TOKENS, CHANNELS, generator=torch.Generator().manual_seed(0))
        scheduler.set_timesteps(8)
        for t, sigma in zip(scheduler.timesteps, scheduler.sigmas.tolist(), strict=False):
            x = scheduler.step(net(x, torch.full((2, 1), sigma))[0], t, x, return_dict=False)[0]

    run = enable(SimpleNamespace(unet=net, scheduler=scheduler), strength=0.1, every=1, start=0.0)
    with run.attached():
        call()
    levels = [float(time[0]) for _, time in net.seen[1:]]
    assert run.report.lied == 7
    for lied, true in list(zip(levels[::2], levels[1::2], strict=True))[:-1]:
        assert lied / (1 - lied) == pytest.approx(0.9 * true / (1 - true), rel=1e-4)


def test_a_sample_that_is_rearranged_for_the_model_is_refused():
    """LTX image to video steps a clip without its first frame, and shows the model tokens of all frames."""
    net, scheduler = Net(), FlowMatchEulerDiscreteScheduler()

    @torch.no_grad()
    def call():
        scheduler.set_timesteps(8)
        x = torch.randn(1, CHANNELS, 2, 4, 4, generator=torch.Generator().manual_seed(0))
        for t in scheduler.timesteps:
            tokens = x.flatten(2).transpose(1, 2)
            answer = net(tokens, t.expand(1, 32))[0]
            x = scheduler.step(answer.transpose(1, 2).reshape(x.shape), t, x, return_dict=False)[0]

    run = enable(SimpleNamespace(unet=net, scheduler=scheduler))
    with pytest.raises(ValueError, match="the scheduler's sample is not found among"), run.attached():
        call()


@pytest.mark.parametrize(("condition", "start"), [((4, 6), 0), ((6, 4), 24), ((6, 4), 0)])
def test_the_grid_is_the_samples_own(condition, start):
    """A condition of as many tokens lies before the sample (Qwen-Image 2.1) or behind it (Qwen-Image edit)."""
    shapes = [(1, *condition), (1, 6, 4)] if start else [(1, 6, 4), (1, *condition)]
    learned = learn_layout(SimpleNamespace(), nn.Conv2d(1, 1, 1), (24, 16), parts_of({"img_shapes": [shapes]}), start)
    assert learned.to_core(torch.zeros(2, 24, 16)).shape == (2, 16, 6, 4)
