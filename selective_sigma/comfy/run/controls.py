"""ControlNets in a step of two passes: asked once, by the true latent and level."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Sequence


class Answers:
    """What the ControlNets of one request answered."""

    def __init__(self) -> None:
        self._stand_ins: dict[int, StandIn] = {}

    def stand_in(self, conds: Sequence[Any]) -> list[Any]:
        """The conditionings with a stand-in for each of their ControlNets."""
        return [None if cond is None else [self._entry(entry) for entry in cond] for cond in conds]

    def wanted_by(self, conds: Sequence[Any]) -> bool:
        """Whether any of these conditionings has a ControlNet."""
        return any(entry.get("control") is not None for cond in conds if cond is not None for entry in cond)

    def rewind(self) -> None:
        """A pass begins: what was answered is handed out again from the start."""
        for control in self._stand_ins.values():
            for stand_in in (control, *control.clones.values()):
                stand_in.read.clear()

    def _entry(self, entry: dict[str, Any]) -> dict[str, Any]:
        control = entry.get("control")
        if control is None:
            return entry
        # One for each: ComfyUI batches conditionings that share a ControlNet.
        return {**entry, "control": self._stand_ins.setdefault(id(control), StandIn(control))}


class StandIn:
    """In place of one ControlNet: its own answers, kept for each row of conditioning in the order of the calls."""

    def __init__(self, control: Any):
        # All else that is set here is set on the ControlNet.
        for name, value in {"control": control, "answers": {}, "read": {}, "clones": {}}.items():
            object.__setattr__(self, name, value)

    def get_control(
        self, x: Tensor, t: Tensor, cond: Any, batched_number: int, transformer_options: dict[str, Any], *more: Any
    ) -> Any:
        rows = list(zip(transformer_options["cond_or_uncond"], transformer_options["uuids"], strict=True))
        if any(len(self.answers.get(row, ())) <= self.read.get(row, 0) for row in rows):
            answer = self.control.get_control(x, t, cond, batched_number, transformer_options, *more)
            for i, row in enumerate(rows):
                self.answers.setdefault(row, []).append(part(answer, i, len(rows), len(x)))
        parts = []
        for row in rows:
            parts.append(self.answers[row][self.read.get(row, 0)])
            self.read[row] = self.read.get(row, 0) + 1
        return joined(parts)

    def get_instance_for_device(self, device: Any) -> StandIn:
        """Of a model on several devices: the ControlNet's clone there."""
        return self.clones.setdefault(device, StandIn(self.control.get_instance_for_device(device)))

    def __getattr__(self, name: str) -> Any:
        return getattr(object.__getattribute__(self, "control"), name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self.control, name, value)


def part(answer: Any, i: int, count: int, rows: int) -> Any:
    """Row ``i`` of ``count`` of an answer: tensors with ``rows`` in their first axis are split, all else is copied."""
    if isinstance(answer, Tensor):
        return answer.chunk(count)[i] if answer.ndim and len(answer) == rows else answer
    if isinstance(answer, dict):
        return {name: part(value, i, count, rows) for name, value in answer.items()}
    return [part(value, i, count, rows) for value in answer] if isinstance(answer, list) else answer


def joined(parts: Sequence[Any]) -> Any:
    """The answer to a batch from those to its rows; lists are new ones, as networks pop from them."""
    first = parts[0]
    if isinstance(first, Tensor):
        return first if all(p is first for p in parts) else torch.cat(list(parts))
    if isinstance(first, dict):
        return {name: joined([p[name] for p in parts]) for name in first}
    return [joined(values) for values in zip(*parts, strict=True)] if isinstance(first, list) else first
