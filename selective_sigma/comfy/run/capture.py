"""The masks of finished runs, on their way from the sampler to the mask preview."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F

from ...settings import Settings
from .latent import first_stream

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from ...detailer import MaskRecord
    from ...report import Report

MOST_BYTES = 2**28
"""Limit for all masks in one capture."""
FINGERPRINT_LENGTH = 1024
SAME_LATENT = 5e-3
"""Distance of fingerprints up to which two latents are the same. Half precision changes 5e-4, another seed about 1."""
DEFAULT_SETTINGS = Settings()


class CapturedRun(NamedTuple):
    """One finished run of a sampler."""

    masks: tuple[MaskRecord, ...]
    """In the order of the steps. Each mask is that of the first stream: (batch, 1, *space) in [0, 1], float32, CPU."""
    report: Report
    fingerprints: tuple[Tensor, ...] = ()
    """One for each latent that the sampler node returns."""
    steps: int = 0
    """All steps of the run, with detail or without."""


class Capture:
    """The latest runs of one sampler. A run is looked up by a latent that came out of it.

    Several runs are kept: a cache may hand out the latent of an older run, and the preview then needs that run's mask.
    If all masks together exceed ``MOST_BYTES``, the oldest runs are dropped.

    Args:
        settings: the settings of the sampler.
        scale: pixels of the picture along one side of a latent pixel; None if unknown.

    >>> capture = Capture()
    >>> sampler = wrap(sampler, settings, capture=capture)
    >>> run = capture.of(samples)      # after the run; None where no run of this sampler made them
    """

    def __init__(self, settings: Settings = DEFAULT_SETTINGS, scale: int | None = None) -> None:
        self.settings = settings
        self.scale = scale
        # Appending to a deque and iterating over a copy of it need no lock. A lock could not be pickled.
        self._runs: deque[CapturedRun] = deque(maxlen=256)

    def store(
        self, masks: Sequence[MaskRecord], report: Report, latents: Sequence[Tensor] = (), steps: int = 0
    ) -> None:
        """Add a finished run; ``latents`` are what the sampler node will put out."""
        records = tuple(record._replace(mask=first_stream(record.mask).detach().float().cpu()) for record in masks)
        self._runs.append(CapturedRun(records, report, tuple(map(fingerprint, latents)), steps))
        while len(self._runs) > 1 and sum(map(mask_bytes, tuple(self._runs))) > MOST_BYTES:
            self._runs.popleft()

    @property
    def run(self) -> CapturedRun | None:
        """The latest run."""
        return self._runs[-1] if self._runs else None

    def of(self, samples: Tensor) -> CapturedRun | None:
        """The run that made these samples, by the closest fingerprint; the latest of several; None if none did."""
        closest, least_distance = None, SAME_LATENT
        reference = fingerprint(samples)
        for run in tuple(self._runs):
            for candidate in run.fingerprints:
                distance = fingerprint_distance(candidate, reference)
                if distance <= least_distance:
                    closest, least_distance = run, distance
        return closest


def fingerprint(samples: Tensor) -> Tensor:
    """The size of a latent and means over consecutive values of it, (at most 1 + FINGERPRINT_LENGTH,)."""
    streams = samples.unbind() if getattr(samples, "is_nested", False) else [samples]
    flat = torch.cat([stream.detach().flatten() for stream in streams])
    means = F.adaptive_avg_pool1d(flat.float().unsqueeze(0), min(FINGERPRINT_LENGTH, flat.numel()))[0]
    return torch.cat([torch.tensor([float(flat.numel())]), means.cpu()])


def fingerprint_distance(candidate: Tensor, reference: Tensor) -> float:
    """Distance of two fingerprints, relative to ``reference``; infinite if the latents differ in size."""
    if candidate.shape != reference.shape or candidate[0] != reference[0]:
        return float("inf")
    return float((candidate[1:] - reference[1:]).norm() / reference[1:].norm().clamp(min=1e-12))


def mask_bytes(run: CapturedRun) -> int:
    return sum(first_stream(record.mask).numel() * 4 for record in run.masks)
