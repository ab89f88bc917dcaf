"""What a pipeline does between its model and its scheduler, learned from one step of it.

At the end of a step there are the model's calls (arguments and answers) and what the scheduler is
given (a prediction, a time, a sample). Where the sample sits in the calls, and how the answers
make up the prediction, is found by value: no pipeline is known by name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from ..mask import check_fits
from . import layout, slots, times
from .noise import Noise
from .streams import AuxCall, DenoiserCall, RecordedCall, SchedulerStep, Stream, kind_of, modes_of

if TYPE_CHECKING:
    from torch import Tensor

    from .slots import SampleSlot


class Learner:
    """Learns the streams of one run's first step, and of later ones that are made another way."""

    def __init__(self, pipe: Any, scheduler: Any, maps: dict[str, Any]):
        self._pipe, self._scheduler, self._maps = pipe, scheduler, maps
        self._noises: dict[int, Noise] = {}
        self.shifts: dict[int, float | None] = {}
        """What each scheduler's dynamic shift was set with, by the scheduler's id."""
        self.streams: list[Stream] = []
        """Of the step at hand; those of a pipeline with sound are two."""
        self.outcome = "the scheduler's step was not called"
        """Why a run got no detail, if it did not."""

    def stream(self, scheduler: Any, given: dict[str, Any], recorded: list[RecordedCall]) -> Stream | None:
        """One more stream of the step; None where the step tells nothing.

        Args:
            given: what the scheduler's ``step`` is called with, by name.
            recorded: all calls of the pipeline's parts in this step.

        Raises:
            ValueError: in one line, what does not fit.
        """
        # From before its first step: a multistep scheduler's later ones depend on that.
        noise = self._noises.get(id(scheduler)) or Noise(scheduler, self.shifts.get(id(scheduler)))
        self._noises[id(scheduler)] = noise
        step = noise.step(scheduler, given)
        if step is None or (scheduler is not self._scheduler and not self.streams):
            # Diffusion forcing: each frame has a scheduler, and a time, of its own.
            raise ValueError("its scheduler steps several noise levels at once")
        found = stream(self._pipe, noise, step, recorded)
        if found is None:
            self.outcome = "the sample or the model's answers were all zero, or not finite"
            return None
        if self.streams and noise.times != self.streams[0].noise.times:
            raise ValueError("its streams keep different schedules")
        self.outcome = "the run was over after its first step, which stays plain"
        # Now, not at the first step with detail, which may come late.
        for name in ("limit", "within") if not self.streams else ():
            if self._maps[name] is not None:
                check_fits(name, self._maps[name], found.layout.core(step.sample).shape)
        self.streams.append(found)
        return found


def stream(pipe: Any, noise: Noise, step: SchedulerStep, recorded: list[RecordedCall]) -> Stream | None:
    """Learn one sample's way through a step.

    None where the step tells nothing: the sample or the model's answers are all zero, or not finite.

    Raises:
        ValueError: in one line, what does not fit.
    """
    if not all(bool(values.isfinite().all()) for values in (step.sample, step.prediction)) or not step.sample.any():
        return None
    scaled = _scaled(step, noise)
    matches: list[tuple[RecordedCall, SampleSlot]] = []
    for call in recorded:
        slot = slots.find(scaled, call.arguments)
        if slot is None and scaled is not step.sample and slots.find(step.sample, call.arguments) is not None:
            raise ValueError("the model is shown the sample without its scheduler's scale_model_input")
        if slot is not None:
            matches.append((call, slot))
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
        # DiT's scheduler steps both copies of guidance: one sample, and answers of two.
        one = step._replace(sample=step.sample[:half], prediction=step.prediction[:half])
        return stream(pipe, noise, one, recorded)
    _check(fit, step)
    rows = zip(matches, fit.answers, fit.weights, strict=True)
    (first, slot), answer = next((row, answer) for row, answer, weights in rows if answer and any(weights))
    start = max(slot.region.start, default=0)
    wide = [each.region.along(each.row) for each in (slot, answer)]
    axes = layout.learn(pipe, first.module, tuple(step.sample.shape[1:]), first.arguments, start, *wide)
    calls: list[DenoiserCall] = []
    aux: list[AuxCall] = []
    for (call, slot), answer, weights in zip(matches, fit.answers, fit.weights, strict=True):
        told = times.find(call.arguments, step.time, noise.count, float(noise.rounded))
        kind, modes = kind_of(call.module), modes_of(call.arguments)
        # A ControlNet's answers may have the right shape too; they are not what the scheduler gets.
        if answer is None or not any(weights):
            aux.append(AuxCall(kind, modes, slot, told))
            continue
        if not told:
            raise ValueError("no argument of the model tells the scheduler's time, as it is, as a share or reversed")
        shares = [weight / fit.total for weight in weights]
        calls.append(DenoiserCall(kind, modes, slot, told, answer.widened(axes.axis), {len(shares): shares}))
    result = Stream(step.scheduler, noise, axes, 1 if fit.total > 0 else -1, calls, aux, 0)
    first_at = next(i for i, call in enumerate(recorded) if call is first)
    result.turn = sum(result.model_call(kind_of(c.module), c.arguments) is not None for c in recorded[:first_at])
    return result


def _scaled(step: SchedulerStep, noise: Noise) -> Tensor:
    """The sample as a model is shown it: as it is, or at the variance that ``predictions`` counts on."""
    scale = getattr(step.scheduler, "scale_model_input", None)
    if scale is None:
        return step.sample
    scaled = scale(step.sample, _nearest(step))
    factor = float(_norm(scaled) / _norm(step.sample).clamp(min=1e-12))
    wanted = 1 / noise.unit(noise.nearest(step.time))
    if abs(factor - 1) > 0.02 and abs(factor / wanted - 1) > 0.02:
        raise ValueError(f"{noise.name} scales what the model is shown by a rule of its own")
    return scaled


def _norm(values: Tensor) -> Tensor:
    # In float64, which some devices do not have.
    return values.detach().cpu().double().norm()


def _nearest(step: SchedulerStep) -> Tensor:
    times = step.scheduler.timesteps
    return times[int((times.cpu().double() - step.time).abs().argmin())]


class _Fit(NamedTuple):
    """``prediction`` as a sum of answers: ``weights`` for each copy of each call."""

    answers: list[SampleSlot | None]
    weights: list[list[float]]
    total: float
    residual: float


def _fit(step: SchedulerStep, matches: list[tuple[RecordedCall, SampleSlot]], choice: int) -> _Fit | None:
    """The best weights where each call answers at its ``choice``-th possible place."""
    answers: list[SampleSlot | None] = []
    basis: list[list[Tensor]] = []
    for call, slot in matches:
        rows = len(slot.read(call.arguments)) * slot.batch
        possible = list(slots.outputs(call.answer, slot, rows))
        here = possible[choice] if choice < len(possible) else None
        answers.append(here)
        basis.append([] if here is None else here.read(call.answer))
    if not any(basis):
        return None
    thin = slice(None, None, max(1, step.sample.numel() // 20_000))
    wanted = step.prediction
    if wanted.ndim > 1 and wanted.shape[1] > step.sample.shape[1]:
        # A learned variance behind it, which is the scheduler's affair (DeepFloyd IF).
        wanted = wanted[:, : step.sample.shape[1]]
    wanted = wanted.detach().flatten()[thin].cpu().double()
    columns = [part.detach().flatten()[thin].cpu().double() for parts in basis for part in parts]
    if not all(bool(column.isfinite().all()) for column in columns):
        return _Fit(answers, [[0.0] * len(parts) for parts in basis], 0.0, float("inf"))
    weights, residual = _least_squares(columns, wanted)
    split, at = [], 0
    for parts in basis:
        split.append(weights[at : at + len(parts)])
        at += len(parts)
    silent = not any(bool(column.any()) for column in columns)
    return _Fit(answers, split, 0.0 if silent else sum(weights), residual)


def _least_squares(columns: list[Tensor], wanted: Tensor) -> tuple[list[float], float]:
    matrix = torch.stack(columns, 1)
    # By pseudo-inverse: cond and uncond may be the same, and then share the weight.
    weights = torch.linalg.pinv(matrix, rtol=1e-9) @ wanted
    size = float(wanted.norm()) or 1.0
    # What adds next to nothing is rounding.
    weights = torch.where(weights.abs() * matrix.norm(dim=0) > 1e-3 * size, weights, 0.0)
    return weights.tolist(), float((wanted - matrix @ weights).norm()) / size


def _check(fit: _Fit, step: SchedulerStep) -> None:
    """Refuse pipelines that do more with the model's answers than to sum them up for guidance."""
    coarse = 20 * max(torch.finfo(t.dtype).eps for t in (step.prediction, step.sample))
    parts = sum(len(weights) for weights in fit.weights)
    total = abs(fit.total)
    if fit.residual <= max(coarse, 1e-3):
        # Guidance may be followed by a rescaling of the whole.
        if abs(total - 1) > 0.02 and not (parts > 1 and 0.1 < total < 10):
            raise ValueError(f"the pipeline scales the model's answer by {fit.total:.3g} before its scheduler has it")
    elif fit.residual > 0.9 or not 0.1 < total < 10:
        raise ValueError("the pipeline makes something else of the model's answers than a weighted sum")
