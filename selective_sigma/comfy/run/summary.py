"""What the log says of a finished run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from ...report import Report
    from .passes import NetworkCount

INACTIVE = "the positive conditioning is not active at the steps that are due"


def summary(report: Report, count: NetworkCount, means: Sequence[Tensor], detailed: int, steps: int) -> str:
    """One run in one line.

    Args:
        count: what the network was asked.
        means: the mean of each mask that detail was blended under, 0-d.
        detailed: steps of the run with detail, of ``steps``; a step may be several calls.
    """
    if not count.lies:
        return f"no detail ({INACTIVE if report.lied else why(report)})"
    share = round(100 * float(torch.stack(list(means)).mean())) if means else 0
    line = f"detail on {detailed} of {steps} steps, in {share} % of the picture, "
    rows, calls = (f"{a / max(b, 1):.2f}x" for a, b in ((count.rows, count.bare_rows), (count.calls, count.bare_calls)))
    line += f"for {rows} the work" + (f" ({calls} the model calls)" if calls != rows else "")
    if report.nonfinite:
        line += f"; {report.nonfinite} samples with NaN or inf"
    return line


def why(report: Report) -> str:
    """Why a run went without detail: the reason of most of its steps."""
    reasons = sorted(report.skipped, key=report.skipped.__getitem__)
    return reasons[-1].text if reasons else "it has no steps"
