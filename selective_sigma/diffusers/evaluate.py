"""One call of a pipeline's model as the core evaluates it: with the true noise level, or with the lie."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..prediction import Call, Latent, Output, Prediction, streams
from . import tree
from .predictions import from_input, slope, to_input
from .streams import kind_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .state import Traces
    from .streams import AuxCall, DenoiserCall, RecordedCall, Stream
    from .tree import Path


class OtherAnswerError(ValueError):
    """A call is answered in another form than the run's calls are, and so is not one of them."""


class ModelCall:
    """A call of the model, for ``Detailer.step``: its ``evaluate``, ``x`` and ``sigma`` are what that takes.

    ``answer`` makes of the step's output what the model is to return to the pipeline.
    """

    def __init__(
        self,
        known: list[Stream],
        calls: list[DenoiserCall],
        arguments: Any,
        index: int,
        ask: Callable[[Any], Any],
        traces: Traces,
        aux: list[RecordedCall],
    ):
        """Args:
        known, calls: each stream, and how this call is read for it.
        arguments: the call's (args, kwargs).
        index: of the scheduler's step.
        ask: calls the model with such arguments.
        traces: takes back what a call leaves in the model, where another call of the step follows.
        aux: calls of other parts in this step, whose answers may be among the arguments.
        """
        self._known, self._calls, self._arguments = known, calls, arguments
        self._ask, self._traces, self._aux = ask, traces, aux
        noise = known[0].noise
        self._time = noise.times[index]
        self.sigma = torch.tensor(noise.sigmas[index], dtype=torch.float64)
        self._copies: list[int] = []
        latents: list[Tensor] = []
        for stream, call in zip(known, calls, strict=True):
            copies = call.sample.read(arguments)
            self._copies.append(len(copies))
            shown = stream.layout.core(copies[call.positive(len(copies))])
            latents.append(from_input(_wide(shown), self.sigma, stream.noise.family))
        self.x: Latent = latents if len(known) > 1 else latents[0]
        self._plain: Any = None
        self._lied: Any = None
        self._shares_effect = False

    def evaluate(self, call: Call) -> Prediction:
        """The model's prediction in a plain or a lied call."""
        with self._traces.removed(call.followed):
            if call.kind == "plain":
                self._plain = self._ask(tree.rebuilt(self._arguments, {}))
                return self._predicted(self._plain, call)
            self._shares_effect = call.conds == "positive"
            lies = [_Told(stream, x, call, self._time) for stream, x in zip(self._known, streams(call.x), strict=True)]
            changes: dict[Path, Any] = {}
            for lie, read in zip(lies, self._calls, strict=True):
                changes |= lie.written(read, self._arguments)
            changes |= _asked_again(lies, self._arguments, self._aux)
            self._lied = self._lied_answer(tree.rebuilt(self._arguments, changes))
            return self._predicted(self._lied, call)

    def answer(self, output: Output) -> Any:
        """The model's answer with what the step came to in it."""
        if output.kind == "plain":
            return self._plain
        answer = self._lied if output.kind == "lied" else self._plain
        changes: dict[Path, Any] = {}
        for k, (stream, call) in enumerate(zip(self._known, self._calls, strict=True)):
            copies = [stream.layout.core(part) for part in call.answer.read(answer)]
            if output.effect is None:
                copies = [_replaced(copy, i, k, output) for i, copy in enumerate(copies)]
            else:
                # Every copy by the same, so that guidance, whose weights sum to 1, moves by it as well.
                effect = streams(output.effect)[k] / (stream.answer_sign * slope(stream.noise.prediction, self.sigma))
                copies = [_added(copy, effect) for copy in copies]
            changes[call.answer.path] = call.answer.write(answer, [stream.layout.back(copy) for copy in copies])
        return tree.rebuilt(answer, changes)

    def moved(self, effect: Latent) -> Any:
        """The answer to a plain call alone, with the effect of another call of the step added to it."""
        self._plain = self._ask(tree.rebuilt(self._arguments, {}))
        return self.answer(Output(self.x, kind="blended", effect=effect))

    def _lied_answer(self, arguments: Any) -> Any:
        """The answer to all rows, or to those of the conditional copy where it is plain which they are."""
        call, copies = self._calls[0], self._copies[0]
        part = None
        if self._shares_effect and copies > 1 and set(self._copies) == {copies} and self._traces.sliceable(copies):
            rows = [call.sample.index(call.positive(copies), b, copies) for b in range(call.sample.batch)]
            part = tree.selected(arguments, rows, copies * call.sample.batch)
        if part is not None:
            try:
                return self._ask(part)
            except torch.cuda.OutOfMemoryError:
                raise
            except (RuntimeError, ValueError, TypeError, IndexError, AssertionError):
                # Something in the model counts on all the rows that the pipeline gives it.
                self._traces.whole = True
        return self._ask(arguments)

    def _predicted(self, answer: Any, call: Call) -> Prediction:
        denoised: list[Tensor] = []
        guided: list[Tensor] = []
        others: dict[str, list[Tensor]] = {}
        lied = call.kind == "lied"
        blends = not self._shares_effect
        for k, (stream, read, x) in enumerate(zip(self._known, self._calls, streams(call.x), strict=True)):
            if not read.answer.fits(answer):
                raise OtherAnswerError("the model's answers change their shape on the way")
            copies = [stream.layout.core(part) for part in read.answer.read(answer)]
            positive = read.positive(self._copies[k]) if len(copies) == self._copies[k] else 0
            weights = read.guidance(len(copies)) if self._shares_effect and not lied else None
            needed = range(len(copies)) if weights or (lied and blends) else [positive]
            clean = {i: stream.denoised(_wide(copies[i]), x, call.sigma) for i in needed}
            denoised.append(clean[positive])
            guided.append(_weighted([clean[i] for i in needed], weights) if weights else clean[positive])
            for i, copy in enumerate(copies if blends else []):
                parts = list(copy.split(x.shape[1], 1))
                if lied:
                    # What the answer to the lie means at the true noise level.
                    back = stream.predicted(clean[i], streams(self.x)[k], self.sigma)
                    parts[0] = back.to(copy.dtype)
                # A learned variance, say, has the size of a prediction; what has not stays as it is.
                for j, part in enumerate(parts):
                    if part.shape == x.shape:
                        others.setdefault(f"{i} {j}", []).append(part)
        single = len(self._known) == 1
        # The core blends by name, all streams of a name together; streams may have fewer copies.
        named: dict[str, Latent] = {name: values[0] if single else values for name, values in others.items()}
        return Prediction(denoised[0] if single else denoised, named, None if lied else guided[0] if single else guided)


class _Told:
    """What one stream's calls are given in the lied pass."""

    def __init__(self, stream: Stream, x: Tensor, call: Call, time: float):
        self.stream, self.time = stream, time
        noise = stream.noise
        self.sample = stream.layout.back(to_input(x, call.sigma, noise.family))
        # From the time at the true level along the same curve, as schedulers round their times.
        self.moved = time + noise.time(float(call.sigma)) - noise.time(float(call.true_sigma))

    def written(self, read: AuxCall, arguments: Any) -> dict[Path, Any]:
        """The sample and the times of a call, by their paths."""
        copies = read.sample.read(arguments)
        samples = [self.sample] * len(copies)
        changes: dict[Path, Any] = {}
        for argument in read.times:
            value = tree.at(arguments, argument.path)
            changes[argument.path] = argument.moved(value, self.time, self.moved)
            noisy = argument.noisy(value, self.time, tuple(self.sample.shape[1:]))
            if noisy is None:
                continue
            # Tokens of a frame that the user gave are clean already.
            rows = [[read.sample.index(k, b, len(copies)) for b in range(len(x))] for k, x in enumerate(samples)]
            samples = [
                torch.where(noisy[row].to(copy.device), sample.to(copy.dtype), copy)
                for row, sample, copy in zip(rows, samples, copies, strict=True)
            ]
        return {**changes, read.sample.path: read.sample.write(arguments, samples)}


def _asked_again(lies: list[_Told], arguments: Any, aux: list[RecordedCall]) -> dict[Path, Any]:
    """What the model gets from ControlNets, at the lied noise level: they are called once more.

    Only what arrives as the very tensors they returned; what a pipeline made of them stays as it is.
    """
    paths = {id(leaf): path for path, leaf in tree.leaves(arguments) if isinstance(leaf, Tensor)}
    changes: dict[Path, Any] = {}
    for call in aux:
        handed_on = [(path, paths[id(leaf)]) for path, leaf in tree.leaves(call.answer) if id(leaf) in paths]
        if not handed_on:
            continue
        its_changes: dict[Path, Any] = {}
        for lie in lies:
            read = lie.stream.aux_call(kind_of(call.module), call.arguments, lie.time)
            its_changes |= lie.written(read, call.arguments) if read is not None else {}
        if its_changes:
            args, kwargs = tree.rebuilt(call.arguments, its_changes)
            answer = call.module(*args, **kwargs)
            changes |= {to: tree.at(answer, path) for path, to in handed_on}
    return changes


def _wide(tensor: Tensor) -> Tensor:
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def _weighted(copies: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    return torch.stack([copy * weight for copy, weight in zip(copies, weights, strict=True)]).sum(0)


def _replaced(answer: Tensor, copy: int, stream: int, output: Output) -> Tensor:
    """The answer with what the step came to in place of its parts, each as wide as the prediction."""
    width = streams(output.denoised)[stream].shape[1]
    parts = answer.split(width, 1)
    names = [f"{copy} {j}" for j in range(len(parts))]
    return torch.cat(
        [streams(output.others[n])[stream] if n in output.others else p for n, p in zip(names, parts, strict=True)], 1
    )


def _added(answer: Tensor, effect: Tensor) -> Tensor:
    """The answer's prediction moved by ``effect``, rounded once; what else is on its channels stays."""
    channels = effect.shape[1]
    moved = (answer[:, :channels] + effect).to(answer.dtype)
    return moved if channels == answer.shape[1] else torch.cat([moved, answer[:, channels:]], 1)
