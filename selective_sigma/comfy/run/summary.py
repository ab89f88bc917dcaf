"""What the log says of a finished run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from ...report import Report
    from .network import NetworkCount

INACTIVE = "the positive conditioning is not active at the steps that are due"


def summary(report: Report, count: NetworkCount, means: Sequence[Tensor], detailed: int, steps: int) -> str:
    """One run in one line.

    Args:
        means: the mean of each mask under which detail was added, 0-d.
        detailed: how many of the run's ``steps`` have detail. A step may be several calls of the model.
    """
    if not count.lies:
        return f"no detail ({INACTIVE if report.lied else most_common_reason(report)})"
    share = round(100 * float(torch.stack(list(means)).mean())) if means else 0
    line = f"detail on {detailed} of {steps} steps, in {share} % of the picture, "
    rows, calls = (f"{a / max(b, 1):.2f}x" for a, b in ((count.rows, count.bare_rows), (count.calls, count.bare_calls)))
    line += f"for {rows} the work" + (f" ({calls} the model calls)" if calls != rows else "")
    if report.nonfinite:
        line += f"; {report.nonfinite} samples with NaN or inf"
    return line


def most_common_reason(report: Report) -> str:
    """Why most steps of a run without detail went without it."""
    reasons = sorted(report.skipped, key=report.skipped.__getitem__)
    return reasons[-1].text if reasons else "it has no steps"
