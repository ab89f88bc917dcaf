"""One request of a guider for predictions, and the answer to it, with detail."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import torch

from ...prediction import Call, Output, Prediction
from .controls import ControlNetAnswers, has_control
from .latent import pack_streams, unpack_streams
from .model_options import has_easycache, with_easycache_ended, with_our_wrapper_only
from .network import NetworkPass
from .state import restoring_state

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from ...prediction import Latent
    from .passes import RequestHandler, SamplerCall


class PredictionRequest:
    """The conditionings of one call of ``calc_cond_batch``, and the model's answers to each pass.

    Args:
        calc: ``calc(model, conds, x, timestep, options)`` returns a prediction, shaped like ``x``, for each cond.
    """

    def __init__(
        self,
        handler: RequestHandler,
        call: SamplerCall,
        calc: Any,
        model: Any,
        conds: list[Any],
        x: Tensor,
        timestep: Tensor,
        options: dict[str, Any],
    ):
        self._handler, self._call, self._calc, self._model = handler, call, calc, model
        self._conds, self._requested_count = conds, len(conds)
        self._x, self._timestep, self._options = x, timestep, options
        position = position_of(conds, handler.positive)
        self._lacks_positive = position is None and handler.positive is not None
        if position is None:
            position = next((i for i, cond in enumerate(conds) if cond is not None), 0)
        self._positive = position
        """The position of the positive conditioning, or of the first conditioning if none is positive."""
        self._has_cache = has_easycache(options)
        self._controls: ControlNetAnswers | None = None
        """None in a step of one pass."""
        self._answers: dict[str, list[Tensor]] = {}
        self._uncached: dict[str, bool] = {}
        self._latest_kind = "plain"

    def answer(self, first: Output | None) -> tuple[Output, list[Tensor]]:
        """The output of the step, and a prediction for each cond: the model's own where no detail is added.

        Args:
            first: the output for the first request about this latent; None if this is the first.
        """
        x, detailer = unpack_streams(self._x, self._handler.shapes), self._handler.detailer
        if first is None:
            output = detailer.step(self._evaluate, x, self._call.sigma)
        else:
            output = detailer.again(self._evaluate, x, self._call.sigma, first)
        answers = self._answers[self._latest_kind]
        if output.kind == "blended":
            answers = list(answers)
            answers[self._positive] = pack_streams(output.denoised)
            for position, other in output.others.items():
                answers[int(position)] = pack_streams(other)
        return output, answers[: self._requested_count]

    def _evaluate(self, call: Call) -> Prediction:
        """The detailer's ``evaluate``. ``others`` of the prediction are named by their positions in the request."""
        if call.is_first_of_two and not self._answers:
            self._prepare_two_passes(call)
        if self._has_cache and call.kind == "lied" and call.is_first_of_two:
            # EasyCache decides in the plain pass whether to answer, so this pass comes first. If the cache answers, the
            # lied pass is left out: there is no prediction to compare it with.
            self._run_pass("plain", self._conds)
            if not self._uncached["plain"]:
                return self._prediction("plain", cached=True)
        positive_only = call.conds == "positive" and call.kind == "lied"
        if call.kind not in self._answers:
            # The positive conditioning keeps its position, since patches go by it. Conditionings before it become None.
            # Those after it are left out: for each None, ComfyUI makes an empty answer.
            conds = [*[None] * self._positive, self._conds[self._positive]] if positive_only else self._conds
            self._run_pass(call.kind, conds, call)
        self._latest_kind = call.kind
        return self._prediction(call.kind, positive_only, cached=not self._uncached[call.kind])

    def _prepare_two_passes(self, call: Call) -> None:
        """Add the positive conditioning if the request lacks it, and let both passes share the ControlNets' answers."""
        if call.conds == "positive" and self._lacks_positive:
            self._positive, self._conds = len(self._conds), [*self._conds, self._handler.positive]
        self._controls = ControlNetAnswers()
        self._conds = self._controls.with_stand_ins(self._conds)
        # ControlNets must be asked what the plain pass asks, but the lied pass comes first. If the lied pass lacks a
        # conditioning with a ControlNet, or has other clean frames, a pass without the network asks beforehand.
        others = [cond for i, cond in enumerate(self._conds) if i != self._positive]
        same_latent = call.conds == "positive" and self._call.frames is None
        if has_control(others if same_latent else self._conds):
            with self._handler.network_pass(NetworkPass(skipped=True)):
                self._calc(self._model, self._conds, self._x, self._timestep, with_our_wrapper_only(self._options))

    def _run_pass(self, kind: str, conds: list[Any], call: Call | None = None) -> None:
        """Store the model's answers to one pass. Without ``call``, it is the pass of the bare sampler."""
        lie, is_first_of_two = (None, False) if call is None else (call.lie, call.is_first_of_two)
        x, frames = self._x, self._call.frames
        if lie is not None and frames is not None:
            x = frames.in_lied_call(x, self._timestep, lie)
        options = with_easycache_ended(self._options) if is_first_of_two and self._has_cache else self._options
        count = self._handler.count
        uncached_before = count.uncached
        if self._controls is not None:
            self._controls.begin_pass()
        state = restoring_state(options, self._model.diffusion_model, x.device) if is_first_of_two else nullcontext()
        with state, self._handler.network_pass(NetworkPass(lie, extra=is_first_of_two)):
            self._answers[kind] = self._calc(self._model, conds, x, self._timestep, options)
        self._uncached[kind] = not self._has_cache or count.uncached > uncached_before

    def _prediction(self, kind: str, positive_only: bool = False, cached: bool = False) -> Prediction:
        """The stored answers to one pass. With ``positive_only``, the pass had no other conditionings."""
        answers, shapes = self._answers[kind], self._handler.shapes
        others: dict[str, Latent] = {}
        if not positive_only:
            others = {
                str(i): unpack_streams(answer, shapes)
                for i, (cond, answer) in enumerate(zip(self._conds, answers, strict=True))
                if i != self._positive and cond is not None
            }
        # Only masks need the guided prediction: response masks in a step of two passes, published masks in every step.
        uses_guided = self._controls is not None or self._handler.detailer.settings.mask_source != "response"
        guided = self._guided(answers) if kind == "plain" and uses_guided else None
        return Prediction(unpack_streams(answers[self._positive], shapes), others, guided, cached)

    def _guided(self, answers: list[Tensor]) -> Latent | None:
        """The guided prediction. It is known only for guiders with one ``cfg``, positive first and negative last.

        Returns None for other guiders, and if the negative is left out.
        """
        cfg = getattr(self._handler.guider, "cfg", None)
        # Some guiders keep a list, with one cfg for each step.
        if not isinstance(cfg, (int, float)) or self._positive != 0 or len(self._conds) < 2 or self._conds[-1] is None:
            return None
        first, last = answers[0], answers[-1]
        return unpack_streams(torch.lerp(last, first, cfg), self._handler.shapes)


def position_of(conds: Sequence[Any], positive: Any) -> int | None:
    """The position of the positive conditioning, or None. A copy of it is recognised by its uuids."""
    if positive is None:
        return None
    uuids = [entry.get("uuid") for entry in positive]
    for i, cond in enumerate(conds):
        if cond is positive or (cond and None not in uuids and [entry.get("uuid") for entry in cond] == uuids):
            return i
    return None
