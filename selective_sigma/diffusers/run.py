"""From a pipeline's model calls and scheduler steps to steps of the core's detailer."""

from __future__ import annotations

import threading
import warnings
from contextlib import ExitStack, contextmanager
from enum import Enum
from typing import TYPE_CHECKING, Any

from ..detailer import Detailer, MaskRecord
from ..report import Reason, Report
from . import attach, state, tree
from .evaluate import ModelCall
from .learn import Learner
from .slots import alike
from .streams import DenoiserCall, RecordedCall, Stream, kind_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import Tensor, nn

    from ..prediction import Output
    from ..settings import Settings


class State(Enum):
    """What a run makes of the next call of its pipeline's model."""

    LEARNING = "the step stays plain, and what is called in it is watched"
    READY = "a call that shows the scheduler's sample begins a step; any other stays plain"
    IN_STEP = "a call that shows what the step began with follows it; any other stays plain"
    UNREADABLE = "every call stays plain, and is counted: strength is 0, so there is nothing to refuse"


class Run:
    """What ``enable`` and ``detail`` return: the mask and the report of the pipeline's latest run.

    The lie is told to the conditional prediction where the pipeline stacks [uncond, cond] in one batch, to the
    step's first call where it makes several; its effect is added to all of them.
    """

    def __init__(self, pipe: Any, settings: Settings, limit: Tensor | None, within: Tensor | None, record: bool):
        self.settings = settings
        self.report = Report()
        """Model calls of the latest run; the plain pipeline makes ``report.steps`` of them."""
        self.masks: list[MaskRecord] = []
        """With ``record``: one for each step of the latest run that had a mask."""
        self._pipe = pipe
        self._options: dict[str, Any] = {"limit": limit, "within": within, "record": record}
        self._scheduler: Any = None
        self._managers: list[Any] = []
        self._thread: int | None = None
        """The thread that the run is attached in."""
        self._busy = False
        self._begin_run()

    @property
    def mask(self) -> Any:
        """Latest mask, (batch, 1, *space) in [0, 1], a list for several streams; None before the first."""
        return self._detailer.mask if self._detailer is not None else None

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Within, detail is added to what calls the pipe's model and scheduler.

        A call of an enabled pipe does this by itself; loops of one's own are written within it.
        """
        scheduler = self._pipe.scheduler
        if self._thread == threading.get_ident():
            # A call of the pipe within a loop that is attached.
            yield
            return
        modules = attach.components(self._pipe)
        managers = [] if self.settings.idle else [m for module in modules for m in state.caches(module)]
        with ExitStack() as stack:
            # Before anything is forgotten: a run of another thread may be in the midst of it.
            listeners = {"step": self._stepped, "set_timesteps": self._timed}
            try:
                stack.enter_context(attach.methods(scheduler, listeners))
            except (TypeError, ValueError):
                if not self.settings.idle:
                    raise
            self._scheduler, self._managers, self._thread = scheduler, managers, threading.get_ident()
            stack.callback(self._detach)
            self._begin_run()
            stack.enter_context(attach.modules(modules, self._called))
            yield
        if not self.report.lied and not self._streams and not self.settings.idle:
            warnings.warn(f"Selective Sigma added nothing: {self._learner.outcome}", stacklevel=3)

    def _detach(self) -> None:
        # What was recorded is large, and not wanted after an error either.
        self._forget()
        self._thread = None

    def _begin_run(self) -> None:
        """Forget everything: each run begins alike, whatever was before it."""
        self._relearn()
        self._reset()

    def _relearn(self) -> None:
        """The next step is learned anew. What the run before came to stays, as there may be no other."""
        self._state = State.LEARNING
        self._streams: list[Stream] = []
        self._learner = Learner(self._pipe, self._scheduler, self._options)
        self._is_new = True
        self._forget()

    def _reset(self) -> None:
        """The first step of a run is made."""
        self.report, self.masks = Report(), []
        self._index = -1
        self._alters = False
        """Whether the pipeline gives the model something else than the scheduler's latest sample."""
        self._detailer: Detailer | None = None
        self._traces = state.Traces(self._managers)
        self._latest: Any = None
        self._is_new = False

    def _forget(self) -> None:
        """Let go of what belongs to one step."""
        self._recorded: list[RecordedCall] = []
        self._unclaimed: list[Tensor] = []
        """The sample that each call showed which is like the model's, and was not taken for the run's own."""
        self._first: tuple[Tensor, Output] | None = None
        self._stepped_on = False

    def _called(self, module: nn.Module, call: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """A component's call; one made within another's is part of it."""
        if self._busy:
            return call(*args, **kwargs)
        self._busy = True
        try:
            if self._stepped_on:
                self._begin_step()
            arguments = (args, kwargs)
            reads = [stream.model_call(kind_of(module), arguments) for stream in self._streams]
            calls = [read for read in reads if read is not None]
            if not reads or len(calls) < len(reads):
                return self._plain(module, call, arguments)
            sample = calls[0].sample.latent(arguments, calls[0].positive)
            if self._state is State.IN_STEP:
                answer = self._follow(module, call, arguments, calls, sample)
            else:
                answer = self._begin(module, call, arguments, calls, sample)
            if answer is None:
                self._unclaimed.append(sample)
                return self._plain(module, call, arguments)
            return answer
        finally:
            self._busy = False

    def _begin_step(self) -> None:
        """The first call after the scheduler's step."""
        self._forget()
        if self._learner.streams:
            self._streams, self._learner.streams = self._learner.streams, []
        if self._state is not State.UNREADABLE:
            self._state = State.READY if self._streams else State.LEARNING

    def _plain(self, module: nn.Module, call: Callable[..., Any], arguments: Any) -> Any:
        """The answer of a call that is not the sample's, or not yet understood."""
        args, kwargs = tree.rebuilt(arguments, {})
        answer = call(*args, **kwargs)
        self._recorded.append(RecordedCall(module, arguments, answer))
        return answer

    def _begin(
        self, module: nn.Module, call: Callable[..., Any], arguments: Any, calls: list[DenoiserCall], sample: Tensor
    ) -> Any:
        """A call that begins a step, with detail; None where it is not the sample's, or its time is not certain."""
        lead = self._streams[0]
        own_turn = len(self._unclaimed) == lead.turn
        same, like = alike(sample, self._latest)
        if not same and not (own_turn and (like or self._alters)):
            return None
        index = lead.noise.step_of(calls, arguments, self._index + 1)
        # What only looks like the sample is not when the run goes back: a preview from the same noise.
        if index is None or (index < self._index and not (same or self._alters)):
            return None
        if index < self._index == len(lead.noise.times) - 1:
            # The timesteps once more, without having been set.
            self._relearn()
            return None
        self._index = index
        if self._detailer is None:
            levels = list(dict.fromkeys([*lead.noise.sigmas[index:], lead.noise.last]))
            window = lead.noise.window(self.settings.start, self.settings.end)
            self._detailer = Detailer(self.settings, levels, lead.noise.family, window=window, **self._options)
            self._detailer.report, self._detailer.masks = self.report, self.masks
        if not self.settings.idle:
            for each in (module, *(recorded.module for recorded in self._recorded)):
                self._traces.watch(each)
        step = self._model_call(call, arguments, calls)
        output = self._detailer.step(step.evaluate, step.x, step.sigma)
        self._first = sample, output
        self._state = State.IN_STEP
        return step.answer(output)

    def _follow(
        self, module: nn.Module, call: Callable[..., Any], arguments: Any, calls: list[DenoiserCall], sample: Tensor
    ) -> Any:
        """A further call of the step; None where it shows another latent than the first."""
        assert self._first is not None
        assert self._detailer is not None
        begun, output = self._first
        if not alike(sample, begun)[0]:
            return None
        if not self.settings.idle:
            self._traces.watch(module)
        step = self._model_call(call, arguments, calls)
        if output.effect is None:
            return step.answer(self._detailer.again(step.evaluate, step.x, step.sigma, output))
        self.report.steps += 1
        self.report.plain += 1
        return step.moved(output.effect)

    def _model_call(self, call: Callable[..., Any], arguments: Any, calls: list[DenoiserCall]) -> ModelCall:
        def ask(changed: Any) -> Any:
            return call(*changed[0], **changed[1])

        return ModelCall(self._streams, calls, arguments, self._index, ask, self._traces, self._recorded)

    def _timed(self, scheduler: Any, call: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """The scheduler's timesteps are set: a run begins. What a dynamic shift is set with is kept nowhere else."""
        if scheduler is self._scheduler and not self._busy:
            self._relearn()
        self._learner.shifts[id(scheduler)] = kwargs.get("mu")
        return call(*args, **kwargs)

    def _stepped(self, scheduler: Any, step: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """The scheduler's step: what was called since the last one is understood here."""
        if self._state is not State.IN_STEP and self._recorded:
            self._understand(scheduler, attach.arguments_of(scheduler, "step", args, kwargs))
        result = step(*args, **kwargs)
        if scheduler is self._scheduler:
            self._latest = result[0] if isinstance(result, tuple) else getattr(result, "prev_sample", None)
        self._stepped_on = True
        return result

    def _understand(self, scheduler: Any, given: dict[str, Any]) -> None:
        """A step that stayed plain: whose calls it was made of, or how they are to be read."""
        if self._streams and not self._learner.streams:
            if scheduler is not self._scheduler:
                return
            noise = self._streams[0].noise
            if noise.index_of(given) < self._index == len(noise.times) - 1:
                # The timesteps once more, without having been set.
                recorded = self._recorded
                self._relearn()
                self._recorded = recorded
            elif any(shows := [alike(sample, given.get("sample"))[0] for sample in self._unclaimed]):
                # Not known for the sample's before: the pipeline changes it on the way to the model.
                self._alters = True
                for stream in self._streams:
                    stream.turn = shows.index(True)
                self._count(sum(shows))
                return
        if self._is_new:
            self._reset()
        try:
            stream = None if self._state is State.UNREADABLE else self._learner.stream(scheduler, given, self._recorded)
        except ValueError as error:
            if not self.settings.idle:
                raise ValueError(f"Selective Sigma cannot work with {type(self._pipe).__name__}: {error}") from None
            self._state, stream = State.UNREADABLE, None
        if stream is None:
            kinds = [kind_of(call.module) for call in self._recorded]
            largest = max(self._recorded, key=lambda call: sum(p.numel() for p in call.module.parameters()))
            self._count(kinds.count(kind_of(largest.module)))
            return
        if len(self._learner.streams) == 1:
            self._index = stream.noise.index_of(given)
            self._count(len(stream.calls))
        for old in self._streams:
            if old.scheduler is scheduler:
                stream.calls += [call for call in old.calls if all(call.key != new.key for new in stream.calls)]

    def _count(self, calls: int) -> None:
        """Plain calls that the detailer was not asked about."""
        self.report.steps += calls
        self.report.plain += calls
        self.report.skip(Reason.IDLE if self.settings.idle else Reason.LEARNING)
