"""The published method in a few lines, written from method.md sections 2 and 5: the reference of all tests.

It shares no code with the package. Under ``SETTINGS`` the package must equal it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

SETTINGS: dict[str, Any] = {"mask_source": "change", "every": 1, "start": 0.1, "end": 0.9, "lie": "fixed_input"}
START, END, TAPER = 0.1, 0.9, 0.15
CLIP, EMA, EMPTY_MEAN = 0.2, 0.9, 0.02


def weights(steps: int) -> list[float]:
    """The weight of each step: 1 from START of the run on, a line to 0 over the TAPER before END, 0 at both ends."""
    last = steps - 1
    begin, end = max(1, round(START * last)), min(last - 1, round(END * last))
    if end <= begin:
        return [0.0] * steps
    taper = min(max(begin + 1, round((END - TAPER) * last)), end)
    fall = [(end - i) / (end - taper) if end > taper else 0.0 for i in range(taper, end + 1)]
    shares = [0.0] * begin + [1.0] * (taper - begin) + fall
    return shares + [0.0] * (steps - len(shares))


class Published:
    """One run: ``step(evaluate, x, sigma)`` in place of ``evaluate(x, sigma)``, both giving denoised.

    ``steps`` counts the predictions that the sampler requests, ``calls`` the calls of the model.
    """

    def __init__(self, sigmas: Sequence[float] | Tensor, strength: float = 0.1, coverage: float = 0.5):
        self._levels: list[float] = torch.as_tensor(sigmas).double().tolist()
        self._weights = weights(len(self._levels) - 1)
        self._strength, self._coverage = strength, coverage
        self._previous: Tensor | None = None
        self._memory: Tensor | None = None
        self.steps = self.calls = 0

    def weight(self, sigma: float) -> float:
        """The weight at a noise level: linear between the steps of the run, 0 outside it."""
        levels = self._levels[:-1]
        if not levels[-1] <= sigma <= levels[0]:
            return 0.0
        after = next(i for i, level in enumerate(levels) if level <= sigma)
        if levels[after] == sigma:
            return self._weights[after]
        share = (levels[after - 1] - sigma) / (levels[after - 1] - levels[after])
        return (1 - share) * self._weights[after - 1] + share * self._weights[after]

    def step(self, evaluate: Callable[[Tensor, Tensor], Tensor], x: Tensor, sigma: Tensor) -> Tensor:
        self.steps += 1
        self.calls += 1
        weight = self.weight(float(sigma.max()))
        if weight == 0:
            return evaluate(x, sigma)
        # As published, both passes are made at every active call, whether they are used or not.
        self.calls += 1
        lied = evaluate(x, sigma * (1 - self._strength * weight))
        plain = evaluate(x, sigma)
        last, self._previous = self._previous, plain
        if last is None:
            return plain
        raw = (plain - last).abs().mean(1, keepdim=True)
        low, high = (torch.quantile(raw.flatten(1), clip, dim=1) for clip in (CLIP, 1 - CLIP))
        per_sample = (-1, *[1] * (x.ndim - 1))
        mask = ((raw - low.reshape(per_sample)) / (high - low + 1e-8).reshape(per_sample)).clamp(0, 1)
        self._memory = mask if self._memory is None else EMA * self._memory + (1 - EMA) * mask
        mask = (self._memory + 2 * (self._coverage - 0.5)).clamp(0, 1)
        return plain if mask.mean() < EMPTY_MEAN else plain * (1 - mask) + lied * mask


def around(sampler: Any, runs: list[Published] | None = None) -> Any:
    """A ComfyUI SAMPLER, changed so that every model call is a step of the published method; ``runs`` gets each run."""
    function = sampler.sampler_function

    def sample(model: Any, x: Tensor, sigmas: Tensor, **named: Any) -> Tensor:
        run = Published(sigmas.clone())
        if runs is not None:
            runs.append(run)

        def step(x: Tensor, sigma: Tensor, **extra: Any) -> Tensor:
            return run.step(lambda *arguments: model(*arguments, **extra), x, sigma)

        step.inner_model, step.sigmas = model.inner_model, model.sigmas  # type: ignore[attr-defined]
        return function(step, x, sigmas, **named)

    sampler.sampler_function = sample
    return sampler
