"""Turns a pipeline's model calls and scheduler steps into steps of the core's detailer.

``StepTracker`` answers three kinds of calls:

- ``called``: of the pipeline's modules;
- ``stepped``: of the scheduler's ``step``;
- ``timed``: of the scheduler's ``set_timesteps``.

``State`` is what it does with the next call of the model. ``CallKind`` is how a call relates to the run. A call *shows*
a latent if the latent is among its arguments. If the scheduler steps and no call has begun the step, the tracker learns
from the calls of that step.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Any, NamedTuple

from ..detailer import Detailer, MaskRecord
from ..report import Reason, Report
from .attach import ModelState, class_of
from .evaluate import ModelCall
from .learn import Learner, RecordedCall, SchedulerStep
from .slots import Likeness, copied, likeness
from .times import nearest, step_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor, nn

    from ..prediction import Output
    from ..settings import Settings
    from .evaluate import CallForm, LearnedStream
    from .slots import Arguments


class State(Enum):
    """What a run does with the next call of its pipeline's model."""

    LEARNING = "the call stays plain; the run learns from it when the scheduler steps"
    READY = "the call begins a step if it shows the scheduler's sample; else it is foreign"
    IN_STEP = "the call belongs to the current step if it shows the same latent; else it is foreign"


class CallKind(Enum):
    """How a call relates to the run, if it has the form of the calls that were learned.

    ``BEGINS`` and ``FOLLOWS`` get detail. All other kinds are foreign and stay plain.
    """

    BEGINS = "it shows the scheduler's sample, at the time of a step to come"
    FOLLOWS = "it shows the same latent as the call that began the step"
    OTHER_LATENT = "it shows another latent, such as a reference picture"
    OTHER_TIME = "its time is uncertain, is not one of the run's, or goes back without a new run"
    REPEATED = "its time is that of the step before, as in a preview"


class _FirstCall(NamedTuple):
    """The call that began the current step."""

    sample: Tensor
    """The latent that the call showed."""
    output: Output
    """The output of the step."""


class StepTracker:
    """Tracks the steps of a pipeline while a ``Run`` is attached to it. The scheduler may run several times meanwhile.

    Args:
        options: ``limit``, ``within`` and ``record`` of the detailer.
    """

    def __init__(self, pipe: Any, settings: Settings, options: dict[str, Any]):
        self._pipe, self._scheduler = pipe, pipe.scheduler
        self._settings, self._options = settings, options
        self._busy = False
        self._restart()
        self.forget_step()
        self._begin_run()

    @property
    def state(self) -> State:
        if not self.streams:
            return State.LEARNING
        return State.READY if self._first is None else State.IN_STEP

    @property
    def outcome(self) -> str:
        """Why the run got no detail. Valid only if no call has begun a step."""
        if self.state is State.LEARNING:
            return self.learner.outcome
        return "after its first step, no call of the model showed the scheduler's sample at the time of a step"

    def _restart(self) -> None:
        """Forget what was learned, since the timesteps are set or start over. The next step will be learned from."""
        self._run_begins = True
        self.streams: list[LearnedStream] = []
        self.learner = Learner(self._pipe, self._scheduler, self._options)

    def _begin_run(self) -> None:
        """Replace the results of the previous run. Called at the first step of a run.

        When the timesteps are set, it is too early: they may be set and never used.
        """
        self._run_begins = False
        self.report = Report()
        self.masks: list[MaskRecord] = []
        self.detailer: Detailer | None = None
        self._model_state = ModelState()
        self._step = -1
        """Index of the latest step."""
        self._latest_sample: Any = None
        """The sample that the scheduler's step returned."""
        self._alters = False
        """Whether the pipeline changes that sample before it shows it to the model."""

    def forget_step(self) -> None:
        """Forget what belongs to the current step."""
        self._recorded: list[RecordedCall] = []
        self._foreign: list[Tensor] = []
        """The latents that foreign calls of the step showed. Calls of another form are not among them."""
        self._first: _FirstCall | None = None
        self._step_finished = False

    def called(self, module: nn.Module, call: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """Answer a call of one of the pipe's modules. A call within another call is passed on unchanged."""
        if self._busy:
            return call(*args, **kwargs)
        self._busy = True
        try:
            if self._step_finished:
                self.forget_step()
                if self.learner.streams:
                    # The step that was learned from is over: use what was learned.
                    self.streams, self.learner.streams = self.learner.streams, []
            return self._answer(module, lambda arguments: call(*arguments[0], **arguments[1]), (args, kwargs))
        finally:
            self._busy = False

    def _answer(self, module: nn.Module, ask: Callable[[Arguments], Any], arguments: Arguments) -> Any:
        """Answer a call with detail if it begins or follows in a step. Else pass it on, and record it.

        Args:
            ask: calls the module.
            arguments: those of the call.
        """
        forms = [form for each in self.streams if (form := each.model_form(class_of(module), arguments)) is not None]
        if forms and len(forms) == len(self.streams):
            copies = forms[0].sample.read(arguments)
            sample = copies[forms[0].positive(len(copies))]
            kind, step = self._kind_of(forms, arguments, sample)
            if kind in (CallKind.BEGINS, CallKind.FOLLOWS):
                self._model_state.watch(module)
                call = ModelCall(self.streams, forms, arguments, step, ask, self._model_state)
                output = self._follow(call) if kind is CallKind.FOLLOWS else self._begin(call, sample, step)
                return call.answer(output)
            self._foreign.append(sample)
        answer = ask(copied(arguments))
        self._recorded.append(RecordedCall(module, arguments, answer))
        return answer

    def _kind_of(self, forms: list[CallForm], arguments: Arguments, sample: Tensor) -> tuple[CallKind, int]:
        """The kind of a call, and the index of the step that it belongs to (-1 for none)."""
        if self._first is not None:
            follows = likeness(sample, self._first.sample) is Likeness.SAME
            return (CallKind.FOLLOWS if follows else CallKind.OTHER_LATENT), self._step
        lead = self.streams[0]
        times = lead.noise.times
        like = likeness(sample, self._latest_sample)
        is_turn = len(self._foreign) == lead.calls_before
        if like is not Likeness.SAME and not (is_turn and (like is Likeness.LIKE or self._alters)):
            return CallKind.OTHER_LATENT, -1
        step = step_of(times, [form.times for form in forms], arguments, self._step + 1)
        if step is None:
            return CallKind.OTHER_TIME, -1
        # If the time goes back from the last step, the timesteps start over; ``_learn_from`` takes care of that. If it
        # goes back from another step and the latent is only like the sample, it is a preview from the same noise.
        starts_over = self._step == len(times) - 1
        if step < self._step and (starts_over or (like is not Likeness.SAME and not self._alters)):
            return CallKind.OTHER_TIME, step
        repeats = step == self._step and times.count(times[step]) == 1
        return (CallKind.REPEATED if repeats else CallKind.BEGINS), step

    def _begin(self, call: ModelCall, sample: Tensor, step: int) -> Output:
        """Begin a step. The first one makes the detailer, with the noise levels from there on."""
        if self.detailer is None:
            noise = self.streams[0].noise
            levels = list(dict.fromkeys([*noise.sigmas[step:], 0.0]))
            window = noise.window(self._settings.start, self._settings.end)
            self.detailer = Detailer(self._settings, levels, noise.family, window=window, **self._options)
            self.detailer.report, self.detailer.masks = self.report, self.masks
        output = self.detailer.step(call.evaluate, call.x, call.sigma)
        self._step, self._first = step, _FirstCall(sample, output)
        return output

    def _follow(self, call: ModelCall) -> Output:
        """Answer a further call of the current step."""
        assert self.detailer is not None
        assert self._first is not None
        return self.detailer.again(call.evaluate, call.x, call.sigma, self._first.output)

    def timed(self, scheduler: Any, call: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """Pass on a call of the scheduler's ``set_timesteps``. The next step begins a run."""
        if scheduler is self._scheduler and not self._busy:
            self._restart()
            self.forget_step()
        return call(*args, **kwargs)

    def stepped(self, scheduler: Any, step: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """Pass on a call of the scheduler's ``step``. If the calls of this step stayed plain, learn from them first."""
        if self._recorded and self.state is not State.IN_STEP:
            if self._run_begins:
                self._begin_run()
            if self._settings.idle:
                self._count_unlearned()
                self.forget_step()
            else:
                try:
                    self._learn_from(scheduler, args, kwargs)
                except ValueError as error:
                    name = type(self._pipe).__name__
                    raise ValueError(f"Selective Sigma cannot work with {name}: {error}") from None
        result = step(*args, **kwargs)
        if scheduler is self._scheduler:
            self._latest_sample = result[0] if isinstance(result, tuple) else getattr(result, "prev_sample", None)
        self._step_finished = True
        return result

    def _learn_from(self, scheduler: Any, args: Any, kwargs: Any) -> None:
        """Learn from the calls of a step that stayed plain.

        Args:
            args, kwargs: those that the scheduler's ``step`` is called with.

        Raises:
            ValueError: the step does not fit. The message says why.
        """
        step = SchedulerStep.of(scheduler, args, kwargs)
        if self.state is State.READY and not self.learner.streams:
            if scheduler is not self._scheduler:
                return
            times = self.streams[0].noise.times
            sample_indices = [
                i for i, latent in enumerate(self._foreign) if likeness(latent, step.sample) is Likeness.SAME
            ]
            if nearest(times, step.time) < self._step == len(times) - 1:
                # The timesteps start over without having been set.
                self._restart()
                self._begin_run()
            elif sample_indices:
                # These calls did show the sample: the pipeline has changed it since the scheduler's latest step.
                self._alters = True
                for stream in self.streams:
                    stream.calls_before = sample_indices[0]
                self._count_plain(len(sample_indices))
                return
        stream = self.learner.learn(step, self._recorded)
        if stream is None:
            self._count_unlearned()
            return
        if len(self.learner.streams) == 1:
            self._step = nearest(stream.noise.times, step.time)
            self._count_plain(len(stream.forms))
        # Keep the forms that were learned before.
        for before in self.streams:
            if before.scheduler is scheduler:
                stream.forms += [form for form in before.forms if all(form.key != new.key for new in stream.forms)]

    def _count_unlearned(self) -> None:
        """Count the model calls of a step from which nothing was learned. The module called last is the model."""
        kinds = [class_of(call.module) for call in self._recorded]
        self._count_plain(kinds.count(kinds[-1]))

    def _count_plain(self, calls: int) -> None:
        """Count the calls of a step that did not go through the detailer."""
        self.report.steps += calls
        self.report.plain += calls
        self.report.skip(Reason.IDLE if self._settings.idle else Reason.LEARNING)
