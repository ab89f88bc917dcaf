"""What a step costs beside the model: a denoiser that returns at once, all contestants interleaved in one run."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from itertools import cycle

import torch
from torch import Tensor

from selective_sigma import Detailer, Prediction, Settings

from .samplers import karras

SHAPES = ((1, 4, 128, 128), (1, 16, 128, 128), (1, 16, 21, 90, 160))
SIGMAS = karras(20)
TIMED = slice(6, 16)
"""Steps of a run that are timed: active, at full strength, and after the first mask."""

Denoise = Callable[[], Tensor]
Step = Callable[[Denoise, Tensor, Tensor], object]


def published() -> Step:
    """The published method's own operations on an active step, from its formula (method.md section 2)."""
    last: Tensor | None = None
    memory: Tensor | None = None

    def step(denoise: Denoise, x: Tensor, sigma: Tensor) -> Tensor:  # noqa: ARG001
        nonlocal last, memory
        lied, true = denoise(), denoise()
        before, last = last, true
        if before is None:
            return true
        raw = (true - before).abs().mean(1, keepdim=True)
        low, high = (torch.quantile(raw.flatten(1), q, dim=1).reshape(-1, *[1] * (raw.ndim - 1)) for q in (0.2, 0.8))
        fresh = ((raw - low) / (high - low + 1e-8)).clamp(0, 1)
        memory = fresh if memory is None else 0.9 * memory + 0.1 * fresh
        mask = memory.clamp(0, 1)
        return true if float(mask.mean()) < 0.02 else true * (1 - mask) + lied * mask

    return step


def ours(every: int) -> Step:
    """The detailer at its defaults but ``every``."""
    detailer = Detailer(Settings(every=every), SIGMAS)
    return lambda denoise, x, sigma: detailer.step(lambda _: Prediction(denoise()), x, sigma)


CONTESTANTS: dict[str, Callable[[], Step]] = {
    "published": published,
    "every 1": lambda: ours(1),
    "every 2": lambda: ours(2),
    "bare Euler": lambda: lambda denoise, x, sigma: x + (x - denoise()) / sigma * -0.1,
}


def measure(rounds: int = 7) -> Iterator[tuple[str, str, float]]:
    """Milliseconds a step, (shape, label, value): mean over a run's steps, least of the rounds."""
    for shape in SHAPES:
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
        for label, times in spent.items():
            yield "x".join(map(str, shape)), label, 1e3 * min(times)
