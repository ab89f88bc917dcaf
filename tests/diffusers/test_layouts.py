"""Where the latent sits in the model's inputs and outputs, which may hold more, and in what units time is told."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from diffusers import DDIMScheduler, EulerDiscreteScheduler, FlowMatchEulerDiscreteScheduler, FluxPipeline
from torch import nn

from selective_sigma.diffusers import detail
from selective_sigma.diffusers.layout import learn_layout
from selective_sigma.diffusers.slots import parts_of

from .pipes import flux
from .schedulers import SD

GRID = (6, 4)


class Net(nn.Module):
    """A convolutional eps model of ``inputs`` channels to ``outputs``; keeps its inputs in ``seen``."""

    def __init__(self, inputs, outputs, config=True):
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.seen = []
        if config:
            self.config = {"in_channels": inputs, "out_channels": outputs}

    def forward(self, sample, timestep):
        self.seen.append((sample, timestep))
        return (torch.tanh(self.conv(sample)) * (1 + timestep.reshape(-1, 1, 1, 1) / 1000), "more")


class Single(torch.Tensor):
    """A tensor that raises for float64, as on Apple's devices."""

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        arguments = (*args, *(kwargs or {}).values())
        if func is torch.Tensor.double or any(argument is torch.float64 for argument in arguments):
            raise TypeError("this device has no float64")
        result = super().__torch_function__(func, types, args, kwargs)
        return result.as_subclass(torch.Tensor) if func is torch.Tensor.cpu else result

    def __deepcopy__(self, memo):
        return self.clone()


class Loop:
    def __init__(self, net, scheduler=None, time=lambda t: t):
        self.unet = net
        self.scheduler = scheduler or DDIMScheduler(**SD, clip_sample=False)
        self.time = time

    @torch.no_grad()
    def __call__(self, behind=None, steps=8):
        x = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
        self.scheduler.set_timesteps(steps)
        for t in self.scheduler.timesteps:
            output, more = self.unet(x if behind is None else torch.cat([x, behind], 1), self.time(t))
            assert more == "more"
            x = self.scheduler.step(output[:, :4], t, x, return_dict=False)[0]
        return x


def identities(pipe, call):
    plain = call()
    with detail(pipe, mask_override="zeros"):
        assert torch.equal(call(), plain)
    with detail(pipe, mask_override="ones"):
        ones = call()
    with detail(pipe, coverage=1.0):
        assert torch.equal(call(), ones)
    with detail(pipe, strength=0.3) as run:
        out = call()
    assert not torch.equal(out, plain)
    assert not torch.equal(ones, plain)
    return run


@pytest.mark.parametrize(("behind", "outputs", "config"), [(0, 4, False), (0, 8, True), (5, 4, True)])
def test_channels(behind, outputs, config):
    """A model without a config; one with a learned variance; one for inpainting, with mask and masked image."""
    net = Net(4 + behind, outputs, config)
    pipe = Loop(net)
    extra = torch.randn(2, behind, 8, 8) if behind else None
    run = identities(pipe, lambda: pipe(extra))
    assert run.mask.shape == (2, 1, 8, 8)
    if behind:
        assert all(torch.equal(sample[:, 4:], extra) for sample, _ in net.seen)


@pytest.mark.parametrize("kind", [DDIMScheduler, EulerDiscreteScheduler, FlowMatchEulerDiscreteScheduler])
def test_a_device_without_float64(kind):
    net = Net(4, 4)
    scheduler = kind() if kind is FlowMatchEulerDiscreteScheduler else kind(**SD)

    @torch.no_grad()
    def call(device):
        x = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0)).as_subclass(device)
        scheduler.set_timesteps(8)
        scheduler.timesteps = scheduler.timesteps.as_subclass(device)
        for t in scheduler.timesteps:
            model_input = scheduler.scale_model_input(x, t) if hasattr(scheduler, "scale_model_input") else x
            x = scheduler.step(net(model_input, t.reshape(1))[0], t, x, return_dict=False)[0]
        return x

    pipe = Loop(net, scheduler)
    with detail(pipe) as run, run.attached():
        wanted = call(torch.Tensor)
        result = call(Single)
        assert run.report.lied > 0
    assert type(result) is Single
    assert torch.equal(result.cpu(), wanted)


def test_what_the_lied_pass_is_told():
    """The latent at unit variance for the lied level, and that level's timestep, between those of the table."""
    net = Net(4, 4)
    pipe = Loop(net)
    with detail(pipe, strength=0.2, every=1):
        pipe()
    pairs = [(b, a) for a, b in zip(net.seen, net.seen[1:], strict=False) if a[1].is_floating_point()]
    table = ((1 - pipe.scheduler.alphas_cumprod) / pipe.scheduler.alphas_cumprod).sqrt()
    assert len(pairs) > 3
    for (x, t), (lied, lied_time) in pairs[:3]:
        true, low = float(table[t]), lied_time.long()
        sigma = float(torch.lerp(table[low].log(), table[low + 1].log(), lied_time - low).exp())
        assert sigma == pytest.approx(0.8 * true, rel=1e-3)
        wanted = x * ((1 + true**2) / (1 + sigma**2)) ** 0.5
        torch.testing.assert_close(lied, wanted, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("time", "lied_time"),
    [
        (lambda t: t, lambda t: t),
        (lambda t: t / 1000, lambda t: t / 1000),
        (lambda t: 1 - t / 1000, lambda t: 1 - t / 1000),
        (lambda t: 1000 - t, lambda t: 1000 - t),
        (lambda t: t - 1, lambda t: t - 1),
        (lambda t: (t / 1000).to(torch.bfloat16), lambda t: t / 1000),
    ],
)
def test_measures_of_time(time, lied_time):
    """In any unit of time, the lied pass is told nine tenths of the noise to signal."""
    net = Net(4, 4)
    pipe = Loop(net, FlowMatchEulerDiscreteScheduler(shift=3.0), time=lambda t: time(t.reshape(1)))
    with detail(pipe, strength=0.1, every=1):
        pipe()
    pipe.scheduler.set_timesteps(8)
    pairs = [(b, a) for a, b in zip(net.seen, net.seen[1:], strict=False) if not torch.equal(a[0], b[0])]
    sigmas = pipe.scheduler.sigmas.tolist()
    right = 0
    for (x, t), (lied, actual) in pairs:
        i = next((i for i, s in enumerate(pipe.scheduler.timesteps) if torch.equal(time(s.reshape(1)), t)), None)
        # The last step's dose is half.
        if i is None or i == 7 or any(torch.equal(time(s.reshape(1)), actual) for s in pipe.scheduler.timesteps):
            continue
        ratio = 0.9 * sigmas[i] / (1 - sigmas[i]) if sigmas[i] < 1 else 0
        sigma = ratio / (1 + ratio)
        wanted = lied_time(torch.tensor([1000 * sigma]))
        if (actual - wanted).abs() < 0.006 * wanted.abs():
            torch.testing.assert_close(lied, x * (1 - sigma) / (1 - sigmas[i]))
            right += 1
    assert right >= 4


def test_another_measure_of_time_is_refused():
    pipe = Loop(Net(4, 4), FlowMatchEulerDiscreteScheduler(), time=lambda t: (t / 1000) ** 2 + 3)
    with pytest.raises(ValueError, match="no argument of the model tells the scheduler's time"), detail(pipe):
        pipe()


def test_packing_is_the_pipelines_own():
    tiny = flux()
    latents = torch.arange(2 * 4 * 12 * 8.0).reshape(2, 4, 12, 8)
    tokens = FluxPipeline._pack_latents(latents, 2, 4, 12, 8)
    ids = FluxPipeline._prepare_latent_image_ids(2, *GRID, "cpu", torch.float32)
    for arguments in (
        {"img_ids": ids},
        {"img_shapes": [[(1, *GRID)], [(1, *GRID)]]},
        {"height": GRID[0], "width": GRID[1]},
    ):
        layout = learn_layout(tiny.pipe, tiny.module, (24, 16), parts_of(arguments), 0)
        assert torch.equal(layout.to_core(tokens), latents)
        assert torch.equal(layout.from_core(latents), tokens)


def test_reference_tokens():
    """Flux Kontext: tokens of a reference picture behind those of the latent."""
    tiny = flux()
    reference = torch.randn(1, 24, 16, generator=torch.Generator().manual_seed(5))
    ids = FluxPipeline._prepare_latent_image_ids(1, *GRID, "cpu", torch.float32)
    second = ids.clone()
    second[:, 0] = 1
    seen = []

    @torch.no_grad()
    def call():
        x = torch.randn(1, 24, 16, generator=torch.Generator().manual_seed(0))
        scheduler = tiny.pipe.scheduler
        scheduler.set_timesteps(8)
        for t in scheduler.timesteps:
            output = tiny.module(
                torch.cat([x, reference], 1),
                timestep=t.expand(1) / 1000,
                img_ids=torch.cat([ids, second]),
                txt_ids=torch.zeros(5, 3),
                encoder_hidden_states=tiny.arguments["prompt_embeds"],
                pooled_projections=tiny.arguments["pooled_prompt_embeds"],
            ).sample
            seen.append(output.shape)
            x = scheduler.step(output[:, :24], t, x, return_dict=False)[0]
        return x

    class Own:
        """The pipe's parts under a loop of one's own."""

        components = tiny.pipe.components

        def __call__(self):
            return call()

    loop = Own()
    loop.unet, loop.scheduler = tiny.module, tiny.pipe.scheduler
    run = identities(loop, loop)
    assert run.mask.shape == (1, 1, 12, 8)
    assert set(seen) == {(1, 48, 16)}


def test_channels_of_two_autoencoders():
    """LTX 2: sound's autoencoder may have as many channels as a clip has frames."""
    coders = {
        name: SimpleNamespace(decode=None, config={"latent_channels": n}) for name, n in (("vae", 4), ("audio_vae", 2))
    }
    pipe, module = SimpleNamespace(components=coders), nn.Conv2d(1, 1, 1)
    assert learn_layout(pipe, module, (4, 3, 6, 6), {}, 0).to_core(torch.zeros(1, 4, 3, 6, 6)).shape[1] == 4
    with pytest.raises(ValueError, match="nothing tells which axis of its latent"):
        learn_layout(pipe, module, (4, 2, 6, 6), {}, 0)
