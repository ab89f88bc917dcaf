"""Which arguments of a model's call tell it the time, and in what unit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .tree import leaves

if TYPE_CHECKING:
    from .regions import Shape
    from .tree import Path


class TimeArgument:
    """One argument, a straight line over the scheduler's time: slope * time + offset.

    A first call leaves several units possible; every later one must agree with one of them.
    """

    def __init__(self, path: Path, units: list[tuple[float, float]], slack: float = 0.0):
        self.path = path
        self.slack = slack
        self.units = units
        self.agreed: set[float] = set()
        """The times at which the argument was right."""

    def times(self, value: Any) -> list[float]:
        """What time the argument may tell, most likely first."""
        tensor = torch.as_tensor(value).detach().cpu().double().flatten()
        # Tokens that are given stand at no noise, 0 or the unit's end; the others tell the time.
        values = dict.fromkeys([float(tensor[0]), float(tensor[-1]), float(tensor.max()), float(tensor.min())])
        return [(v - offset) / slope for slope, offset in self.units for v in values]

    def tells(self, value: Any, time: float) -> bool:
        """Whether the argument tells ``time`` in one of its units."""
        return any(_tells(value, time, unit, self.slack) for unit in self.units)

    def agrees(self, value: Any, time: float) -> bool:
        """Whether the argument tells ``time``; forgets the units by which it does not."""
        self.units = [unit for unit in self.units if _tells(value, time, unit, self.slack)]
        self.agreed.add(time)
        return bool(self.units)

    def moved(self, value: Any, time: float, other: float) -> Tensor:
        """The argument for another time: moved by as much, as schedulers round what they give."""
        there = torch.as_tensor(value)
        # In float64, which some devices do not have.
        tensor = there.cpu()
        later = tensor.double() + self.units[0][0] * (other - time)
        # Not whole numbers: at low noise a tenth of sigma is less than one timestep.
        kind = tensor.dtype if tensor.is_floating_point() else torch.float32
        return (
            torch.where(_own(tensor, time, self.units[0], self.slack), later, tensor.double()).to(kind).to(there.device)
        )

    def noisy(self, value: Any, time: float, shape: Shape) -> Tensor | None:
        """Which places of rows of this shape are at ``time``, where each token is told its own; None where all are.

        On the CPU.
        """
        tensor = torch.as_tensor(value).cpu()
        if tensor.ndim < 2:
            return None
        own = _own(tensor, time, self.units[0], self.slack).flatten(1)
        axis = next((i for i, size in enumerate(shape) if size == own.shape[1] > 1), None)
        if axis is None or bool(own.all()):
            return None
        return own.reshape(len(own), *(own.shape[1] if i == axis else 1 for i in range(len(shape))))


def find(arguments: Any, time: float, count: float, slack: float = 0.0) -> list[TimeArgument]:
    """Arguments that may tell the time: as it is or as a share of ``count`` or 1000, or what is left of it.

    ``slack``: how far the scheduler's timesteps are rounded, where a model may be told its sigmas (Cosmos 2.5).
    """
    units = [(1.0, 0.0), (1 / count, 0.0), (1000 / count, 0.0), (-1 / count, 1.0), (-1.0, count), (1.0, -1.0)]
    matches: list[TimeArgument] = []
    for path, leaf in leaves(arguments):
        if isinstance(leaf, bool) or not isinstance(leaf, (int, float, Tensor)):
            continue
        if isinstance(leaf, Tensor) and (leaf.dtype == torch.bool or leaf.is_complex() or leaf.numel() == 0):
            continue
        # One time, or that of the tokens that are noisy beside that of those that are not: two values at most.
        if isinstance(leaf, Tensor) and len(leaf.detach().flatten()[:: max(1, leaf.numel() // 64)].cpu().unique()) > 2:
            continue
        argument = TimeArgument(path, list(dict.fromkeys(units)), slack)
        if argument.agrees(leaf, time):
            matches.append(argument)
    return matches


def _tells(value: Any, time: float, unit: tuple[float, float], slack: float) -> bool:
    tensor = torch.as_tensor(value).cpu()
    own = _own(tensor, time, unit, slack)
    rest = tensor[~own]
    return bool(own.any()) and bool((rest == rest[:1]).all())


def _own(value: Tensor, time: float, unit: tuple[float, float], slack: float) -> Tensor:
    """The elements that tell this time; those of tokens that are given do not."""
    slope, offset = unit
    wanted = slope * time + offset
    step = torch.finfo(value.dtype).eps if value.is_floating_point() else 0.0
    # Half precision keeps two or three digits of a share, and of what it is taken from.
    near = 2 * step * max(abs(wanted), abs(offset)) + abs(slope) * max(1e-5 * max(abs(time), 1.0), slack)
    return (value.double() - wanted).abs() <= near
