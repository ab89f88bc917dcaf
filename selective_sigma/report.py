"""What one run did, and what it cost."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

import torch
from torch import Tensor


class Reason(str, Enum):
    """Why a step went without detail.

    ``text`` says it to a user. ``Detailer._why_plain`` chooses the reason, or takes the one of the schedule
    (``Step.reason``). ``Detailer.step`` counts ``CACHED``, and the diffusers host ``LEARNING``.
    """

    IDLE = "idle", "strength or coverage is 0"
    WINDOW = "window", "outside start and end"
    EVERY = "every", "another step carries its dose"
    OUTSIDE = "outside", "at noise levels that the run does not hold"
    ASCENDING = "ascending", "noise is added, from low levels to high ones"
    EMPTY = "empty", "the mask that detail is limited to is black"
    FIRST = "first", "mask_source change has nothing to compare with yet"
    CACHED = "cached", "a cache answered in place of the model"
    LEARNING = "learning", "the diffusers adapter knew no call that began it, as at the first step"

    text: str

    def __new__(cls, value: str, text: str) -> Reason:
        reason = str.__new__(cls, value)
        reason._value_ = value
        reason.text = text
        return reason

    def __str__(self) -> str:
        return str(self.value)


@dataclass
class Report:
    """Model calls of one run by kind, the doses told, and why steps went without detail."""

    steps: int = 0
    """Model calls that the bare sampler makes."""
    plain: int = 0
    lied: int = 0
    e_folds: float = 0.0
    """Sum of the doses told, -ln(1 - strength) each. It equals the sum of the schedule if no step was missed."""
    skipped: dict[Reason, int] = field(default_factory=dict[Reason, int])
    """Steps without detail, by reason."""
    _finite: list[Tensor] = field(default_factory=list[Tensor], repr=False)

    @property
    def calls(self) -> int:
        """Model calls made. The bare sampler makes ``steps``."""
        return self.plain + self.lied

    @property
    def nonfinite(self) -> int:
        """Number of samples with NaN or inf in a prediction, summed over the steps in which the lie was told.

        Under a mask, such a sample stays plain. Where the mask is 1 everywhere, the lied prediction is returned.
        """
        return int((~torch.cat(self._finite)).sum()) if self._finite else 0

    def skip(self, reason: Reason) -> None:
        """Count a step that went without detail."""
        self.skipped[reason] = self.skipped.get(reason, 0) + 1

    def count_finite(self, finite: Tensor) -> None:
        """Store which samples are finite, (batch,) bool. Only ``nonfinite`` reads this, and waits for the device."""
        self._finite.append(finite)

    def as_dict(self) -> dict[str, object]:
        """The counts, ready for JSON."""
        names = ("steps", "calls", "plain", "lied", "e_folds", "nonfinite")
        skipped = {reason.value: count for reason, count in self.skipped.items()}
        return {**{name: getattr(self, name) for name in names}, "skipped": skipped}

    def __str__(self) -> str:
        skipped = ", ".join(f"{count} ({reason.text})" for reason, count in self.skipped.items()) or "none"
        line = f"{self.calls} model calls for {self.steps} (plain {self.plain}, lied {self.lied}); "
        line += f"doses of {self.e_folds:.3g} e-folds; steps without detail: {skipped}"
        return line + (f"; {self.nonfinite} samples with NaN or inf" if self.nonfinite else "")
