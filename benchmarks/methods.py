"""The methods that are compared: every one as a few lines around a model, from its formula.

A method is ``method(run, strength) -> step``, with ``step(x, sigma) -> Prediction`` in the model's own terms.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from torch import Tensor

from selective_sigma import Call, Detailer, Prediction, Settings

from .samplers import Method, MethodRun, Step


def plain(run: MethodRun, _: float) -> Step:
    """No detail."""
    return run.evaluate


def _lie_about_sigma(run: MethodRun, share: Callable[[float], float]) -> Step:
    """One call a step at ``sigma (1 - share(sigma))`` and the same input, whatever the family."""
    return lambda x, sigma: run.evaluate(x, sigma * max(1e-6, 1 - share(float(sigma))))


def cosine(steps: int, start: float = 0.2, end: float = 0.8) -> list[float]:
    """Detail Daemon's curve at its own defaults (Jonseed, MIT): a cosine bump, one weight a step; from 5 steps on."""
    corners = [round(share * (steps - 1)) for share in (start, (start + end) / 2, end)]
    return (0.5 - 0.5 * np.cos(np.pi * np.interp(range(steps), corners, [0.0, 1.0, 0.0]))).tolist()


def detail_daemon(run: MethodRun, strength: float) -> Step:
    """Jonseed, ComfyUI-Detail-Daemon: sigma (1 - amount w), w the cosine curve, linear between steps."""
    rising, weights = run.sigmas[-2::-1], cosine(len(run.sigmas) - 1)[::-1]
    return _lie_about_sigma(run, lambda sigma: strength * float(np.interp(sigma, rising, weights, right=0.0)))


def lying_sigma(run: MethodRun, strength: float) -> Step:
    """Jonseed, Lying Sigma Sampler: a constant share of sigma from 0.1 to 0.9 of the run."""
    steps = len(run.sigmas) - 1
    high, low = (run.sigmas[round(share * (steps - 1))] for share in (0.1, 0.9))
    return _lie_about_sigma(run, lambda sigma: strength if low <= sigma <= high else 0.0)


def ours(*, perfect: bool = False, **options: Any) -> Method:
    """A ``Detailer`` with these settings in place of the defaults; ``perfect``: the lie in the true region alone."""

    def method(run: MethodRun, strength: float) -> Step:
        settings = Settings(strength=strength, **options)
        window = run.schedule.window(settings.start, settings.end)
        limit = run.model.inside.float() if perfect else None
        run.detailer = detailer = Detailer(
            settings, run.sigmas, run.schedule.family, window=window, limit=limit, record=True
        )

        def evaluate(call: Call) -> Prediction:
            assert isinstance(call.x, Tensor)
            return run.evaluate(call.x, call.sigma, call.conds)

        return lambda x, sigma: detailer.step(evaluate, x, sigma)

    return method


METHODS: dict[str, Method] = {
    # One call a step, lied where due.
    "the same lie everywhere": ours(coverage=1.0),
    "Detail Daemon": detail_daemon,
    "Lying Sigma": lying_sigma,
    # Capacap, ComfyUI-Selective-Sigma-Detailer (method.md section 2; the core equals it to rounding).
    "published 0.1.1": ours(mask_source="change", every=1, lie="fixed_input", start=0.1, end=0.9),
    "ours, published mask": ours(mask_source="change"),
    "ours": ours(),
    # The best that a mask can do.
    "the true region": ours(coverage=1.0, perfect=True),
}
OURS, THEIRS, EVERYWHERE = "ours", "published 0.1.1", "the same lie everywhere"


def published_cfg_pp(run: MethodRun, strength: float) -> Step:
    """The published method on a CFG++ sampler: 0.15 of the strength, uncond from the plain call."""
    step = METHODS[THEIRS](run, 0.15 * strength)
    return lambda x, sigma: replace(step(x, sigma), others=run.evaluate(x, sigma).others)
