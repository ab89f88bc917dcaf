"""Which calls make a step, and what the lied one of them leaves behind."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, EulerDiscreteScheduler, FlowMatchEulerDiscreteScheduler
from diffusers.models.attention_processor import AttnProcessor2_0
from torch import nn

from selective_sigma.diffusers import detail

from .pipes import build, flux_true_cfg, sd3, sdxl
from .schedulers import SD

SHAPE = (1, 4, 16, 16)


def field(seed: int) -> torch.Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed))


class Net(nn.Module):
    """Answers with what depends on nothing but its input."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Conv2d(4, 4, 3, padding=1)
        self.calls = 0

    def forward(self, sample, timestep):  # noqa: ARG002
        self.calls += 1
        return (self.net(sample),)


class Referring:
    """A reference picture of the sample's shape goes through the model in each step, before the sample or after."""

    def __init__(self, picture: torch.Tensor, first: bool, scheduler=None):
        self.unet = Net()
        self.scheduler = scheduler or EulerDiscreteScheduler(**SD)
        self.picture, self.first = picture, first
        self.change = lambda x, _: x

    @torch.no_grad()
    def __call__(self):
        scheduler = self.scheduler
        scheduler.set_timesteps(8)
        x = field(0) * scheduler.init_noise_sigma
        noise = torch.Generator().manual_seed(5)
        for i, t in enumerate(scheduler.timesteps):
            noisy = scheduler.add_noise(self.picture, torch.randn(SHAPE, generator=noise), t.reshape(1))
            shown = [scheduler.scale_model_input(latent, t) for latent in (noisy, x)]
            answers = [self.unet(each, t)[0] for each in (shown if self.first else shown[::-1])]
            x = scheduler.step(answers[1 if self.first else 0], t, x, return_dict=False)[0]
            x = self.change(x, i)
        return x


@pytest.mark.parametrize("make", [lambda: EulerDiscreteScheduler(**SD), lambda: DDIMScheduler(**SD, clip_sample=False)])
@pytest.mark.parametrize("first", [True, False])
def test_the_mask_is_the_samples_own(first, make):
    """Not a reference picture's, of the same shape at the same time."""
    picture = field(1).cumsum(2) / 4
    alone = Referring(picture, first, make())
    with detail(alone, record=True) as run, run.attached():
        wanted, masks = alone(), [record.mask for record in run.masks]
        assert run.report.steps == 8
    mirrored = Referring(picture.flip(-1), first, make())
    with detail(mirrored, record=True) as run, run.attached():
        assert torch.equal(mirrored(), wanted)
        assert all(torch.equal(a, b.mask) for a, b in zip(masks, run.masks, strict=True))
    assert len(masks) > 2


@pytest.mark.parametrize("first", [True, False])
def test_a_sample_that_is_changed_on_the_way(first):
    """A callback that mixes in something new at each step, or puts another latent in the sample's place."""
    for change in (lambda x, i: 0.8 * x + 0.2 * x.std() * field(10 + i), lambda x, i: x.std() * field(10 + i)):
        pipe = Referring(field(1), first)
        pipe.change = change
        bare = pipe()
        with detail(pipe, mask_override="zeros", every=1, start=0.0) as run, run.attached():
            assert torch.equal(pipe(), bare)
            assert run.report.steps == 8
            # At most one step more than the first stays plain, in which it shows that the sample is changed.
            assert run.report.lied >= 6
        with detail(pipe, every=1, start=0.0) as run, run.attached():
            assert not torch.equal(pipe(), bare)


class Watched(Net):
    """Keeps what it is called with."""

    def __init__(self):
        super().__init__()
        self.given = []

    def forward(self, sample, timestep):
        self.given.append((sample.clone(), float(timestep) / 1000))
        return super().forward(sample, timestep)


def test_the_lie_near_all_and_no_noise():
    """Right at both ends of the flow path: the latent neither vanishes nor grows without bound."""
    net, scheduler = Watched(), FlowMatchEulerDiscreteScheduler()
    levels = [1.0, 0.9999, 0.5, 1e-4]

    class Loop:
        def __init__(self):
            self.unet, self.scheduler = net, scheduler

        @torch.no_grad()
        def __call__(self):
            scheduler.set_timesteps(sigmas=levels)
            x = field(0)
            for t in scheduler.timesteps:
                x = scheduler.step(net(x, t)[0], t, x, return_dict=False)[0]
            return x

    with detail(Loop(), strength=0.1, start=0.0, every=1, mask_override="zeros") as run, run.attached():
        assert run._pipe().isfinite().all()
    assert run.report.lied == 3
    pairs = list(zip(net.given[1::2], net.given[2::2], strict=True))
    for sigma, keep, ((lied, told), (true, time)) in zip(levels[1:], (0.9, 0.9, 0.95), pairs, strict=True):
        assert time == pytest.approx(sigma, rel=1e-5)
        assert told == pytest.approx(keep * sigma / (1 - (1 - keep) * sigma), rel=2e-3)
        torch.testing.assert_close(lied, true / (1 - (1 - keep) * sigma), rtol=1e-5, atol=1e-6)


class Counting(AttnProcessor2_0):
    """Counts its calls, and does something else after some of them, as T-GATE's do."""

    def __init__(self):
        super().__init__()
        self.calls = 0

    def __call__(self, *args, **kwargs):
        self.calls += 1
        return super().__call__(*args, **kwargs) * (1.0 if self.calls <= 4 else 0.5)


def test_numbers_that_processors_keep_are_the_plain_runs():
    tiny = sdxl()
    processor = Counting()

    def fresh(**settings):
        processor.calls = 0
        tiny.pipe.unet.set_attn_processor(dict.fromkeys(tiny.pipe.unet.attn_processors, processor))
        if not settings:
            return tiny()
        with detail(tiny.pipe, **settings):
            return tiny()

    plain = fresh()
    counted = processor.calls
    assert torch.equal(fresh(mask_override="zeros"), plain)
    assert processor.calls == counted


@pytest.mark.parametrize("draw", ["torch", "numpy", "python"])
def test_draws_from_global_generators_are_the_plain_runs(draw):
    tiny = sdxl()
    draws = {
        "torch": lambda: float(torch.rand(())),
        "numpy": lambda: float(np.random.random()),
        "python": random.random,
    }

    def noisy(_, __, answer):
        return (answer[0] * (1 + 0.1 * draws[draw]()), *answer[1:])

    tiny.module.register_forward_hook(noisy)

    def fresh(**settings):
        random.seed(0)
        np.random.seed(0)
        if not settings:
            return tiny()
        with detail(tiny.pipe, **settings) as run:
            found = tiny()
            assert run.report.lied > 0 or run.settings.idle
            return found

    plain = fresh()
    assert torch.equal(fresh(mask_override="zeros"), plain)
    assert torch.equal(fresh(mask_override="ones"), fresh(coverage=1.0))


def rows_of_lied_calls(tiny, **settings):
    """Rows that the model is given in plain and in lied calls, by default settings."""
    rows = []
    tiny.module.register_forward_pre_hook(
        lambda _, args, kwargs: rows.append(len(args[0] if args else kwargs["hidden_states"])), with_kwargs=True
    )
    with detail(tiny.pipe, **settings) as run:
        tiny()
    return rows, run


@pytest.mark.parametrize("make", [sdxl, sd3])
def test_the_lie_is_told_to_the_conditional_copy_alone(make):
    rows, run = rows_of_lied_calls(make())
    assert rows.count(1) == run.report.lied > 0
    assert rows.count(2) == run.report.plain == 8
    # Lied call first, the plain one after it.
    assert rows[rows.index(1) + 1] == 2
    rows, run = rows_of_lied_calls(make(), mask_override="half")
    assert set(rows) == {2}


def test_calls_apart_are_moved_without_a_second_one():
    """Qwen-Image, Wan and Flux with true guidance call their model for cond, then for uncond."""
    tiny = flux_true_cfg()
    with detail(tiny.pipe, every=1, start=0.0) as run:
        tiny()
        assert run.report.steps == run.report.plain == 16
        # The first call of each step but the first, which is learned from, is asked twice.
        assert run.report.lied == 7
    with detail(tiny.pipe, every=1, start=0.0, mask_override="half") as run:
        tiny()
        assert run.report.lied == 14


@pytest.mark.parametrize("pipe", ["sdxl", "flux_true_cfg", "sd3", "wan"])
def test_guidance_moves_by_the_effect_and_no_more(pipe):
    """What the scheduler gets is moved by the same at any guidance scale, if the first step's pictures are one."""
    tiny = build(pipe)
    scale = "true_cfg_scale" if pipe == "flux_true_cfg" else "guidance_scale"
    answers = []

    def run_to(step, guidance, **settings):
        given = []
        own = tiny.pipe.scheduler.step

        def stepping(model_output, *args, **kwargs):
            given.append(model_output.clone())
            return own(model_output, *args, **kwargs)

        tiny.pipe.scheduler.step = stepping
        try:
            with detail(tiny.pipe, **settings) as run:
                tiny(**{scale: guidance})
        finally:
            del tiny.pipe.scheduler.step
        del run
        return given[step]

    for guidance in (1.5, 6.0):
        options = {"every": 1, "start": 0.0, "limit": torch.ones(1, 1, 16, 12)}
        if pipe == "wan":
            options["limit"] = torch.ones(1, 1, 3, 16, 12)
        lied = run_to(1, guidance, strength=0.1, mask_source="response", **options)
        plain = run_to(1, guidance, strength=0.0)
        answers.append(lied - plain)
    one, other = answers
    # Other pictures go in, as guidance made them one step before; the effect is of one size.
    assert 0.3 < one.norm() / other.norm() < 3
