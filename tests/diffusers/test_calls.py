"""Which calls begin a step or follow in it: those that show the scheduler's sample, and no others."""

from __future__ import annotations

from types import SimpleNamespace
from typing import NamedTuple

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverSDEScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    KDPM2DiscreteScheduler,
)

from selective_sigma.diffusers import detail
from selective_sigma.diffusers.slots import compared

from .parts import FIELD, Net, field
from .schedulers import SD


class Referring:
    """A loop whose model gets a noisy reference picture at each step, before the sample or after it."""

    def __init__(self, picture: torch.Tensor, first: bool, scheduler=None):
        self.unet = Net().to(picture.dtype)
        self.scheduler = scheduler or EulerDiscreteScheduler(**SD)
        self.picture, self.first = picture, first
        self.change = lambda x, _: x

    @torch.no_grad()
    def __call__(self):
        scheduler = self.scheduler
        scheduler.set_timesteps(8)
        x = field(0).to(self.picture.dtype) * scheduler.init_noise_sigma
        generator = torch.Generator().manual_seed(5)
        for i, t in enumerate(scheduler.timesteps):
            noise = torch.randn(FIELD, generator=generator).to(x)
            noisy = scheduler.add_noise(self.picture, noise, t.reshape(1))
            inputs = [scheduler.scale_model_input(latent, t) for latent in (noisy, x)]
            answers = [self.unet(each, t)[0] for each in (inputs if self.first else inputs[::-1])]
            x = scheduler.step(answers[1 if self.first else 0], t, x, return_dict=False)[0]
            x = self.change(x, i)
        return x


@pytest.mark.parametrize("make", [lambda: EulerDiscreteScheduler(**SD), lambda: DDIMScheduler(**SD, clip_sample=False)])
@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_mask_is_the_samples_own(dtype, first, make):
    """A reference picture of the same shape at the same time has no part in it."""
    picture = (field(1).cumsum(2) / 4).to(dtype)
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
@pytest.mark.parametrize(
    "change", [lambda x, i: 0.9 * x + 0.2 * x.std() * field(10 + i), lambda x, _: 1.01 * x, lambda x, _: x + 0.01]
)
def test_a_sample_that_is_changed_on_the_way(change, first):
    """A callback that mixes in something new at each step, scales the sample, or shifts it."""
    pipe = Referring(field(1), first)
    pipe.change = change
    bare = pipe()
    with detail(pipe, mask_override="zeros", every=1, start=0.0) as run, run.attached():
        assert torch.equal(pipe(), bare)
        assert (run.report.steps, run.report.lied) == (8, 7)
    with detail(pipe, every=1, start=0.0) as run, run.attached():
        assert not torch.equal(pipe(), bare)


@pytest.mark.parametrize("first", [True, False])
def test_a_sample_that_is_replaced(first):
    """The step stays plain. If this is so at each step, a warning says that nothing was added."""
    pipe = Referring(field(1), first)
    pipe.change = lambda x, i: x.std() * field(10 + i) if i == 3 else x
    bare = pipe()
    with detail(pipe, mask_override="zeros", every=1, start=0.0) as run, run.attached():
        assert torch.equal(pipe(), bare)
        assert run.report.steps == 8
        assert run.report.skipped["learning"] == 2
        # The core takes a step that is left out for one of a sampler that asks at every second step.
        assert run.report.lied >= 5
    pipe.change = lambda x, i: x.std() * field(10 + i)
    bare = pipe()
    message = "no call of the model showed the scheduler's sample"
    with detail(pipe) as run, pytest.warns(UserWarning, match=message), run.attached():
        assert torch.equal(pipe(), bare)
    assert run.report.steps == 8


@pytest.mark.parametrize(("dtype", "kept"), [(torch.float32, 0.01), (torch.bfloat16, 0.04), (torch.bfloat16, 0.9)])
def test_inpainting_that_replaces_most_of_the_sample(dtype, kept):
    """The sample is known by the part that is regenerated."""
    pipe = Referring(field(1).to(dtype), first=True)
    cells = torch.rand(FIELD, generator=torch.Generator().manual_seed(3)) < kept
    pipe.change = lambda x, i: torch.where(cells, x, (x.std() * field(20 + i)).to(x))
    bare = pipe()
    with detail(pipe, mask_override="zeros", every=1, start=0.0) as run, run.attached():
        assert torch.equal(pipe(), bare)
    assert run.report.lied == 7


def test_inpainting_of_one_half():
    """Whatever columns are regenerated, the sample is known by them."""
    shape = (1, 16, 128, 128)
    sample, other = torch.randn(shape), torch.randn(shape)
    for first, last, share in ((65, 128, 0.49), (1, 64, 0.49), (0, 2, 0.015)):
        mixed = other.clone()
        mixed[..., first:last] = sample[..., first:last]
        assert compared(mixed, sample)[0] == pytest.approx(share, rel=0.2)


@pytest.mark.parametrize("zeros", [9, 16])
def test_a_latent_that_is_zero_in_parts_is_followed(zeros):
    """The second call of a step shows the same latent, whose zeros count."""
    net, scheduler = Net(), FlowMatchEulerDiscreteScheduler(shift=3.0)

    with (
        detail(SimpleNamespace(unet=net, scheduler=scheduler), every=1, start=0.0) as run,
        run.attached(),
        torch.no_grad(),
    ):
        scheduler.set_timesteps(8)
        x = field(0)
        for t in scheduler.timesteps:
            x[..., 16 - zeros : 15, :] = 0
            cond, uncond = net(x, t)[0], 0.5 * net(x, t)[0]
            x = scheduler.step(uncond + 3 * (cond - uncond), t, x).prev_sample
    assert (run.report.steps, run.report.plain, run.report.lied) == (16, 16, 7)


class Answer(NamedTuple):
    sample: torch.Tensor


def test_a_model_that_answers_with_a_named_tuple():
    class Named(Net):
        def forward(self, sample, timestep):
            return Answer(super().forward(sample, timestep)[0])

    results = []
    for net in (Net(), Named()):
        pipe = Referring(field(1), first=False)
        pipe.unet = net
        with detail(pipe, every=1, start=0.0, coverage=1.0) as run, run.attached():
            results.append(pipe())
        assert run.report.lied == 7
    assert torch.equal(*results)


def test_a_preview_with_other_flags_stays_plain():
    """A callback calls the model with the latest latents, at the time of the next step, for a dict."""

    class Flagged(Net):
        def forward(self, sample, timestep, return_dict=True):
            answer = super().forward(sample, timestep)[0]
            return {"sample": answer} if return_dict else (answer,)

    net, scheduler = Flagged(), DDIMScheduler(**SD, clip_sample=False)

    with (
        detail(SimpleNamespace(unet=net, scheduler=scheduler), every=1, start=0.0, mask_override="zeros") as run,
        run.attached(),
        torch.no_grad(),
    ):
        scheduler.set_timesteps(8)
        x = field(0)
        for i, t in enumerate(scheduler.timesteps):
            x = scheduler.step(net(x, t, return_dict=False)[0], t, x).prev_sample
            if i < 7:
                assert net(x, scheduler.timesteps[i + 1], return_dict=True)["sample"].shape == x.shape
    assert (run.report.steps, run.report.lied) == (8, 7)


class Store(dict):
    """A dict that cannot be made from its values alone, in which a model keeps what the next call needs."""

    def __init__(self, name):
        super().__init__({1: name})


def test_dicts_that_cannot_be_copied_are_handed_on():
    class Keeping(Net):
        def forward(self, sample, timestep, store):
            store["calls"] = store.get("calls", 0) + 1
            return super().forward(sample, timestep)

    net, scheduler = Keeping(), DDIMScheduler(**SD, clip_sample=False)

    for settings in ({"strength": 0.0}, {"every": 1, "start": 0.0}):
        store = Store("cache")
        with detail(SimpleNamespace(unet=net, scheduler=scheduler), **settings) as run, run.attached(), torch.no_grad():
            scheduler.set_timesteps(8)
            x = field(0)
            for t in scheduler.timesteps:
                x = scheduler.step(net(x, t, store)[0], t, x).prev_sample
        assert store["calls"] == run.report.calls == (8 if run.settings.idle else 15)


@pytest.mark.parametrize("kind", [KDPM2DiscreteScheduler, DPMSolverSDEScheduler])
def test_levels_between_those_of_the_table(kind):
    """The model's input is known although the levels that the table has for such times are a little off."""
    net = Net()
    scheduler = kind(**SD, use_karras_sigmas=True)

    with (
        detail(SimpleNamespace(unet=net, scheduler=scheduler), every=1, start=0.0, mask_override="zeros") as run,
        run.attached(),
        torch.no_grad(),
    ):
        scheduler.set_timesteps(30)
        x = field(0) * scheduler.init_noise_sigma
        for t in scheduler.timesteps:
            x = scheduler.step(net(scheduler.scale_model_input(x, t), t)[0], t, x).prev_sample
    assert run.report.lied == run.report.steps - 1 == 58


def test_a_time_that_is_told_by_position_and_by_keyword_in_turns():
    """Each of the two forms costs one plain step, in which it is learned."""
    net, scheduler = Net(), DDIMScheduler(**SD, clip_sample=False)

    with (
        detail(SimpleNamespace(unet=net, scheduler=scheduler), every=1, start=0.0, mask_override="zeros") as run,
        run.attached(),
        torch.no_grad(),
    ):
        scheduler.set_timesteps(8)
        x = field(0)
        for i, t in enumerate(scheduler.timesteps):
            answer = net(x, t)[0] if i % 2 else net(x, timestep=t)[0]
            x = scheduler.step(answer, t, x).prev_sample
    assert run.report.lied == 6
    assert run.report.skipped["learning"] == 2
