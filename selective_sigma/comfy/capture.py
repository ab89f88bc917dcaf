"""What a run saw, handed from the sampler to the mask preview."""

from __future__ import annotations

from threading import Lock
from typing import NamedTuple

from torch import Tensor

from ..report import Report


class Run(NamedTuple):
    """One finished run.

    ``masks`` holds (sigma, mask) in run order, each mask (batch, 1, *space) in [0, 1], float32 on
    the CPU; where several latents were packed into one, the mask of the first of them.
    """

    masks: tuple[tuple[float, Tensor], ...] = ()
    report: Report | None = None


class Capture:
    """A slot for the latest run; safe to share between threads.

    Readers never clear it, so that a re-queued graph whose sampling is cached still finds what it
    shows. Every finished run replaces it, one without masks too: an older run's would mislead.

    >>> capture = Capture()
    >>> sampler = wrap(sampler, settings, capture=capture)
    >>> for sigma, mask in capture.masks: ...              # after the run; empty before the first
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._run = Run()

    def store(self, masks: list[tuple[float, Tensor]], report: Report) -> None:
        """Replace the content by a finished run."""
        run = Run(tuple((sigma, mask.detach().float().cpu()) for sigma, mask in masks), report)
        with self._lock:
            self._run = run

    @property
    def run(self) -> Run:
        """The latest run, whole: masks and report that belong together."""
        with self._lock:
            return self._run

    @property
    def masks(self) -> tuple[tuple[float, Tensor], ...]:
        return self.run.masks

    @property
    def report(self) -> Report | None:
        return self.run.report
