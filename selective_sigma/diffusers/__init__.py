"""Selective detail for diffusers pipelines: from outside their parts, and gone between two calls.

>>> import torch
>>> from diffusers import StableDiffusionXLPipeline
>>> import selective_sigma.diffusers as selective
>>> pipe = StableDiffusionXLPipeline.from_pretrained("stabilityai/stable-diffusion-xl-base-1.0")
>>> with selective.detail(pipe, strength=0.1, coverage=0.5) as run:
...     image = pipe("portrait of a sailor, oil on canvas").images[0]
>>> print(run.report)       # model calls by kind
>>> run.mask.shape          # (batch, 1, height, width), on the latent's grid
>>> run = selective.enable(pipe, strength=0.2)
>>> selective.disable(pipe)

Works with any pipeline whose model and scheduler meet step by step: how they do is learned at the first step of a run,
which stays plain. What does not fit is refused there, with the reason.
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
        TypeError: a pipe that is none, a keyword that is no setting, a limit or within that is no tensor.
        ValueError: bad settings, a pipe without modules, one that is enabled already, a scheduler
            that does not say how it adds noise, a cache or an accelerator that counts model calls.
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
    """Leave the pipe as it was; nothing where detail is not enabled."""
    attach.set_listener(pipe, None)


class Run:
    """What ``enable`` and ``detail`` return: the mask and the report of the pipeline's latest run.

    The lie is told to the conditional prediction where the pipeline stacks [uncond, cond] in one batch, to the
    step's first call where it makes several; its effect is added to all of them.
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
        """Model calls of the latest run; the plain pipeline makes ``report.steps`` of them."""
        return self._tracker.report

    @property
    def masks(self) -> list[MaskRecord]:
        """With ``record``: one for each step of the latest run that had a mask."""
        return self._tracker.masks

    @property
    def mask(self) -> Any:
        """Latest mask, (batch, 1, *space) in [0, 1], a list for several streams; None before the first."""
        detailer = self._tracker.detailer
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
        idle = self.settings.idle
        tracker = StepTracker(self._pipe, self.settings, self._options)
        with ExitStack() as stack:
            methods = {"step": tracker.stepped, "set_timesteps": tracker.timed}
            try:
                stack.enter_context(attach.listening_to_scheduler(self._pipe.scheduler, methods))
            except (TypeError, ValueError):
                if not idle:
                    raise
            # Not before: a run of another thread may be in the midst of this scheduler.
            self._tracker, self._thread = tracker, threading.get_ident()
            stack.callback(self._detach)
            for module in attach.components(self._pipe):
                stack.enter_context(attach.listening(module, {"__call__": tracker.called}))
            yield
        if tracker.detailer is None and not idle:
            warnings.warn(f"Selective Sigma added nothing: {tracker.outcome}", stacklevel=3)

    def _detach(self) -> None:
        # What was recorded is large, and not wanted after an error either.
        self._tracker.forget_step()
        self._thread = None
