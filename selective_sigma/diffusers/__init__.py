"""Selective detail for diffusers pipelines: a hook on the denoiser, installed and removed.

>>> import torch
>>> from diffusers import StableDiffusionXLPipeline
>>> import selective_sigma.diffusers as selective
>>> pipe = StableDiffusionXLPipeline.from_pretrained("stabilityai/stable-diffusion-xl-base-1.0")
>>> with selective.detail(pipe, strength=0.1, coverage=0.5) as run:
...     image = pipe("portrait of a sailor, oil on canvas").images[0]
>>> print(run.report)       # model calls by kind
>>> run.mask.shape          # (batch, 1, height, width), on the latent's grid
>>> run = selective.enable(pipe, strength=0.2, mask_source="first")
>>> selective.disable(pipe)

Works with pipelines that have a ``unet`` or ``transformer`` (and ``transformer_2``): images and
video, packed or not, guidance in one batch or in two calls; and with the schedulers in
``SUPPORTED``.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from ..settings import Settings
from . import caches
from .hook import install, installed, remove
from .levels import SUPPORTED, check
from .run import Run

__all__ = ["SUPPORTED", "Run", "detail", "disable", "enable"]

_DENOISERS = ("unet", "transformer", "transformer_2")


@contextmanager
def detail(pipe: Any, **options: Any) -> Iterator[Run]:
    """Add detail to what ``pipe`` makes within the ``with`` block; takes what ``enable`` takes.

    The pipe may be called several times; each call is a run of its own. Leaving the block,
    also by an error, restores the denoiser.
    """
    run = enable(pipe, **options)
    try:
        yield run
    finally:
        # An idle run installed nothing, and must not take away somebody else's.
        if not run.settings.idle:
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
        pipe: a diffusers pipeline, or anything with a ``scheduler`` and a ``unet`` or
            ``transformer``.
        limit: (batch or 1, 1, *space) in [0, 1], any size: where detail may go.
        within: (batch or 1, 1, *space), the part that inpainting regenerates; the mask is
            normalised over it alone.
        record: keep every step's mask in ``run.masks``.
        settings: any field of ``selective_sigma.Settings``, such as ``strength`` and
            ``coverage``. With strength or coverage 0 nothing is installed.

    Raises:
        ValueError: bad settings, a pipe without a denoiser, one that is enabled already, a
            scheduler that is not supported, a cache that counts model calls.
    """
    run = Run(pipe, Settings(**settings), _mask("limit", limit), _mask("within", within), record)
    modules = _modules(pipe)
    if not modules:
        raise ValueError(f"{type(pipe).__name__} has no {' or '.join(_DENOISERS)}: there is no denoiser to hook")
    check(getattr(pipe, "scheduler", None))
    for name, module in modules.items():
        if installed(module):
            raise ValueError(f"Selective Sigma is already enabled on this pipe's {name}: call disable(pipe) first")
        caches.find(module)
    if not run.settings.idle:
        for module in modules.values():
            install(module, run.step)
    return run


def disable(pipe: Any) -> None:
    """Take the hook away and leave the denoiser as it was; nothing where none is installed."""
    for module in _modules(pipe).values():
        remove(module)


def _modules(pipe: Any) -> dict[str, nn.Module]:
    found = {name: getattr(pipe, name, None) for name in _DENOISERS}
    return {name: module for name, module in found.items() if isinstance(module, nn.Module)}


def _mask(name: str, mask: Tensor | None) -> Tensor | None:
    if mask is not None and (mask.ndim < 3 or mask.shape[1] != 1):
        raise ValueError(f"{name} has shape {tuple(mask.shape)}: give (batch or 1, 1, *space)")
    return mask
