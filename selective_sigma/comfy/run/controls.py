"""ControlNets in a step of two passes: each is asked once, with the true latent and noise level."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Sequence


class ControlNetAnswers:
    """What the ControlNets of one request answered. The second pass gets the answers of the first."""

    def __init__(self) -> None:
        self._stand_ins: dict[int, ControlNetStandIn] = {}

    def with_stand_ins(self, conds: Sequence[Any]) -> list[Any]:
        """The conditionings with a stand-in in place of each ControlNet."""
        return [None if cond is None else [self._entry(entry) for entry in cond] for cond in conds]

    def begin_pass(self) -> None:
        """Hand out the stored answers again, from the first one on."""
        for control in self._stand_ins.values():
            for stand_in in (control, *control.clones.values()):
                stand_in.read.clear()

    def _entry(self, entry: dict[str, Any]) -> dict[str, Any]:
        control = entry.get("control")
        if control is None:
            return entry
        # One stand-in per ControlNet: ComfyUI batches conditionings that have the same control object.
        return {**entry, "control": self._stand_ins.setdefault(id(control), ControlNetStandIn(control))}


class ControlNetStandIn:
    """Takes the place of one ControlNet and repeats its answers in the second pass.

    Answers are kept for each entry of a conditioning, in the order of the calls.
    """

    def __init__(self, control: Any):
        # Our own __setattr__ would set attributes of the ControlNet.
        for name, value in {"control": control, "answers": {}, "read": {}, "clones": {}}.items():
            object.__setattr__(self, name, value)

    def get_control(
        self, x: Tensor, t: Tensor, cond: Any, batched_number: int, transformer_options: dict[str, Any], *more: Any
    ) -> Any:
        """As ``ControlBase.get_control``. The ControlNet is called only if an entry has no stored answer left."""
        entries = list(zip(transformer_options["cond_or_uncond"], transformer_options["uuids"], strict=True))
        if any(len(self.answers.get(entry, ())) <= self.read.get(entry, 0) for entry in entries):
            answer = self.control.get_control(x, t, cond, batched_number, transformer_options, *more)
            for i, entry in enumerate(entries):
                self.answers.setdefault(entry, []).append(part_of_answer(answer, i, len(entries), len(x)))
        parts = []
        for entry in entries:
            parts.append(self.answers[entry][self.read.get(entry, 0)])
            self.read[entry] = self.read.get(entry, 0) + 1
        return joined_answer(parts)

    def get_instance_for_device(self, device: Any) -> ControlNetStandIn:
        """A stand-in for the ControlNet's clone on another device."""
        return self.clones.setdefault(device, ControlNetStandIn(self.control.get_instance_for_device(device)))

    def __getattr__(self, name: str) -> Any:
        return getattr(object.__getattribute__(self, "control"), name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self.control, name, value)


def has_control(conds: Sequence[Any]) -> bool:
    """Whether any of these conditionings has a ControlNet."""
    return any(entry.get("control") is not None for cond in conds if cond is not None for entry in cond)


def part_of_answer(answer: Any, i: int, count: int, batch: int) -> Any:
    """The part of a ControlNet's answer for entry ``i`` of ``count``.

    Tensors whose first axis has the length ``batch`` are split. Everything else is the same for each entry.
    """
    if isinstance(answer, Tensor):
        return answer.chunk(count)[i] if answer.ndim and len(answer) == batch else answer
    if isinstance(answer, dict):
        return {name: part_of_answer(value, i, count, batch) for name, value in answer.items()}
    return [part_of_answer(value, i, count, batch) for value in answer] if isinstance(answer, list) else answer


def joined_answer(parts: Sequence[Any]) -> Any:
    """Join the answers for the entries of a batch. Lists are copied, since networks pop from them."""
    first = parts[0]
    if isinstance(first, Tensor):
        return first if all(p is first for p in parts) else torch.cat(list(parts))
    if isinstance(first, dict):
        return {name: joined_answer([p[name] for p in parts]) for name in first}
    return [joined_answer(values) for values in zip(*parts, strict=True)] if isinstance(first, list) else first
