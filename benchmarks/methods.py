"""The methods that are compared, each written from its formula in a few lines around a model.

A method is ``method(run, strength) -> step``, with ``step(x, sigma) -> Prediction`` in the model's own terms.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from selective_sigma import Detailer, Settings

from .samplers import Method, MethodRun, Step


def bare(run: MethodRun, _: float) -> Step:
    """The bare sampler: no detail."""
    return run.evaluate


def _lie_about_sigma(run: MethodRun, share: Callable[[float], float]) -> Step:
    """One call a step, which is told ``sigma (1 - share(sigma))``; the input stays the same, on flow models too."""
    return lambda x, sigma: run.evaluate(x, sigma * max(1e-6, 1 - share(float(sigma))))


def cosine(steps: int) -> list[float]:
    """Detail Daemon's default curve: a weight for each of at least five steps, a bump from 0.2 to 0.8 of the run."""
    corners = [round(share * (steps - 1)) for share in (0.2, 0.5, 0.8)]
    return (0.5 - 0.5 * np.cos(np.pi * np.interp(range(steps), corners, [0.0, 1.0, 0.0]))).tolist()


def detail_daemon(run: MethodRun, strength: float) -> Step:
    """Jonseed, ComfyUI-Detail-Daemon (MIT): sigma (1 - strength w), w the cosine curve, linear between steps."""
    ascending_sigmas, weights = run.sigmas[-2::-1], cosine(len(run.sigmas) - 1)[::-1]
    return _lie_about_sigma(run, lambda sigma: strength * float(np.interp(sigma, ascending_sigmas, weights, right=0.0)))


def lying_sigma(run: MethodRun, strength: float) -> Step:
    """Jonseed, Lying Sigma Sampler: a constant share of sigma from 0.1 to 0.9 of the run."""
    last = len(run.sigmas) - 2
    high, low = (run.sigmas[round(share * last)] for share in (0.1, 0.9))
    return _lie_about_sigma(run, lambda sigma: strength if low <= sigma <= high else 0.0)


def ours(*, knows_truth: bool = False, **options: Any) -> Method:
    """A ``Detailer`` with these settings. With ``knows_truth`` the mask is limited to where detail belongs."""

    def method(run: MethodRun, strength: float) -> Step:
        settings = Settings(strength=strength, **options)
        window = run.schedule.window(settings.start, settings.end)
        limit = run.model.inside.float() if knows_truth else None
        run.detailer = Detailer(settings, run.sigmas, run.schedule.family, window=window, limit=limit, record=True)
        return partial(run.detailer.step, lambda call: run.evaluate(call.x, call.sigma, call.conds))  # type: ignore[arg-type]

    return method


OURS, PUBLISHED, EVERYWHERE, TRUE_REGION = "ours", "published 0.1.1", "the same lie everywhere", "the true region"
METHODS: dict[str, Method] = {
    # One call a step, with the lie where it is due.
    EVERYWHERE: ours(coverage=1.0),
    "Detail Daemon": detail_daemon,
    "Lying Sigma": lying_sigma,
    # Capacap, ComfyUI-Selective-Sigma-Detailer (method.md section 2; the core equals it to rounding).
    PUBLISHED: ours(mask_source="change", every=1, lie="fixed_input", start=0.1, end=0.9),
    "ours, published mask": ours(mask_source="change"),
    OURS: ours(),
    # The best that a mask can do.
    TRUE_REGION: ours(coverage=1.0, knows_truth=True),
}


def published_cfg_pp(run: MethodRun, strength: float) -> Step:
    """The published method on a CFG++ sampler: 0.15 of the strength, uncond from the plain call."""
    step = METHODS[PUBLISHED](run, 0.15 * strength)
    return lambda x, sigma: replace(step(x, sigma), others=run.evaluate(x, sigma).others)
