"""The log line of a finished run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from ...report import Report
    from .network import NetworkCount

INACTIVE = "the positive conditioning is not active at the steps that are due"


def summary(report: Report, count: NetworkCount, mask_means: Sequence[Tensor], detailed_steps: int, steps: int) -> str:
    """One run in one line.

    Args:
        mask_means: the mean of each mask under which detail was added, 0-d.
        detailed_steps: how many of the run's ``steps`` have detail. A step may be several calls of the model.
    """
    if not count.lies:
        return f"no detail ({INACTIVE if report.lied else most_common_reason(report)})"
    share = round(100 * float(torch.stack(list(mask_means)).mean())) if mask_means else 0
    line = f"detail on {detailed_steps} of {steps} steps, in {share} % of the picture, "
    rows, calls = (
        f"{ours / max(bare, 1):.2f}x" for ours, bare in ((count.rows, count.bare_rows), (count.calls, count.bare_calls))
    )
    line += f"for {rows} the work" + (f" ({calls} the model calls)" if calls != rows else "")
    if report.nonfinite:
        line += f"; {report.nonfinite} samples with NaN or inf"
    return line


def most_common_reason(report: Report) -> str:
    """The most frequent reason why steps went without detail."""
    reasons = sorted(report.skipped, key=report.skipped.__getitem__)
    return reasons[-1].text if reasons else "it has no steps"
