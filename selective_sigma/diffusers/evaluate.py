"""One call of a pipeline's model as the core evaluates it: at the true noise level, and with the lie.

In the lied call the model gets another sample and another time (``_lied_arguments``). All other arguments are those of
the plain call, cut to the rows of the cond copy where possible (``_ask_lied``). They include the answers of a
ControlNet, which is called as often as in the plain pipeline, with the true sample and time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..prediction import Call, Output, Prediction, streams
from .noise import input_divisor, output_weights, to_denoised, to_output
from .slots import UncertainRowsError, parts_of, rebuilt, selected

if TYPE_CHECKING:
    from collections.abc import Callable

    from .attach import ModelState
    from .layout import Layout
    from .noise import Noise
    from .slots import Arguments, Parts, SampleSlot
    from .times import TimeArgument


@dataclass
class CallForm:
    """Where the sample, the time and the answer are in calls of the model.

    The scheduler gets a weighted sum of the answers.
    """

    model_class: type
    modes: Parts
    """The strings and flags among the arguments. They tell a call that fills a cache from one that uses it."""
    sample: SampleSlot
    """Where the sample is among the arguments."""
    times: list[TimeArgument]
    """The arguments that tell the time."""
    answer: SampleSlot
    """Where the prediction is in the answer."""
    weights: list[float]
    """For each copy of the sample: the weight of the answer to it in the guided prediction."""

    def fits(self, model_class: type, parts: Parts) -> bool:
        has_time = any(parts.get(argument.path) is not None for argument in self.times)
        is_alike = self.model_class is model_class and self.modes == modes_of(parts)
        return is_alike and has_time and self.sample.fits(parts)

    def cond_index(self, copies: int) -> int:
        """Index of what is taken for the cond copy: the one with the largest weight; the last of several."""
        weights = self.weights if copies == len(self.weights) else [0.0] * copies
        return max(range(copies), key=lambda i: (round(weights[i], 6), i))


@dataclass
class LearnedRun:
    """All that is learned of a pipeline for one run of its scheduler."""

    noise: Noise
    layout: Layout
    sign: int
    """-1 where the model's answer is the negative of ``noise.prediction``."""
    forms: list[CallForm]
    calls_before: int
    """Number of calls of these forms in a step before the one that shows the sample. A reference picture takes some."""
    answers_more: bool
    """Whether the model's answer holds other tensors of two axes or more, such as sound."""

    def denoised(self, answer: Tensor, x: Tensor, sigma: Tensor) -> Tensor:
        """The clean latent that an answer means; all are (batch, channels, *space)."""
        return to_denoised(self.sign * answer, x, sigma, self.noise.prediction)

    def answer_for(self, denoised: Tensor, x: Tensor, sigma: Tensor) -> Tensor:
        """The answer that means this clean latent; inverse of ``denoised``."""
        return self.sign * to_output(denoised, x, sigma, self.noise.prediction)


def modes_of(parts: Parts) -> Parts:
    return {path: part for path, part in parts.items() if isinstance(part, (str, bool))}


class ModelCall:
    """A call of the model, for ``Detailer.step``, which takes its ``evaluate``, ``x`` and ``sigma``.

    The noisy latent ``x`` is that of the copy with the condition, (batch, channels, *space) in at least float32.

    Args:
        arguments, parts: those of the call, as a tree and by their paths.
        step: index of the scheduler's step.
        ask: calls the model.
    """

    def __init__(
        self,
        learned: LearnedRun,
        form: CallForm,
        arguments: Arguments,
        parts: Parts,
        step: int,
        ask: Callable[[Arguments], Any],
        model_state: ModelState,
    ):
        self._learned, self._form, self._arguments, self._parts = learned, form, arguments, parts
        self._ask, self._model_state = ask, model_state
        noise = learned.noise
        self._time = noise.times[step]
        self.sigma = torch.tensor(noise.sigmas[step], dtype=torch.float64)
        self._copies = form.sample.read(parts)
        latent = learned.layout.to_core(self._copies[form.cond_index(len(self._copies))])
        self.x = _at_least_float32(latent) * input_divisor(self.sigma, noise.family)
        self._latest: Any = None
        """The answer of the latest call."""
        self._shares_effect = False
        """Whether the lie was told to the cond copy alone, so that its effect is added to all copies."""

    def evaluate(self, call: Call) -> Prediction:
        """The model's prediction in a plain or a lied call."""
        with self._model_state.restored(call.is_first_of_two):
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
        slot, layout, parts = self._form.answer, self._learned.layout, parts_of(self._latest)
        copies = [layout.to_core(copy) for copy in slot.read(parts)]
        if output.effect is None:
            copies = [output.others[str(i)] for i in range(len(copies))]
        else:
            # The same effect is added to all copies. The guided prediction, whose weights sum to 1, moves by it too.
            _, of_output = output_weights(self._learned.noise.prediction, self.sigma)
            effect = streams(output.effect)[0] / (self._learned.sign * of_output)
            copies = [(copy + effect).to(copy.dtype) for copy in copies]
        return rebuilt(self._latest, {slot.path: slot.write(parts, [layout.from_core(copy) for copy in copies])})

    def _lied_arguments(self, call: Call) -> Parts:
        """The sample and the times of the lied call, by their paths among the arguments."""
        noise, slot = self._learned.noise, self._form.sample
        change = noise.curve.time(float(call.sigma)) - noise.curve.time(float(call.true_sigma))
        lied_sample = self._learned.layout.from_core(streams(call.x)[0] / input_divisor(call.sigma, noise.family))
        samples = [lied_sample] * len(self._copies)
        changes: Parts = {}
        for argument in self._form.times:
            value = self._parts[argument.path]
            changes[argument.path] = argument.moved(value, self._time, change)
            noisy = argument.noisy_tokens(value, self._time, lied_sample.shape[1]) if lied_sample.ndim == 3 else None
            if noisy is not None:
                # Tokens of frames that the user gave are clean. They keep their values.
                samples = [
                    torch.where(rows.to(copy.device), sample.to(copy.dtype), copy)
                    for rows, sample, copy in zip(noisy.split(slot.batch), samples, self._copies, strict=True)
                ]
        return changes | {slot.path: slot.write(self._parts, samples)}

    def _ask_lied(self, arguments: Arguments) -> Any:
        """The model's answer to the rows of the cond copy, or to all if these are uncertain or the model fails."""
        count = len(self._copies)
        if self._shares_effect and self._model_state.sliceable(count):
            batch, cond = self._form.sample.batch, self._form.cond_index(count)
            try:
                return self._ask(selected(arguments, range(cond * batch, (cond + 1) * batch), count * batch))
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
        learned, form, parts = self._learned, self._form, parts_of(answer)
        if not form.answer.fits(parts):
            raise ValueError("Selective Sigma cannot work with a model whose answers change their shape on the way")
        copies = [learned.layout.to_core(copy) for copy in form.answer.read(parts)]
        clean = [learned.denoised(_at_least_float32(copy), streams(call.x)[0], call.sigma) for copy in copies]
        # A lied call may have been made with the rows of the cond copy alone.
        denoised = clean[form.cond_index(len(copies)) if len(copies) == len(self._copies) else 0]
        if self._shares_effect:
            guided = denoised
            # A call of one copy does not show the guided prediction, which is made of several calls.
            if call.kind == "plain" and 1 < len(clean) == len(form.weights):
                guided = torch.stack([w * copy for w, copy in zip(form.weights, clean, strict=True)]).sum(0)
            return Prediction(denoised, guided=guided)
        if call.kind == "lied":
            pairs = zip(clean, copies, strict=True)
            copies = [learned.answer_for(latent, self.x, self.sigma).to(copy.dtype) for latent, copy in pairs]
        return Prediction(denoised, {str(i): copy for i, copy in enumerate(copies)})


def _at_least_float32(tensor: Tensor) -> Tensor:
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
