"""CFG++: samplers that step with the uncond prediction, which a post-CFG hook of theirs catches.

Blending uncond and cond with the mask of denoised makes a mask of zeros the bare sampler, a mask
of ones the one-pass path, and the effect linear in between (method.md section 3).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from ..detailer import Prediction

KEY = "sampler_post_cfg_function"
Hook = Callable[[dict[str, Any]], Tensor]


def split(hooks: Sequence[Hook], before: Sequence[Hook]) -> tuple[list[Hook], list[Hook]]:
    """The hooks that were there ``before`` and those that came since: by identity, each as often as it stands."""
    left = [id(hook) for hook in before]
    others: list[Hook] = []
    own: list[Hook] = []
    for hook in hooks:
        if id(hook) in left:
            left.remove(id(hook))
            others.append(hook)
        else:
            own.append(hook)
    return others, own


class Guidance:
    """The sampler's own post-CFG hooks over one run.

    Hooks that are there when the sampler function is entered belong to others and run in every
    pass; those that come later are the sampler's and run once a step, on what was blended.
    """

    def __init__(self, options: dict[str, Any]):
        """``options``: model_options as the sampler function got them."""
        self._before = list(options.get(KEY) or ())
        self._last: dict[bool, tuple[Tensor, ...]] = {}

    def step(self, options: dict[str, Any]) -> Step | None:
        """The catching side of one step, or None where the sampler has no hooks of its own."""
        others, own = split(options.get(KEY) or (), self._before)
        return Step(options, others, own, self._last) if own else None


class Step:
    """One step of a CFG++ sampler: catch what its hooks would see, then call them once."""

    def __init__(
        self, options: dict[str, Any], others: list[Hook], own: list[Hook], last: dict[bool, tuple[Tensor, ...]]
    ):
        self._options = options
        self._others = others
        self._own = own
        self._last = last
        self._seen: dict[str, Any] | None = None
        self._args: dict[str, Any] | None = None
        self._whole = False

    def watch(self, options: dict[str, Any]) -> dict[str, Any]:
        """A copy of the options with a catching hook in place of the sampler's, for one model call."""
        self._seen = None
        return {**options, KEY: [*self._others, self._catch]}

    def _catch(self, args: dict[str, Any]) -> Tensor:
        self._seen = args
        return args["denoised"]

    def predict(self, denoised: Tensor, second: bool) -> Prediction:
        """The call just made: beside denoised, what the hooks would have seen (denoised, uncond, cond)."""
        seen = self._seen
        if seen is not None:
            self._last[second] = (seen["denoised"], seen["uncond_denoised"], seen["cond_denoised"])
        if not second:
            self._args = seen
            self._whole = seen is not None and denoised is seen["denoised"]
        # A cached call runs no hooks: its uncond is the last one, as the bare sampler's is.
        return Prediction(denoised, self._last.get(second) or self._last.get(False) or (denoised,) * 3)

    def finish(self, blended: Prediction, x: Tensor, sigma: Tensor, denoise_mask: Tensor | None) -> Tensor:
        """Call the sampler's hooks once on the blend; returns the denoised latent for the sampler."""
        if self._args is None:
            return blended.denoised
        inner, uncond, cond = blended.alike
        if self._whole:
            inner = blended.denoised
        args = {**self._args, "uncond_denoised": uncond, "cond_denoised": cond, "model_options": self._options}
        if args["sigma"] is not sigma:  # The first call told a lie: the hooks are told the truth.
            args |= {"sigma": sigma, "input": x}
        result = inner
        for hook in self._own:
            result = hook({**args, "denoised": result})
        if result is inner:
            return blended.denoised
        if self._whole:
            return result
        # Behind the hooks stand inpainting and guider wrappers: add what the hooks changed.
        change = result - inner
        return blended.denoised + (change if denoise_mask is None else change * denoise_mask)
