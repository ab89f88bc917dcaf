"""What a pipeline does between its model and its scheduler, learned from one step of it.

At the end of a step there are the model's calls (arguments and answers) and what the scheduler is
given (a prediction, a time, a sample). Where the sample sits in the calls, and how the answers
make up the prediction, is found by value: no pipeline is known by name.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from . import clock, layout, seat, tree

if TYPE_CHECKING:
    from torch import Tensor

    from .layout import Layout
    from .noise import Noise
    from .seat import Seat
    from .tree import Path


Modes = tuple[tuple["Path", str], ...]


class Heard(NamedTuple):
    """One call of a module: ``arguments`` is (args, kwargs)."""

    module: Any
    arguments: Any
    answer: Any


class Step(NamedTuple):
    """What a scheduler was given."""

    scheduler: Any
    prediction: Tensor
    time: float
    sample: Tensor


@dataclass
class Beside:
    """A ControlNet's kind of call: it has the sample and the time, and answers to the model."""

    kind: type
    modes: Modes
    """What it is told in words: to fill a cache, or to use it, are calls of two kinds."""
    shown: Seat
    clocks: list[clock.Clock]

    def fits(self, kind: type, arguments: Any) -> bool:
        return self.kind is kind and self.shown.fits(arguments) and self.modes == modes_of(arguments)


@dataclass
class View(Beside):
    """One kind of call of one kind of model: where it has the sample and where it answers."""

    answer: Seat
    cond: dict[int, int]
    """Which copy of the sample has the condition, by how many there are."""

    @property
    def key(self) -> tuple[Any, ...]:
        return self.kind, self.modes, self.shown.path, self.shown.row

    def conditional(self, parts: int) -> int:
        return self.cond.get(parts, parts - 1)


@dataclass
class Stream:
    """All that is known of one sample: most pipelines have one, those with sound two."""

    scheduler: Any
    noise: Noise
    layout: Layout
    sign: int
    """-1 where the pipeline negates the model's answer."""
    views: list[View]
    beside: list[Beside]

    def view(self, kind: type, arguments: Any) -> View | None:
        """How a call is read; None for a call of another kind than those learned."""
        return next((v for v in self.views if v.fits(kind, arguments)), None)

    def besides(self, kind: type, arguments: Any, time: float) -> Beside | None:
        """How a ControlNet's call is read; None where it does not tell this time."""
        found = next((b for b in self.beside if b.fits(kind, arguments)), None)
        if found is not None:
            found.clocks = [c for c in found.clocks if c.agrees(tree.at(arguments, c.path), time)]
        return found if found is not None and found.clocks else None


def stream(pipe: Any, noise: Noise, step: Step, calls: list[Heard]) -> Stream | None:
    """Learn one sample's way through a step; None where the model said nothing (all zeros, or NaN).

    ``ValueError`` says in one line what does not fit.
    """
    if not all(bool(values.isfinite().all()) for values in (step.sample, step.prediction)):
        return None
    scaled = _shown(step, noise)
    found: list[tuple[Heard, Seat]] = []
    for call in calls:
        where = seat.find(scaled, call.arguments)
        if where is None and scaled is not step.sample and seat.find(step.sample, call.arguments) is not None:
            raise ValueError("the model is shown the sample without its scheduler's scale_model_input")
        if where is not None:
            found.append((call, where))
    if not found:
        raise ValueError("the scheduler's sample is not found among what the model is given")
    fitted = [fit for fit in (_fit(step, found, choice) for choice in range(8)) if fit is not None]
    if not fitted:
        raise ValueError("the model's answers do not have the shape of the scheduler's sample")
    fit = min(fitted, key=lambda fit: fit.residual)
    if fit.total == 0:
        return None
    _check(fit, step)
    rows = zip(found, fit.answers, fit.weights, strict=True)
    (first, shown), answer = next((row, answer) for row, answer, weights in rows if answer and any(weights))
    start = max(shown.place.start, default=0)
    wide = [seat.place.along(seat.row) for seat in (shown, answer)]
    made = layout.learn(pipe, first.module, tuple(step.sample.shape[1:]), first.arguments, start, *wide)
    views: list[View] = []
    beside: list[Beside] = []
    for (call, shown), answer, weights in zip(found, fit.answers, fit.weights, strict=True):
        clocks = clock.find(call.arguments, step.time, noise.count, float(noise.rounded))
        # A ControlNet's answers may have the right shape too; they are not what the scheduler gets.
        if answer is None or not any(weights):
            beside.append(Beside(kind_of(call.module), modes_of(call.arguments), shown, clocks))
            continue
        if not clocks:
            raise ValueError("no argument of the model tells the scheduler's time, as it is, as a share or reversed")
        signed = [w * (1 if fit.total > 0 else -1) for w in weights]
        cond = {len(signed): max(range(len(signed)), key=signed.__getitem__)}
        modes = modes_of(call.arguments)
        views.append(View(kind_of(call.module), modes, shown, clocks, answer.widened(made.axis), cond))
    return Stream(step.scheduler, noise, made, 1 if fit.total > 0 else -1, views, beside)


def kind_of(module: Any) -> type:
    """A module's class, also while it is listened to or compiled."""
    kind = type(getattr(module, "_orig_mod", module))
    return kind.__mro__[1] if "_selective_sigma" in vars(kind) else kind


def modes_of(arguments: Any) -> Modes:
    return tuple((path, leaf) for path, leaf in tree.leaves(arguments) if isinstance(leaf, str))


def _shown(step: Step, noise: Noise) -> Tensor:
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


def _nearest(step: Step) -> Tensor:
    times = step.scheduler.timesteps
    return times[int((times.cpu().double() - step.time).abs().argmin())]


class _Fit(NamedTuple):
    """``prediction`` as a sum of answers: ``weights`` for each copy of each call."""

    answers: list[Seat | None]
    weights: list[list[float]]
    total: float
    residual: float


def _fit(step: Step, found: list[tuple[Heard, Seat]], choice: int) -> _Fit | None:
    """The best weights where each call answers at its ``choice``-th possible place."""
    answers: list[Seat | None] = []
    basis: list[list[Tensor]] = []
    for call, shown in found:
        rows = len(shown.read(call.arguments)) * shown.batch
        possible = list(seat.outputs(call.answer, shown, rows))
        here = possible[choice] if choice < len(possible) else None
        answers.append(here)
        basis.append([] if here is None else here.read(call.answer))
    if not any(basis):
        return None
    thin = slice(None, None, max(1, step.sample.numel() // 100_000))
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


def _check(fit: _Fit, step: Step) -> None:
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
