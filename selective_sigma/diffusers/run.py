"""From a pipeline's model calls and scheduler steps to steps of the core's detailer."""

from __future__ import annotations

import warnings
from contextlib import ExitStack, contextmanager
from enum import Enum
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..detailer import Detailer, MaskRecord
from ..mask import check_fits
from ..report import Reason, Report
from . import attach, learn, state, tree
from .evaluate import ModelCall
from .noise import Noise
from .slots import alike
from .streams import DenoiserCall, RecordedCall, SchedulerStep, Stream, kind_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

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
        modules = components(self._pipe)
        managers = [] if self.settings.idle else [m for module in modules for m in state.caches(module)]
        with ExitStack() as stack:
            # Before anything is forgotten: a run of another thread may be in the midst of it.
            listeners = {"step": self._stepped, "set_timesteps": self._timed}
            try:
                stack.enter_context(attach.methods(scheduler, listeners))
            except (TypeError, ValueError):
                if not self.settings.idle:
                    raise
            self._scheduler, self._managers = scheduler, managers
            self._begin_run()
            stack.enter_context(attach.modules(modules, self._called))
            # What was recorded is large, and not wanted after an error either.
            stack.callback(self._forget)
            yield
        if not self.report.lied and not self._streams and not self.settings.idle:
            warnings.warn(f"Selective Sigma added nothing: {self._why}", stacklevel=3)

    def _begin_run(self) -> None:
        """Forget everything: each run begins alike, whatever was before it."""
        self.report, self.masks = Report(), []
        self._state = State.LEARNING
        self._why = "the scheduler's step was not called"
        self._streams: list[Stream] = []
        self._learned: list[Stream] = []
        """Streams of the step that is being learned; those of a pipeline with sound are two."""
        self._noises: dict[int, Noise] = {}
        self._shifts: dict[int, float | None] = {}
        self._index = -1
        self._alters = False
        """Whether the pipeline gives the model something else than the scheduler's latest sample."""
        self._detailer: Detailer | None = None
        self._traces = state.Traces(getattr(self, "_managers", []))
        self._latest: Any = None
        self._forget()

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
        if self._learned:
            self._streams, self._learned = self._learned, []
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
        index = self._step_of(calls, arguments)
        # What only looks like the sample is not when the run goes back: a preview from the same noise.
        if index is None or (index < self._index and not (same or self._alters)):
            return None
        if index < self._index == len(lead.noise.times) - 1:
            # The timesteps once more, without having been set.
            self._begin_run()
            return None
        self._index = index
        if self._detailer is None:
            levels = list(dict.fromkeys([*lead.noise.sigmas[index:], lead.noise.last]))
            window = lead.noise.window(self.settings.start, self.settings.end)
            self._detailer = Detailer(self.settings, levels, lead.noise.family, window=window, **self._options)
            self._detailer.report, self._detailer.masks = self.report, self.masks
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

    def _step_of(self, calls: list[DenoiserCall], arguments: Any) -> int | None:
        """The scheduler's step that a call belongs to; None where its time is none of the run's, or not certain."""
        noise = self._streams[0].noise
        everything = [argument for call in calls for argument in call.times]
        index = noise.locate(everything, arguments, self._index + 1)
        if index is None:
            return None
        for call in calls:
            call.times = [a for a in call.times if a.agrees(tree.at(arguments, a.path), noise.times[index])]
        certain = all(call.times and all(len(a.agreed) > 1 for a in call.times) for call in calls)
        return index if certain else None

    def _timed(self, scheduler: Any, call: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """The scheduler's timesteps are set: a run begins. What a dynamic shift is set with is kept nowhere else."""
        if scheduler is self._scheduler and not self._busy:
            self._begin_run()
        self._shifts[id(scheduler)] = kwargs.get("mu")
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
        if self._streams and not self._learned:
            if scheduler is not self._scheduler:
                return
            shown = [alike(sample, given.get("sample"))[0] for sample in self._unclaimed]
            if any(shown):
                # Not known for the sample's before: the pipeline changes it on the way to the model.
                self._alters = True
                for stream in self._streams:
                    stream.turn = shown.index(True)
                self._count(sum(shown), Reason.LEARNING)
                return
        try:
            if self._state is State.UNREADABLE:
                raise ValueError
            stream = self._learn(scheduler, given)
        except ValueError as error:
            if not self.settings.idle:
                raise ValueError(f"Selective Sigma cannot work with {type(self._pipe).__name__}: {error}") from None
            self._state = State.UNREADABLE
            stream = None
        if stream is None:
            kinds = [kind_of(call.module) for call in self._recorded]
            largest = max(self._recorded, key=lambda call: sum(p.numel() for p in call.module.parameters()))
            self._count(kinds.count(kind_of(largest.module)), Reason.LEARNING)
            return
        if not self._learned:
            # Plain calls, while it was learned what they are.
            self._count(len(stream.calls), Reason.LEARNING)
        for old in self._streams:
            if old.scheduler is scheduler:
                stream.calls += [call for call in old.calls if all(call.key != new.key for new in stream.calls)]
        self._learned.append(stream)

    def _learn(self, scheduler: Any, given: dict[str, Any]) -> Stream | None:
        if any(name not in given for name in ("model_output", "timestep", "sample")):
            raise ValueError("its scheduler's step does not take model_output, timestep and sample")
        noise = self._noises.get(id(scheduler)) or Noise(scheduler, self._shifts.get(id(scheduler)))
        self._noises[id(scheduler)] = noise
        time = torch.as_tensor(given["timestep"]).detach().cpu().double()
        if time.numel() != 1 or (scheduler is not self._scheduler and not self._learned):
            # Diffusion forcing: each frame has a scheduler, and a time, of its own.
            raise ValueError("its scheduler steps several noise levels at once")
        step = SchedulerStep(scheduler, given["model_output"], float(time), given["sample"])
        stream = learn.stream(self._pipe, noise, step, self._recorded)
        if stream is None:
            self._why = "the sample or the model's answers were all zero, or not finite"
            return None
        if self._learned and noise.times != self._learned[0].noise.times:
            raise ValueError("its streams keep different schedules")
        self._why = "the run was over after its first step, which stays plain"
        if not self._learned:
            # Now, not at the first step with detail, which may come late.
            for name in ("limit", "within"):
                if self._options[name] is not None:
                    check_fits(name, self._options[name], stream.layout.core(step.sample).shape)
            self._index = noise.nearest(step.time)
        return stream

    def _count(self, calls: int, reason: Reason) -> None:
        """Plain calls that the detailer was not asked about."""
        self.report.steps += calls
        self.report.plain += calls
        self.report.skip(Reason.IDLE if self.settings.idle else reason)


def components(pipe: Any) -> list[nn.Module]:
    """The modules that a pipeline, or anything with modules for attributes, is made of."""
    parts = getattr(pipe, "components", None)
    values = (parts if isinstance(parts, dict) else vars(pipe)).values()
    return list({id(value): value for value in values if isinstance(value, nn.Module)}.values())
