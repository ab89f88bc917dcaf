"""One run of a sampler: every call of the model by the sampler becomes a step of the detailer."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, NamedTuple

from ...detailer import Detailer
from . import latent
from .passes import RequestHandler
from .summary import summary

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from torch import Tensor

    from ...settings import Settings
    from .capture import Capture

logger = logging.getLogger(__name__)
MARK = "selective_sigma_run"
"""Marks what is wrapped already: an attribute of wrapped objects, and a key in ``model_options``.

Wrapped objects are not recognised by type, since the package may be loaded twice under two names.
"""
TWICE = "Selective Sigma Detailer is applied twice: use the SAMPLER node or the MODEL node, and only one of them"
NO_NOISE = "Selective Sigma on %s: no detail, since this model's latent holds no noise to lie about"
NOT_CALLED = "Selective Sigma on %s: no detail, since the sampler does not call this model by ComfyUI's calc_cond_batch"


class StepPreview(NamedTuple):
    """What the preview of one step can show."""

    denoised: Tensor
    """(batch, channels, *space)"""
    mask: Tensor | None
    """(batch, 1, *space); None before the first step with detail."""
    latent_format: Any


class RunOptions(NamedTuple):
    """The options of all runs of a sampler."""

    settings: Settings
    capture: Capture | None = None
    """Stores the masks of each finished run."""
    limit: Tensor | None = None
    """Where detail may go: a MASK (masks, height, width) in pixels, resized to the latent."""
    around_callback: Callable[[StepPreview], AbstractContextManager[object]] | None = None
    """Makes the context in which the sampler's callback runs."""


class SamplerRun:
    """One run of one sampler, with all its state.

    There is no reference cycle in it, so that its latents are freed as soon as it ends.

    Args:
        name: the name of the sampler, for the log.
        inner: what the sampler calls as its model, ``inner(x, sigma, **extra_args)``.
        guider: the guider behind it, whose ``inner_model`` is the ``BaseModel``.
        x: latent (batch, channels, *space), or several packed into (batch, 1, N).
        sigmas: noise levels of the run. They are copied, since uni_pc writes into them.
        argument_names: names of the arguments that may follow sigma by position, in order.

    Raises:
        ValueError: the sampler or the model is wrapped already.
    """

    def __init__(
        self,
        options: RunOptions,
        name: str,
        inner: Any,
        guider: Any,
        x: Tensor,
        sigmas: Tensor,
        extra_args: dict[str, Any],
        argument_names: tuple[str, ...] = ("denoise_mask", "model_options", "seed"),
    ):
        self._model_options: dict[str, Any] = extra_args.get("model_options") or {}
        # If another pack's wrapper stands between two of ours, the attribute is hidden. The key in the options is not.
        if hasattr(inner, MARK) or MARK in self._model_options:
            raise ValueError(TWICE)
        self.name, self.inner, self.argument_names = name, inner, argument_names
        self._options = options
        self._base: Any = guider.inner_model
        sampling = self._base.model_sampling
        family = latent.family_of(sampling)
        self._has_noise = family is not None
        self._shapes = latent.packed_shapes(self._base)
        self._last_denoised: Tensor | None = None
        self._mask_means: list[Tensor] = []
        self._steps_with_detail: set[int] = set()
        # ComfyUI keeps all streams of a packed latent on the schedule of the first (ModelSamplingAV). The same share
        # of noise to signal is then hidden in each of them.
        self._detailer = Detailer(
            options.settings,
            sigmas,
            family or "ve",
            window=latent.noise_window(sampling, options.settings),
            limit=latent.limit_for_latent(options.limit, x, self._shapes),
            within=latent.inpainted_region(extra_args.get("denoise_mask"), self._shapes),
            record=options.capture is not None,
            allow_restart=True,
        )
        self._sampler_calls = 0
        self._handler = RequestHandler(self._detailer, guider, self._shapes)

    def wrapped_extra_args(self, extra_args: dict[str, Any]) -> dict[str, Any]:
        """The sampler's arguments, with marked ``model_options`` that let this run answer requests."""
        model_options = self._handler.wrapped_model_options(self._model_options)
        return {**extra_args, "model_options": {**model_options, MARK: True}}

    def wrapped_callback(self, callback: Any) -> Any:
        """The sampler's callback. It also stores the denoised latent, and runs in ``around_callback``."""
        around = self._options.around_callback
        if self._options.capture is None and around is None:
            return callback

        def recording_callback(*args: Any) -> Any:
            # A sampler function passes one dict. A Sampler without one passes step, denoised, x, number of steps.
            denoised = args[0].get("denoised") if len(args) == 1 else args[1]
            self._last_denoised = denoised
            if callback is None:
                return None
            if around is None:
                return callback(*args)
            with around(self._step_preview(denoised)):
                return callback(*args)

        return recording_callback

    def _step_preview(self, denoised: Tensor) -> StepPreview:
        mask = self._detailer.mask
        picture = latent.first_stream(latent.unpack_streams(denoised, self._shapes))
        return StepPreview(picture, None if mask is None else latent.first_stream(mask), self._base.latent_format)

    def step(self, x: Tensor, sigma: Tensor, named: dict[str, Any]) -> Tensor:
        """Answer one call of the model by the sampler."""
        if not self._has_noise:
            return self.inner(x, sigma, **named)
        self._sampler_calls += 1
        frames = latent.clean_frames(self.inner, self._base, x, named.get("denoise_mask"))
        with self._handler.sampler_call(sigma, frames) as call:
            denoised = self.inner(x, sigma, **named)
        for _, output in call.answered:
            if output.kind != "plain" and output.mask is not None:
                self._mask_means.append(latent.first_stream(output.mask).mean())
                self._steps_with_detail.add(output.index)
        return denoised

    def end(self, result: Tensor, sigmas: Tensor) -> None:
        """Log the run and store its masks. Not called for a run that was interrupted."""
        report, count = self._detailer.report, self._handler.count
        steps = len(sigmas) - 1
        if not self._has_noise:
            logger.warning(NO_NOISE, self.name)
        elif self._sampler_calls and not count.calls:
            logger.warning(NOT_CALLED, self.name)
        else:
            line = summary(report, count, self._mask_means, len(self._steps_with_detail), steps)
            logger.info("Selective Sigma on %s: %s", self.name, line)
        if self._options.capture is not None:
            sampling = self._base.model_sampling
            latents = [self._base.process_latent_out(sampling.inverse_noise_scaling(sigmas[-1], result).float())]
            if self._last_denoised is not None:
                latents.append(self._base.process_latent_out(self._last_denoised))
            self._options.capture.store(self._detailer.masks, report, latents, steps)
