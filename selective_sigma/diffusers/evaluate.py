"""One call of a pipeline's model as the core evaluates it: at the true noise level, and with the lie.

In the lied call the model gets another sample and another time (``_lied_arguments``). All other arguments are those of
the plain call. They include a ControlNet's answers: it is called once a step, with the true sample and time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..prediction import Call, Latent, Output, Prediction, streams
from .noise import input_divisor, output_weights, to_denoised, to_output
from .slots import UncertainRowsError, at, copied, leaves, rebuilt, selected

if TYPE_CHECKING:
    from collections.abc import Callable

    from .attach import ModelState
    from .layout import Layout
    from .noise import Noise
    from .slots import Arguments, Path, SampleSlot
    from .times import TimeArgument

Modes = tuple[tuple["Path", str], ...]


@dataclass
class CallForm:
    """Where the sample, the time and the answer are in calls of the model.

    The scheduler gets a weighted sum of the answers.
    """

    kind: type
    """The class of the model."""
    modes: Modes
    """The strings among the arguments. They tell a call that fills a cache from one that uses it."""
    sample: SampleSlot
    """Where the sample is among the arguments."""
    times: list[TimeArgument]
    """The arguments that tell the time."""
    answer: SampleSlot
    """Where the prediction is in the answer."""
    weights: list[float]
    """For each copy of the sample: the weight of the answer to it in the guided prediction."""

    def fits(self, kind: type, arguments: Arguments) -> bool:
        return self.kind is kind and self.sample.fits(arguments) and self.modes == modes_of(arguments)

    @property
    def key(self) -> tuple[Any, ...]:
        return self.kind, self.modes, self.sample.path, self.sample.row

    def guidance(self, copies: int) -> list[float] | None:
        """Weights of the copies in the guided prediction; None unless there are several, as many as were learned."""
        return self.weights if 1 < copies == len(self.weights) else None

    def positive(self, copies: int) -> int:
        """Index of the cond copy: the one with the largest weight; the last of several."""
        weights = self.weights if copies == len(self.weights) else [0.0] * copies
        return max(range(copies), key=lambda i: (round(weights[i], 6), i))


@dataclass
class LearnedStream:
    """All that is learned about one sample. Most pipelines have one sample, those with sound have two."""

    scheduler: Any
    noise: Noise
    layout: Layout
    sign: int
    """-1 where the model's answer is the negative of ``noise.prediction``."""
    forms: list[CallForm]
    calls_before: int
    """Number of model calls in a step before the first one that shows the sample. A reference picture takes some."""

    def denoised(self, answer: Tensor, x: Tensor, sigma: Tensor) -> Tensor:
        """The clean latent that an answer means; all are (batch, channels, *space)."""
        return to_denoised(self.sign * answer, x, sigma, self.noise.prediction)

    def answer_for(self, denoised: Tensor, x: Tensor, sigma: Tensor) -> Tensor:
        """The answer that means this clean latent; inverse of ``denoised``."""
        return self.sign * to_output(denoised, x, sigma, self.noise.prediction)

    def model_form(self, kind: type, arguments: Arguments) -> CallForm | None:
        """The learned form that fits a call of the model, or None."""
        return next((form for form in self.forms if form.fits(kind, arguments)), None)


def modes_of(arguments: Arguments) -> Modes:
    return tuple((path, leaf) for path, leaf in leaves(arguments) if isinstance(leaf, str))


class ModelCall:
    """A call of the model, for ``Detailer.step``, which takes its ``evaluate``, ``x`` and ``sigma``.

    The noisy latent ``x`` is that of the copy with the condition, (batch, channels, *space) in at least float32; a list
    if the model has several streams.

    Args:
        learned: all that is learned about each stream.
        forms: the form of this call, one for each stream.
        arguments: those of the call.
        step: index of the scheduler's step.
        ask: calls the model with such arguments.
        model_state: restores what the first of two calls changes in the model.
    """

    def __init__(
        self,
        learned: list[LearnedStream],
        forms: list[CallForm],
        arguments: Arguments,
        step: int,
        ask: Callable[[Arguments], Any],
        model_state: ModelState,
    ):
        self._learned, self._forms, self._arguments = learned, forms, arguments
        self._ask, self._model_state = ask, model_state
        noise = learned[0].noise
        self._time = noise.times[step]
        self.sigma = torch.tensor(noise.sigmas[step], dtype=torch.float64)
        copies = [form.sample.read(arguments) for form in forms]
        self._copy_counts = [len(each) for each in copies]
        inputs = zip(learned, forms, copies, strict=True)
        latents = [stream.layout.to_core(each[form.positive(len(each))]) for stream, form, each in inputs]
        latents = [_at_least_float32(latent) * input_divisor(self.sigma, noise.family) for latent in latents]
        self.x: Latent = _latent(latents)
        self._latest: Any = None
        """The answer of the latest call."""
        self._shares_effect = False
        """Whether the effect of the cond copy is added to all copies. The lied call, which comes first, sets it."""

    def evaluate(self, call: Call) -> Prediction:
        """The model's prediction in a plain or a lied call."""
        with self._model_state.restored(call.is_first_of_two):
            if call.kind == "plain":
                self._latest = self._ask(copied(self._arguments))
            else:
                self._shares_effect = call.conds == "positive"
                self._latest = self._ask_lied(rebuilt(self._arguments, self._lied_arguments(call)))
            return self._prediction(self._latest, call)

    def answer(self, output: Output) -> Any:
        """What the model returns to the pipeline: the answer of the latest call, changed to the step's output."""
        if output.kind == "plain":
            return self._latest
        changes: dict[Path, Any] = {}
        for k, (stream, form) in enumerate(zip(self._learned, self._forms, strict=True)):
            copies = [stream.layout.to_core(copy) for copy in form.answer.read(self._latest)]
            if output.effect is None:
                copies = [streams(output.others[str(i)])[k] for i in range(len(copies))]
            else:
                # The same effect is added to all copies. Guidance has weights that sum to 1, so it moves by it too.
                _, of_output = output_weights(stream.noise.prediction, self.sigma)
                effect = streams(output.effect)[k] / (stream.sign * of_output)
                copies = [(copy + effect).to(copy.dtype) for copy in copies]
            changes[form.answer.path] = form.answer.write(
                self._latest, [stream.layout.from_core(copy) for copy in copies]
            )
        return rebuilt(self._latest, changes)

    def _lied_arguments(self, call: Call) -> dict[Path, Any]:
        """The sample and the times of the lied call, by their paths among the arguments."""
        changes: dict[Path, Any] = {}
        for stream, form, x in zip(self._learned, self._forms, streams(call.x), strict=True):
            curve = stream.noise.curve
            change = curve.time(float(call.sigma)) - curve.time(float(call.true_sigma))
            lied_sample = stream.layout.from_core(x / input_divisor(call.sigma, stream.noise.family))
            copies = form.sample.read(self._arguments)
            samples = [lied_sample] * len(copies)
            for argument in form.times:
                value = at(self._arguments, argument.path)
                changes[argument.path] = argument.moved(value, self._time, change)
                noisy = argument.noisy(value, self._time, tuple(lied_sample.shape[1:]))
                if noisy is None:
                    continue
                # Tokens of frames that the user gave are clean. They keep their values.
                samples = [
                    torch.where(rows.to(copy.device), sample.to(copy.dtype), copy)
                    for rows, sample, copy in zip(noisy.split(form.sample.batch), samples, copies, strict=True)
                ]
            changes[form.sample.path] = form.sample.write(self._arguments, samples)
        return changes

    def _ask_lied(self, arguments: Arguments) -> Any:
        """The model's answer to all rows, or to those of the cond copy where it is certain which they are."""
        form, count = self._forms[0], self._copy_counts[0]
        if self._shares_effect and set(self._copy_counts) == {count} and self._model_state.sliceable(count):
            batch, positive = form.sample.batch, form.positive(count)
            try:
                return self._ask(selected(arguments, range(positive * batch, (positive + 1) * batch), count * batch))
            except UncertainRowsError:
                pass
            except torch.cuda.OutOfMemoryError:
                raise
            except (RuntimeError, ValueError, TypeError, IndexError, AssertionError):
                # The model needs all the rows that the pipeline gives it.
                self._model_state.needs_all_rows = True
        return self._ask(arguments)

    def _prediction(self, answer: Any, call: Call) -> Prediction:
        """The prediction that an answer to ``call`` means.

        ``others`` has the model's answer to each copy, not a denoised latent. A lied answer is converted to the answer
        at the true noise level that means the same denoised latent. If one effect is added to all copies, ``others`` is
        empty, and the plain call has the guided prediction instead.
        """
        is_lied = call.kind == "lied"
        denoised: list[Tensor] = []
        guided: list[Tensor] = []
        others: dict[str, list[Tensor]] = {}
        for k, (stream, form, x) in enumerate(zip(self._learned, self._forms, streams(call.x), strict=True)):
            if not form.answer.fits(answer):
                raise ValueError("Selective Sigma cannot work with a model whose answers change their shape on the way")
            copies = [stream.layout.to_core(copy) for copy in form.answer.read(answer)]
            clean = [stream.denoised(_at_least_float32(copy), x, call.sigma) for copy in copies]
            positive = form.positive(self._copy_counts[k]) if len(copies) == self._copy_counts[k] else 0
            denoised.append(clean[positive])
            weights = form.guidance(len(copies)) if self._shares_effect and not is_lied else None
            if weights is None:
                guided.append(clean[positive])
            else:
                guided.append(torch.stack([w * copy for w, copy in zip(weights, clean, strict=True)]).sum(0))
            for i, copy in enumerate([] if self._shares_effect else copies):
                true = stream.answer_for(clean[i], streams(self.x)[k], self.sigma).to(copy.dtype) if is_lied else copy
                others.setdefault(str(i), []).append(true)
        named = {name: _latent(values) for name, values in others.items()}
        return Prediction(_latent(denoised), named, None if is_lied else _latent(guided))


def _latent(tensors: list[Tensor]) -> Latent:
    """One tensor for each stream, as the core takes them."""
    return tensors if len(tensors) > 1 else tensors[0]


def _at_least_float32(tensor: Tensor) -> Tensor:
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
