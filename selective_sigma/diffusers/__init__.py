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

Any pipeline whose model and scheduler meet step by step: how they do is learned at the first step
of a run, which stays plain. What does not fit is refused there with the reason.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from torch import nn

from ..mask import checked_map
from ..settings import SETTING_NAMES, Settings
from . import attach, noise, state
from .run import Run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import Tensor

__all__ = ["Run", "detail", "disable", "enable"]


@contextmanager
def detail(pipe: Any, **options: Any) -> Iterator[Run]:
    """Add detail to what ``pipe`` makes within the ``with`` block; takes what ``enable`` takes.

    The pipe may be called several times; each call is a run of its own. A loop of one's own around
    the pipe's model and scheduler gets detail within ``with run.attached():``.
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
    if attach.listened(pipe):
        raise ValueError("Selective Sigma is already enabled on this pipe: call disable(pipe) first")
    if not run.settings.idle:
        noise.check(pipe.scheduler)
        modules = attach.components(pipe)
        if not modules:
            raise ValueError(f"{type(pipe).__name__} has no modules: there is no denoiser to listen to")
        for module in modules:
            state.caches(module)

    def called(_: Any, call: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        with run.attached():
            return call(*args, **kwargs)

    if callable(pipe):
        attach.listen(pipe, called)
    return run


def disable(pipe: Any) -> None:
    """Leave the pipe as it was; nothing where detail is not enabled."""
    attach.leave(pipe)
