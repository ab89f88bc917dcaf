"""The published method in a few lines, written from method.md sections 2 and 5: the reference of all tests.

It shares no code with the package. ``SETTINGS`` are those under which the package must equal it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

SETTINGS: dict[str, Any] = {"mask_source": "change", "every": 1, "start": 0.1, "end": 0.9, "lie": "fixed_input"}
START, END, TAPER = 0.1, 0.9, 0.15
CLIP, EMA, EMPTY = 0.2, 0.9, 0.02


def weights(steps: int) -> list[float]:
    """1 from START to END of the run, falling to 0 over the last TAPER before END, clean at both ends."""
    last = steps - 1
    begin, end = max(1, round(START * last)), min(last - 1, round(END * last))
    if end <= begin:
        return [0.0] * steps
    taper = min(max(begin + 1, round((END - TAPER) * last)), end)
    fall = [(end - i) / (end - taper) if end > taper else 0.0 for i in range(taper, end + 1)]
    made = [0.0] * begin + [1.0] * (taper - begin) + fall
    return made + [0.0] * (steps - len(made))


class Published:
    """One run: ``step(evaluate, x, sigma)`` in place of ``evaluate(x, sigma)``, both giving denoised.

    ``steps`` counts what the sampler asked for, ``calls`` what the model was asked for.
    """

    def __init__(self, sigmas: Sequence[float] | Tensor, strength: float = 0.1, coverage: float = 0.5):
        self._levels: list[float] = torch.as_tensor(sigmas).double().tolist()
        self._weights = weights(len(self._levels) - 1)
        self._strength, self._coverage = strength, coverage
        self._before: Tensor | None = None
        self._memory: Tensor | None = None
        self.steps = self.calls = 0

    def weight(self, sigma: float) -> float:
        """Linear in sigma between the steps of the run, 0 outside it."""
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
        # Both passes at every active call, used or not, as published.
        self.calls += 1
        lied = evaluate(x, sigma * (1 - self._strength * weight))
        true = evaluate(x, sigma)
        last, self._before = self._before, true
        if last is None:
            return true
        raw = (true - last).abs().mean(1, keepdim=True)
        low, high = (torch.quantile(raw.flatten(1), q, dim=1) for q in (CLIP, 1 - CLIP))
        each = (-1, *[1] * (x.ndim - 1))
        mask = ((raw - low.reshape(each)) / (high - low + 1e-8).reshape(each)).clamp(0, 1)
        self._memory = mask if self._memory is None else EMA * self._memory + (1 - EMA) * mask
        mask = (self._memory + 2 * (self._coverage - 0.5)).clamp(0, 1)
        return true if mask.mean() < EMPTY else true * (1 - mask) + lied * mask


def around(sampler: Any, runs: list[Published] | None = None) -> Any:
    """A ComfyUI SAMPLER, changed so that every model call is a step of the published method; ``runs`` gets each run."""
    function = sampler.sampler_function

    def sample(model: Any, x: Tensor, sigmas: Tensor, **named: Any) -> Tensor:
        run = Published(sigmas.clone())
        if runs is not None:
            runs.append(run)

        def step(x: Tensor, sigma: Tensor, **extra: Any) -> Tensor:
            return run.step(lambda *seen: model(*seen, **extra), x, sigma)

        step.inner_model, step.sigmas = model.inner_model, model.sigmas  # type: ignore[attr-defined]
        return function(step, x, sigmas, **named)

    sampler.sampler_function = sample
    return sampler
