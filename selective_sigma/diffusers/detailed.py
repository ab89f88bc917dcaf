"""One call of a pipeline's model as the core evaluates it: shown the truth, or the lie."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..prediction import Call, Output, Prediction, streams
from . import tree
from .predictions import from_input, to_denoised, to_input, to_output

if TYPE_CHECKING:
    from collections.abc import Callable

    from .learn import Stream, View


def evaluator(
    known: list[Stream],
    views: list[View],
    arguments: Any,
    answer: Callable[[Any, bool], Any],
    time: float,
    sigma: Tensor,
) -> tuple[Callable[[Call], Prediction], Any]:
    """What the core calls, and the latent that it starts from.

    Args:
        known, views: each stream, and how this call is read for it.
        arguments: the call's (args, kwargs).
        answer: calls the model with such arguments; the flag says that they lie.
        time, sigma: the scheduler's time and the noise level of this step, 0-d.
    """
    latents, parts = [], []
    for stream, view in zip(known, views, strict=True):
        copies = view.shown.read(arguments)
        parts.append(len(copies))
        shown = stream.layout.core(copies[view.conditional(len(copies))])
        latents.append(from_input(_wide(shown), sigma, stream.noise.family))
    several = len(known) > 1

    def evaluate(call: Call) -> Prediction:
        lied = call.kind == "lied"
        new: dict[Any, Any] = {}
        for stream, view, x, n in zip(known, views, streams(call.x), parts, strict=True) if lied else ():
            shown = stream.layout.back(to_input(x, call.sigma, stream.noise.family))
            new[view.shown.path] = view.shown.write(arguments, [shown] * n)
            told = stream.noise.time(float(call.sigma))
            # From the time at the true level by the same curve, which rounding has moved.
            moved = time + told - stream.noise.time(float(sigma))
            for clock in view.clocks:
                new[clock.path] = clock.told(tree.at(arguments, clock.path), time, moved)
        said = answer(tree.rebuilt(arguments, new), lied)
        denoised: list[Tensor] = []
        others: dict[str, list[Tensor]] = {}
        for k, (stream, view, x, n) in enumerate(zip(known, views, streams(call.x), parts, strict=True)):
            outputs = [stream.layout.core(part) for part in view.answer.read(said)]
            channels, prediction = x.shape[1], stream.noise.prediction
            sign = stream.sign * stream.noise.sign
            clean = [to_denoised(sign * _wide(o[:, :channels]), x, call.sigma, prediction) for o in outputs]
            denoised.append(clean[view.conditional(n)])
            if lied:
                # What the answer to the lie means at the true noise level.
                true = streams(latents if several else latents[0])[k]
                back = [sign * to_output(c, true, sigma, prediction) for c in clean]
                outputs = [torch.cat([b.to(o.dtype), o[:, channels:]], 1) for b, o in zip(back, outputs, strict=True)]
            for i, output in enumerate(outputs):
                others.setdefault(str(i), []).append(output)
        # The core blends by name, all streams of a name together; streams may have fewer copies.
        named = {name: values if several else values[0] for name, values in others.items()}
        return Prediction(denoised if several else denoised[0], named)

    return evaluate, latents if several else latents[0]


def results(known: list[Stream], views: list[View], answer: Any, output: Output) -> Any:
    """The model's answer with the blended predictions in it."""
    new = {}
    for k, (stream, view) in enumerate(zip(known, views, strict=True)):
        blended = [stream.layout.back(streams(values)[k]) for values in output.others.values()]
        new[view.answer.path] = view.answer.write(answer, blended)
    return tree.rebuilt(answer, new)


def _wide(tensor: Tensor) -> Tensor:
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
