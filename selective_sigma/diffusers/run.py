"""From a pipeline's model calls and scheduler steps to steps of the core's detailer."""

from __future__ import annotations

import inspect
import warnings
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..detailer import Detailer, MaskRecord
from ..mask import check_goes
from ..report import Report
from . import attach, caches, learn, tree
from .detailed import evaluator, results
from .noise import Noise

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ..prediction import Call, Prediction
    from ..settings import Settings
    from .learn import Stream, View


class Run:
    """What ``enable`` and ``detail`` return: the mask and the report of the pipeline's latest run.

    The mask is made from the conditional prediction where the pipeline stacks [uncond, cond] in
    one batch, from the step's first call where it makes several; it serves all of that step.
    """

    def __init__(self, pipe: Any, settings: Settings, limit: Tensor | None, within: Tensor | None, record: bool):
        self.settings = settings
        self.report = Report()
        """Model calls of the latest run; the plain pipeline makes ``report.steps`` of them."""
        self.masks: list[MaskRecord] = []
        """With ``record``: one for each step of the latest run that had a mask."""
        self._pipe = pipe
        self._options: dict[str, Any] = {"limit": limit, "within": within, "record": record}
        self._reset()

    @property
    def mask(self) -> Any:
        """Latest mask, (batch, 1, *space) in [0, 1], a list for several streams; None before the first."""
        return self._detailers[0].mask if self._detailers else None

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Within, detail is added to what calls the pipe's model and scheduler.

        A call of an enabled pipe does this by itself; loops of one's own are written within it.
        """
        scheduler = self._pipe.scheduler
        found = components(self._pipe)
        managers = [manager for module in found for manager in caches.find(module)]
        with ExitStack() as stack:
            # Before anything is forgotten: a run of another thread may be in the midst of it.
            listeners = {"step": self._stepped, "set_timesteps": self._timed}
            stack.enter_context(attach.methods(scheduler, listeners))
            self._reset()
            self._scheduler, self._caches = scheduler, managers
            stack.enter_context(attach.modules(found, self._called))
            # What was heard is large, and not wanted after an error either.
            stack.callback(self._forget)
            yield
        if not self.report.lied and not self._streams:
            warnings.warn(f"Selective Sigma added nothing: {self._why}", stacklevel=3)

    def _forget(self) -> None:
        self._heard: list[learn.Heard] = []
        self._during: Any = None

    def _reset(self) -> None:
        self._forget()
        self._streams: list[Stream] = []
        self._learned: list[Stream] = []
        self._busy = False
        self._mu: float | None = None
        self._why = "the scheduler's step was not called"
        self._start_run(None)

    def _start_run(self, timesteps: Any) -> None:
        """A run begins with new timesteps, or with the same ones once more."""
        self._timesteps = timesteps
        self._detailers: list[Detailer] = []
        self._index = -1
        self._astray = False
        self._turn = 0
        self._stepped_on = True
        self._shared: Any = None
        self.report, self.masks = Report(), []

    def _called(self, module: nn.Module, call: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """A component's call: plain until its step is understood, then with detail."""
        if self._busy:
            return call(*args, **kwargs)
        if self._learned:
            self._streams, self._learned, self._heard = self._learned, [], []
        arguments = (args, kwargs)
        self._busy = True
        try:
            views: list[Any] = [stream.view(learn.kind_of(module), arguments) for stream in self._streams]
            if views and None not in views and self._on_time(views, arguments):
                return self._detailed(call, arguments, views)
            times = getattr(self._scheduler, "timesteps", None)
            if times is not self._during:
                # Said before the run began, as a text encoder's states: often larger than the model's.
                self._heard, self._during = [], times
            shown = tree.rebuilt(arguments, {})
            answer = call(*shown[0], **shown[1])
            self._heard.append(learn.Heard(module, arguments, answer))
            return answer
        finally:
            self._busy = False

    def _on_time(self, views: list[View], arguments: Any) -> bool:
        """Find the step of the run by what the model is told; False where that is not yet certain."""
        lead = self._streams[0]
        if lead.scheduler.timesteps is not self._timesteps:
            # A new run begins as every run does, so that it comes out alike whatever was before.
            self._streams = []
            return False
        clocks = [clock for view in views for clock in view.clocks]
        expected = self._index + self._stepped_on
        index = lead.noise.locate(clocks, arguments, expected)
        if index is None:
            return False
        if index < self._index or self._astray:
            # The same timesteps once more, or another pipe's call of this model (a preview): the step will tell.
            self._astray = True
            return False
        time = lead.noise.times[index]
        for view in views:
            view.clocks = [clock for clock in view.clocks if clock.agrees(tree.at(arguments, clock.path), time)]
            if not view.clocks:
                return False
        self._index, self._stepped_on = index, False
        return all(len(clock.seen) > 1 for view in views for clock in view.clocks)

    def _detailed(self, call: Callable[..., Any], arguments: Any, views: Any) -> Any:
        """A model's call as one step of the core."""
        lead = self._streams[0].noise
        if self._turn == len(self._detailers):
            levels = list(dict.fromkeys([*lead.sigmas[self._index :], lead.last]))
            window = lead.window(self.settings.start, self.settings.end)
            made = Detailer(self.settings, levels, lead.family, window=window, **self._options)
            made.report = self.report
            self._detailers.append(made)
        detailer = self._detailers[self._turn]
        sigma = torch.tensor(lead.sigmas[self._index], dtype=torch.float64)
        time = lead.times[self._index]
        answers: list[Any] = []

        def answer(shown: Any) -> Any:
            answers.append(call(*shown[0], **shown[1]))
            return answers[-1]

        evaluate, x = evaluator(self._streams, views, arguments, self._heard, answer, time, sigma)

        def apart(call: Call) -> Prediction:
            with caches.lied(self._caches if call.kind == "lied" else []):
                return evaluate(call)

        output = detailer.step(apart, x, sigma, self._shared if self._turn else None)
        if not self._turn:
            self._shared = output.mask
        self._turn += 1
        self.masks = self._detailers[0].masks
        return answers[0] if output.kind == "plain" else results(self._streams, views, answers[0], output)

    def _timed(self, _: Any, call: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """The scheduler's timesteps are set: what its dynamic shift is set with is nowhere kept."""
        self._mu = kwargs.get("mu")
        return call(*args, **kwargs)

    def _stepped(self, scheduler: Any, step: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """The scheduler's step: what the model said since the last one is understood here."""
        if self._turn:
            self._heard = []
        elif self._heard:
            self._learn(scheduler, inspect.signature(step).bind(*args, **kwargs).arguments)
        self._turn, self._stepped_on = 0, True
        return step(*args, **kwargs)

    def _learn(self, scheduler: Any, given: dict[str, Any]) -> None:
        name = type(self._pipe).__name__
        try:
            noise = Noise(scheduler, self._mu)
            time = torch.as_tensor(given["timestep"]).detach().cpu().double()
            if time.numel() != 1 or (scheduler is not self._scheduler and not self._learned):
                # Diffusion forcing: each frame has a scheduler, and a time, of its own.
                raise ValueError("its scheduler steps several noise levels at once")
            step = learn.Step(scheduler, given["model_output"], float(time), given["sample"])
            stream = learn.stream(self._pipe, noise, step, self._heard)
            if stream is not None and self._learned and noise.times != self._learned[0].noise.times:
                raise ValueError("its streams keep different schedules")
        except ValueError as error:
            raise ValueError(f"Selective Sigma cannot work with {name}: {error}") from None
        if stream is None:
            self._why, self._heard = "the model's answers were all zero or not finite", []
            return
        self._why = "the run was over after its first step, which stays plain"
        if not self._learned:
            # Now, not at the first step with detail, which may come late.
            for name in ("limit", "within"):
                if self._options[name] is not None:
                    check_goes(name, self._options[name], stream.layout.core(step.sample).shape)
            index = noise.nearest(step.time)
            if scheduler.timesteps is not self._timesteps or (self._astray and index <= self._index):
                self._streams = []
                self._start_run(scheduler.timesteps)
            self._index, self._astray = index, False
            # Plain calls, while it was learned what they are.
            self.report.steps += len(stream.views)
            self.report.plain += len(stream.views)
            self.report.skip("learning")
        for old in self._streams:
            if old.scheduler is scheduler:
                stream.views += [view for view in old.views if all(view.key != new.key for new in stream.views)]
        self._learned.append(stream)


def components(pipe: Any) -> list[nn.Module]:
    """The modules that a pipeline, or anything with modules for attributes, is made of."""
    parts = getattr(pipe, "components", None)
    values = (parts if isinstance(parts, dict) else vars(pipe)).values()
    return list({id(value): value for value in values if isinstance(value, nn.Module)}.values())
