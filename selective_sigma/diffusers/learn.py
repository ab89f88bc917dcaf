"""What a pipeline does between its model and its scheduler, learned from one step of it.

At the end of a step there are the model's calls (arguments and answers) and the arguments of the scheduler's ``step``
(a prediction, a time, a sample). Where the sample sits in the calls, which arguments tell the time, and how the
answers make up the prediction, is found by value: no pipeline is known by name.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from ..mask import check_fits
from .attach import class_of
from .evaluate import AuxCall, DenoiserCall, Stream, modes_of
from .layout import learn_layout
from .noise import Noise
from .slots import answer_slots, find_slot
from .times import find_times, nearest

if TYPE_CHECKING:
    from torch import Tensor

    from .evaluate import RecordedCall
    from .slots import SampleSlot

SEVERAL_LEVELS = "its scheduler steps several noise levels at once"


class SchedulerStep(NamedTuple):
    """What a scheduler's ``step`` is called with."""

    scheduler: Any
    prediction: Tensor
    time: float
    sample: Tensor

    @classmethod
    def of(cls, scheduler: Any, args: Any, kwargs: Any) -> SchedulerStep:
        """Raises ``ValueError`` where ``step`` takes other arguments, or is called for several noise levels."""
        try:
            # As the class has it, since what somebody put in its place may take anything.
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
    """Learns the streams of one run's first step, and of later ones that are made another way."""

    def __init__(self, pipe: Any, scheduler: Any, maps: dict[str, Any]):
        self._pipe, self._scheduler, self._maps = pipe, scheduler, maps
        self._noises: dict[int, Noise] = {}
        self.streams: list[Stream] = []
        """Of the step at hand."""
        self.outcome = "the scheduler's step was not called"
        """Why a run got no detail, if it did not."""

    def learn(self, step: SchedulerStep, recorded: list[RecordedCall]) -> Stream | None:
        """One more stream of the step; None where the step tells nothing.

        Args:
            recorded: all calls of the pipeline's parts in this step.

        Raises:
            ValueError: in one line, what does not fit.
        """
        key = id(step.scheduler)
        # From before its first step, on which a multistep scheduler's later ones depend.
        noise = self._noises[key] = self._noises.get(key) or Noise(step.scheduler)
        if step.scheduler is not self._scheduler and not self.streams:
            # Diffusion forcing: each frame has a scheduler, and a time, of its own.
            raise ValueError(SEVERAL_LEVELS)
        stream = learn_stream(self._pipe, noise, step, recorded)
        if stream is None:
            self.outcome = "the sample or the model's answers were all zero, or not finite"
            return None
        if self.streams and noise.times != self.streams[0].noise.times:
            raise ValueError("its streams keep different schedules")
        self.outcome = "the run was over after its first step, which stays plain"
        # Now, and not at the first step with detail, which may come late.
        for name in ("limit", "within") if not self.streams else ():
            if self._maps[name] is not None:
                check_fits(name, self._maps[name], stream.layout.core(step.sample).shape)
        self.streams.append(stream)
        return stream


def learn_stream(pipe: Any, noise: Noise, step: SchedulerStep, recorded: list[RecordedCall]) -> Stream | None:
    """Learn how one sample passes through a step.

    Returns:
        None where the step tells nothing: the sample or the model's answers are all zero, or not finite.

    Raises:
        ValueError: in one line, what does not fit.
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
            raise ValueError("the model is shown the sample without its scheduler's scale_model_input")
    if not matches:
        raise ValueError("the scheduler's sample is not found among what the model is given")
    fits = [fit for fit in (_fit(step, matches, choice) for choice in range(8)) if fit is not None]
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
        # DiT's scheduler steps both copies of guidance: they are one sample, with answers to two.
        one = step._replace(sample=step.sample[:half], prediction=step.prediction[:half])
        return learn_stream(pipe, noise, one, recorded)
    _check(fit, step)
    calls: list[DenoiserCall] = []
    aux: list[AuxCall] = []
    layout, first = None, 0
    for (call, slot), answer, weights in zip(matches, fit.answers, fit.weights, strict=True):
        times = find_times(call.arguments, step.time, noise.count, noise.slack)
        kind, modes = class_of(call.module), modes_of(call.arguments)
        # A ControlNet's answers may have the right shape too, but the scheduler does not get them.
        if answer is None or not any(weights):
            aux.append(AuxCall(kind, modes, slot, times))
            continue
        if layout is None:
            start = max(slot.region.start, default=0)
            layout = learn_layout(pipe, call.module, tuple(step.sample.shape[1:]), call.arguments, start)
            first = next(i for i, each in enumerate(recorded) if each is call)
        if not times:
            raise ValueError("no argument of the model tells the scheduler's time, as it is, as a share or reversed")
        shares = [weight / fit.total for weight in weights]
        calls.append(DenoiserCall(kind, modes, slot, times, answer, shares))
    assert layout is not None
    # A pipeline may negate the answer before its scheduler has it.
    sign = noise.sign if fit.total > 0 else -noise.sign
    turn = sum(any(known.fits(class_of(call.module), call.arguments) for known in calls) for call in recorded[:first])
    return Stream(step.scheduler, noise, layout, sign, calls, aux, turn)


def _model_input(step: SchedulerStep, noise: Noise) -> Tensor:
    """The sample as a model is shown it: as it is, or at the variance that ``noise`` counts on."""
    scale = getattr(step.scheduler, "scale_model_input", None)
    if scale is None:
        return step.sample
    index = nearest(noise.times, step.time)
    scaled = scale(step.sample, step.scheduler.timesteps[index])
    factor = float(_norm(scaled) / _norm(step.sample).clamp(min=1e-12))
    if abs(factor - 1) > 0.02 and abs(factor * noise.unit(index) - 1) > 0.02:
        raise ValueError(f"{type(step.scheduler).__name__} scales what the model is shown by a rule of its own")
    return scaled


def _norm(values: Tensor) -> Tensor:
    # On the CPU, as some devices have no float64.
    return values.detach().cpu().double().norm()


class _Fit(NamedTuple):
    """A scheduler's prediction as a weighted sum of the model's answers, to each copy in each call."""

    answers: list[SampleSlot | None]
    weights: list[list[float]]
    total: float
    """Sum of the weights."""
    residual: float
    """What the sum leaves, as a share of the prediction."""


def _fit(step: SchedulerStep, matches: list[tuple[RecordedCall, SampleSlot]], choice: int) -> _Fit | None:
    """The best weights where each call answers at its ``choice``-th possible place; None where none has one."""
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
    thin = slice(None, None, max(1, step.sample.numel() // 20_000))
    goal = step.prediction
    if goal.ndim > 1 and goal.shape[1] > step.sample.shape[1]:
        # A learned variance behind it, which is the scheduler's affair (DeepFloyd IF).
        goal = goal[:, : step.sample.shape[1]]
    goal = goal.detach().flatten()[thin].cpu().double()
    columns = [copy.detach().flatten()[thin].cpu().double() for each in copies for copy in each]
    if not all(bool(column.isfinite().all()) for column in columns):
        return _Fit(answers, [[0.0] * len(each) for each in copies], 0.0, float("inf"))
    weights, residual = _least_squares(columns, goal)
    silent = not any(bool(column.any()) for column in columns)
    rest = iter(weights)
    split = [[next(rest) for _ in each] for each in copies]
    return _Fit(answers, split, 0.0 if silent else sum(weights), residual)


def _least_squares(columns: list[Tensor], goal: Tensor) -> tuple[list[float], float]:
    """Weights of the columns, and the norm of what they leave as a share of the goal's."""
    matrix = torch.stack(columns, 1)
    # By pseudo-inverse: cond and uncond may be equal, and then share the weight.
    weights = torch.linalg.pinv(matrix, rtol=1e-9) @ goal
    size = float(goal.norm()) or 1.0
    # What adds next to nothing is rounding.
    weights = torch.where(weights.abs() * matrix.norm(dim=0) > 1e-3 * size, weights, 0.0)
    return weights.tolist(), float((goal - matrix @ weights).norm()) / size


def _check(fit: _Fit, step: SchedulerStep) -> None:
    """Raise ``ValueError`` for pipelines that do more with the model's answers than to sum them up for guidance."""
    coarse = 20 * max(torch.finfo(t.dtype).eps for t in (step.prediction, step.sample))
    copies = sum(len(weights) for weights in fit.weights)
    total = abs(fit.total)
    if fit.residual <= max(coarse, 1e-3):
        # Guidance may be followed by a rescaling of the whole.
        if abs(total - 1) > 0.02 and not (copies > 1 and 0.1 < total < 10):
            raise ValueError(f"the pipeline scales the model's answer by {fit.total:.3g} before its scheduler has it")
    elif fit.residual > 0.9 or not 0.1 < total < 10:
        raise ValueError("the pipeline makes something else of the model's answers than a weighted sum")
