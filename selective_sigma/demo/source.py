"""Where a sweep's pictures come from: the embedded network, or a checkpoint on disk."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import torch
from diffusers import DiffusionPipeline
from torch import Tensor

from . import NAMES, photos
from .pipeline import open_pipeline, thumbnail_of
from .samplers import scheduler

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from .sweep import Job

SIZE = 192
"""Height and width of a named photograph; one of the user's has as many pixels."""


def open_source(
    job: Job, flow: bool = False, model: Path | None = None, device: torch.device | str = "cpu"
) -> tuple[Any, Callable[[], Tensor]]:
    """A pipe, and a function that runs it once and gives a picture (3, H, W) in [0, 1].

    Raises:
        ValueError: unknown photograph, sampler or folder.
    """
    return _checkpoint(job, model, device) if model else _embedded(job, flow, device)


def _embedded(job: Job, flow: bool, device: torch.device | str) -> tuple[Any, Callable[[], Tensor]]:
    size = SIZE if job.subject in NAMES else photos.shape_of(job.subject, SIZE**2)
    thumbnail = thumbnail_of(job.subject, size)
    pipe = open_pipeline(job.sampler, flow).to(device)
    return pipe, lambda: pipe(thumbnail, job.seed, job.steps, job.guidance)[0]


def check_checkpoint(model: Path) -> None:
    """Check that ``model`` is the folder of a diffusers checkpoint.

    Raises:
        ValueError: it is not; the message says what it is instead.
    """
    if not model.is_dir():
        raise ValueError(f"model is {str(model)!r}: there is no such folder; give that of a diffusers checkpoint")
    index = model / "model_index.json"
    try:
        parts = json.loads(index.read_text())
    except (OSError, ValueError):
        parts = None
    if not isinstance(parts, dict) or "_class_name" not in parts:
        raise ValueError(
            f"model is {str(model)!r}: give a diffusers checkpoint, whose model_index.json names a pipeline"
        )


def _checkpoint(job: Job, model: Path, device: torch.device | str) -> tuple[Any, Callable[[], Tensor]]:
    check_checkpoint(model)
    on_gpu = torch.device(device).type != "cpu"
    dtype = torch.bfloat16 if on_gpu else torch.float32
    try:
        pipe: Any = DiffusionPipeline.from_pretrained(model, dtype=dtype, local_files_only=True)
    except (OSError, ValueError, AttributeError, ImportError) as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise ValueError(f"model is {str(model)!r}: give a whole diffusers checkpoint ({reason})") from error
    if job.sampler != "own":
        is_flow = "FlowMatch" in type(pipe.scheduler).__name__
        pipe.scheduler = scheduler(job.sampler, is_flow, dict(pipe.scheduler.config))
    pipe.to(device)
    pipe.set_progress_bar_config(disable=True)

    def sample() -> Tensor:
        generator = torch.Generator().manual_seed(job.seed)
        picture = pipe(
            job.subject,
            num_inference_steps=job.steps,
            guidance_scale=job.guidance,
            generator=generator,
            output_type="np",
        ).images[0]
        return torch.from_numpy(picture).permute(2, 0, 1)

    return pipe, sample
