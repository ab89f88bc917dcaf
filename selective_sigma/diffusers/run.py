"""A run of a pipeline, as ``enable`` and ``detail`` return it."""

from __future__ import annotations

import threading
import warnings
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from . import attach, state
from .steps import Steps

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from ..detailer import MaskRecord
    from ..report import Report
    from ..settings import Settings


class Run:
    """What ``enable`` and ``detail`` return: the mask and the report of the pipeline's latest run.

    The lie is told to the conditional prediction where the pipeline stacks [uncond, cond] in one batch, to the
    step's first call where it makes several; its effect is added to all of them.
    """

    def __init__(self, pipe: Any, settings: Settings, limit: Tensor | None, within: Tensor | None, record: bool):
        self.settings = settings
        self._pipe = pipe
        self._options: dict[str, Any] = {"limit": limit, "within": within, "record": record}
        self._steps = Steps(pipe, None, settings, self._options, [])
        self._thread: int | None = None
        """The thread that the run is attached in."""

    @property
    def report(self) -> Report:
        """Model calls of the latest run; the plain pipeline makes ``report.steps`` of them."""
        return self._steps.report

    @property
    def masks(self) -> list[MaskRecord]:
        """With ``record``: one for each step of the latest run that had a mask."""
        return self._steps.masks

    @property
    def mask(self) -> Any:
        """Latest mask, (batch, 1, *space) in [0, 1], a list for several streams; None before the first."""
        detailer = self._steps.detailer
        return None if detailer is None else detailer.mask

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Within, detail is added to what calls the pipe's model and scheduler.

        A call of an enabled pipe does this by itself; loops of one's own are written within it.
        """
        if self._thread == threading.get_ident():
            # A call of the pipe within a loop that is attached.
            yield
            return
        scheduler, idle = self._pipe.scheduler, self.settings.idle
        modules = attach.components(self._pipe)
        managers = [] if idle else [manager for module in modules for manager in state.caches(module)]
        steps = Steps(self._pipe, scheduler, self.settings, self._options, managers)
        with ExitStack() as stack:
            try:
                stack.enter_context(attach.methods(scheduler, {"step": steps.stepped, "set_timesteps": steps.timed}))
            except (TypeError, ValueError):
                if not idle:
                    raise
            # Not before: a run of another thread may be in the midst of this scheduler.
            self._steps, self._thread = steps, threading.get_ident()
            stack.callback(self._detach)
            stack.enter_context(attach.modules(modules, steps.called))
            yield
        if not steps.report.lied and not steps.streams and not idle:
            warnings.warn(f"Selective Sigma added nothing: {steps.learner.outcome}", stacklevel=3)

    def _detach(self) -> None:
        # What was recorded is large, and not wanted after an error either.
        self._steps.forget()
        self._thread = None
