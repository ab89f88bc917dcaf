"""A SAMPLER with the detailer inside: every model call of the sampler becomes a step of it."""

from __future__ import annotations

import copy
import functools
import logging
from typing import TYPE_CHECKING, Any, NamedTuple

from ...detailer import Detailer
from . import latent
from .passes import Passes
from .summary import summary

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from torch import Tensor

    from ...settings import Settings
    from .capture import Capture

logger = logging.getLogger(__name__)
MARK = "selective_sigma_run"
"""Found on what is already wrapped: by name, since the package may be loaded twice under two names."""
TWICE = "Selective Sigma Detailer is applied twice: use the SAMPLER node or the MODEL node, and only one of them"
NO_NOISE = "Selective Sigma on %s: no detail, since this model's latent holds no noise to lie about"
PAST_US = "Selective Sigma on %s: no detail, since this model is called past ComfyUI's calc_cond_batch or apply_model"


class StepPreview(NamedTuple):
    """What the preview of one step can show."""

    denoised: Tensor
    """(batch, channels, *space)"""
    mask: Tensor | None
    """(batch, 1, *space); None before the first step with detail."""
    latent_format: Any


def wrap(
    sampler: Any,
    settings: Settings,
    *,
    capture: Capture | None = None,
    limit: Tensor | None = None,
    around_callback: Callable[[StepPreview], AbstractContextManager[object]] | None = None,
) -> Any:
    """A copy of a SAMPLER that adds detail; the very input where the settings do nothing.

    Args:
        sampler: a ``KSAMPLER`` or a subclass; its options stay as they are.
        capture: keeps the masks of its runs.
        limit: where detail may go, a MASK (masks, height, width) in pixels, resized to the latent.
        around_callback: makes the context in which the sampler's callback runs, from what the preview of the
            step can show.

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
    wrapped = copy.copy(sampler)
    wrapped.sampler_function = Detailed(function, settings, capture, limit, around_callback)
    return wrapped


class Detailed:
    """A sampler function with detail, under the name and the signature of the one inside.

    A class and not a closure, so that it can be pickled where the function can.
    """

    def __init__(self, function: Any, *given: Any):
        """``given``: settings, capture, limit and around_callback, as ``Run`` takes them."""
        functools.update_wrapper(self, function)
        self._function = function
        self._given = given
        setattr(self, MARK, True)

    def __call__(
        self,
        model: Any,
        x: Tensor,
        sigmas: Tensor,
        extra_args: Any = None,
        callback: Any = None,
        disable: Any = None,
        **more: Any,
    ) -> Any:
        extra_args = {} if extra_args is None else extra_args
        guider = model.inner_model
        name = getattr(self._function, "__name__", "sampler").removeprefix("sample_")
        run = Run(name, model, guider, x, sigmas, extra_args, *self._given)
        extra_args = run.marked(extra_args)
        result = self._function(
            run.model(), x, sigmas, extra_args=extra_args, callback=run.watch(callback), disable=disable, **more
        )
        run.end(result, sigmas)
        return result


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
    """One run of one sampler, with all its state. Nothing in it leads back to it, so that it is free when it ends."""

    def __init__(
        self,
        name: str,
        inner: Any,
        guider: Any,
        x: Tensor,
        sigmas: Tensor,
        extra_args: dict[str, Any],
        settings: Settings,
        capture: Capture | None = None,
        limit: Tensor | None = None,
        around_callback: Callable[[StepPreview], AbstractContextManager[object]] | None = None,
        order: tuple[str, ...] = ("denoise_mask", "model_options", "seed"),
    ):
        """Args:
        name: the sampler's, for the log.
        inner: what the sampler calls, ``inner(x, sigma, **extra_args)``.
        guider: the guider that stands behind, whose ``inner_model`` is the ``BaseModel``.
        x: latent (batch, channels, *space), or several packed into (batch, 1, N).
        sigmas: the run's noise levels; read at once, since uni_pc writes into them.
        order: names of the arguments that may follow sigma by position.
        """
        self._options: dict[str, Any] = extra_args.get("model_options") or {}
        # Other packs' wrappers may hide one of ours from the other, but they all hand on the options.
        if hasattr(inner, MARK) or MARK in self._options:
            raise ValueError(TWICE)
        self.name, self.inner, self.order = name, inner, order
        self._base: Any = guider.inner_model
        sampling = self._base.model_sampling
        family = latent.family(sampling)
        self._noisy = family is not None
        self._shapes = latent.shapes_of(self._base)
        self._capture = capture
        self._around_callback = around_callback
        self._x0: Tensor | None = None
        self._means: list[Tensor] = []
        self._steps_with_detail: set[int] = set()
        # All streams of a pack are carried on the schedule of the first (ModelSamplingAV): the share of
        # noise to signal that is hidden is then hidden in each.
        self._detailer = Detailer(
            settings,
            sigmas,
            family or "ve",
            window=latent.window(sampling, settings),
            limit=latent.fit(limit, x, self._shapes),
            within=latent.regenerated(extra_args.get("denoise_mask"), self._shapes),
            record=capture is not None,
            loops=True,
        )
        self._sampler_calls = 0
        self._passes = Passes(self._detailer, guider, self._shapes)

    def model(self) -> Model:
        """What the sampler is to call."""
        return Model(self)

    def marked(self, extra_args: dict[str, Any]) -> dict[str, Any]:
        """The sampler's arguments, with options in which this run answers requests, and its mark."""
        return {**extra_args, "model_options": {**self._passes.installed(self._options), MARK: True}}

    def watch(self, callback: Any) -> Any:
        """The callback, from which the last denoised latent is noted where masks are kept or shown."""
        if self._capture is None and self._around_callback is None:
            return callback

        def noting(*given: Any) -> Any:
            # A sampler function hands over one dict; a Sampler step, denoised, x, and how many steps.
            denoised = given[0].get("denoised") if len(given) == 1 else given[1]
            self._x0 = denoised
            if callback is None:
                return None
            if self._around_callback is None:
                return callback(*given)
            with self._around_callback(self._step_preview(denoised)):
                return callback(*given)

        return noting

    def _step_preview(self, denoised: Tensor) -> StepPreview:
        mask = self._detailer.mask
        picture = latent.first(latent.unpack(denoised, self._shapes))
        return StepPreview(picture, None if mask is None else latent.first(mask), self._base.latent_format)

    def step(self, x: Tensor, sigma: Tensor, named: dict[str, Any]) -> Tensor:
        """What the sampler gets for one call of the model."""
        if not self._noisy:
            return self.inner(x, sigma, **named)
        self._sampler_calls += 1
        frames = latent.given_frames(self.inner, self._base, x, named.get("denoise_mask"), self._passes)
        with self._passes.sampler_call(sigma, frames) as call:
            denoised = self.inner(x, sigma, **named)
        for output in call.outputs:
            if output.kind != "plain" and output.mask is not None:
                self._means.append(latent.first(output.mask).mean())
                self._steps_with_detail.add(output.index)
        return denoised

    def end(self, result: Tensor, sigmas: Tensor) -> None:
        """Log the run and hand its masks over; a run that was broken off gets here never."""
        report, count = self._detailer.report, self._passes.count
        if not self._noisy:
            logger.warning(NO_NOISE, self.name)
        elif self._sampler_calls and not count.calls:
            logger.warning(PAST_US, self.name)
        else:
            line = summary(report, count, self._means, len(self._steps_with_detail), len(sigmas) - 1)
            logger.info("Selective Sigma on %s: %s", self.name, line)
        if self._capture is not None:
            sampling = self._base.model_sampling
            latents = [self._base.process_latent_out(sampling.inverse_noise_scaling(sigmas[-1], result).float())]
            if self._x0 is not None:
                latents.append(self._base.process_latent_out(self._x0))
            self._capture.store(self._detailer.masks, report, latents, len(sigmas) - 1)
