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
from selective_sigma.settings import CHOICES, Family

Step = Callable[[Tensor, Tensor], Prediction]


@dataclass
class Run:
    """What a method may know of one run; it may replace ``sigmas``, and ours leaves its detailer."""

    evaluate: Evaluate
    sigmas: list[float]
    family: Family
    region: Tensor
    """The truth, (batch, 1, H, W): for the perfect mask alone."""
    detailer: Detailer | None = field(default=None)


Method = Callable[[Run, float], Step]


def plain(run: Run, strength: float) -> Step:
    """No detail."""
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


@dataclass(frozen=True)
class Ours:
    """A ``Detailer`` with these settings in place of the defaults."""

    settings: tuple[tuple[str, Any], ...] = ()
    weights: tuple[float, ...] | None = None
    perfect: bool = False
    """Limit the lie to the true region, sharply."""

    def __call__(self, run: Run, strength: float) -> Step:
        limit = (run.region > 0.5).to(run.region) if self.perfect else None
        settings = Settings(strength=strength, **dict(self.settings))
        run.detailer = Detailer(settings, run.sigmas, run.family, weights=self.weights, limit=limit)
        detailer = run.detailer
        return lambda x, sigma: detailer.step(run.evaluate, x, sigma)


def ours(**settings: Any) -> Ours:
    """Ours with some settings other than the defaults."""
    return Ours(tuple(sorted(settings.items())))


@dataclass(frozen=True)
class PublishedCfgPp:
    """The published method on a CFG++ sampler: 0.15 of the strength, uncond from the true pass."""

    scale: float = 0.15

    def __call__(self, run: Run, strength: float) -> Step:
        latest: list[tuple[Tensor, ...]] = []

        def evaluate(x: Tensor, sigma: Tensor) -> Prediction:
            prediction = run.evaluate(x, sigma)
            latest.append(prediction.alike)
            return Prediction(prediction.denoised)

        detailer = Detailer(Settings(strength=strength * self.scale, **dict(PUBLISHED.settings)), run.sigmas)

        def step(x: Tensor, sigma: Tensor) -> Prediction:
            latest.clear()
            # The true pass is the detailer's first call of a step.
            return Prediction(detailer.step(evaluate, x, sigma).denoised, latest[0])

        return step


PUBLISHED = ours(mask_source="change_published", passes="two", lie="fixed_input", start=0.1, end=0.9)
"""Capacap, ComfyUI-Selective-Sigma-Detailer 0.1.1, by method.md section 2."""
EVERYWHERE = ours(coverage=1.0, lie="fixed_input")
"""The same schedule without a mask; on flow models, the lie that all peers tell."""
EVERYWHERE_RATIO = ours(coverage=1.0, lie="noise_to_signal")
DEFAULT = ours()
PERFECT = Ours((("coverage", 1.0), ("passes", "two")), perfect=True)
"""The lie under the true region itself: what no mask can do better than."""
SOURCES = {name: ours(mask_source=name) for name in CHOICES["mask_source"] if name != "change_published"}
"""Ours with each mask source but the published one."""
PEERS: dict[str, Method] = {
    "everywhere": EVERYWHERE,
    "Detail Daemon": detail_daemon,
    "Lying Sigma": lying_sigma,
    "Multiply Sigmas": multiply_sigmas,
    "published": PUBLISHED,
}


def source_label(name: str) -> str:
    """``ours, change``, with a star at the default source."""
    return f"ours, {name}" + (" *" if name == Settings().mask_source else "")
