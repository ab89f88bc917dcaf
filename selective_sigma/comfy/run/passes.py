"""Below guidance: where a guider asks for the predictions of a step, and gets them with detail in.

The wrapper stands innermost around ComfyUI's ``calc_cond_batch``. One call of the sampler begins a step; its first
request for predictions makes mask and effect. Guidance, hooks and caches above see one request with one answer, and
everything below but the network itself (ranges of conditioning, ControlNets, context windows, areas) goes by the
true noise level.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from comfy.patcher_extension import WrappersMP

from .request import Request, position_of
from .seams import ContextHandler, cache_is_on, with_wrappers

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from ...detailer import Detailer
    from ...lie import Lie
    from ...prediction import Output
    from .latent import GivenFrames, Shapes


@dataclass
class SamplerCall:
    """One call of the sampler, during which predictions are requested once or several times."""

    sigma: Tensor
    frames: GivenFrames | None
    looks: list[tuple[Tensor, Output]] = field(default_factory=list)
    """The latents that predictions were requested of, and what came of the first request for each."""
    inside: bool = False
    """Whether a request is being answered: one that is made meanwhile is a part of it."""

    @property
    def outputs(self) -> list[Output]:
        return [output for _, output in self.looks]

    def first_output(self, x: Tensor) -> Output | None:
        """What came of the first request for this latent, also where it was copied since; None before it."""
        for latent, output in self.looks:
            if latent is x or (output.kind != "plain" and latent.shape == x.shape and torch.equal(latent, x)):
                return output
        return None


@dataclass
class NetworkCount:
    """What the network was asked in one run, and what the bare sampler would have asked."""

    calls: int = 0
    rows: int = 0
    bare_calls: int = 0
    bare_rows: int = 0
    lies: int = 0
    uncached: int = 0
    """Calls that no cache answered; counted beside EasyCache alone."""

    def add(self, rows: int, bare: bool) -> None:
        self.calls, self.rows = self.calls + 1, self.rows + rows
        if bare:
            self.bare_calls, self.bare_rows = self.bare_calls + 1, self.bare_rows + rows


class Passes:
    """Answers the requests for predictions of one run."""

    def __init__(self, detailer: Detailer, guider: Any, shapes: Shapes):
        """Args:
        guider: whose positive conditioning the lie is told to.
        shapes: of the streams that are packed into one latent, or None.
        """
        self.detailer, self.guider, self.shapes = detailer, guider, shapes
        self.count = NetworkCount()
        self.denoise_mask: Tensor | None = None
        """The mask of the present sampler call, where a function makes it (Differential Diffusion)."""
        self.lie: Lie | None = None
        """What the network is told now."""
        self.bare = True
        """Whether the bare sampler makes the present call too."""
        self.without_network = False
        """Whether the network is left out of the present call, which is made for the ControlNets' answers."""
        self._call: SamplerCall | None = None

    def installed(self, options: dict[str, Any]) -> dict[str, Any]:
        """A copy of ``model_options`` in which the requests of this run are answered here."""
        wrappers: dict[str, Any] = {WrappersMP.APPLY_MODEL: self.apply_model}
        if cache_is_on(options):
            wrappers[WrappersMP.DIFFUSION_MODEL] = self.diffusion_model
        if "denoise_mask_function" in options:
            options = {**options, "denoise_mask_function": self._noted(options["denoise_mask_function"])}
        handler = options.get("context_handler")
        if handler is None:
            return with_wrappers(options, {WrappersMP.CALC_COND_BATCH: self.calc_cond_batch, **wrappers})
        # The windows of a clip are requests of their own: stand above them, so that a clip has one mask.
        return {**with_wrappers(options, wrappers), "context_handler": ContextHandler(handler, self.windows)}

    @contextmanager
    def sampler_call(self, sigma: Tensor, frames: GivenFrames | None) -> Iterator[SamplerCall]:
        """Requests within belong to one call of the sampler at ``sigma``."""
        self._call = SamplerCall(sigma, frames)
        try:
            yield self._call
        finally:
            self._call = None

    @property
    def positive(self) -> Any:
        """The guider's positive conditioning, or None."""
        return (getattr(self.guider, "conds", None) or {}).get("positive")

    def _noted(self, function: Any) -> Any:
        """A denoise mask function whose latest mask is kept."""

        def noting(*args: Any, **named: Any) -> Tensor:
            mask: Tensor = function(*args, **named)
            self.denoise_mask = mask
            return mask

        return noting

    def calc_cond_batch(self, executor: Any, model: Any, conds: Any, x: Tensor, timestep: Tensor, options: Any) -> Any:
        """The innermost CALC_COND_BATCH wrapper."""
        return self._answer(executor, model, conds, x, timestep, options)

    def windows(self, handler: Any, calc: Any, *request: Any) -> Any:
        """In place of a context handler's ``execute``; a clip that fits into one window is asked about as a whole."""
        wanted = handler.should_use_context(*request)
        return self._answer((lambda *args: handler.execute(calc, *args)) if wanted else calc, *request)

    def apply_model(self, executor: Any, x: Tensor, t: Tensor, *args: Any, **named: Any) -> Tensor:
        """The innermost APPLY_MODEL wrapper: the last place before the network that sees latent and level."""
        if self.without_network:
            return torch.zeros_like(x)
        self.count.add(len(x), self.bare)
        if self.lie is None:
            return executor(x, t, *args, **named)
        self.count.lies += 1
        scale = self.lie.scale(t).reshape(-1, *[1] * (x.ndim - 1))
        return executor((x * scale).to(x.dtype), self.lie.tell(t), *args, **named)

    def diffusion_model(self, executor: Any, *args: Any, **named: Any) -> Any:
        """The innermost DIFFUSION_MODEL wrapper."""
        self.count.uncached += 1
        return executor(*args, **named)

    def _answer(self, calc: Any, model: Any, conds: Any, x: Tensor, timestep: Tensor, options: Any) -> Any:
        call = self._call
        if call is None or call.inside:
            return calc(model, conds, x, timestep, options)
        first = call.first_output(x)
        # A sampler that looks again at another latent (LanPaint) asks about the positive conditioning too; guidance
        # that asks about another one (SAG about a degraded one) does not, and that is no step of the run.
        if first is None and call.looks and position_of(conds, self.positive) is None:
            return calc(model, conds, x, timestep, options)
        call.inside = True
        try:
            request = Request(self, call, calc, model, list(conds), x, timestep, options)
            output, answers = request.answer(first)
            if first is None:
                call.looks.append((x, output))
            return answers
        finally:
            call.inside = False
