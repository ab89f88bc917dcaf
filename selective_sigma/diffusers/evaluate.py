"""One call of a pipeline's model as the core evaluates it: at the true noise level, and with the lie.

In the lied call the model gets another sample and another time (``_LiedInput``). ControlNets are called once more, with
the same sample and time (``_aux_answers``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from ..prediction import Call, Latent, Output, Prediction, streams
from .attach import class_of
from .noise import input_scale, output_weights, to_denoised, to_output
from .slots import UncertainRowsError, at, leaves, rebuilt, selected

if TYPE_CHECKING:
    from collections.abc import Callable

    from .attach import Traces
    from .layout import Layout
    from .noise import Noise
    from .slots import Path, SampleSlot
    from .times import TimeArgument

Modes = tuple[tuple["Path", str], ...]


class RecordedCall(NamedTuple):
    """One call of a module: ``arguments`` is (args, kwargs)."""

    module: Any
    arguments: Any
    answer: Any


@dataclass
class AuxCall:
    """The form of a ControlNet's calls: they have the sample and the time, and the model gets their answers."""

    kind: type
    """The class of the module."""
    modes: Modes
    """The strings among the arguments. By them, a call that fills a cache differs from one that uses it."""
    sample: SampleSlot
    """Where the sample is among the arguments."""
    times: list[TimeArgument]
    """The arguments that tell the time."""

    def fits(self, kind: type, arguments: Any) -> bool:
        return self.kind is kind and self.sample.fits(arguments) and self.modes == modes_of(arguments)


@dataclass
class DenoiserCall(AuxCall):
    """The form of the model's calls. The scheduler gets a sum of their answers."""

    answer: SampleSlot
    """Where the prediction is in the answer."""
    weights: list[float]
    """For each copy of the sample: the weight of the answer to it in the guided prediction."""

    @property
    def key(self) -> tuple[Any, ...]:
        return self.kind, self.modes, self.sample.path, self.sample.row

    def guidance(self, copies: int) -> list[float] | None:
        """Weights of the copies in the guided prediction; None for one copy, or another number than was learned."""
        return self.weights if 1 < copies == len(self.weights) else None

    def positive(self, copies: int) -> int:
        """Index of the copy with the condition: the one of most weight, and of equals the last."""
        weights = self.weights if copies == len(self.weights) else [0.0] * copies
        return max(range(copies), key=lambda i: (round(weights[i], 6), i))


@dataclass
class Stream:
    """All that is learned about one sample. Most pipelines have one sample, those with sound have two."""

    scheduler: Any
    noise: Noise
    layout: Layout
    sign: int
    """-1 where the model's answer is the negative of ``noise.prediction``."""
    calls: list[DenoiserCall]
    aux: list[AuxCall]
    turn: int
    """Number of model calls in a step before the first one that shows the sample, as for a reference picture."""

    def denoised(self, answer: Tensor, x: Tensor, sigma: Tensor) -> Tensor:
        """The clean latent that an answer means; all are (batch, channels, *space)."""
        return to_denoised(self.sign * answer, x, sigma, self.noise.prediction)

    def answer_for(self, denoised: Tensor, x: Tensor, sigma: Tensor) -> Tensor:
        """The answer that means this clean latent; inverse of ``denoised``."""
        return self.sign * to_output(denoised, x, sigma, self.noise.prediction)

    def model_call(self, kind: type, arguments: Any) -> DenoiserCall | None:
        """The learned form that fits a call of the model, or None."""
        return next((call for call in self.calls if call.fits(kind, arguments)), None)

    def aux_call(self, kind: type, arguments: Any, time: float) -> AuxCall | None:
        """The learned form that fits a ControlNet's call at ``time``, or None. Drops arguments that do not tell it."""
        match = next((call for call in self.aux if call.fits(kind, arguments)), None)
        if match is not None:
            match.times = [a for a in match.times if a.confirm(at(arguments, a.path), time)]
        return match if match is not None and match.times else None


def modes_of(arguments: Any) -> Modes:
    return tuple((path, leaf) for path, leaf in leaves(arguments) if isinstance(leaf, str))


class ModelCall:
    """A call of the model, for ``Detailer.step``, which takes its ``evaluate``, ``x`` and ``sigma``.

    The noisy latent ``x`` is that of the copy with the condition, (batch, channels, *space) in at least float32; a list
    if the model has several streams.

    Args:
        known_streams: what is learned of each stream.
        reads: the form of this call, one for each stream.
        arguments: the call's (args, kwargs).
        step: index of the scheduler's step.
        ask: calls the model with such arguments.
        traces: undoes what the first of two calls changes in the model.
        recorded: calls of other parts in this step. Their answers may be among ``arguments``.
    """

    def __init__(
        self,
        known_streams: list[Stream],
        reads: list[DenoiserCall],
        arguments: Any,
        step: int,
        ask: Callable[[Any], Any],
        traces: Traces,
        recorded: list[RecordedCall],
    ):
        self._streams, self._reads, self._arguments = known_streams, reads, arguments
        self._ask, self._traces, self._recorded = ask, traces, recorded
        noise = known_streams[0].noise
        self._time = noise.times[step]
        self.sigma = torch.tensor(noise.sigmas[step], dtype=torch.float64)
        copies = [read.sample.read(arguments) for read in reads]
        self._copies = [len(each) for each in copies]
        inputs = zip(known_streams, reads, copies, strict=True)
        latents = [stream.layout.core(each[read.positive(len(each))]) for stream, read, each in inputs]
        latents = [_at_least_float32(latent) * input_scale(self.sigma, noise.family) for latent in latents]
        self.x: Latent = _latent(latents)
        self._latest: Any = None
        """The answer of the latest call."""
        self._shares_effect = False

    def evaluate(self, call: Call) -> Prediction:
        """The model's prediction in a plain or a lied call."""
        with self._traces.removed(call.is_first_of_two):
            if call.kind == "plain":
                self._latest = self._ask(rebuilt(self._arguments, {}))
            else:
                self._shares_effect = call.conds == "positive"
                self._latest = self._ask_lied(rebuilt(self._arguments, self._lied_arguments(call)))
            return self._prediction(self._latest, call)

    def answer(self, output: Output) -> Any:
        """What the model returns to the pipeline: the answer of the latest call, changed to the step's output."""
        if output.kind == "plain":
            return self._latest
        changes: dict[Path, Any] = {}
        for k, (stream, read) in enumerate(zip(self._streams, self._reads, strict=True)):
            copies = [stream.layout.core(copy) for copy in read.answer.read(self._latest)]
            if output.effect is None:
                copies = [streams(output.others[str(i)])[k] for i in range(len(copies))]
            else:
                # The same effect is added to all copies. Guidance has weights that sum to 1, so it moves by it too.
                _, of_output = output_weights(stream.noise.prediction, self.sigma)
                effect = streams(output.effect)[k] / (stream.sign * of_output)
                copies = [(copy + effect).to(copy.dtype) for copy in copies]
            changes[read.answer.path] = read.answer.write(self._latest, [stream.layout.back(copy) for copy in copies])
        return rebuilt(self._latest, changes)

    def _lied_arguments(self, call: Call) -> dict[Path, Any]:
        """The arguments that differ in the lied call, by their paths."""
        pairs = zip(self._streams, streams(call.x), strict=True)
        inputs = [_LiedInput(stream, x, call, self._time) for stream, x in pairs]
        changes: dict[Path, Any] = {}
        for lied, read in zip(inputs, self._reads, strict=True):
            changes |= lied.written(read, self._arguments)
        return changes | _aux_answers(inputs, self._arguments, self._recorded)

    def _ask_lied(self, arguments: Any) -> Any:
        """The model's answer to all rows, or to those of the conditional copy where it is certain which they are."""
        read, copies = self._reads[0], self._copies[0]
        if not self._shares_effect or set(self._copies) != {copies} or not self._traces.sliceable(copies):
            return self._ask(arguments)
        batch, positive = read.sample.batch, read.positive(copies)
        rows = range(positive * batch, (positive + 1) * batch)
        try:
            part = selected(arguments, rows, copies * batch)
        except UncertainRowsError:
            return self._ask(arguments)
        try:
            return self._ask(part)
        except torch.cuda.OutOfMemoryError:
            raise
        except (RuntimeError, ValueError, TypeError, IndexError, AssertionError):
            # Something in the model counts on all the rows that the pipeline gives it.
            self._traces.needs_all_rows = True
            return self._ask(arguments)

    def _prediction(self, answer: Any, call: Call) -> Prediction:
        """The prediction that an answer to ``call`` means.

        ``others`` has the answer to each copy, converted to the true noise level. If one effect is added to all copies,
        ``others`` is empty, and the plain call has the guided prediction instead.
        """
        is_lied = call.kind == "lied"
        denoised: list[Tensor] = []
        guided: list[Tensor] = []
        others: dict[str, list[Tensor]] = {}
        for k, (stream, read, x) in enumerate(zip(self._streams, self._reads, streams(call.x), strict=True)):
            if not read.answer.fits(answer):
                raise ValueError("Selective Sigma cannot work with a model whose answers change their shape on the way")
            copies = [stream.layout.core(copy) for copy in read.answer.read(answer)]
            clean = [stream.denoised(_at_least_float32(copy), x, call.sigma) for copy in copies]
            positive = read.positive(self._copies[k]) if len(copies) == self._copies[k] else 0
            denoised.append(clean[positive])
            weights = read.guidance(len(copies)) if self._shares_effect and not is_lied else None
            if weights is None:
                guided.append(clean[positive])
            else:
                guided.append(torch.stack([w * copy for w, copy in zip(weights, clean, strict=True)]).sum(0))
            for i, copy in enumerate([] if self._shares_effect else copies):
                true = stream.answer_for(clean[i], streams(self.x)[k], self.sigma).to(copy.dtype) if is_lied else copy
                others.setdefault(str(i), []).append(true)
        named = {name: _latent(values) for name, values in others.items()}
        return Prediction(_latent(denoised), named, None if is_lied else _latent(guided))


class _LiedInput:
    """The sample and the time that one stream's calls get in the lied pass."""

    def __init__(self, stream: Stream, x: Tensor, call: Call, time: float):
        self.stream, self.time = stream, time
        noise = stream.noise
        self._sample = stream.layout.back(x / input_scale(call.sigma, noise.family))
        # Schedulers round their times: add the difference on the curve to the rounded time.
        self._lied_time = time + noise.curve.time(float(call.sigma)) - noise.curve.time(float(call.true_sigma))

    def written(self, read: AuxCall, arguments: Any) -> dict[Path, Any]:
        """The sample and the times of a call, by their paths."""
        copies = read.sample.read(arguments)
        samples = [self._sample] * len(copies)
        changes: dict[Path, Any] = {}
        for argument in read.times:
            value = at(arguments, argument.path)
            changes[argument.path] = argument.moved(value, self.time, self._lied_time)
            noisy = argument.noisy(value, self.time, tuple(self._sample.shape[1:]))
            if noisy is None:
                continue
            # Tokens of the user's own frames are clean. They keep their values.
            samples = [
                torch.where(rows.to(copy.device), sample.to(copy.dtype), copy)
                for rows, sample, copy in zip(noisy.split(read.sample.batch), samples, copies, strict=True)
            ]
        return {**changes, read.sample.path: read.sample.write(arguments, samples)}


def _aux_answers(inputs: list[_LiedInput], arguments: Any, recorded: list[RecordedCall]) -> dict[Path, Any]:
    """The ControlNets' answers in the lied call: they are called once more, with the lied sample and time.

    Only answers that the model gets as the very tensors are replaced. If the pipeline has changed an answer, the plain
    one stays.
    """
    paths = {id(leaf): path for path, leaf in leaves(arguments) if isinstance(leaf, Tensor)}
    changes: dict[Path, Any] = {}
    for call in recorded:
        passed_on = [(path, paths[id(leaf)]) for path, leaf in leaves(call.answer) if id(leaf) in paths]
        aux_changes: dict[Path, Any] = {}
        for lied in inputs if passed_on else []:
            read = lied.stream.aux_call(class_of(call.module), call.arguments, lied.time)
            aux_changes |= lied.written(read, call.arguments) if read is not None else {}
        if aux_changes:
            args, kwargs = rebuilt(call.arguments, aux_changes)
            answer = call.module(*args, **kwargs)
            changes |= {to: at(answer, path) for path, to in passed_on}
    return changes


def _latent(tensors: list[Tensor]) -> Latent:
    """One tensor for each stream, as the core takes them."""
    return tensors if len(tensors) > 1 else tensors[0]


def _at_least_float32(tensor: Tensor) -> Tensor:
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
