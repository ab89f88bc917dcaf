"""CFG++: samplers that step with the uncond prediction, which a post-CFG hook of theirs catches.

Blending uncond and cond with the mask of denoised makes a mask of zeros the bare sampler, a mask
of ones the one-pass path, and the effect linear in between (method.md section 3).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    Hook = Callable[[dict[str, Any]], Tensor]

KEY = "sampler_post_cfg_function"
CAUGHT = {"guided": "denoised", "uncond": "uncond_denoised", "cond": "cond_denoised"}
"""What a sampler's hooks see of a prediction: our names, and ComfyUI's."""


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
        self._last: dict[str, dict[str, Tensor]] = {}

    def step(self, options: dict[str, Any]) -> Step | None:
        """The catching side of one step, or None where the sampler has no hooks of its own."""
        others, own = split(options.get(KEY) or (), self._before)
        return Step(options, others, own, self._last) if own else None


class Step:
    """One step of a CFG++ sampler: catch what its hooks would see, then call them once."""

    def __init__(
        self, options: dict[str, Any], others: list[Hook], own: list[Hook], last: dict[str, dict[str, Tensor]]
    ):
        self._options = options
        self._others = others
        self._own = own
        self._last = last
        self._seen: dict[str, Any] | None = None
        self._args: dict[str, Any] | None = None
        self._whole = False

    def watch(self) -> dict[str, Any]:
        """A copy of the options with a catching hook in place of the sampler's, for one model call."""
        self._seen = None
        return {**self._options, KEY: [*self._others, self._catch]}

    def _catch(self, args: dict[str, Any]) -> Tensor:
        self._seen = args
        return args["denoised"]

    def caught(self, denoised: Tensor, kind: str) -> dict[str, Tensor]:
        """Of the call just made: what the hooks would have seen, to be blended beside ``denoised``."""
        seen = self._seen
        if seen is not None:
            self._last[kind] = {name: seen[key] for name, key in CAUGHT.items()}
            if self._args is None:
                self._args = seen
                self._whole = denoised is seen["denoised"]
        # A cached call runs no hooks: its uncond is the last one, as the bare sampler's is.
        return self._last.get(kind) or self._last.get("plain") or dict.fromkeys(CAUGHT, denoised)

    def finish(self, denoised: Tensor, others: dict[str, Tensor], denoise_mask: Tensor | None) -> Tensor:
        """Call the sampler's hooks once on the blend; returns the denoised latent for the sampler."""
        if self._args is None:
            return denoised
        inner = denoised if self._whole else others["guided"]
        args = {**self._args, "model_options": self._options}
        args |= {"uncond_denoised": others["uncond"], "cond_denoised": others["cond"]}
        result = inner
        for hook in self._own:
            result = hook({**args, "denoised": result})
        if result is inner:
            return denoised
        if self._whole:
            return result
        # Behind the hooks stand inpainting and guider wrappers: add what the hooks changed.
        change = result - inner
        return denoised + (change if denoise_mask is None else change * denoise_mask)
