"""What one run did and what it cost."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass
class Report:
    """Model calls of one run by kind, and why steps went without detail.

    ``skipped`` counts steps by reason: ``idle`` (strength or coverage 0), ``schedule`` (outside
    start..end), ``range`` (a sigma the run does not hold), ``first`` (nothing to compare with yet),
    ``empty`` (the mask lit nothing). A step counts as ``held`` where the held effect served at
    least one sample; when others in its batch had to be measured, it has a ``lied`` call too.
    """

    steps: int = 0
    true: int = 0
    lied: int = 0
    held: int = 0
    skipped: dict[str, int] = field(default_factory=dict[str, int])
    _sound: list[Tensor] = field(default_factory=list[Tensor], repr=False)

    @property
    def calls(self) -> int:
        """Model calls made; the bare sampler makes ``steps``."""
        return self.true + self.lied + self.held

    @property
    def nonfinite(self) -> int:
        """Predictions with NaN or inf, by sample, that were passed through untouched."""
        return int((~torch.cat(self._sound)).sum()) if self._sound else 0

    def skip(self, reason: str) -> None:
        """Count a step that went without detail."""
        self.skipped[reason] = self.skipped.get(reason, 0) + 1

    def count_unsound(self, sound: Tensor) -> None:
        """Count the samples, (batch,) bool, that are not sound, when somebody asks."""
        # Reading it here would make the host wait for the device.
        self._sound.append(sound)

    def as_dict(self) -> dict[str, object]:
        """The counts, ready for JSON."""
        counts: dict[str, object] = {
            name: getattr(self, name) for name in ("steps", "calls", "true", "lied", "held", "nonfinite")
        }
        return {**counts, "skipped": dict(self.skipped)}

    def __str__(self) -> str:
        skipped = ", ".join(f"{reason} {count}" for reason, count in self.skipped.items()) or "none"
        line = f"{self.calls} model calls for {self.steps} (true {self.true}, lied {self.lied}, held {self.held}); "
        line += f"without detail: {skipped}"
        return line + (f"; {self.nonfinite} predictions with NaN or inf left alone" if self.nonfinite else "")
