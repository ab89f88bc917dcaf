"""What one run did and what it cost."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass
class Report:
    """Model calls of one run by kind, and why steps went without detail.

    ``skipped`` counts steps by reason: ``idle`` (strength or coverage 0), ``window`` (outside
    start..end), ``every`` (another step carries this one's dose), ``outside`` (a sigma that the run
    does not hold), ``ascending`` (a run that adds noise), ``first`` (the change mask has nothing
    to compare with yet).
    """

    steps: int = 0
    plain: int = 0
    lied: int = 0
    skipped: dict[str, int] = field(default_factory=dict[str, int])
    _finite: list[Tensor] = field(default_factory=list[Tensor], repr=False)

    @property
    def calls(self) -> int:
        """Model calls made; the bare sampler makes ``steps``."""
        return self.plain + self.lied

    @property
    def nonfinite(self) -> int:
        """Predictions with NaN or inf, by sample, that were passed through untouched."""
        return int((~torch.cat(self._finite)).sum()) if self._finite else 0

    def skip(self, reason: str) -> None:
        """Count a step that went without detail."""
        self.skipped[reason] = self.skipped.get(reason, 0) + 1

    def count_finite(self, finite: Tensor) -> None:
        """Note (batch,) bool; read only when somebody asks, so that nobody waits for the device."""
        self._finite.append(finite)

    def as_dict(self) -> dict[str, object]:
        """The counts, ready for JSON."""
        names = ("steps", "calls", "plain", "lied", "nonfinite")
        return {**{name: getattr(self, name) for name in names}, "skipped": dict(self.skipped)}

    def __str__(self) -> str:
        skipped = ", ".join(f"{reason} {count}" for reason, count in self.skipped.items()) or "none"
        line = f"{self.calls} model calls for {self.steps} (plain {self.plain}, lied {self.lied}); "
        line += f"without detail: {skipped}"
        return line + (f"; {self.nonfinite} predictions with NaN or inf left alone" if self.nonfinite else "")
