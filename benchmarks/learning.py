"""The cost of the diffusers adapter's one learning step per run."""

from __future__ import annotations

import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from torch import Tensor, nn

from selective_sigma.diffusers import enable

from .figures import Value

TIMED_RUNS = 9
FLUX_STEP = 2 * 12e9 * (4096 + 512) / 500e12
"""Seconds of a step of Flux.1 at 1024x1024 on an H100: two operations a weight and token, at 500 TFLOP/s."""


class InstantModel(nn.Module):
    """A model that answers at once. The answer for each row depends on its text."""

    def forward(self, hidden_states: Tensor, timestep: Tensor, **inputs: Tensor) -> tuple[Tensor]:  # noqa: ARG002
        text_means = inputs["text"].mean((1, 2)).reshape(-1, *[1] * (hidden_states.ndim - 1))
        return (0.3 * hidden_states.roll(1, -2) + 0.1 * text_means,)


@torch.no_grad()
def learning(_: str) -> Iterator[Value]:
    """CPU time on one thread in milliseconds, the least of ``TIMED_RUNS``, and its share of a step of Flux."""
    positions = torch.cartesian_prod(torch.zeros(1), torch.arange(64.0), torch.arange(64.0))
    like_flux = {"text": torch.randn(1, 512, 4096), "pooled": torch.randn(1, 768)}
    like_flux |= {"img_ids": positions, "txt_ids": torch.zeros(512, 3)}
    like_sd3 = {"text": torch.randn(2, 77, 4096)}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    for name, shape, inputs in (
        ("1x16x128x128 as tokens, 512 of text", (1, 4096, 64), like_flux),
        ("1x16x128x128 twice, 77 of text", (1, 16, 128, 128), like_sd3),
    ):
        x = torch.randn(shape)
        learns, idles = (min(first_step(x, inputs, s) for _ in range(TIMED_RUNS)) for s in (0.1, 0.0))
        yield Value("learning", name, "ms", 1e3 * (learns - idles))
        yield Value("learning", name, "% of a step of Flux on an H100", 100 * (learns - idles) / FLUX_STEP)
    torch.set_num_threads(threads)


def first_step(x: Tensor, inputs: dict[str, Tensor], strength: float) -> float:
    """Seconds of a run's first step; at strength 0 nothing is learned. Two rows of text are uncond and cond."""
    model, copies, seconds = InstantModel(), len(inputs["text"]), list[float]()
    scheduler: Any = FlowMatchEulerDiscreteScheduler(shift=3.0)
    with enable(SimpleNamespace(transformer=model, scheduler=scheduler), strength=strength).attached():
        scheduler.set_timesteps(28)
        # A run that ends after its first step is reported as one without detail.
        for t in scheduler.timesteps[:2]:
            began = time.process_time()
            answers = model(torch.cat([x] * copies), timestep=t.expand(copies), **inputs)[0].chunk(copies)
            answer = answers[0] if copies == 1 else answers[0] + 4 * (answers[1] - answers[0])
            x = scheduler.step(answer, t, x, return_dict=False)[0]
            seconds.append(time.process_time() - began)
    return seconds[0]
