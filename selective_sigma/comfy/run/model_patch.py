"""A MODEL whose samplers add detail: for KSampler and every node that chooses its sampler by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from comfy.patcher_extension import WrapperExecutor, WrappersMP

from .model_options import KEY
from .sampler import ModelStandIn, wrap
from .sampler_run import TWICE, RunOptions, SamplerRun

if TYPE_CHECKING:
    from torch import Tensor

    from ...settings import Settings

GUIDER_ARGUMENTS = ("model_options", "seed")
"""Names of the arguments that may follow sigma when a guider is called, in order."""


def patch(model: Any, settings: Settings, **options: Any) -> Any:
    """A clone of a MODEL that wraps each sampler it is sampled with; the same object where the settings do nothing.

    The result equals that of ``wrap`` on the sampler, bit for bit. A Sampler without a ``sampler_function`` cannot be
    wrapped. It calls the guider as its model, so the guider is wrapped instead.

    Args:
        options: ``capture``, ``limit`` and ``around_callback``, as in ``RunOptions``.

    Raises:
        ValueError: the model is patched already; or, when it is sampled, the sampler is wrapped already.
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
        """A SAMPLER_SAMPLE wrapper, around ``Sampler.sample``."""
        sampler = executor.class_obj
        rest = (noise, latent_image, denoise_mask, disable_pbar)
        if callable(getattr(sampler, "sampler_function", None)):
            wrapped = wrap(sampler, settings, **options)
            # This executor calls the unwrapped sampler: continue with one that calls the wrapped sampler.
            onward = WrapperExecutor.new_class_executor(wrapped.sample, wrapped, executor.wrappers, executor.idx + 1)
            return onward.execute(guider, sigmas, extra_args, callback, *rest)
        run_options = RunOptions(settings, **options)
        run_args = {**extra_args, "denoise_mask": denoise_mask}
        run = SamplerRun(run_options, type(sampler).__name__, guider, guider, noise, sigmas, run_args, GUIDER_ARGUMENTS)
        extra_args, callback = run.wrapped_extra_args(extra_args), run.wrapped_callback(callback)
        result = executor(ModelStandIn(run), sigmas, extra_args, callback, *rest)
        run.end(result, sigmas)
        return result

    patched = model.clone()
    patched.add_wrapper_with_key(WrappersMP.SAMPLER_SAMPLE, KEY, sample)
    return patched
