"""What a step costs beside the model: a denoiser that returns at once, all contestants interleaved in one run."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import cycle

import torch
from torch import Tensor

from selective_sigma import Detailer, Prediction, Settings
from selective_sigma.demo.sample import noise_levels
from tests.published import Published

from .figures import Value

SHAPES = ((1, 4, 128, 128), (1, 16, 128, 128), (1, 16, 21, 90, 160))
SIGMAS, ROUNDS = noise_levels(20), 7
TIMED = slice(6, 16)
"""Steps of a run that are timed: active, at full strength, and after the first mask."""


def contestants(denoise: Callable[[], Tensor]) -> dict[str, Callable[[Tensor, Tensor], object]]:
    """A run of each, ``step(x, sigma)``; the published one in its own operations (method.md section 2)."""
    return {
        "published": partial(Published(SIGMAS).step, lambda *_: denoise()),
        "every 1": partial(Detailer(Settings(every=1), SIGMAS).step, lambda _: Prediction(denoise())),
        "every 2": partial(Detailer(Settings(every=2), SIGMAS).step, lambda _: Prediction(denoise())),
        "bare Euler": lambda x, sigma: x + (x - denoise()) / sigma * -0.1,
    }


def step_time(_: str) -> Iterator[Value]:
    """Milliseconds, the mean over a run's steps and the least of the rounds; and against the published arithmetic."""
    for shape in SHAPES:
        x, denoise = torch.randn(shape), cycle([torch.randn(shape) for _ in range(3)]).__next__
        least: dict[str, float] = {}
        for label, step in (each for _ in range(ROUNDS) for each in contestants(denoise).items()):
            for sigma in SIGMAS[: TIMED.start, None]:
                step(x, sigma)
            began = time.perf_counter()
            for sigma in SIGMAS[TIMED, None]:
                step(x, sigma)
            spent = 1e3 * (time.perf_counter() - began) / len(SIGMAS[TIMED])
            least[label] = min(spent, least.get(label, spent))
        name = "x".join(map(str, shape))
        for label, value in least.items():
            yield Value("step_time", name, f"{label}, ms", value)
        yield Value("step_time", name, "every 2 / published", least["every 2"] / least["published"])
