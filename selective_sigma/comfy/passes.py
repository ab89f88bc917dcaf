"""The two passes of a step, so that the lied one goes unnoticed.

Both passes ask the sampler's model at the true noise level. The lie is told at the last door, where
ComfyUI hands latent and level to the network: all that stands before it, such as ranges of
conditioning, ControlNet, hook keyframes, context windows, guidance and masks, goes by the truth.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from comfy.patcher_extension import WrappersMP

from .state import States

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from ..prediction import Call
    from ..settings import Family, Settings

KEY = "selective_sigma"
CACHE = "easycache"
"""Where EasyCache and LazyCache keep what they make up a call from."""


class Passes:
    """What each model call of one run is given, and what it leaves behind."""

    def __init__(self, family: Family, settings: Settings, guider: Any):
        """``guider``: what the sampler's model calls; its own attributes count as state."""
        self._family: Family = family
        self._rescales = family == "flow" and settings.lie == "noise_to_signal"
        self._guider = guider
        self._before: States | None = None
        self.reached = 0
        """Times that the network was told a lie."""

    def call(self, call: Call, options: dict[str, Any], ask: Callable[[dict[str, Any]], Tensor]) -> Tensor:
        """``ask`` the model, with the options of this call.

        A step's lied call starts from the state in which its plain call started, and leaves that in
        which the plain call ended.
        """
        if call.kind == "plain":
            self._before = States(options, self._guider, call.true_sigma.device)
            return ask(options)
        if self._before is None:  # One call a step.
            return ask(self._lied(call, options))
        after = States(options, self._guider, call.true_sigma.device)
        self._before.put_back()
        try:
            return ask(self._lied(call, options))
        finally:
            after.put_back()

    def end_step(self) -> None:
        """Keep nothing for a later step."""
        self._before = None

    def _lied(self, call: Call, options: dict[str, Any]) -> dict[str, Any]:
        """A copy of the options under which the network is told of ``call.sigma``."""
        true, hat = call.true_sigma.flatten()[0], call.sigma.flatten()[0]

        def tell(executor: Any, x: Tensor, t: Tensor, *args: Any, **named: Any) -> Tensor:
            self.reached += 1
            said = told(t, true.to(t), hat.to(t), self._family)
            if self._rescales:
                # Its signal at the scale that it has at the level told: method.md section 1.
                scale = (1.0 - said) / (1.0 - t).clamp(min=1e-6)
                x = (x * scale.reshape(-1, *[1] * (x.ndim - 1))).to(x.dtype)
            return executor(x, said, *args, **named)

        inner = dict(options.get("transformer_options") or {})
        wrappers = inner["wrappers"] = dict(inner.get("wrappers") or {})
        # Last, so innermost: the wrappers of others hear the truth.
        wrappers[WrappersMP.APPLY_MODEL] = {**wrappers.get(WrappersMP.APPLY_MODEL, {}), KEY: [tell]}
        if CACHE in inner:
            # Past its end. What a cache makes up of earlier calls would pass for the lie's effect.
            inner[CACHE] = inner[CACHE].clone()
            inner[CACHE].end_t = math.inf
        return {**options, "transformer_options": inner}


def told(t: Tensor, true: Tensor, hat: Tensor, family: Family) -> Tensor:
    """What to tell a network that would hear ``t``, where ``true`` becomes ``hat``.

    Another pack may stand between and change the level as well (Detail Daemon): the same share of
    the noise is then hidden from what it says.
    """
    if family == "ve":
        said = t * (hat / true)
    else:
        ratio = t * hat * (1.0 - true) / (true * (1.0 - hat)).clamp(min=1e-12)
        said = ratio / (1.0 - t + ratio).clamp(min=1e-12)
    return torch.where(t == true, hat, said)
