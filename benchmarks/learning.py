"""The cost of the diffusers adapter's one learning step per run."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from torch import Tensor, nn

from selective_sigma.diffusers import enable
from selective_sigma.diffusers.run import StepTracker

from .figures import Value

ROUNDS = 9
FLUX_STEP = 2 * 12e9 * (4096 + 512) / 500e12
"""Seconds of a step of Flux.1 at 1024x1024 on an H100: two operations a weight and token, at 500 TFLOP/s."""


class Tokens(nn.Module):
    """A model that returns at once, called like Flux: a latent of 1x16x128x128 as 4096 tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, hidden_states: Tensor, timestep: Tensor, **inputs: Tensor) -> tuple[Tensor]:  # noqa: ARG002
        return (0.3 * hidden_states.roll(1, 1) + 0.1,)


class Pictures(Tokens):
    """A model that returns at once, called like Stable Diffusion 3: [uncond, cond] in one batch."""

    def forward(self, hidden_states: Tensor, timestep: Tensor, **inputs: Tensor) -> tuple[Tensor]:  # noqa: ARG002
        return (0.3 * hidden_states.roll(1, 2) + 0.1 * inputs["text"].mean((1, 2)).reshape(-1, 1, 1, 1),)


def flux(model: nn.Module, scheduler: Any) -> None:
    """The first step of a run, and the second one, whose call tells that the first has ended."""
    rows, columns = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    ids = torch.stack([torch.zeros(64, 64), rows, columns], -1).reshape(-1, 3)
    inputs = {"text": torch.randn(1, 512, 4096), "pooled": torch.randn(1, 768), "txt_ids": torch.zeros(512, 3)}
    x = torch.randn(1, 4096, 64)
    for t in scheduler.timesteps[:2]:
        answer = model(x, timestep=t.reshape(1) / 1000, img_ids=ids, **inputs)[0]
        x = scheduler.step(answer, t, x, return_dict=False)[0]


def pictures(model: nn.Module, scheduler: Any) -> None:
    """The same steps with guidance."""
    x, text = torch.randn(1, 16, 128, 128), torch.randn(2, 77, 4096)
    for t in scheduler.timesteps[:2]:
        uncond, cond = model(torch.cat([x, x]), timestep=t.expand(2), text=text)[0].chunk(2)
        x = scheduler.step(uncond + 4 * (cond - uncond), t, x, return_dict=False)[0]


@torch.no_grad()
def learning(_: str) -> Iterator[Value]:
    """CPU time on one thread in milliseconds, the least of ``ROUNDS``, and its share of a step of Flux."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for name, model, call in (
            ("1x16x128x128 as tokens, 512 of text", Tokens(), flux),
            ("1x16x128x128 twice, 77 of text", Pictures(), pictures),
        ):
            spent = 1e3 * min(_learned(model, call) for _ in range(ROUNDS))
            yield Value("learning", name, "ms", spent)
            yield Value("learning", name, "% of a step of Flux on an H100", spent / 10 / FLUX_STEP)
    finally:
        torch.set_num_threads(threads)


def _learned(model: nn.Module, call: Callable[[nn.Module, Any], None]) -> float:
    """Seconds that the adapter takes to learn from the first step."""
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    spent = 0.0
    learn_from = StepTracker._learn_from

    def timed(self: StepTracker, scheduler: Any, args: Any, kwargs: Any) -> None:
        nonlocal spent
        began = time.process_time()
        learn_from(self, scheduler, args, kwargs)
        spent += time.process_time() - began

    StepTracker._learn_from = timed
    try:
        with enable(SimpleNamespace(transformer=model, scheduler=scheduler)).attached():
            scheduler.set_timesteps(28)
            call(model, scheduler)
    finally:
        StepTracker._learn_from = learn_from
    return spent
