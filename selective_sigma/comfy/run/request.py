"""One request for predictions, answered with detail in."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import torch

from ...prediction import Call, Output, Prediction
from . import latent
from .controls import Answers
from .seams import cache_is_on, past_its_end, without_hooks
from .state import untouched

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from ...prediction import Latent
    from .passes import Passes, SamplerCall


class Request:
    """The conditionings that a guider asks about in one call of ``calc_cond_batch``, and the answers so far."""

    def __init__(
        self,
        passes: Passes,
        call: SamplerCall,
        calc: Any,
        model: Any,
        conds: list[Any],
        x: Tensor,
        timestep: Tensor,
        options: dict[str, Any],
    ):
        """``calc(model, conds, x, timestep, options)`` gives a prediction, shaped like ``x``, for each of ``conds``."""
        self._passes, self._call, self._calc, self._model = passes, call, calc, model
        self._conds, self._asked, self._x, self._timestep, self._options = conds, len(conds), x, timestep, options
        place = position_of(conds, passes.positive)
        self._lacks_positive = place is None and passes.positive is not None
        self._positive = next((i for i, cond in enumerate(conds) if cond is not None), 0) if place is None else place
        self._has_cache = cache_is_on(options)
        self._controls: Answers | None = None
        self._answers: dict[str, list[Tensor]] = {}
        self._uncached: dict[str, bool] = {}
        self._latest = "plain"

    def answer(self, first: Output | None) -> tuple[Output, list[Tensor]]:
        """What the step came to, and a prediction for each of the conds: the model's own where there is nothing to do.

        Args:
            first: what came of the first request for this latent in this step, if this is a further one.
        """
        x, detailer = latent.unpack(self._x, self._passes.shapes), self._passes.detailer
        if first is None:
            output = detailer.step(self._evaluate, x, self._call.sigma)
        else:
            output = detailer.again(self._evaluate, x, self._call.sigma, first)
        answers = self._answers[self._latest]
        if output.kind == "blended":
            answers = list(answers)
            answers[self._positive] = latent.pack(output.denoised)
            for place, other in output.others.items():
                answers[int(place)] = latent.pack(other)
        return output, answers[: self._asked]

    def _evaluate(self, call: Call) -> Prediction:
        """As the detailer asks; ``others`` are named by their places in the request."""
        if call.followed and not self._answers:
            self._prepare_two_passes(call)
        if self._has_cache and call.kind == "lied" and call.followed:
            # Whether a cache answers is decided by the true call; the lie has nothing to be compared with then.
            self._ask("plain", self._conds)
            if not self._uncached["plain"]:
                return self._prediction("plain", cached=True)
        alone = call.conds == "positive" and call.kind == "lied"
        if call.kind not in self._answers:
            # In its place, by which patches know it; for those that follow ComfyUI would make empty answers.
            conds = [*[None] * self._positive, self._conds[self._positive]] if alone else self._conds
            self._ask(call.kind, conds, call)
        self._latest = call.kind
        return self._prediction(call.kind, alone, cached=not self._uncached[call.kind])

    def _prepare_two_passes(self, call: Call) -> None:
        """ControlNets are asked once for both passes, and about the positive conditioning in any case."""
        if call.conds == "positive" and self._lacks_positive:
            self._positive, self._conds = len(self._conds), [*self._conds, self._passes.positive]
        self._controls = Answers()
        self._conds = self._controls.stand_in(self._conds)
        others = [cond for i, cond in enumerate(self._conds) if i != self._positive]
        same = call.conds == "positive" and self._call.frames is None
        if self._controls.wanted_by(others if same else self._conds):
            # Ahead of both, as the plain pass will ask, without the network.
            self._passes.without_network = True
            try:
                self._calc(self._model, self._conds, self._x, self._timestep, without_hooks(self._options))
            finally:
                self._passes.without_network = False

    def _ask(self, kind: str, conds: list[Any], call: Call | None = None) -> None:
        """Note what the model answers; without ``call`` it is asked plainly, as the bare sampler asks."""
        lie, hidden = (None, False) if call is None else (call.lie, call.followed)
        x, frames = self._x, self._call.frames
        if lie is not None and frames is not None:
            x = frames.in_lied_call(x, self._timestep, lie)
        options = past_its_end(self._options) if hidden and self._has_cache else self._options
        passes, before = self._passes, self._passes.count.uncached
        if self._controls is not None:
            self._controls.rewind()
        with untouched(options, self._model.diffusion_model, x.device) if hidden else nullcontext():
            passes.lie, passes.bare = lie, not hidden
            try:
                self._answers[kind] = self._calc(self._model, conds, x, self._timestep, options)
            finally:
                passes.lie, passes.bare = None, True
        self._uncached[kind] = not self._has_cache or passes.count.uncached > before

    def _prediction(self, kind: str, alone: bool = False, cached: bool = False) -> Prediction:
        answers, shapes = self._answers[kind], self._passes.shapes
        others: dict[str, Latent] = {}
        if not alone:
            others = {
                str(i): latent.unpack(answer, shapes)
                for i, (cond, answer) in enumerate(zip(self._conds, answers, strict=True))
                if i != self._positive and cond is not None
            }
        # A mask wants it: of this step, or a published one that remembers.
        wanted = self._controls is not None or self._passes.detailer.settings.mask_source != "response"
        guided = self._guided(answers) if kind == "plain" and wanted else None
        return Prediction(latent.unpack(answers[self._positive], shapes), others, guided, cached)

    def _guided(self, answers: list[Tensor]) -> Latent | None:
        """The guided prediction of a guider with one ``cfg``, which asks about positive and negative (or empty)."""
        cfg = getattr(self._passes.guider, "cfg", None)
        # Some guiders keep a list, one cfg a step.
        if not isinstance(cfg, (int, float)) or self._positive != 0 or len(self._conds) < 2 or self._conds[-1] is None:
            return None
        first, last = answers[0], answers[-1]
        return latent.unpack(torch.lerp(last, first, cfg), self._passes.shapes)


def position_of(conds: Sequence[Any], positive: Any) -> int | None:
    """Where the positive conditioning stands among ``conds``, by identity or, where it was copied, by its uuids."""
    if positive is None:
        return None
    uuids = [entry.get("uuid") for entry in positive]
    for i, cond in enumerate(conds):
        if cond is positive or (cond and None not in uuids and [entry.get("uuid") for entry in cond] == uuids):
            return i
    return None
