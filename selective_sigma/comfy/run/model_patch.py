"""A MODEL whose samplers add detail: for the plain KSampler and all that samples by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from comfy.patcher_extension import WrapperExecutor, WrappersMP

from .sampler import TWICE, Run, wrap
from .seams import KEY

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from torch import Tensor

    from ...settings import Settings
    from .capture import Capture
    from .sampler import StepPreview

GUIDER = ("model_options", "seed")
"""What may follow sigma when a guider is called, in order."""


def patch(
    model: Any,
    settings: Settings,
    *,
    capture: Capture | None = None,
    limit: Tensor | None = None,
    around_callback: Callable[[StepPreview], AbstractContextManager[object]] | None = None,
) -> Any:
    """A clone of a MODEL that wraps whatever samples it; the very input where the settings do nothing.

    Bit-equal to ``wrap`` on the sampler. A Sampler that has no function to wrap is followed at the
    guider, which it calls as its model. Each call of a sampler is a run of its own.

    Args:
        capture: keeps the masks of its runs.
        limit: where detail may go, a MASK (masks, height, width) in pixels, resized to the latent.
        around_callback: makes the context in which the sampler's callback runs, from what the preview of the
            step can show.

    Raises:
        ValueError: the model is patched already; or, when sampling, the sampler is wrapped already.
    """
    if settings.idle:
        return model
    if model.get_wrappers(WrappersMP.SAMPLER_SAMPLE, KEY):
        raise ValueError(TWICE)

    def sample(
        executor: Any,
        guider: Any,
        sigmas: Tensor,
        extra_args: dict[str, Any],
        callback: Any,
        noise: Tensor,
        latent_image: Tensor | None = None,
        denoise_mask: Tensor | None = None,
        disable_pbar: bool = False,
    ) -> Tensor:
        sampler = executor.class_obj
        rest = (callback, noise, latent_image, denoise_mask, disable_pbar)
        if callable(getattr(sampler, "sampler_function", None)):
            new = wrap(sampler, settings, capture=capture, limit=limit, around_callback=around_callback)
            # The executor holds the sampler it was made for: go on with one made for ours.
            onward = WrapperExecutor.new_class_executor(new.sample, new, executor.wrappers, executor.idx + 1)
            return onward.execute(guider, sigmas, extra_args, *rest)
        known = {**extra_args, "denoise_mask": denoise_mask}
        name = type(sampler).__name__
        run = Run(name, guider, guider, noise, sigmas, known, settings, capture, limit, around_callback, GUIDER)
        result = executor(run.model(), sigmas, run.marked(extra_args), run.watch(callback), *rest[1:])
        run.end(result, sigmas)
        return result

    patched = model.clone()
    patched.add_wrapper_with_key(WrappersMP.SAMPLER_SAMPLE, KEY, sample)
    return patched
