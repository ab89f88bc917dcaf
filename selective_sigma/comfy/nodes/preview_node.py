"""The node that shows where detail went."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import comfy.latent_formats
from comfy_api.latest import io, ui

from ...report import Reason
from ..run.capture import Capture, Run
from ..run.summary import why
from . import words
from .preview import SHOW, USUAL, lead, mask_of, message, render
from .widgets import SAMPLERS, MaskRef, schema

if TYPE_CHECKING:
    from torch import Tensor

    from ...settings import Settings

SHOWN_AT_MOST = 128
"""Pictures in the node itself; the output has them all."""


class NodeCapture(Capture):
    """What a node puts out as ``mask_ref``: the runs, and what the node was set to."""

    def __init__(self, settings: Settings, model: Any = None) -> None:
        super().__init__(idle=settings.idle)
        self.settings = settings
        self.scale: int | None = None
        """Pixels of the picture along one side of a pixel of the latent; None where it is not known."""
        if model is not None and not self.idle:
            self.scale = scale_of(model.get_model_object("latent_format"))


def scale_of(latent_format: Any) -> int:
    return int(getattr(latent_format, "spacial_downscale_ratio", 8))


def scale_by_shape(samples: Tensor) -> int:
    """The same by a latent alone: what all latent formats of its channels and axes agree on, else 8."""
    channels, axes = samples.shape[1], samples.ndim - 2
    kinds = [kind for kind in vars(comfy.latent_formats).values() if isinstance(kind, type)]
    alike = {
        scale_of(kind)
        for kind in kinds
        if (getattr(kind, "latent_channels", None), getattr(kind, "latent_dimensions", 2)) == (channels, axes)
    }
    return alike.pop() if len(alike) == 1 else 8


def why_none(captured: Capture | None, run: Run | None) -> str:
    """Why there is no mask to show."""
    if captured is not None and captured.idle:
        return words.WITHOUT.format(Reason.IDLE.text)
    if captured is None or captured.run is None:
        return words.BYPASSED
    return words.UNKNOWN if run is None else words.WITHOUT.format(why(run.report))


class SelectiveSigmaDetailerMaskPreviewNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="SelectiveSigmaDetailerMaskPreviewNode",
            display_name="Mask Preview (Selective Sigma)",
            category=SAMPLERS,
            description=words.PREVIEW,
            is_output_node=True,
            inputs=[
                MaskRef.Input("mask_ref", optional=True, tooltip=words.REF_IN),
                io.Latent.Input("latent", tooltip=words.LATENT),
                io.Combo.Input("show", options=list(SHOW), default=SHOW[0], optional=True, tooltip=words.SHOW),
                io.Image.Input("image", optional=True, tooltip=words.IMAGE),
            ],
            outputs=[
                io.Latent.Output("latent_out", display_name="latent", tooltip=words.LATENT_OUT),
                io.Image.Output("image_out", display_name="image", tooltip=words.IMAGE_OUT),
                io.Mask.Output("mask_out", display_name="mask", tooltip=words.MASK_OUT),
            ],
        )

    @classmethod
    def execute(
        cls, latent: dict, mask_ref: Any = None, show: str = SHOW[0], image: Tensor | None = None
    ) -> io.NodeOutput:
        if mask_ref is not None and not isinstance(mask_ref, Capture):
            raise TypeError(
                f"mask_ref is a {type(mask_ref).__name__}: connect mask_ref of Selective Sigma Detailer (Debug)"
            )
        run = None if mask_ref is None else mask_ref.of(latent["samples"])
        masks = () if run is None else run.masks
        if run is not None and masks:
            picture = render(masks, show, image, run.steps, getattr(mask_ref, "settings", USUAL))
        else:
            picture = message(why_none(mask_ref, run))
        samples = latent["samples"]
        scale = getattr(mask_ref, "scale", None) or scale_by_shape(lead(samples))
        mask = mask_of(masks, samples, show, image, scale)
        return io.NodeOutput(latent, picture, mask, ui=ui.PreviewImage(picture[:SHOWN_AT_MOST], cls=cls))
