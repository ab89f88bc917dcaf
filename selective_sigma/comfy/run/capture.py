"""What runs saw, handed from the sampler to the mask preview."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F

from .latent import first

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from ...detailer import MaskRecord
    from ...report import Report

MOST_BYTES = 2**28
SAMPLES = 1024
CLOSE = 5e-3
"""Two latents are one where they differ by less: half precision does by 5e-4, another seed by 1."""


class Run(NamedTuple):
    """One finished run.

    ``masks`` are in run order, each mask (batch, 1, *space) in [0, 1], float32 on the CPU; where
    several latents were packed into one, the mask of the first of them.
    """

    masks: tuple[MaskRecord, ...]
    report: Report
    prints: tuple[Tensor, ...] = ()
    """Prints of the latents that came out."""
    steps: int = 0
    """Steps of the run, with detail or without."""


class Capture:
    """The latest runs of one sampler, told apart by the latent that came out.

    A cache may hand out the latent of an older run, and its mask must come with it. Readers clear
    nothing; the oldest runs go when they are larger than ``MOST_BYTES`` in all.

    >>> capture = Capture()
    >>> sampler = wrap(sampler, settings, capture=capture)
    >>> run = capture.of(samples)      # after the run; None where no run of this sampler made them
    """

    def __init__(self, idle: bool = False) -> None:
        self.idle = idle
        """Whether its sampler has nothing to add, and so never has a run."""
        # Adding to a deque and walking over a copy of it need no lock, which could not be pickled.
        self._runs: deque[Run] = deque(maxlen=256)

    def store(
        self, masks: Sequence[MaskRecord], report: Report, latents: Sequence[Tensor] = (), steps: int = 0
    ) -> None:
        """Add a finished run; ``latents`` are what the sampler node will put out."""
        kept = tuple(record._replace(mask=first(record.mask).detach().float().cpu()) for record in masks)
        self._runs.append(Run(kept, report, tuple(map(fingerprint, latents)), steps))
        while len(self._runs) > 1 and sum(map(size, tuple(self._runs))) > MOST_BYTES:
            self._runs.popleft()

    @property
    def run(self) -> Run | None:
        """The latest run."""
        return self._runs[-1] if self._runs else None

    def of(self, samples: Tensor) -> Run | None:
        """The run that made these samples, or None."""
        found, least = None, CLOSE
        wanted = fingerprint(samples)
        for run in tuple(self._runs):
            for known in run.prints:
                distance = difference(known, wanted)
                # The later of two alike.
                if distance <= least:
                    found, least = run, distance
        return found


def fingerprint(samples: Tensor) -> Tensor:
    """Numbers by which a latent is known again: its size and means of all its values; streams one after another."""
    streams = samples.unbind() if getattr(samples, "is_nested", False) else [samples]
    flat = torch.cat([stream.detach().flatten() for stream in streams])
    means = F.adaptive_avg_pool1d(flat.float().unsqueeze(0), min(SAMPLES, flat.numel()))[0]
    return torch.cat([torch.tensor([float(flat.numel())]), means.cpu()])


def difference(a: Tensor, b: Tensor) -> float:
    """Relative distance of two prints; infinite where the latents differ in size."""
    if a.shape != b.shape or a[0] != b[0]:
        return float("inf")
    return float((a[1:] - b[1:]).norm() / b[1:].norm().clamp(min=1e-12))


def size(run: Run) -> int:
    return sum(first(record.mask).numel() * 4 for record in run.masks)
