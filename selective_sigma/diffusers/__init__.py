"""Adds detail to diffusers pipelines. Models and schedulers are changed only during a call.

>>> import torch
>>> from diffusers import StableDiffusionXLPipeline
>>> import selective_sigma.diffusers as selective
>>> pipe = StableDiffusionXLPipeline.from_pretrained("stabilityai/stable-diffusion-xl-base-1.0")
>>> with selective.detail(pipe, strength=0.1, coverage=0.5) as run:
...     image = pipe("portrait of a sailor, oil on canvas").images[0]
>>> print(run.report)       # model calls, and why steps stayed plain
>>> run.mask.shape          # (batch, 1, height, width), on the latent's grid
>>> run = selective.enable(pipe, strength=0.2)
>>> selective.disable(pipe)

Works with pipelines that call a model and then a scheduler in every step. The first step of a run stays plain: the
adapter learns from it how the pipeline does so. A pipeline that does not fit is refused there, with the reason.
"""

from __future__ import annotations

import threading
import warnings
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import diffusers
from torch import nn

from ..mask import checked_map
from ..settings import SETTING_NAMES, Settings
from . import attach, noise
from .run import StepTracker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import Tensor

    from ..detailer import MaskRecord
    from ..report import Report

attach.check_version(diffusers.__version__)

__all__ = ["Run", "detail", "disable", "enable"]


@contextmanager
def detail(pipe: Any, **options: Any) -> Iterator[Run]:
    """Add detail to what ``pipe`` makes within the ``with`` block; takes what ``enable`` takes.

    The pipe may be called several times; each call is a run of its own. A loop of one's own around the pipe's model and
    scheduler gets detail within ``with run.attached():``.
    """
    run = enable(pipe, **options)
    try:
        yield run
    finally:
        disable(pipe)


def enable(
    pipe: Any,
    *,
    limit: Tensor | None = None,
    within: Tensor | None = None,
    record: bool = False,
    **settings: Any,
) -> Run:
    """Add detail to everything ``pipe`` makes until ``disable``.

    Args:
        pipe: a diffusers pipeline, classic or modular, or anything with a ``scheduler`` and
            modules for attributes.
        limit: (batch or 1, 1, *space) in [0, 1], any size: where detail may go.
        within: (batch or 1, 1, *space), the part that inpainting regenerates; the mask
            compares places within it alone.
        record: keep every step's mask in ``run.masks``.
        settings: any field of ``selective_sigma.Settings``, such as ``strength`` and
            ``coverage``. With strength or coverage 0 the pipe's calls are counted, and nothing else.

    Raises:
        TypeError: ``pipe`` is not a pipeline, a keyword is not a setting, ``limit`` or ``within`` is not a tensor.
        ValueError: a setting is invalid, the pipe has no modules or is enabled already, or its scheduler, a cache or
            an accelerator is not supported.
    """
    unknown = sorted(settings.keys() - set(SETTING_NAMES))
    if unknown:
        raise TypeError(f"{', '.join(unknown)} is no setting: give limit, within, record, {', '.join(SETTING_NAMES)}")
    if isinstance(pipe, nn.Module):
        raise TypeError(f"pipe is the model {type(pipe).__name__}: give the pipeline that it is a part of")
    if not hasattr(pipe, "scheduler") or not hasattr(pipe, "__dict__"):
        kind = repr(pipe) if pipe is None or isinstance(pipe, str) else f"a {type(pipe).__name__}, without a scheduler"
        raise TypeError(f"pipe is {kind}: give a diffusers pipeline, or anything with a scheduler and modules")
    run = Run(pipe, Settings(**settings), checked_map("limit", limit), checked_map("within", within), record)
    if attach.has_listener(pipe):
        raise ValueError("Selective Sigma is already enabled on this pipe: call disable(pipe) first")
    if not run.settings.idle:
        noise.check(pipe.scheduler)
        modules = attach.components(pipe)
        if not modules:
            raise ValueError(f"{type(pipe).__name__} has no modules: there is no denoiser to listen to")
        for module in modules:
            attach.caches(module)

    def attached_call(_: Any, call: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        with run.attached():
            return call(*args, **kwargs)

    if callable(pipe):
        attach.set_listener(pipe, attached_call)
    return run


def disable(pipe: Any) -> None:
    """Remove detail from the pipe. Does nothing if it is not enabled."""
    attach.set_listener(pipe, None)


class Run:
    """What ``enable`` and ``detail`` return: the mask and the report of the pipeline's latest run.

    Under the response mask, the lie is told to the cond copy of a batch, or in the first of several calls of a step.
    Its effect is added to all predictions. Under other masks, every prediction is told the lie.
    """

    def __init__(self, pipe: Any, settings: Settings, limit: Tensor | None, within: Tensor | None, record: bool):
        self.settings = settings
        self._pipe = pipe
        self._options: dict[str, Any] = {"limit": limit, "within": within, "record": record}
        self._tracker = StepTracker(pipe, settings, self._options)
        self._thread: int | None = None
        """The thread that the run is attached in."""

    @property
    def report(self) -> Report:
        """Model calls of the latest run. The plain pipeline makes ``report.steps`` of them.

        Calls that belong to no step, such as those of a preview, are not counted.
        """
        return self._tracker.report

    @property
    def masks(self) -> list[MaskRecord]:
        """A ``MaskRecord`` for each step of the latest run that had a mask; empty without ``record``."""
        return self._tracker.masks

    @property
    def mask(self) -> Any:
        """Latest mask, (batch, 1, *space) in [0, 1]; None before the first."""
        detailer = self._tracker.detailer
        return None if detailer is None else detailer.mask

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Context in which the pipe's model and scheduler add detail.

        A call of an enabled pipe enters it by itself. Enter it for a loop of your own.

        Raises:
            ValueError: another thread samples with the scheduler.
        """
        if self._thread == threading.get_ident():
            # The pipe is called in a loop that is attached already.
            yield
            return
        idle = self.settings.idle
        tracker = StepTracker(self._pipe, self.settings, self._options)
        with ExitStack() as stack:
            methods = {"step": tracker.stepped, "set_timesteps": tracker.timed}
            try:
                attach.check_thread(self._pipe.scheduler)
                stack.enter_context(attach.listening(self._pipe.scheduler, methods))
            except (TypeError, ValueError):
                if not idle:
                    raise
            # Only now: if another thread samples with this scheduler, the run there keeps its tracker.
            self._tracker, self._thread = tracker, threading.get_ident()
            stack.callback(self._detach)
            for module in attach.components(self._pipe):
                stack.enter_context(attach.listening(module, {"__call__": tracker.called}))
            yield
        if tracker.detailer is None and not idle:
            warnings.warn(f"Selective Sigma added nothing: {tracker.outcome}", stacklevel=3)

    def _detach(self) -> None:
        # Recorded calls are large. They are not needed after an error either.
        self._tracker.forget_step()
        self._thread = None
