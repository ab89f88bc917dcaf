"""One call of a pipeline's model as the core evaluates it: shown the truth, or the lie."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..prediction import Call, Output, Prediction, streams
from . import tree
from .learn import kind_of
from .predictions import from_input, to_denoised, to_input, to_output

if TYPE_CHECKING:
    from collections.abc import Callable

    from .learn import Beside, Heard, Stream, View
    from .tree import Path


def evaluator(
    known: list[Stream],
    views: list[View],
    arguments: Any,
    heard: list[Heard],
    answer: Callable[[Any], Any],
    time: float,
    sigma: Tensor,
) -> tuple[Callable[[Call], Prediction], Any]:
    """What the core calls, and the latent that it starts from.

    Args:
        known, views: each stream, and how this call is read for it.
        arguments: the call's (args, kwargs).
        heard: calls of other parts in this step, whose answers may be among the arguments.
        answer: calls the model with such arguments.
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
        if lied:
            told = [_Lie(stream, x, sigma, call.sigma, time) for stream, x in zip(known, streams(call.x), strict=True)]
            for lie, view in zip(told, views, strict=True):
                new |= lie.written(view, arguments)
            new |= _heard_again(told, arguments, heard)
        said = answer(tree.rebuilt(arguments, new))
        if not all(view.answer.fits(said) for view in views):
            raise ValueError("Selective Sigma cannot go on: the model's answers change their shape on the way")
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


class _Lie:
    """What one stream's calls are shown and told in the lied pass."""

    def __init__(self, stream: Stream, x: Tensor, sigma: Tensor, lied: Tensor, time: float):
        self.stream, self.time = stream, time
        self.shown = stream.layout.back(to_input(x, lied, stream.noise.family))
        # From the time at the true level by the same curve, which rounding has moved.
        self.moved = time + stream.noise.time(float(lied)) - stream.noise.time(float(sigma))

    def written(self, view: Beside, arguments: Any) -> dict[Path, Any]:
        """The sample and the times of a call, by their paths."""
        copies = view.shown.read(arguments)
        shown = [self.shown] * len(copies)
        new: dict[Path, Any] = {}
        for clock in view.clocks:
            value = tree.at(arguments, clock.path)
            new[clock.path] = clock.told(value, self.time, self.moved)
            noisy = clock.noisy(value, self.time, tuple(self.shown.shape[1:]))
            if noisy is not None:
                # Tokens that are given are clean already.
                own = [noisy[[view.shown.index(k, b, len(copies)) for b in range(len(x))]] for k, x in enumerate(shown)]
                shown = [
                    torch.where(o.to(c.device), s.to(c.dtype), c) for o, s, c in zip(own, shown, copies, strict=True)
                ]
        return {**new, view.shown.path: view.shown.write(arguments, shown)}


def _heard_again(lies: list[_Lie], arguments: Any, heard: list[Heard]) -> dict[Path, Any]:
    """What the model is given by ControlNets, at the lied noise level: they are called once more.

    Only what arrives as the very tensors they returned; what a pipeline made of them stays as it is.
    """
    there = {id(leaf): path for path, leaf in tree.leaves(arguments) if isinstance(leaf, Tensor)}
    new: dict[Path, Any] = {}
    for call in heard:
        given = [(path, there[id(leaf)]) for path, leaf in tree.leaves(call.answer) if id(leaf) in there]
        if not given:
            continue
        changes: dict[Path, Any] = {}
        for lie in lies:
            view = lie.stream.besides(kind_of(call.module), call.arguments, lie.time)
            changes |= lie.written(view, call.arguments) if view is not None else {}
        if changes:
            args, kwargs = tree.rebuilt(call.arguments, changes)
            said = call.module(*args, **kwargs)
            new |= {to: tree.at(said, path) for path, to in given}
    return new


def results(known: list[Stream], views: list[View], answer: Any, output: Output) -> Any:
    """The model's answer with the blended predictions in it."""
    new = {}
    for k, (stream, view) in enumerate(zip(known, views, strict=True)):
        blended = [stream.layout.back(streams(values)[k]) for values in output.others.values()]
        new[view.answer.path] = view.answer.write(answer, blended)
    return tree.rebuilt(answer, new)


def _wide(tensor: Tensor) -> Tensor:
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
