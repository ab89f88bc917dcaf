"""Which calls of a step are made with the lie, what they get, and what its effect is added to."""

from __future__ import annotations

import pytest
import torch
from diffusers import EulerDiscreteScheduler, FlowMatchEulerDiscreteScheduler
from torch import nn

from selective_sigma.diffusers import detail
from selective_sigma.diffusers.evaluate import ModelCall

from .parts import Net, field
from .pipes import flux_true_cfg, sd3, sdxl
from .schedulers import SD


class Watched(Net):
    """Keeps the arguments of its calls."""

    def __init__(self):
        super().__init__()
        self.arguments = []

    def forward(self, sample, timestep):
        self.arguments.append((sample.clone(), float(timestep) / 1000))
        return super().forward(sample, timestep)


def test_the_lie_near_all_and_no_noise():
    """The lied input is right at both ends of the flow path, where a division could be by nearly 0."""
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
    pairs = list(zip(net.arguments[1::2], net.arguments[2::2], strict=True))
    for sigma, keep, ((lied, lied_time), (true, time)) in zip(levels[1:], (0.9, 0.9, 0.95), pairs, strict=True):
        assert time == pytest.approx(sigma, rel=1e-5)
        assert lied_time == pytest.approx(keep * sigma / (1 - (1 - keep) * sigma), rel=2e-3)
        torch.testing.assert_close(lied, true / (1 - (1 - keep) * sigma), rtol=1e-5, atol=1e-6)


def rows_of_lied_calls(tiny, **settings):
    """Runs a pipe; returns the number of rows in each call of its model, and the run."""
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
    # The lied call comes first.
    assert rows[rows.index(1) + 1] == 2
    rows, run = rows_of_lied_calls(make(), mask_override="half")
    assert set(rows) == {2}


def test_calls_apart_are_moved_without_a_second_one():
    """Qwen-Image, Wan and Flux with true guidance call their model for cond, then for uncond."""
    tiny = flux_true_cfg()
    with detail(tiny.pipe, every=1, start=0.0) as run:
        tiny()
        assert run.report.steps == run.report.plain == 16
        # In each step but the first, which is learned from, the first call is made with the lie too.
        assert run.report.lied == 7
    with detail(tiny.pipe, every=1, start=0.0, mask_override="half") as run:
        tiny()
        assert run.report.lied == 14


@pytest.mark.parametrize(("make", "apart"), [(flux_true_cfg, True), (sdxl, False)])
def test_the_guided_prediction_is_that_of_one_batch(make, apart, monkeypatch):
    """Where cond and uncond are calls apart, the mask counts the detail of the first alone as held."""
    predictions, predict = [], ModelCall._prediction
    monkeypatch.setattr(ModelCall, "_prediction", lambda *args: predictions.append(predict(*args)) or predictions[-1])
    tiny = make()
    with detail(tiny.pipe, every=1, start=0.0):
        tiny()
    lied, plain = predictions[:2]
    assert torch.equal(lied.guided, lied.denoised)
    assert torch.equal(plain.guided, plain.denoised) == apart


class Guided(nn.Module):
    """Its answer depends on a condition, so the answers to the two copies of a batch differ."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, sample, timestep, condition):
        scale = 1 + float(timestep.flatten()[0]) / 3000
        return (scale * self.net(sample) + condition.reshape(-1, 1, 1, 1) * sample.roll(1, 2),)


@pytest.mark.parametrize("first", ["uncond", "cond"])
@pytest.mark.parametrize("together", [True, False])
def test_all_copies_are_moved_by_one_effect(together, first):
    """Guidance, whose weights sum to 1, then moves by this effect at any scale, whichever copy has the condition."""
    net, scheduler = Guided(), FlowMatchEulerDiscreteScheduler(shift=3.0)
    inside, moved = [], []
    net.register_forward_hook(lambda _, __, answer: inside.append(answer[0]))

    class Loop:
        def __init__(self):
            self.unet, self.scheduler = net, scheduler

    conditions = {"uncond": torch.tensor([0.1]), "cond": torch.tensor([0.8])}
    order = [first, "cond" if first == "uncond" else "uncond"]

    @torch.no_grad()
    def sample(guidance):
        scheduler.set_timesteps(8)
        x = field(0)
        for t in scheduler.timesteps:
            if together:
                both = net(torch.cat([x, x]), t.expand(2), torch.cat([conditions[name] for name in order]))[0]
                changes = (both - inside[-1]).chunk(2)
                answers = dict(zip(order, both.chunk(2), strict=True))
            else:
                answers, changes = {}, []
                for name in order:
                    answers[name] = net(x, t.expand(1), conditions[name])[0]
                    changes.append(answers[name] - inside[-1])
            moved.append(changes)
            x = scheduler.step(answers["uncond"] + guidance * (answers["cond"] - answers["uncond"]), t, x)[0]

    for guidance in (1.5, 7.0):
        moved.clear()
        with detail(Loop(), every=1, start=0.0) as run, run.attached():
            sample(guidance)
        assert run.report.lied == 7
        assert not any(change.any() for change in moved[0])
        for one, other in moved[1:]:
            assert one.abs().max() > 1e-4
            torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)


@torch.no_grad()
def test_a_scheduler_that_steps_both_copies():
    """As DiT's does: the copies are one sample, and are moved by one effect."""
    net, scheduler = Guided(), EulerDiscreteScheduler(**SD)
    inside, moved = [], []
    net.register_forward_hook(lambda _, __, answer: inside.append(answer[0]))

    class Loop:
        def __init__(self):
            self.unet, self.scheduler = net, scheduler

    with detail(Loop(), every=1, start=0.0) as run, run.attached():
        scheduler.set_timesteps(8)
        x = field(0).repeat(2, 1, 1, 1) * scheduler.init_noise_sigma
        for t in scheduler.timesteps:
            both = net(scheduler.scale_model_input(x, t), t.expand(2), torch.tensor([0.8, 0.1]))[0]
            moved.append((both - inside[-1]).chunk(2))
            cond, uncond = both.chunk(2)
            x = scheduler.step((uncond + 4 * (cond - uncond)).repeat(2, 1, 1, 1), t, x)[0]
    assert run.report.lied == 7
    assert run.mask.shape == (1, 1, 16, 16)
    for one, other in moved[1:]:
        assert one.abs().max() > 1e-5
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)
