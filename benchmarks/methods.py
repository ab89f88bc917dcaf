"""Who is compared: every method as a few lines around a model, from its formula.

A method is ``method(run, strength) -> step``, with ``step(x, sigma) -> Prediction`` in the model's own terms.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from selective_sigma import Call, Detailer, Prediction, Settings

if TYPE_CHECKING:
    from collections.abc import Callable

    from .samplers import Method, Run, Step


def plain(run: Run, strength: float) -> Step:
    """No detail."""
    del strength
    return run.evaluate


def _lie_about_sigma(run: Run, share: Callable[[float], float]) -> Step:
    """One call a step at ``sigma (1 - share(sigma))`` and the same input, whatever the family."""
    return lambda x, sigma: run.evaluate(x, sigma * max(1e-6, 1 - share(float(sigma))))


def cosine(steps: int, start: float = 0.2, end: float = 0.8) -> list[float]:
    """Detail Daemon's curve at its own defaults (Jonseed, MIT): a cosine bump, one weight a step."""
    last = steps - 1
    low, high = round(start * last), round(end * last)
    middle = round(last * (start + end) / 2)
    weights = [0.0] * steps
    for i in range(low, high + 1):
        span = middle - low if i <= middle else high - middle
        u = 1.0 - abs(i - middle) / span if span else 1.0
        weights[i] = 0.5 - 0.5 * math.cos(math.pi * u)
    return weights


def detail_daemon(run: Run, strength: float) -> Step:
    """Jonseed, ComfyUI-Detail-Daemon: sigma (1 - amount w), w the cosine curve, linear between steps."""
    rising, weights = run.sigmas[-2::-1], cosine(len(run.sigmas) - 1)[::-1]
    return _lie_about_sigma(run, lambda sigma: strength * float(np.interp(sigma, rising, weights, right=0.0)))


def lying_sigma(run: Run, strength: float) -> Step:
    """Jonseed, Lying Sigma Sampler: a constant share from 0.1 to 0.9 of the run."""
    steps = len(run.sigmas) - 1
    high, low = (run.sigmas[round(share * (steps - 1))] for share in (0.1, 0.9))
    return _lie_about_sigma(run, lambda sigma: strength if low <= sigma <= high else 0.0)


def multiply_sigmas(run: Run, strength: float) -> Step:
    """Jonseed, Multiply Sigmas: no lie; every level of the run itself is a little lower."""
    run.sigmas = [sigma * (1 - strength) for sigma in run.sigmas]
    return run.evaluate


def ours(*, perfect: bool = False, uncond: bool = True, scale: float = 1.0, **options: Any) -> Method:
    """A ``Detailer`` with these settings in place of the defaults.

    Args:
        perfect: limit the lie to the true region, sharply.
        uncond: blend uncond as well; without, it is the plain call's.
        scale: factor of the strength.
    """

    def method(run: Run, strength: float) -> Step:
        settings = Settings(strength=scale * strength, **options)
        run.detailer = detailer = Detailer(
            settings,
            run.sigmas,
            run.schedule.family,
            window=run.schedule.window(settings.start, settings.end),
            limit=run.inside.float() if perfect else None,
            record=True,
        )

        def step(x: Tensor, sigma: Tensor) -> Prediction:
            calls: list[Prediction] = []

            def evaluate(call: Call) -> Prediction:
                assert isinstance(call.x, Tensor)
                prediction = run.evaluate(call.x, call.sigma)
                calls.append(prediction)
                return prediction if uncond else Prediction(prediction.denoised)

            output = detailer.step(evaluate, x, sigma)
            # The plain call is the first one of a step.
            return output if uncond else Prediction(output.denoised, calls[0].others)

        return step

    return method


_PUBLISHED = {"mask_source": "change", "every": 1, "lie": "fixed_input", "start": 0.1, "end": 0.9}
DEFAULT = ours()
EVERYWHERE = ours(coverage=1.0)
"""Ours without a mask: one call a step, lied where due."""
CHANGE = ours(mask_source="change")
"""The published mask under our lie."""
PUBLISHED = ours(**_PUBLISHED)
"""Capacap, ComfyUI-Selective-Sigma-Detailer 0.1.1 (method.md section 2; the core equals it to rounding)."""
PUBLISHED_CFG_PP = ours(**_PUBLISHED, uncond=False, scale=0.15)
"""The same on a CFG++ sampler: 0.15 of the strength, uncond from the plain call."""
PERFECT = ours(coverage=1.0, perfect=True)
"""The lie under the true region itself: what no mask can do better than."""

METHODS: dict[str, Method] = {
    "the same lie everywhere": EVERYWHERE,
    "Detail Daemon": detail_daemon,
    "Lying Sigma": lying_sigma,
    "Multiply Sigmas": multiply_sigmas,
    "published 0.1.1": PUBLISHED,
    "ours, published mask": CHANGE,
    "ours": DEFAULT,
    "the true region": PERFECT,
}
