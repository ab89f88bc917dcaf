"""Learns from one step of a pipeline what it does between its model and its scheduler.

At the end of a step, the model's calls (arguments and answers) and the arguments of the scheduler's ``step`` (a
prediction, a time, a sample) are known. By comparing values, ``learn`` finds where the sample is in the calls, which
arguments tell the time, and with which weights the answers sum to the prediction. No pipeline is known by name.
"""

from __future__ import annotations

import inspect
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from .attach import class_of
from .evaluate import CallForm, LearnedRun, modes_of
from .layout import learn_layout
from .slots import answer_slots, find_slot, thinned
from .times import find_times, index_of

if TYPE_CHECKING:
    from .noise import Noise
    from .slots import Parts, SampleSlot

MOST_SLOTS = 8
"""Number of slots at which the prediction is sought, over all tensors of an answer."""


class RecordedCall(NamedTuple):
    """One call of a module."""

    module: Any
    arguments: Parts
    answer: Parts


class SchedulerStep(NamedTuple):
    """The arguments of a scheduler's ``step``."""

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
            raise ValueError("its scheduler steps several noise levels at once")
        return cls(bound["model_output"], float(time), bound["sample"])


def learn(pipe: Any, noise: Noise, step: SchedulerStep, recorded: list[RecordedCall]) -> LearnedRun | None:
    """Learn how the sample passes through a step.

    Args:
        recorded: all calls of the pipeline's parts in this step.

    Returns:
        None if the sample or the model's answers are all zero or not finite.

    Raises:
        ValueError: the step does not fit. The message says why, in one line.
    """
    if not all(bool(values.isfinite().all()) for values in (step.sample, step.prediction)) or not step.sample.any():
        return None
    index = index_of(noise.times, step.time)
    scaled = model_input(pipe.scheduler, step.sample, index)
    factor = float(_norm(scaled) / _norm(step.sample).clamp(min=1e-12))
    if abs(factor - 1) > 0.02 and abs(factor * noise.sample_std(index) - 1) > 0.02:
        raise ValueError(f"{type(pipe.scheduler).__name__} scales the model's input by a rule of its own")
    matches = [(call, slot) for call in recorded if (slot := find_slot(scaled, call.arguments))]
    if not matches:
        if scaled is not step.sample and any(find_slot(step.sample, call.arguments) for call in recorded):
            raise ValueError("the model gets the sample without its scheduler's scale_model_input")
        raise ValueError("the scheduler's sample is not found among what the model is given")
    fits = [fit for choice in range(MOST_SLOTS) if (fit := _weigh(step, matches, choice))]
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
        return learn(pipe, noise, step._replace(sample=step.sample[:half], prediction=step.prediction[:half]), recorded)
    _refuse_unfit(fit, step)
    forms: list[CallForm] = []
    for (call, slot), answer, weights in zip(matches, fit.answers, fit.weights, strict=True):
        # A ControlNet gets the sample too, but its answers have no weight in the prediction.
        if answer is None or not any(weights):
            continue
        times = find_times(call.arguments, step.time, noise.max_time, noise.slack)
        if not times:
            raise ValueError("no argument of the model tells the scheduler's time, as it is, as a share or reversed")
        shares = [weight / fit.total for weight in weights]
        forms.append(CallForm(class_of(call.module), modes_of(call.arguments), slot, times, answer, shares))
    first = next(call for call, slot in matches if slot is forms[0].sample)
    # Assumed: the sample begins at 0 on all axes but that of tokens.
    start = max((s.start for s in forms[0].sample.region.slices), default=0)
    layout = learn_layout(pipe, first.module, tuple(step.sample.shape[1:]), first.arguments, start)
    # A pipeline may negate the answer before it gives it to the scheduler.
    sign = noise.sign if fit.total > 0 else -noise.sign
    before = recorded[: next(i for i, call in enumerate(recorded) if call is first)]
    calls_before = sum(any(form.fits(class_of(call.module), call.arguments) for form in forms) for call in before)
    path = forms[0].answer.path
    others = (part for place, part in first.answer.items() if place[: len(path)] != path and isinstance(part, Tensor))
    return LearnedRun(noise, layout, sign, forms, calls_before, any(part.ndim > 1 for part in others))


def model_input(scheduler: Any, sample: Any, index: int) -> Any:
    """The sample of a step as the model gets it: scaled by the scheduler's ``scale_model_input``, if it has one."""
    scale = getattr(scheduler, "scale_model_input", None)
    return scale(sample, scheduler.timesteps[index]) if scale and isinstance(sample, Tensor) else sample


def _norm(values: Tensor) -> Tensor:
    # On the CPU, since some devices have no float64.
    return values.detach().cpu().double().norm()


class _WeightedSum(NamedTuple):
    """A scheduler's prediction as a weighted sum of the model's answers to each copy in each call."""

    answers: list[SampleSlot | None]
    weights: list[list[float]]
    total: float
    """Sum of the weights; 0 if all answers are zero, or some are not finite."""
    residual: float
    """Norm of the prediction minus the sum, as a share of the prediction's norm."""


def _weigh(step: SchedulerStep, matches: list[tuple[RecordedCall, SampleSlot]], choice: int) -> _WeightedSum | None:
    """The best weights, with the ``choice``-th possible slot of each call that has so many; None if none has."""
    answers: list[SampleSlot | None] = []
    copies: list[list[Tensor]] = []
    for call, slot in matches:
        rows = len(slot.read(call.arguments)) * slot.batch
        answers.append(next(islice(answer_slots(call.answer, slot, rows), choice, None), None))
        copies.append([] if answers[-1] is None else answers[-1].read(call.answer))
    if not any(copies):
        return None
    # Further channels of the prediction are a learned variance, which only the scheduler uses (DeepFloyd IF).
    goal = thinned(step.prediction[:, : step.sample.shape[1]], 20_000).double()
    matrix = torch.stack([thinned(copy, 20_000).double() for each in copies for copy in each], 1)
    if not bool(matrix.isfinite().all()):
        return _WeightedSum(answers, [[0.0] * len(each) for each in copies], 0.0, float("inf"))
    # The pseudo-inverse, since cond and uncond may be equal. They then share the weight.
    weights = torch.linalg.pinv(matrix, rtol=1e-9) @ goal
    size = float(goal.norm()) or 1.0
    # Contributions as small as this are rounding errors.
    weights = torch.where(weights.abs() * matrix.norm(dim=0) > 1e-3 * size, weights, 0.0)
    residual = float((goal - matrix @ weights).norm()) / size
    split = [part.tolist() for part in weights.split([len(each) for each in copies])]
    return _WeightedSum(answers, split, float(weights.sum()) if bool(matrix.any()) else 0.0, residual)


def _refuse_unfit(fit: _WeightedSum, step: SchedulerStep) -> None:
    """Raise ``ValueError`` unless the prediction is near a weighted sum of the answers, with a sum of weights near 1.

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
