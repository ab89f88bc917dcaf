"""Who is compared: every method as a few lines around a model, from its formula.

A method is ``method(run, strength) -> step``, with ``step(x, sigma) -> Prediction`` in the model's
own terms; ``run`` tells it the noise levels. Strength 0.1 is each method's usual dose.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from selective_sigma import Detailer, Evaluate, Prediction, Settings
from selective_sigma.schedule import Schedule, cosine
from selective_sigma.settings import Family

Step = Callable[[Tensor, Tensor], Prediction]


@dataclass
class Run:
    """What a method may know of one run; it may replace ``sigmas``, and ours leaves its detailer."""

    evaluate: Evaluate
    sigmas: list[float]
    family: Family
    detailer: Detailer | None = field(default=None)


Method = Callable[[Run, float], Step]


def plain(run: Run, strength: float) -> Step:
    return run.evaluate


def _lie_about_sigma(run: Run, share: Callable[[float], float]) -> Step:
    """One call a step at ``sigma (1 - share(sigma))`` and the same input, whatever the family."""

    def step(x: Tensor, sigma: Tensor) -> Prediction:
        hidden = share(float(sigma[0]))
        return run.evaluate(x, sigma * max(1e-6, 1 - hidden)) if hidden else run.evaluate(x, sigma)

    return step


def detail_daemon(run: Run, strength: float) -> Step:
    """Jonseed, ComfyUI-Detail-Daemon: sigma (1 - amount w), w a cosine bump from 0.2 to 0.8 of the run."""
    schedule = Schedule(run.sigmas, cosine(len(run.sigmas) - 1))
    return _lie_about_sigma(run, lambda sigma: strength * schedule.at(sigma))


def lying_sigma(run: Run, strength: float) -> Step:
    """Jonseed, Lying Sigma Sampler: a constant share from 0.1 to 0.9 of the run, no taper."""
    steps = len(run.sigmas) - 1
    high, low = (run.sigmas[round(share * (steps - 1))] for share in (0.1, 0.9))
    return _lie_about_sigma(run, lambda sigma: strength if low <= sigma <= high else 0.0)


def multiply_sigmas(run: Run, strength: float) -> Step:
    """Jonseed, Multiply Sigmas: no lie; every level of the run itself is a little lower."""
    run.sigmas = [sigma * (1 - strength) for sigma in run.sigmas]
    return run.evaluate


def ours(**settings: Any) -> Method:
    """A ``Detailer`` with these settings in place of the defaults."""

    def method(run: Run, strength: float) -> Step:
        run.detailer = Detailer(Settings(strength=strength, **settings), run.sigmas, run.family, record=True)
        return lambda x, sigma: run.detailer.step(run.evaluate, x, sigma)  # type: ignore[union-attr]

    return method


PUBLISHED = {"mask_source": "change_published", "passes": "two", "lie": "fixed_input"}
"""Capacap, ComfyUI-Selective-Sigma-Detailer 0.1.1, by method.md section 2."""

METHODS: dict[str, Method] = {
    "everywhere": ours(coverage=1.0, lie="fixed_input"),
    "detail_daemon": detail_daemon,
    "lying_sigma": lying_sigma,
    "multiply_sigmas": multiply_sigmas,
    "published": ours(**PUBLISHED),
    "change": ours(mask_source="change"),
    "structure": ours(mask_source="structure"),
    "first": ours(mask_source="first"),
}
