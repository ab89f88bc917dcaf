"""Answers a guider's requests for predictions, and adds detail to the answers.

The wrapper is the innermost one around ComfyUI's ``calc_cond_batch``:

- One call of the sampler begins a step. Its first request for predictions makes the mask and the effect.
- Guidance, hooks and caches above get one answer to one request.
- Conditioning ranges, ControlNets, context windows and areas go by the true noise level. Only the network is lied to.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from comfy.patcher_extension import WrappersMP

from .model_options import ContextHandlerStandIn, has_easycache, with_wrappers
from .network import NetworkCount, NetworkPass
from .request import PredictionRequest, position_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from ...detailer import Detailer
    from ...prediction import Output
    from .latent import CleanFrames, Shapes


@dataclass
class SamplerCall:
    """One call of the model by the sampler, during which a guider makes one or several requests."""

    sigma: Tensor
    frames: CleanFrames | None
    answered: list[tuple[Tensor, Output]] = field(default_factory=list)
    """The latents that predictions were requested for, each with the step's output for it."""
    in_request: bool = False
    """Whether a request is being answered. Another request is then part of it."""

    def first_output(self, x: Tensor) -> Output | None:
        """The output of an earlier request about this latent; None if there was none.

        If the output has detail, an equal copy of the latent finds it too.
        """
        for latent, output in self.answered:
            if latent is x or (output.kind != "plain" and latent.shape == x.shape and torch.equal(latent, x)):
                return output
        return None


class RequestHandler:
    """Answers the requests of one run.

    Args:
        guider: the lie is told to its positive conditioning.
        shapes: shapes of the streams that are packed into one latent, or None.
    """

    def __init__(self, detailer: Detailer, guider: Any, shapes: Shapes):
        self.detailer, self.guider, self.shapes = detailer, guider, shapes
        self.count = NetworkCount()
        self._call: SamplerCall | None = None
        self._pass = NetworkPass()

    def wrapped_model_options(self, options: dict[str, Any]) -> dict[str, Any]:
        """A copy of ``model_options`` with which this object answers the requests of the run."""
        wrappers: dict[str, Any] = {WrappersMP.APPLY_MODEL: self.apply_model}
        if has_easycache(options):
            wrappers[WrappersMP.DIFFUSION_MODEL] = self.diffusion_model
        if "denoise_mask_function" in options:
            options = {**options, "denoise_mask_function": self._recording_mask(options["denoise_mask_function"])}
        handler = options.get("context_handler")
        if handler is None:
            return with_wrappers(options, {WrappersMP.CALC_COND_BATCH: self.calc_cond_batch, **wrappers})
        # Each context window is a request of its own. A request is answered above the windows, so that the whole
        # clip has one mask.
        return {
            **with_wrappers(options, wrappers),
            "context_handler": ContextHandlerStandIn(handler, self.context_windows),
        }

    @contextmanager
    def sampler_call(self, sigma: Tensor, frames: CleanFrames | None) -> Iterator[SamplerCall]:
        """Requests made while the context is open belong to one call of the sampler at noise level ``sigma``."""
        self._call = SamplerCall(sigma, frames)
        try:
            yield self._call
        finally:
            self._call = None

    @contextmanager
    def network_pass(self, network_pass: NetworkPass) -> Iterator[None]:
        """While the context is open, the network is called as ``network_pass`` says."""
        self._pass = network_pass
        try:
            yield
        finally:
            self._pass = NetworkPass()

    @property
    def positive(self) -> Any:
        """The guider's positive conditioning, or None."""
        return (getattr(self.guider, "conds", None) or {}).get("positive")

    def _recording_mask(self, function: Any) -> Any:
        """A ``denoise_mask_function`` (of Differential Diffusion) that also stores its mask in the sampler call."""

        def record_mask(*args: Any, **named: Any) -> Tensor:
            mask: Tensor = function(*args, **named)
            if self._call is not None and self._call.frames is not None:
                self._call.frames.denoise_mask = mask
            return mask

        return record_mask

    def context_windows(self, handler: Any, calc: Any, *request: Any) -> Any:
        """Replaces the ``execute`` of a context handler. A clip that fits into one window is requested as a whole."""
        needs_windows = handler.should_use_context(*request)
        return self.calc_cond_batch((lambda *args: handler.execute(calc, *args)) if needs_windows else calc, *request)

    def apply_model(self, executor: Any, x: Tensor, t: Tensor, *args: Any, **named: Any) -> Tensor:
        """The innermost APPLY_MODEL wrapper: the last place before the network that has both latent and noise level.

        Args:
            x: the latent of all rows (samples times conditionings), (rows, channels, *space).
            t: the noise level of each row, (rows,). Another pack may have changed it; the lie adds to that.
        """
        if self._pass.skipped:
            return torch.zeros_like(x)
        self.count.add(len(x), self._pass)
        lie = self._pass.lie
        if lie is None:
            return executor(x, t, *args, **named)
        scale = lie.scale(t).reshape(-1, *[1] * (x.ndim - 1))
        return executor((x * scale).to(x.dtype), lie.tell(t), *args, **named)

    def diffusion_model(self, executor: Any, *args: Any, **named: Any) -> Any:
        """The innermost DIFFUSION_MODEL wrapper, which EasyCache calls only where it has no answer."""
        self.count.uncached += 1
        return executor(*args, **named)

    def calc_cond_batch(self, calc: Any, model: Any, conds: Any, x: Tensor, timestep: Tensor, options: Any) -> Any:
        """The innermost CALC_COND_BATCH wrapper; ``calc`` is what it wraps."""
        call = self._call
        if call is None or call.in_request:
            return calc(model, conds, x, timestep, options)
        first = call.first_output(x)
        # This is a further request, about another latent. With the positive conditioning it is a step of its own: some
        # samplers ask again (LanPaint). Without, it comes from guidance (SAG's degraded latent) and stays plain.
        if first is None and call.answered and position_of(conds, self.positive) is None:
            return calc(model, conds, x, timestep, options)
        call.in_request = True
        try:
            request = PredictionRequest(self, call, calc, model, list(conds), x, timestep, options)
            output, answers = request.answer(first)
            if first is None:
                call.answered.append((x, output))
            return answers
        finally:
            call.in_request = False
