"""What one run did and what it cost."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass
class Report:
    """Model calls of one run by kind, and why steps went without detail.

    ``skipped`` counts steps by reason: ``schedule`` (outside start..end), ``range`` (a sigma the
    run does not hold), ``first`` (nothing to compare with yet), ``empty`` (the mask lit nothing).
    """

    steps: int = 0
    true: int = 0
    lied: int = 0
    held: int = 0
    skipped: dict[str, int] = field(default_factory=dict[str, int])
    _unsound: Tensor | None = field(default=None, repr=False)

    @property
    def calls(self) -> int:
        """Model calls made; the bare sampler makes ``steps``."""
        return self.true + self.lied + self.held

    @property
    def nonfinite(self) -> int:
        """Predictions with NaN or inf, by sample, that were passed through untouched."""
        return 0 if self._unsound is None else int(self._unsound)

    def skip(self, reason: str) -> None:
        self.skipped[reason] = self.skipped.get(reason, 0) + 1

    def count_unsound(self, sound: Tensor) -> None:
        # Summed where it lies; reading it here would make the host wait for the device.
        bad = torch.count_nonzero(~sound)
        self._unsound = bad if self._unsound is None else self._unsound + bad

    def as_dict(self) -> dict[str, object]:
        counts: dict[str, object] = {
            name: getattr(self, name) for name in ("steps", "calls", "true", "lied", "held", "nonfinite")
        }
        return {**counts, "skipped": dict(self.skipped)}

    def __str__(self) -> str:
        skipped = ", ".join(f"{reason} {count}" for reason, count in self.skipped.items()) or "none"
        line = f"{self.calls} model calls for {self.steps} (true {self.true}, lied {self.lied}, held {self.held}); "
        line += f"without detail: {skipped}"
        return line + (f"; {self.nonfinite} predictions with NaN or inf left alone" if self.nonfinite else "")
