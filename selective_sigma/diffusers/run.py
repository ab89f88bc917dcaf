"""From a pipeline's model calls to steps of the core's detailer."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..detailer import Detailer, MaskRecord
from ..prediction import Call as CoreCall
from ..prediction import Prediction
from ..report import Report
from ..settings import Settings
from . import caches
from .hook import Call
from .levels import Levels
from .packing import Layout
from .predictions import from_input, to_denoised, to_input, to_output


class _Track(NamedTuple):
    """The detailer of one of the calls that a pipeline makes at each step."""

    detailer: Detailer
    parts: int


class Run:
    """What ``enable`` and ``detail`` return: the mask and the report of the pipeline's latest run.

    The mask is made from the conditional prediction: the second part where the pipeline
    stacks [uncond, cond] in one batch, the step's first call where it makes two. It serves
    every part and call of that step.
    """

    def __init__(self, pipe: Any, settings: Settings, limit: Tensor | None, within: Tensor | None, record: bool):
        self.settings = settings
        self.report = Report()
        """Model calls of the latest run; the plain pipeline makes ``report.steps`` of them."""
        self.masks: list[MaskRecord] = []
        """With ``record``: one for each step of the latest run that had a mask."""
        self._pipe = pipe
        self._options = {"limit": limit, "within": within, "record": record}
        self._levels: Levels | None = None
        self._tracks: list[_Track] = []
        self._turn = 0
        self._shared: Any = None

    @property
    def mask(self) -> Tensor | None:
        """Latest mask, (batch, 1, *space) on the latent's grid, in [0, 1]; None before the first."""
        return self._tracks[0].detailer.mask if self._tracks else None

    def step(self, call: Call) -> Any:
        """One model call of the pipeline, with detail; returns what the model would."""
        levels = self._locate(call)
        family, prediction = levels.kind.family, levels.kind.prediction
        layout = Layout(call.sample, call.module, call.get)
        noisy = layout.read(call.sample)
        channels = noisy.shape[1]
        parts = self._parts(noisy)
        wide = torch.promote_types(noisy.dtype, torch.float32)
        sigma = torch.tensor([levels.sigma], dtype=wide, device=noisy.device)
        x = from_input(noisy.chunk(parts)[0].to(wide), sigma, family)
        managers = caches.find(call.module)
        results: list[Any] = []

        def back(denoised: Tensor, like: Tensor) -> Tensor:
            output = to_output(denoised, x, sigma, prediction).to(like.dtype)
            # A learned variance stays behind the prediction.
            return output if like.shape[1] == channels else torch.cat([output, like[:, channels:]], 1)

        def evaluate(asked: CoreCall) -> Prediction:
            at = asked.x
            assert isinstance(at, Tensor)
            if asked.kind == "plain":
                result = call()
            else:
                shown = to_input(at, asked.sigma, family).repeat(parts, *[1] * (at.ndim - 1))
                timestep = levels.timestep(call.timestep, sigma, asked.sigma.expand(len(call.sample)))
                with caches.lied(managers):
                    result = call(layout.write(call.sample, shown), timestep)
            results.append(result)
            raw = _output(result)
            outputs = layout.read(raw, raw.shape[2 if layout.grid else 1]).chunk(parts)
            denoised = [to_denoised(o[:, :channels].to(wide), at, asked.sigma, prediction) for o in outputs]
            if asked.kind == "lied":
                # What the answer to the lie means at the true noise level.
                outputs = [back(d, o) for d, o in zip(denoised, outputs, strict=True)]
            named = {f"output {i}": output for i, output in enumerate(outputs)}
            return Prediction(denoised[min(1, parts - 1)], named)

        mask = self._shared if self._turn else None
        stepped = self._track(parts, levels).detailer.step(evaluate, x, sigma, mask)
        if not self._turn:
            self._shared = stepped.mask
        outputs = list(stepped.others.values())
        self.masks = self._tracks[0].detailer.masks
        output = outputs[0] if parts == 1 else torch.cat(outputs)
        return _with_output(results[0], layout.write(_output(results[0]), output))

    def _locate(self, call: Call) -> Levels:
        """Find the step; a new run gets new detailers, a second call at a step its own."""
        scheduler = self._pipe.scheduler
        if self._levels is None or self._levels.over(scheduler, call.timestep):
            self._levels = Levels(scheduler, call.timestep)
            self._tracks = []
            self.report = Report()
            self._turn = 0
        else:
            self._turn = 0 if self._levels.move(call.timestep) else self._turn + 1
        return self._levels

    def _parts(self, noisy: Tensor) -> int:
        """How many times the batch holds the same latents: guidance in one call."""
        if getattr(self._pipe, "do_classifier_free_guidance", True):
            for parts in (3, 2):
                first, *others = noisy.chunk(parts)
                if len(noisy) % parts == 0 and all(torch.equal(first, other) for other in others):
                    return parts
        return 1

    def _track(self, parts: int, levels: Levels) -> _Track:
        """The detailer for this call; guidance that stops or starts mid-run begins a fresh one."""
        turn = min(self._turn, len(self._tracks))
        known = self._tracks[turn : turn + 1]
        if known and known[0].parts == parts:
            return known[0]
        window = levels.window(self.settings.start, self.settings.end)
        made = Detailer(self.settings, levels.sigmas, levels.kind.family, window=window, **self._options)
        made.report = self.report
        track = _Track(made, parts)
        if turn:
            self._tracks[turn : turn + 1] = [track]
        else:
            made.masks = known[0].detailer.masks if known else made.masks
            self._tracks = [track]
        return track


def _output(result: Any) -> Tensor:
    return result[0] if isinstance(result, tuple) else result.sample


def _with_output(result: Any, output: Tensor) -> Any:
    if isinstance(result, tuple):
        return (output, *result[1:])
    result.sample = output
    return result
