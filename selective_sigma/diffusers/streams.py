"""What is learned of a pipeline: how its samples pass between its model and its scheduler."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from . import tree
from .predictions import to_denoised, to_output

if TYPE_CHECKING:
    from torch import Tensor

    from .layout import Layout
    from .noise import Noise
    from .slots import SampleSlot
    from .times import TimeArgument
    from .tree import Path

Modes = tuple[tuple["Path", str], ...]


class RecordedCall(NamedTuple):
    """One call of a module: ``arguments`` is (args, kwargs)."""

    module: Any
    arguments: Any
    answer: Any


class SchedulerStep(NamedTuple):
    """What a scheduler was given."""

    scheduler: Any
    prediction: Tensor
    time: float
    sample: Tensor


@dataclass
class AuxCall:
    """A kind of call of a ControlNet: it has the sample and the time, and answers to the model."""

    kind: type
    modes: Modes
    """Strings among its arguments: to fill a cache, or to use it, are calls of two kinds."""
    sample: SampleSlot
    times: list[TimeArgument]

    def fits(self, kind: type, arguments: Any) -> bool:
        return self.kind is kind and self.sample.fits(arguments) and self.modes == modes_of(arguments)


@dataclass
class DenoiserCall(AuxCall):
    """A kind of call of the model: where it has the sample and where it answers."""

    answer: SampleSlot
    weights: dict[int, list[float]]
    """By how many copies of the sample there are: what guidance weighs the answer to each with."""

    @property
    def key(self) -> tuple[Any, ...]:
        return self.kind, self.modes, self.sample.path, self.sample.row

    def positive(self, copies: int) -> int:
        """Which copy has the condition: the one that counts most; of equals the last, as pipelines stack them."""
        weights = self.weights.get(copies)
        return copies - 1 if weights is None else max(range(copies), key=lambda i: (round(weights[i], 6), i))

    def guidance(self, copies: int) -> list[float] | None:
        """Weights of the copies in the guided prediction; None where there is one copy, or they are not known."""
        weights = self.weights.get(copies)
        return weights if weights is not None and copies > 1 else None


@dataclass
class Stream:
    """All that is known of one sample: most pipelines have one, those with sound two."""

    scheduler: Any
    noise: Noise
    layout: Layout
    sign: int
    """-1 where the pipeline negates the model's answer."""
    calls: list[DenoiserCall]
    aux: list[AuxCall]
    turn: int
    """How many calls like the model's come before the sample's own in a step: those of a reference picture."""

    @property
    def answer_sign(self) -> int:
        """-1 where the model answers with the negative of what the scheduler's kind of prediction is."""
        return self.sign * self.noise.sign

    def denoised(self, answer: Tensor, x: Tensor, sigma: Tensor) -> Tensor:
        """The clean latent that an answer (batch, channels or more, *space) means."""
        return to_denoised(self.answer_sign * answer[:, : x.shape[1]], x, sigma, self.noise.prediction)

    def predicted(self, denoised: Tensor, x: Tensor, sigma: Tensor) -> Tensor:
        """The prediction in an answer that means this clean latent."""
        return self.answer_sign * to_output(denoised, x, sigma, self.noise.prediction)

    def model_call(self, kind: type, arguments: Any) -> DenoiserCall | None:
        """How a call is read; None for a call of another kind than those learned."""
        return next((call for call in self.calls if call.fits(kind, arguments)), None)

    def aux_call(self, kind: type, arguments: Any, time: float) -> AuxCall | None:
        """How a ControlNet's call is read; None where it is not told this time."""
        match = next((call for call in self.aux if call.fits(kind, arguments)), None)
        if match is not None:
            match.times = [
                argument for argument in match.times if argument.agrees(tree.at(arguments, argument.path), time)
            ]
        return match if match is not None and match.times else None


def kind_of(module: Any) -> type:
    """A module's class, also while it is listened to or compiled."""
    kind = type(getattr(module, "_orig_mod", module))
    return kind.__mro__[1] if "_selective_sigma" in vars(kind) else kind


def modes_of(arguments: Any) -> Modes:
    return tuple((path, leaf) for path, leaf in tree.leaves(arguments) if isinstance(leaf, str))
