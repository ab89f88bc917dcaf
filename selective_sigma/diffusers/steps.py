"""From a pipeline's model calls and scheduler steps to steps of the core's detailer."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Any

from ..detailer import Detailer, MaskRecord
from ..report import Reason, Report
from . import attach, tree
from .evaluate import ModelCall, OtherAnswerError
from .learn import Learner
from .slots import alike
from .state import Traces
from .streams import DenoiserCall, RecordedCall, Stream, kind_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor, nn

    from ..prediction import Output
    from ..settings import Settings


class State(Enum):
    """What a run makes of the next call of its pipeline's model."""

    LEARNING = "the step stays plain, and what is called in it is watched"
    READY = "a call that shows the scheduler's sample begins a step; any other stays plain"
    IN_STEP = "a call that shows what the step began with follows it; any other stays plain"
    UNREADABLE = "every call stays plain, and is counted: strength is 0, so there is nothing to refuse"


class Steps:
    """What is called while a run is attached to its pipe, one run of the scheduler after the other."""

    def __init__(self, pipe: Any, scheduler: Any, settings: Settings, options: dict[str, Any], managers: list[Any]):
        """Args:
        options: ``limit``, ``within`` and ``record`` of the detailer.
        managers: of the caches on the pipe's modules.
        """
        self._pipe, self._scheduler = pipe, scheduler
        self._settings, self._options, self._managers = settings, options, managers
        self._busy = False
        self._relearn()
        self._reset()

    def _relearn(self) -> None:
        """The next step is learned anew. What the run before came to stays, as there may be no other."""
        self._state = State.LEARNING
        self.streams: list[Stream] = []
        self.learner = Learner(self._pipe, self._scheduler, self._options)
        self._is_new = True
        self.forget()

    def _reset(self) -> None:
        """The first step of a run is made."""
        self.report = Report()
        self.masks: list[MaskRecord] = []
        self._index = -1
        self._alters = False
        """Whether the pipeline gives the model something else than the scheduler's latest sample."""
        self.detailer: Detailer | None = None
        self._traces = Traces(self._managers)
        self._latest: Any = None
        self._is_new = False

    def forget(self) -> None:
        """Let go of what belongs to one step."""
        self._recorded: list[RecordedCall] = []
        self._unclaimed: list[Tensor] = []
        """The sample that each call showed which is like the model's, and was not taken for the run's own."""
        self._first: tuple[Tensor, Output] | None = None
        self._stepped_on = False

    def called(self, module: nn.Module, call: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """A component's call; one made within another's is part of it."""
        if self._busy:
            return call(*args, **kwargs)
        self._busy = True
        try:
            if self._stepped_on:
                self._begin_step()
            arguments = (args, kwargs)
            reads = [stream.model_call(kind_of(module), arguments) for stream in self.streams]
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
        self.forget()
        if self.learner.streams:
            self.streams, self.learner.streams = self.learner.streams, []
        if self._state is not State.UNREADABLE:
            self._state = State.READY if self.streams else State.LEARNING

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
        lead = self.streams[0]
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
        if index == self._index and list(lead.noise.times).count(lead.noise.times[index]) == 1:
            # A second look after the scheduler has gone on: a preview.
            return None
        before, self._index = self._index, index
        if self.detailer is None:
            levels = list(dict.fromkeys([*lead.noise.sigmas[index:], lead.noise.last]))
            window = lead.noise.window(self._settings.start, self._settings.end)
            self.detailer = Detailer(self._settings, levels, lead.noise.family, window=window, **self._options)
            self.detailer.report, self.detailer.masks = self.report, self.masks
        if not self._settings.idle:
            for each in (module, *(recorded.module for recorded in self._recorded)):
                self._traces.watch(each)
        step = self._model_call(call, arguments, calls)
        try:
            output = self.detailer.step(step.evaluate, step.x, step.sigma)
        except OtherAnswerError:
            self._index = before
            return None
        self._first = sample, output
        self._state = State.IN_STEP
        return step.answer(output)

    def _follow(
        self, module: nn.Module, call: Callable[..., Any], arguments: Any, calls: list[DenoiserCall], sample: Tensor
    ) -> Any:
        """A further call of the step; None where it shows another latent than the first."""
        assert self._first is not None
        assert self.detailer is not None
        begun, output = self._first
        if not alike(sample, begun)[0]:
            return None
        if not self._settings.idle:
            self._traces.watch(module)
        step = self._model_call(call, arguments, calls)
        try:
            if output.effect is None:
                return step.answer(self.detailer.again(step.evaluate, step.x, step.sigma, output))
            moved = step.moved(output.effect)
        except OtherAnswerError:
            return None
        self.report.steps += 1
        self.report.plain += 1
        return moved

    def _model_call(self, call: Callable[..., Any], arguments: Any, calls: list[DenoiserCall]) -> ModelCall:
        def ask(changed: Any) -> Any:
            return call(*changed[0], **changed[1])

        return ModelCall(self.streams, calls, arguments, self._index, ask, self._traces, self._recorded)

    def timed(self, scheduler: Any, call: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """The scheduler's timesteps are set: a run begins. What a dynamic shift is set with is kept nowhere else."""
        if scheduler is self._scheduler and not self._busy:
            self._relearn()
        self.learner.shifts[id(scheduler)] = kwargs.get("mu")
        return call(*args, **kwargs)

    def stepped(self, scheduler: Any, step: Callable[..., Any], args: Any, kwargs: Any) -> Any:
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
        if self.streams and not self.learner.streams:
            if scheduler is not self._scheduler:
                return
            noise = self.streams[0].noise
            if noise.index_of(given) < self._index == len(noise.times) - 1:
                # The timesteps once more, without having been set.
                recorded = self._recorded
                self._relearn()
                self._recorded = recorded
            elif any(shows := [alike(sample, given.get("sample"))[0] for sample in self._unclaimed]):
                # Not known for the sample's before: the pipeline changes it on the way to the model.
                self._alters = True
                for stream in self.streams:
                    stream.turn = shows.index(True)
                self._count(sum(shows))
                return
        if self._is_new:
            self._reset()
        try:
            stream = None if self._state is State.UNREADABLE else self.learner.stream(scheduler, given, self._recorded)
        except ValueError as error:
            if not self._settings.idle:
                raise ValueError(f"Selective Sigma cannot work with {type(self._pipe).__name__}: {error}") from None
            self._state, stream = State.UNREADABLE, None
        if stream is None:
            kinds = [kind_of(call.module) for call in self._recorded]
            largest = max(self._recorded, key=lambda call: sum(p.numel() for p in call.module.parameters()))
            self._count(kinds.count(kind_of(largest.module)))
            return
        if len(self.learner.streams) == 1:
            self._index = stream.noise.index_of(given)
            self._count(len(stream.calls))
        for old in self.streams:
            if old.scheduler is scheduler:
                stream.calls += [call for call in old.calls if all(call.key != new.key for new in stream.calls)]

    def _count(self, calls: int) -> None:
        """Plain calls that the detailer was not asked about."""
        self.report.steps += calls
        self.report.plain += calls
        self.report.skip(Reason.IDLE if self._settings.idle else Reason.LEARNING)
