"""Learns from one step of a pipeline what it does between its model and its scheduler.

At the end of a step, the model's calls (arguments and answers) and the arguments of the scheduler's ``step`` (a
prediction, a time, a sample) are known. By comparing values, ``learn_stream`` finds where the sample is in the calls,
which arguments tell the time, and with which weights the answers sum to the prediction. No pipeline is known by name.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from ..mask import check_fits
from .attach import class_of
from .evaluate import CallForm, LearnedStream, modes_of
from .layout import learn_layout
from .noise import Noise
from .slots import answer_slots, find_slot, thinned
from .times import find_times, nearest

if TYPE_CHECKING:
    from torch import Tensor

    from .slots import Arguments, SampleSlot

MOST_SLOTS = 8
"""Number of places at which the prediction is sought in an answer: at either end of up to three axes."""
SEVERAL_LEVELS = "its scheduler steps several noise levels at once"


class RecordedCall(NamedTuple):
    """One call of a module."""

    module: Any
    arguments: Arguments
    answer: Any


class SchedulerStep(NamedTuple):
    """The arguments of a scheduler's ``step``."""

    scheduler: Any
    prediction: Tensor
    time: float
    sample: Tensor

    @classmethod
    def of(cls, scheduler: Any, args: Any, kwargs: Any) -> SchedulerStep:
        """Raises ``ValueError`` if ``step`` takes other arguments, or is called for several noise levels."""
        try:
            # The class's own ``step``: a wrapper on the object may take any arguments.
            bound = inspect.signature(type(scheduler).step).bind(scheduler, *args, **kwargs).arguments
        except (AttributeError, TypeError):
            bound = {}
        if any(name not in bound for name in ("model_output", "timestep", "sample")):
            raise ValueError("its scheduler's step does not take model_output, timestep and sample")
        time = torch.as_tensor(bound["timestep"]).detach().cpu().double()
        if time.numel() != 1:
            raise ValueError(SEVERAL_LEVELS)
        return cls(scheduler, bound["model_output"], float(time), bound["sample"])


class Learner:
    """Learns the streams of a run: from its first step, and from later steps whose calls have another form."""

    def __init__(self, pipe: Any, scheduler: Any, options: dict[str, Any]):
        self._pipe, self._scheduler, self._options = pipe, scheduler, options
        self._noises: dict[int, Noise] = {}
        self.streams: list[LearnedStream] = []
        """The streams learned from the current step."""
        self.outcome = "the scheduler's step was not called"
        """Why the run got no detail. Valid only if it got none."""

    def learn(self, step: SchedulerStep, recorded: list[RecordedCall]) -> LearnedStream | None:
        """Learn one more stream of the step; None if nothing can be learned from it.

        Args:
            recorded: all calls of the pipeline's parts in this step.

        Raises:
            ValueError: the step does not fit. The message says why, in one line.
        """
        key = id(step.scheduler)
        # Made once, before the scheduler's first step: ``Noise`` needs one that has not stepped.
        noise = self._noises[key] = self._noises.get(key) or Noise(step.scheduler)
        if step.scheduler is not self._scheduler and not self.streams:
            # Diffusion forcing: each frame has its own scheduler and its own time.
            raise ValueError(SEVERAL_LEVELS)
        stream = learn_stream(self._pipe, noise, step, recorded)
        if stream is None:
            self.outcome = "the sample or the model's answers were all zero, or not finite"
            return None
        if self.streams and noise.times != self.streams[0].noise.times:
            raise ValueError("its streams keep different schedules")
        self.outcome = "the run was over after its first step, which stays plain"
        # Checked here, since the first step with detail may come late.
        for name in ("limit", "within") if not self.streams else ():
            if self._options[name] is not None:
                check_fits(name, self._options[name], stream.layout.to_core(step.sample).shape)
        self.streams.append(stream)
        return stream


def learn_stream(pipe: Any, noise: Noise, step: SchedulerStep, recorded: list[RecordedCall]) -> LearnedStream | None:
    """Learn how one sample passes through a step.

    Returns:
        None if the sample or the model's answers are all zero or not finite.

    Raises:
        ValueError: the step does not fit. The message says why, in one line.
    """
    if not all(bool(values.isfinite().all()) for values in (step.sample, step.prediction)) or not step.sample.any():
        return None
    model_input = _model_input(step, noise)
    matches: list[tuple[RecordedCall, SampleSlot]] = []
    for call in recorded:
        slot = find_slot(model_input, call.arguments)
        if slot is not None:
            matches.append((call, slot))
        elif model_input is not step.sample and find_slot(step.sample, call.arguments) is not None:
            raise ValueError("the model gets the sample without its scheduler's scale_model_input")
    if not matches:
        raise ValueError("the scheduler's sample is not found among what the model is given")
    fits = [fit for fit in (_weigh(step, matches, choice) for choice in range(MOST_SLOTS)) if fit is not None]
    if not fits:
        raise ValueError("the model's answers do not have the shape of the scheduler's sample")
    fit = min(fits, key=lambda fit: fit.residual)
    if fit.total == 0:
        return None
    half, channels = len(step.sample) // 2, step.sample.shape[1]
    if fit.residual > 1e-3 and all(
        2 * half == len(v) and torch.equal(v[:half, :channels], v[half:, :channels])
        for v in (step.sample, step.prediction)
    ):
        # DiT's scheduler steps both copies of guidance, which are equal. Learn from the first of them.
        first_copy = step._replace(sample=step.sample[:half], prediction=step.prediction[:half])
        return learn_stream(pipe, noise, first_copy, recorded)
    _check(fit, step)
    forms: list[CallForm] = []
    layout, first = None, 0
    for (call, slot), answer, weights in zip(matches, fit.answers, fit.weights, strict=True):
        # A ControlNet gets the sample too, but its answers have no weight in the prediction.
        if answer is None or not any(weights):
            continue
        if layout is None:
            # The sample begins at 0 on all axes but that of tokens.
            start = max(slot.region.start, default=0)
            layout = learn_layout(pipe, call.module, tuple(step.sample.shape[1:]), call.arguments, start)
            first = next(i for i, each in enumerate(recorded) if each is call)
        times = find_times(call.arguments, step.time, noise.max_time, noise.slack)
        if not times:
            raise ValueError("no argument of the model tells the scheduler's time, as it is, as a share or reversed")
        shares = [weight / fit.total for weight in weights]
        forms.append(CallForm(class_of(call.module), modes_of(call.arguments), slot, times, answer, shares))
    assert layout is not None
    # A pipeline may negate the answer before it gives it to the scheduler.
    sign = noise.sign if fit.total > 0 else -noise.sign
    before = recorded[:first]
    calls_before = sum(any(form.fits(class_of(call.module), call.arguments) for form in forms) for call in before)
    return LearnedStream(step.scheduler, noise, layout, sign, forms, calls_before)


def _model_input(step: SchedulerStep, noise: Noise) -> Tensor:
    """The sample as the model gets it: unchanged, or scaled by the scheduler's ``scale_model_input``.

    Raises:
        ValueError: the scale is neither 1 nor 1 / ``Noise.sample_std``.
    """
    scale = getattr(step.scheduler, "scale_model_input", None)
    if scale is None:
        return step.sample
    index = nearest(noise.times, step.time)
    scaled = scale(step.sample, step.scheduler.timesteps[index])
    factor = float(_norm(scaled) / _norm(step.sample).clamp(min=1e-12))
    if abs(factor - 1) > 0.02 and abs(factor * noise.sample_std(index) - 1) > 0.02:
        raise ValueError(f"{type(step.scheduler).__name__} scales the model's input by a rule of its own")
    return scaled


def _norm(values: Tensor) -> Tensor:
    # On the CPU, since some devices have no float64.
    return values.detach().cpu().double().norm()


class _WeightedSum(NamedTuple):
    """A scheduler's prediction as a weighted sum of the model's answers to each copy in each call."""

    answers: list[SampleSlot | None]
    weights: list[list[float]]
    total: float
    """Sum of the weights."""
    residual: float
    """Norm of the prediction minus the sum, as a share of the prediction's norm."""


def _weigh(step: SchedulerStep, matches: list[tuple[RecordedCall, SampleSlot]], choice: int) -> _WeightedSum | None:
    """The best weights if each call has its answer in the ``choice``-th possible slot; None if no call has so many."""
    answers: list[SampleSlot | None] = []
    copies: list[list[Tensor]] = []
    for call, slot in matches:
        rows = len(slot.read(call.arguments)) * slot.batch
        possible = list(answer_slots(call.answer, slot, rows))
        answer = possible[choice] if choice < len(possible) else None
        answers.append(answer)
        copies.append([] if answer is None else answer.read(call.answer))
    if not any(copies):
        return None
    goal = step.prediction
    if goal.ndim > 1 and goal.shape[1] > step.sample.shape[1]:
        # The other channels are a learned variance, which only the scheduler uses (DeepFloyd IF).
        goal = goal[:, : step.sample.shape[1]]
    goal = thinned(goal, 20_000).double()
    columns = [thinned(copy, 20_000).double() for each in copies for copy in each]
    if not all(bool(column.isfinite().all()) for column in columns):
        return _WeightedSum(answers, [[0.0] * len(each) for each in copies], 0.0, float("inf"))
    weights, residual = _least_squares(columns, goal)
    silent = not any(bool(column.any()) for column in columns)
    rest = iter(weights)
    split = [[next(rest) for _ in each] for each in copies]
    return _WeightedSum(answers, split, 0.0 if silent else sum(weights), residual)


def _least_squares(columns: list[Tensor], goal: Tensor) -> tuple[list[float], float]:
    """Weights of the columns, and the norm of the residual as a share of the goal's norm."""
    matrix = torch.stack(columns, 1)
    # The pseudo-inverse, since cond and uncond may be equal. They then share the weight.
    weights = torch.linalg.pinv(matrix, rtol=1e-9) @ goal
    size = float(goal.norm()) or 1.0
    # Contributions as small as this are rounding errors.
    weights = torch.where(weights.abs() * matrix.norm(dim=0) > 1e-3 * size, weights, 0.0)
    return weights.tolist(), float((goal - matrix @ weights).norm()) / size


def _check(fit: _WeightedSum, step: SchedulerStep) -> None:
    """Raise ``ValueError`` if the prediction is nothing like a weighted sum of the answers.

    A residual is accepted up to 0.9, since some guidance is not linear (APG, guidance_rescale of each sample).
    """
    coarse = 20 * max(torch.finfo(t.dtype).eps for t in (step.prediction, step.sample))
    copies = sum(len(weights) for weights in fit.weights)
    total = abs(fit.total)
    if fit.residual <= max(coarse, 1e-3):
        # Guidance may be followed by a rescaling (guidance_rescale).
        if abs(total - 1) > 0.02 and not (copies > 1 and 0.1 < total < 10):
            raise ValueError(f"the pipeline scales the model's answer by {fit.total:.3g} before its scheduler has it")
    elif fit.residual > 0.9 or not 0.1 < total < 10:
        raise ValueError("the pipeline makes something else of the model's answers than a weighted sum")
