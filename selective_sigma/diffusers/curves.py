"""The time that belongs to a noise level, as (levels, times) to interpolate between."""

from __future__ import annotations

import math
from bisect import bisect_left
from typing import Any

import torch

Curve = tuple[list[float], list[float]]

# diffusers' own stand-in for a signal of exactly zero (rescale_betas_zero_snr).
LEAST_ALPHA = 2.0**-24


def table(scheduler: Any) -> Curve:
    """(log sigma, time) of the noise levels that the model was trained on."""
    alphas = scheduler.alphas_cumprod.cpu().double().clamp(min=LEAST_ALPHA, max=1 - 1e-12)
    return (((1 - alphas) / alphas).log() / 2).tolist(), [float(t) for t in range(len(alphas))]


def preconditioned(scheduler: Any) -> Curve:
    """(log of sigma in units of sigma_data, time), where a scheduler tells time by a formula (EDM)."""
    logs = _spaced(math.log(scheduler.config.sigma_min), math.log(scheduler.config.sigma_max))
    return (logs - math.log(scheduler.config.sigma_data)).tolist(), scheduler.precondition_noise(logs.exp()).tolist()


def straight(config: Any, sigmas: list[float], times: list[float]) -> Curve | None:
    """(log sigma, time) where time is a straight line over it (Stable Video Diffusion); None where it is not."""
    points = dict(zip(sigmas, times, strict=True))
    if config.get("prediction_type") != "v_prediction" or len(points) < 3 or min(points) <= 0:
        return None
    logs = torch.tensor([math.log(sigma) for sigma in points], dtype=torch.float64)
    told = torch.tensor(list(points.values()), dtype=torch.float64)
    slope = float((told[0] - told[-1]) / (logs[0] - logs[-1]))
    off = told - told[-1] - slope * (logs - logs[-1])
    if slope <= 0 or off.abs().max() > 1e-4 * (told[0] - told[-1]):
        return None
    ends = (math.log(config.get(name) or end(points)) for name, end in (("sigma_min", min), ("sigma_max", max)))
    logs_over = _spaced(*ends)
    return logs_over.tolist(), (told[-1] + slope * (logs_over - logs[-1])).tolist()


def log_odds(sigmas: list[float], times: list[float]) -> Curve:
    """Time over the share of noise, both as log odds: there every shift of a flow schedule is a straight line."""
    pairs = sorted({logit(s): logit(t) for s, t in zip(sigmas, times, strict=True) if 0 < s < 1 and 0 < t < 1}.items())
    if len(pairs) < 2:
        pairs = [(-1.0, -1.0), (1.0, 1.0)] if not pairs else [(x + d, y + d) for x, y in pairs for d in (-1.0, 1.0)]
    return [x for x, _ in pairs], [y for _, y in pairs]


def shift(scheduler: Any, sigmas: list[float], mu: float | None) -> float:
    """By what a flow schedule multiplies the odds of its evenly spaced levels.

    ``mu`` is what a dynamic shift was set with. Where that is not known, the levels are taken for evenly spaced ones
    from 1 to one over their number, as pipelines space them.
    """
    if not scheduler.config.get("use_dynamic_shifting"):
        static = (scheduler.config.get(name) for name in ("flow_shift", "shift"))
        return float(getattr(scheduler, "shift", None) or next((value for value in static if value), 1.0))
    if mu is not None and not hasattr(scheduler, "time_shift"):
        return math.exp(mu)
    if mu is not None:
        return math.exp(logit(float(scheduler.time_shift(mu, 1.0, torch.tensor(0.5, dtype=torch.float64)))))
    steps = len(sigmas)
    ratios = sorted(logit(sigmas[i]) - logit(1 - i / steps) for i in range(1, steps))
    return math.exp(ratios[len(ratios) // 2]) if ratios else 1.0


def logit(share: float) -> float:
    share = min(max(share, 1e-9), 1 - 1e-9)
    return math.log(share / (1 - share))


def sigmoid(odds: float) -> float:
    return 1 / (1 + math.exp(-odds))


def interpolate(x: float, xs: list[float], ys: list[float]) -> float:
    """Linear between ascending ``xs``, and beyond their ends."""
    right = min(max(bisect_left(xs, x), 1), len(xs) - 1)
    share = (x - xs[right - 1]) / (xs[right] - xs[right - 1])
    return ys[right - 1] + share * (ys[right] - ys[right - 1])


def _spaced(low: float, high: float) -> torch.Tensor:
    return torch.linspace(low, high, 1000, dtype=torch.float64)
