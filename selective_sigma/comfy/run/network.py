"""How the network is called in one pass of a step, and how often in a run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ...lie import Lie


@dataclass(frozen=True)
class NetworkPass:
    """How the network is called while one pass of a step runs."""

    lie: Lie | None = None
    """What the network is told; None for the true noise level."""
    extra: bool = False
    """Whether the pass is ours: the bare sampler does not make it."""
    skipped: bool = False
    """Whether the pass calls the ControlNets only, and not the network."""


@dataclass
class NetworkCount:
    """Calls of the network in one run, and how many of them the bare sampler makes too."""

    calls: int = 0
    rows: int = 0
    """Samples times conditionings, over all calls."""
    bare_calls: int = 0
    bare_rows: int = 0
    lies: int = 0
    """Calls with a lie."""
    uncached: int = 0
    """Calls that EasyCache did not answer. Counted only where EasyCache is on."""

    def add(self, rows: int, network_pass: NetworkPass) -> None:
        self.calls, self.rows = self.calls + 1, self.rows + rows
        self.lies += network_pass.lie is not None
        if not network_pass.extra:
            self.bare_calls, self.bare_rows = self.bare_calls + 1, self.bare_rows + rows
