"""The node that shows where detail went."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import comfy.latent_formats
from comfy_api.latest import io, ui

from ...report import Reason
from ..run.capture import Capture, CapturedRun
from ..run.latent import first_stream
from ..run.summary import most_common_reason
from . import words
from .preview import SHOW, mask_output, message, render
from .widgets import SAMPLERS, MaskRef, node_schema

if TYPE_CHECKING:
    from torch import Tensor

    from ...settings import Settings

MOST_SHOWN = 128
"""Pictures in the node itself. The output has all of them."""


def new_capture(settings: Settings, model: Any = None) -> Capture:
    """What a node puts out as ``mask_ref``; with ``model``, it has the scale of the model's latents."""
    if model is None or settings.idle:
        return Capture(settings)
    return Capture(settings, scale_of(model.get_model_object("latent_format")))


def scale_of(latent_format: Any) -> int:
    """Pixels of the picture along one side of a latent pixel."""
    return int(getattr(latent_format, "spacial_downscale_ratio", 8))


def scale_by_shape(samples: Tensor) -> int:
    """The scale of ComfyUI's latent formats with as many channels and axes; 8 where they differ or there is none."""
    channels, axes = samples.shape[1], samples.ndim - 2
    kinds = [kind for kind in vars(comfy.latent_formats).values() if isinstance(kind, type)]
    scales = {
        scale_of(kind)
        for kind in kinds
        if (getattr(kind, "latent_channels", None), getattr(kind, "latent_dimensions", 2)) == (channels, axes)
    }
    return scales.pop() if len(scales) == 1 else 8


def why_no_mask(capture: Capture, run: CapturedRun | None) -> str:
    """The message in place of a mask."""
    if capture.settings.idle:
        return words.NO_DETAIL.format(Reason.IDLE.text)
    if capture.run is None:
        return words.BYPASSED
    return words.OTHER_LATENT if run is None else words.NO_DETAIL.format(most_common_reason(run.report))


class SelectiveSigmaDetailerMaskPreviewNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return node_schema(
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
        samples = latent["samples"]
        capture = Capture() if mask_ref is None else mask_ref
        run = capture.of(samples)
        masks = () if run is None else run.masks
        if run is not None and masks:
            picture = render(masks, show, image, run.steps, capture.settings)
        else:
            picture = message(why_no_mask(capture, run))
        mask = mask_output(masks, samples, show, image, capture.scale or scale_by_shape(first_stream(samples)))
        return io.NodeOutput(latent, picture, mask, ui=ui.PreviewImage(picture[:MOST_SHOWN], cls=cls))
