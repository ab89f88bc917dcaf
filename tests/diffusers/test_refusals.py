"""What a pipeline may not do between its model and its scheduler: refused at the first step, before it is stepped."""

from __future__ import annotations

import pytest
import torch
from diffusers import DDIMScheduler, EulerDiscreteScheduler

from selective_sigma.diffusers import detail

from .parts import Net, field
from .schedulers import SD


class Loop:
    """Steps once; ``shown``, ``told`` and ``stepped`` change what the model and the scheduler get."""

    def __init__(self, shown=None, answered=None, told=None, scheduler=None):
        self.unet, self.scheduler = Net(), scheduler or DDIMScheduler(**SD)
        self.shown = shown or self.scheduler.scale_model_input
        self.answered, self.told = answered or (lambda answer: answer), told or (lambda time: time)

    @torch.no_grad()
    def __call__(self):
        self.scheduler.set_timesteps(8)
        time, x = self.scheduler.timesteps[0], field(0)
        answer = self.answered(self.unet(self.shown(x, time), time)[0])
        self.scheduler.step(answer, self.told(time), x)


class OtherNames(DDIMScheduler):
    def step(self, answer, time, latent):
        return super().step(answer, time, latent)


@pytest.mark.parametrize(
    ("loop", "message"),
    [
        (lambda: Loop(scheduler=OtherNames(**SD)), "step does not take model_output, timestep and sample"),
        (lambda: Loop(told=lambda time: time.expand(2)), "steps several noise levels at once"),
        (lambda: Loop(shown=lambda _, __: field(1)), "sample is not found among what the model is given"),
        (
            lambda: Loop(shown=lambda x, _: x, scheduler=EulerDiscreteScheduler(**SD)),
            "gets the sample without its scheduler's scale_model_input",
        ),
        (lambda: Loop(answered=lambda answer: 2 * answer), "scales the model's answer by 2 before"),
        (lambda: Loop(answered=lambda _: field(2)), "something else of the model's answers than a weighted sum"),
    ],
)
def test_refused(loop, message):
    pipe = loop()
    with pytest.raises(ValueError, match=message) as caught, detail(pipe) as run, run.attached():
        pipe()
    assert "\n" not in str(caught.value)
    assert run.report.lied == 0


def test_a_time_that_fits_the_first_step_alone_leaves_the_run_plain_with_a_warning():
    """The model is told a time that is the scheduler's at the first step, and none of its times later."""

    class Misled(Loop):
        @torch.no_grad()
        def __call__(self):
            self.scheduler.set_timesteps(8)
            x = field(0)
            for i, time in enumerate(self.scheduler.timesteps):
                answer = self.unet(x, self.scheduler.timesteps[0] + 3 * i)[0]
                x = self.scheduler.step(answer, time, x).prev_sample
            return x

    pipe = Misled()
    plain = pipe()
    message = "added nothing: after the first step, no call"
    with pytest.warns(UserWarning, match=message), detail(pipe) as run, run.attached():
        assert torch.equal(pipe(), plain)
    assert run.report.lied == 0
