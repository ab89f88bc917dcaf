"""What a step costs beside the model: a denoiser that returns at once, all contestants interleaved in one run."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import cycle

import torch
from torch import Tensor

from selective_sigma import Detailer, Prediction, Settings
from selective_sigma.demo.sample import noise_levels
from tests.published import Published

SHAPES = ((1, 4, 128, 128), (1, 16, 128, 128), (1, 16, 21, 90, 160))
SIGMAS: list[float] = noise_levels(20).tolist()
TIMED = slice(6, 16)
"""Steps of a run that are timed: active, at full strength, and after the first mask."""

Step = Callable[[Callable[[], Tensor], Tensor, Tensor], object]


def ours(every: int) -> Step:
    """The detailer at its defaults but ``every``."""
    detailer = Detailer(Settings(every=every), SIGMAS)
    return lambda denoise, x, sigma: detailer.step(lambda _: Prediction(denoise()), x, sigma)


def published() -> Step:
    """The published method's own operations, from its formula (method.md section 2)."""
    run = Published(SIGMAS)
    return lambda denoise, x, sigma: run.step(lambda *_: denoise(), x, sigma)


CONTESTANTS: dict[str, Callable[[], Step]] = {
    "published": published,
    "every 1": lambda: ours(1),
    "every 2": lambda: ours(2),
    "bare Euler": lambda: lambda denoise, x, sigma: x + (x - denoise()) / sigma * -0.1,
}


def measure(shape: tuple[int, ...], rounds: int = 7) -> dict[str, float]:
    """Milliseconds a step by contestant: mean over a run's steps, least of the rounds."""
    x, denoise = torch.randn(shape), cycle([torch.randn(shape) for _ in range(3)]).__next__
    spent: dict[str, list[float]] = {label: [] for label in CONTESTANTS}
    for _ in range(rounds):
        for label, make in CONTESTANTS.items():
            step = make()
            for level in SIGMAS[: TIMED.start]:
                step(denoise, x, torch.tensor([level]))
            began = time.perf_counter()
            for level in SIGMAS[TIMED]:
                step(denoise, x, torch.tensor([level]))
            spent[label].append((time.perf_counter() - began) / len(SIGMAS[TIMED]))
    return {label: 1e3 * min(times) for label, times in spent.items()}
