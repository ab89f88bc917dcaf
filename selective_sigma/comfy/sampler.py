"""A SAMPLER with the detailer inside: every model call of the sampler becomes a step of it."""

from __future__ import annotations

import copy
import functools
import logging
from typing import Any

from torch import Tensor

from ..detailer import Detailer, Prediction
from ..settings import Settings
from . import latent
from .capture import Capture
from .guidance import Guidance
from .passes import Passes

logger = logging.getLogger(__name__)
MARK = "selective_sigma_run"
"""Found on what is already wrapped: by name, since the package may be loaded twice under two names."""
TWICE = "Selective Sigma Detailer is applied twice: use the SAMPLER node or the MODEL node, and only one of them"


def wrap(sampler: Any, settings: Settings, *, capture: Capture | None = None, limit: Tensor | None = None) -> Any:
    """A copy of a SAMPLER that adds detail; the very input where the settings do nothing.

    Args:
        sampler: a ``KSAMPLER`` or a subclass; its options stay as they are.
        capture: keeps the masks of the latest run.
        limit: where detail may go, a MASK (masks, height, width) in pixels, resized to the latent.

    Raises:
        TypeError: the sampler has no ``sampler_function``.
        ValueError: it is wrapped already.
    """
    if settings.idle:
        return sampler
    function = getattr(sampler, "sampler_function", None)
    if not callable(function):
        kind: type[Any] = type(sampler)
        raise TypeError(
            f"{kind.__module__}.{kind.__qualname__} has no sampler_function to wrap: "
            "use the Selective Sigma Detailer (Model) node on its MODEL instead"
        )
    if hasattr(function, MARK):
        raise ValueError(TWICE)

    @functools.wraps(function)
    def detailed(
        model: Any,
        x: Tensor,
        sigmas: Tensor,
        extra_args: Any = None,
        callback: Any = None,
        disable: Any = None,
        **more: Any,
    ) -> Any:
        extra_args = {} if extra_args is None else extra_args
        run = Run(model, model.inner_model.inner_model, x, sigmas, extra_args, settings, capture, limit)
        result = function(run.model, x, sigmas, extra_args=extra_args, callback=callback, disable=disable, **more)
        run.end(getattr(function, "__name__", "sampler"))
        return result

    setattr(detailed, MARK, True)
    wrapped = copy.copy(sampler)
    wrapped.sampler_function = detailed
    return wrapped


class Model:
    """Stands in for the model that a sampler calls: the calls are the run's, all else is the model's own."""

    __slots__ = (MARK,)

    def __init__(self, run: Run):
        object.__setattr__(self, MARK, run)

    def __call__(self, x: Tensor, sigma: Tensor, *args: Any, **named: Any) -> Tensor:
        run: Run = getattr(self, MARK)
        return run.step(x, sigma, {**dict(zip(run.order, args, strict=False)), **named})

    def __getattr__(self, name: str) -> Any:
        if name == MARK:  # A copy, not filled yet.
            raise AttributeError(name)
        return getattr(getattr(self, MARK).inner, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name == MARK:  # A copy being filled.
            object.__setattr__(self, name, value)
            return
        setattr(getattr(self, MARK).inner, name, value)

    def __delattr__(self, name: str) -> None:
        delattr(getattr(self, MARK).inner, name)


class Run:
    """One run of one sampler, with all its state."""

    def __init__(
        self,
        inner: Any,
        base: Any,
        x: Tensor,
        sigmas: Tensor,
        extra_args: dict[str, Any],
        settings: Settings,
        capture: Capture | None = None,
        limit: Tensor | None = None,
        order: tuple[str, ...] = ("denoise_mask", "model_options", "seed"),
    ):
        """Args:
        inner: what the sampler calls, ``inner(x, sigma, **extra_args)``.
        base: the ``BaseModel`` behind it, which knows what sigma means.
        x: latent (batch, channels, *space), or several packed into (batch, 1, N).
        sigmas: the run's noise levels; read at once, since uni_pc writes into them.
        order: names of the arguments that may follow sigma by position.
        """
        if hasattr(inner, MARK):
            raise ValueError(TWICE)
        self.inner = inner
        self.order = order
        self.model = Model(self)
        self._capture = capture
        self._shapes = latent.shapes_of(base)
        self._guidance = Guidance(extra_args.get("model_options") or {})
        self._passes = Passes()
        self._detailer = Detailer(
            settings,
            sigmas.detach().float().cpu(),
            latent.family(base.model_sampling),
            limit=latent.fit(limit, x, self._shapes),
            within=latent.regenerated(extra_args.get("denoise_mask"), self._shapes),
            shapes=self._shapes,
            record=capture is not None,
        )

    def step(self, x: Tensor, sigma: Tensor, named: dict[str, Any]) -> Tensor:
        """What the sampler gets for one call of the model."""
        options: dict[str, Any] = named.get("model_options") or {}
        guidance = self._guidance.step(options)
        calls = 0

        def evaluate(shown: Tensor, told: Tensor) -> Prediction:
            nonlocal calls
            calls += 1
            with self._passes.options(options, sigma, told, calls > 1) as seen:
                if guidance is not None:
                    seen = guidance.watch(seen)
                # The plain call is the sampler's own, to the last argument.
                given = named if seen is options else {**named, "model_options": seen}
                denoised = self.inner(shown, told, **given)
            return Prediction(denoised) if guidance is None else guidance.predict(denoised, calls > 1)

        prediction = self._detailer.step(evaluate, x, sigma)
        if guidance is None:
            return prediction.denoised
        return guidance.finish(prediction, x, sigma, named.get("denoise_mask"))

    def end(self, name: str) -> None:
        """Log the run and hand its masks over; a run that was broken off gets here never."""
        logger.info("Selective Sigma on %s: %s", name.removeprefix("sample_"), self._detailer.report)
        if self._capture is not None:
            masks = [(sigma, latent.first(mask, self._shapes)[:, :1]) for sigma, mask in self._detailer.masks]
            self._capture.store(masks, self._detailer.report)
