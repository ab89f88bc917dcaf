"""The published method in a few lines, from the formulas in method.md sections 1, 2 and 5.

An independent reference: it shares no code with the package. The lied pass first, one for every
active call; no CFG++.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from torch import Tensor

START, END, TAPER = 0.1, 0.9, 0.15
CLIP, EMA, EMPTY = 0.2, 0.9, 0.02


def weights(steps: int) -> np.ndarray:
    """1 from START to END of the run, falling to 0 over the last TAPER before END, clean at both ends."""
    last = steps - 1
    begin, end = max(1, round(START * last)), min(last - 1, round(END * last))
    made = np.zeros(steps)
    if end <= begin:
        return made
    taper = min(max(begin + 1, round((END - TAPER) * last)), end)
    made[begin:taper] = 1.0
    if end > taper:
        made[taper : end + 1] = np.linspace(1.0, 0.0, end - taper + 1)
    return made


def weight_at(sigma: float, sigmas: np.ndarray) -> float:
    """Linear in sigma between the steps of the run, 0 outside it."""
    if not sigmas[-1] + 1e-5 <= sigma <= sigmas[0]:
        return 0.0
    return float(np.interp(sigma, sigmas[:-1][::-1], weights(len(sigmas) - 1)[::-1]))


class Published:
    """``wrap(sampler)`` with counts of what the sampler asked for and what the model was asked for."""

    def __init__(self, strength: float = 0.1, coverage: float = 0.5):
        self.strength, self.coverage = strength, coverage
        self.steps = self.calls = 0

    def wrap(self, sampler: Any) -> Any:
        function = sampler.sampler_function

        def sample(model: Any, x: Tensor, sigmas: Tensor, **given: Any) -> Tensor:
            levels = sigmas.cpu().numpy().copy()
            before: Tensor | None = None
            memory: Tensor | None = None

            def step(x: Tensor, sigma: Tensor, **extra: Any) -> Tensor:
                nonlocal before, memory
                self.steps += 1
                self.calls += 1
                weight = weight_at(float(sigma.max()), levels)
                if weight == 0:
                    return model(x, sigma, **extra)
                self.calls += 1
                lied = model(x, sigma * (1 - self.strength * weight), **extra)
                true = model(x, sigma, **extra)
                last, before = before, true
                if last is None:
                    return true
                raw = (true - last).abs().mean(1, keepdim=True)
                low, high = torch.quantile(raw.flatten(1), torch.tensor([CLIP, 1 - CLIP]), dim=1)
                each = (-1, *[1] * (x.ndim - 1))
                mask = ((raw - low.reshape(each)) / (high - low + 1e-8).reshape(each)).clamp(0, 1)
                memory = mask if memory is None else EMA * memory + (1 - EMA) * mask
                mask = (memory + 2 * (self.coverage - 0.5)).clamp(0, 1)
                return true if mask.mean() < EMPTY else true * (1 - mask) + lied * mask

            step.inner_model, step.sigmas = model.inner_model, model.sigmas  # type: ignore[attr-defined]
            return function(step, x, sigmas, **given)

        made = copy.copy(sampler)
        made.sampler_function = sample
        return made
