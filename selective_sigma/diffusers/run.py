"""Turns a pipeline's model calls and scheduler steps into steps of the core's detailer.

``StepTracker`` answers three kinds of calls:

- ``called``: of the pipeline's modules;
- ``stepped``: of the scheduler's ``step``;
- ``timed``: of the scheduler's ``set_timesteps``.

``State`` is what it does with a call of the model. The first call after the scheduler's step closes the step that is
open. ``CallKind`` is how a call relates to the run. A call *shows* the scheduler's sample if enough values of its
latent are those of the sample, as the scheduler scales it for the model. If the scheduler steps and no call has begun
the step, the tracker learns from the calls of that step.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Any

import torch

from ..detailer import Detailer, MaskRecord
from ..mask import check_fits
from ..report import Reason, Report
from .attach import ModelState, class_of
from .evaluate import ModelCall
from .learn import RecordedCall, SchedulerStep, learn, model_input
from .noise import Noise
from .slots import compared, equal, parts_of, rebuilt, thinned
from .times import index_of, next_step, telling

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor, nn

    from ..prediction import Output
    from ..settings import Settings
    from .evaluate import CallForm, LearnedRun
    from .slots import Arguments, Parts


class State(Enum):
    """What a run does with a call of its pipeline's model."""

    LEARNING = "the call stays plain; the run learns from it when the scheduler steps"
    READY = "the call begins a step if it shows the scheduler's sample; else it is foreign"
    IN_STEP = "the call belongs to the current step if it shows the same latent; else it is foreign"


class CallKind(Enum):
    """How a call relates to the run, if it has the form of the calls that were learned.

    ``BEGINS`` and ``FOLLOWS`` get detail. The other kinds are foreign and stay plain.
    """

    BEGINS = "it shows the scheduler's latest sample, or what was made of it, at the time of a step to come"
    FOLLOWS = "it shows the same latent as the call that began the step"
    OTHER_LATENT = "it shows another latent, such as a reference picture"
    OTHER_TIME = "it tells no time of a step to come, as in a preview"


LEAST_EQUAL = 0.003
"""Share of equal values by which a call shows the scheduler's sample. Inpainting replaces the others."""
CORRELATION = 0.9
"""Least correlation of a latent with the sample that a callback or the pipeline made it from."""

MOST_FORMS = 16
"""Number of forms of calls that are kept."""


class StepTracker:
    """Tracks the steps of a pipeline while a ``Run`` is attached to it. The scheduler may run several times meanwhile.

    Args:
        options: ``limit``, ``within`` and ``record`` of the detailer.
    """

    def __init__(self, pipe: Any, settings: Settings, options: dict[str, Any]):
        self._pipe, self._settings, self._options = pipe, settings, options
        self._busy = False
        self._forget_learned()
        self.forget_step()
        self._begin_run()

    @property
    def state(self) -> State:
        if self._learned is None:
            return State.LEARNING
        return State.READY if self._first is None else State.IN_STEP

    def _forget_learned(self) -> None:
        """Forget what was learned, since the timesteps are set. The next step will be learned from."""
        self._run_begins = True
        self._noise: Noise | None = None
        self._learned: LearnedRun | None = None
        self.outcome = "the scheduler's step was not called"
        """Why the run got no detail. Valid only if no call has begun a step."""

    def _begin_run(self) -> None:
        """Replace the results of the previous run. Called at the first step of a run, and once before.

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

    def forget_step(self) -> None:
        """Forget what belongs to the current step."""
        self._recorded: list[RecordedCall] = []
        self._foreign_calls = 0
        """Number of calls of a learned form in this step that were foreign."""
        self._first: tuple[Tensor, Output] | None = None
        """Of the call that began the step: the latent that it showed, and its output."""
        self._step_finished = False

    def called(self, module: nn.Module, call: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """Answer a call of one of the pipe's modules. A call within another call is passed on unchanged."""
        if self._busy:
            return call(*args, **kwargs)
        self._busy = True
        try:
            if self._step_finished:
                self.forget_step()
            return self._answer(module, lambda arguments: call(*arguments[0], **arguments[1]), (args, kwargs))
        finally:
            self._busy = False

    def _answer(self, module: nn.Module, ask: Callable[[Arguments], Any], arguments: Arguments) -> Any:
        """Answer a call with detail if it begins or follows in a step. Else pass it on, and record it.

        Args:
            ask: calls the module.
            arguments: those of the call.
        """
        parts, learned = parts_of(arguments), self._learned
        forms = [] if learned is None else [form for form in learned.forms if form.fits(class_of(module), parts)]
        if learned is not None and forms:
            copies = forms[0].sample.read(parts)
            sample = copies[forms[0].cond_index(len(copies))]
            kind, step = self._kind_of(learned, forms[0], parts, sample)
            if kind in (CallKind.BEGINS, CallKind.FOLLOWS):
                self._model_state.watch(module)
                call = ModelCall(learned, forms[0], arguments, parts, step, ask, self._model_state)
                return call.answer(self._follow(call) if kind is CallKind.FOLLOWS else self._begin(call, sample, step))
            self._foreign_calls += 1
            self.outcome = "after the first step, no call of the model showed the scheduler's sample at a time to come"
        answer = ask(rebuilt(arguments, {}))
        self._recorded.append(RecordedCall(module, parts, parts_of(answer)))
        return answer

    def _kind_of(self, learned: LearnedRun, form: CallForm, parts: Parts, sample: Tensor) -> tuple[CallKind, int]:
        """The kind of a call, and the index of the step that it belongs to (-1 for none)."""
        noise = learned.noise
        if self._first is not None:
            first = self._first[0]
            follows = sample.shape == first.shape and bool(equal(thinned(sample, 4096), thinned(first, 4096)).all())
            return (CallKind.FOLLOWS if follows else CallKind.OTHER_LATENT), self._step
        step = next_step(noise.times, form.times, parts, self._step)
        if step is None:
            return CallKind.OTHER_TIME, -1
        expected = model_input(self._pipe.scheduler, self._latest_sample, step)
        share, correlation = compared(sample, expected)
        # In bfloat16, one value in a hundred of latents that are alike is equal by chance.
        is_shown = share > max(LEAST_EQUAL, 2.5 * torch.finfo(sample.dtype).eps)
        is_turn = self._foreign_calls == learned.calls_before
        if not is_shown and not (is_turn and correlation > CORRELATION):
            return CallKind.OTHER_LATENT, -1
        form.times = telling(form.times, parts, noise.times[step])
        return CallKind.BEGINS, step

    def _begin(self, call: ModelCall, sample: Tensor, step: int) -> Output:
        """Begin a step. The first one makes the detailer, with the noise levels from there on."""
        if self.detailer is None:
            assert self._noise is not None
            levels = list(dict.fromkeys([*self._noise.sigmas[step:], 0.0]))
            window = self._noise.window(self._settings.start, self._settings.end)
            self.detailer = Detailer(self._settings, levels, self._noise.family, window=window, **self._options)
            self.detailer.report, self.detailer.masks = self.report, self.masks
        output = self.detailer.step(call.evaluate, call.x, call.sigma)
        self._step, self._first = step, (sample, output)
        return output

    def _follow(self, call: ModelCall) -> Output:
        """Answer a further call of the current step."""
        assert self.detailer is not None
        assert self._first is not None
        return self.detailer.again(call.evaluate, call.x, call.sigma, self._first[1])

    def timed(self, _: Any, call: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """Pass on a call of the scheduler's ``set_timesteps``. The next step begins a run."""
        if not self._busy:
            self._forget_learned()
            self.forget_step()
        return call(*args, **kwargs)

    def stepped(self, scheduler: Any, step: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """Pass on a call of the scheduler's ``step``. If no call has begun this step, learn from its calls first.

        If the settings are idle, the calls are only counted.
        """
        if self._recorded and self.state is not State.IN_STEP:
            if self._run_begins:
                self._begin_run()
            try:
                calls = 0 if self._settings.idle else self._learn_from(scheduler, args, kwargs)
            except ValueError as error:
                # Refused at the first step, or if the scheduler steps again without a call. A later step stays plain.
                if self.state is State.LEARNING or self._step_finished:
                    name = type(self._pipe).__name__
                    raise ValueError(f"Selective Sigma cannot work with {name}: {error}") from None
                calls = 0
            kinds = [class_of(call.module) for call in self._recorded]
            # If nothing was learned, the module called last is the model.
            calls = calls or kinds.count(kinds[-1])
            self.report.steps += calls
            self.report.plain += calls
            self.report.skip(Reason.IDLE if self._settings.idle else Reason.LEARNING)
        result = step(*args, **kwargs)
        self._latest_sample = result[0] if isinstance(result, tuple) else getattr(result, "prev_sample", None)
        self._step_finished = True
        return result

    def _learn_from(self, scheduler: Any, args: Any, kwargs: Any) -> int:
        """Learn from the calls of a step that stayed plain.

        Args:
            args, kwargs: those that the scheduler's ``step`` is called with.

        Returns:
            The number of calls that the scheduler's prediction is made of; 0 if nothing can be learned.

        Raises:
            ValueError: the step does not fit. The message says why.
        """
        step = SchedulerStep.of(scheduler, args, kwargs)
        # Made before the scheduler's first step: ``Noise`` needs one that has not stepped.
        self._noise = self._noise or Noise(scheduler)
        times = self._noise.times
        was_last = self._step == len(times) - 1
        if was_last and index_of(times, step.time) < self._step:
            # The timesteps start over without having been set.
            self._begin_run()
        learned = learn(self._pipe, self._noise, step, self._recorded)
        if learned is None:
            self.outcome = "the sample or the model's answers were all zero, or not finite"
            return 0
        if learned.answers_more and self._settings.constant_mask == 1.0:
            raise ValueError(
                "its model answers for more than the picture (such as sound), which is wrong in a lied call: "
                "give coverage below 1"
            )
        # Checked here, since the first step with detail may come late.
        for name in ("limit", "within"):
            if self._options[name] is not None:
                check_fits(name, self._options[name], learned.layout.to_core(step.sample).shape)
        if self._learned is None:
            self.outcome = "after the first step, which stays plain, the model was not called in the same form"
        self._step = index_of(times, step.time, self._step)
        calls = len(learned.forms)
        # The forms that were learned before come after the new ones, which are preferred.
        learned.forms = (learned.forms + (self._learned.forms if self._learned else []))[:MOST_FORMS]
        self._learned = learned
        return calls
