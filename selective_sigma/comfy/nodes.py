"""The ComfyUI nodes. Their ids and input names are kept for good; what they say is in ``words``."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any

from comfy_api.latest import ComfyExtension, io, ui

from ..settings import CHOICES, RANGES, SETTING_NAMES, Settings
from . import words
from .capture import Capture, Run
from .model_patch import patch
from .neighbours import warning
from .preview import SHOW, message, render
from .sampler import wrap

if TYPE_CHECKING:
    from torch import Tensor

MaskRef = io.Custom("SSD_MASK_REF")
DEFAULTS = Settings()
STEPS = {"strength": 0.005, "coverage": 0.05, "ema": 0.05, "mask_clip_percentile": 0.005}
PUBLISHED = SETTING_NAMES[: SETTING_NAMES.index("mask_override") + 1]
"""What the published debug node asks for; all else is optional, so that its graphs need not give it."""
SHOWN_AT_MOST = 64
"""Pictures in the node itself; the output has them all."""


def widget(name: str, slider: bool = False, optional: bool = False) -> io.Input:
    """The widget of one setting, from the range or the choices that ``Settings`` checks."""
    given: dict[str, Any] = {"default": getattr(DEFAULTS, name), "tooltip": words.SETTINGS[name], "optional": optional}
    if name in CHOICES:
        return io.Combo.Input(name, options=list(CHOICES[name]), **given)
    low, high = RANGES[name]
    if isinstance(given["default"], int):
        return io.Int.Input(name, min=int(low), max=int(high), **given)
    display = io.NumberDisplay.slider if slider else io.NumberDisplay.number
    return io.Float.Input(name, min=low, max=high, step=STEPS.get(name, 0.01), display_mode=display, **given)


def schema(**given: Any) -> io.Schema:
    """A schema with search words, where this ComfyUI has them, and with a warning where it is not alone."""
    given["description"] += f" {said}" if (said := warning()) else ""
    if "search_aliases" in {field.name for field in fields(io.Schema)}:
        given["search_aliases"] = words.ALIASES
    return io.Schema(**given)


def limit_from(mask: Tensor | None) -> Tensor | None:
    """A MASK, (height, width) or (batch, height, width), as (batch, 1, height, width) in [0, 1]."""
    if mask is None:
        return None
    if mask.ndim not in (2, 3) or 0 in mask.shape:
        raise ValueError(f"mask has shape {tuple(mask.shape)}: connect a MASK of (batch, height, width)")
    if not mask.isfinite().all():
        raise ValueError("mask holds NaN or inf: connect a MASK with values from 0 to 1")
    return mask.reshape(-1, 1, *mask.shape[-2:]).float().clamp(0, 1)


def why_none(captured: Capture | None, run: Run | None) -> str:
    """Why there is no mask to show."""
    if captured is None or captured.run is None:
        return words.BYPASSED
    if run is None:
        return words.UNKNOWN
    reasons = sorted(run.report.skipped, key=run.report.skipped.__getitem__)
    return words.WITHOUT.format(words.REASONS[reasons[-1]] if reasons else "its latent holds no noise to lie about")


class SelectiveSigmaDetailerNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="SelectiveSigmaDetailerNode",
            display_name="Selective Sigma Detailer",
            category="sampling/custom_sampling/samplers",
            description=words.SIMPLE,
            inputs=[
                io.Sampler.Input("sampler", tooltip=words.SAMPLER),
                widget("strength", slider=True),
                widget("coverage", slider=True),
                io.Mask.Input("mask", optional=True, tooltip=words.MASK),
            ],
            outputs=[io.Sampler.Output("sampler_out", display_name="sampler", tooltip=words.SAMPLER_OUT)],
        )

    @classmethod
    def execute(cls, sampler: Any, strength: float, coverage: float, mask: Tensor | None = None) -> io.NodeOutput:
        return io.NodeOutput(wrap(sampler, Settings(strength, coverage), limit=limit_from(mask)))


class SelectiveSigmaDetailerDebugNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="SelectiveSigmaDetailerDebugNode",
            display_name="Selective Sigma Detailer (Debug)",
            category="sampling/custom_sampling/samplers",
            description=words.DEBUG,
            inputs=[
                io.Sampler.Input("sampler", tooltip=words.SAMPLER),
                *(widget(name, optional=name not in PUBLISHED) for name in SETTING_NAMES),
                io.Mask.Input("mask", optional=True, tooltip=words.MASK),
            ],
            outputs=[
                io.Sampler.Output("sampler_out", display_name="sampler", tooltip=words.SAMPLER_OUT),
                MaskRef.Output("mask_ref", display_name="mask_ref", tooltip=words.REF),
            ],
        )

    @classmethod
    def validate_inputs(cls, start: float | None = None, end: float | None = None) -> bool | str:
        # Refused when queued, before a model is loaded; a value that comes over a link is None here.
        if start is None or end is None:
            return True
        try:
            Settings(start=start, end=end)
        except ValueError as error:
            return str(error)
        return True

    @classmethod
    def execute(cls, sampler: Any, mask: Tensor | None = None, **values: Any) -> io.NodeOutput:
        capture = Capture()
        return io.NodeOutput(wrap(sampler, Settings(**values), capture=capture, limit=limit_from(mask)), capture)


class SelectiveSigmaDetailerMaskPreviewNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="SelectiveSigmaDetailerMaskPreviewNode",
            display_name="Selective Sigma Mask Preview",
            category="sampling/custom_sampling/samplers",
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
        if run is not None and run.masks:
            picture = render([mask for _, mask in run.masks], show, image)
        else:
            picture = message(why_none(mask_ref, run))
        return io.NodeOutput(latent, picture, ui=ui.PreviewImage(picture[:SHOWN_AT_MOST], cls=cls))


class SelectiveSigmaDetailerModelNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="SelectiveSigmaDetailerModelNode",
            display_name="Selective Sigma Detailer (Model)",
            category="model_patches",
            description=words.ON_MODEL,
            inputs=[
                io.Model.Input("model", tooltip=words.MODEL),
                widget("strength", slider=True),
                widget("coverage", slider=True),
                io.Mask.Input("mask", optional=True, tooltip=words.MASK),
            ],
            outputs=[io.Model.Output("model_out", display_name="model", tooltip=words.MODEL_OUT)],
        )

    @classmethod
    def execute(cls, model: Any, strength: float, coverage: float, mask: Tensor | None = None) -> io.NodeOutput:
        return io.NodeOutput(patch(model, Settings(strength, coverage), limit=limit_from(mask)))


class SelectiveSigmaExtension(ComfyExtension):
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [
            SelectiveSigmaDetailerNode,
            SelectiveSigmaDetailerModelNode,
            SelectiveSigmaDetailerDebugNode,
            SelectiveSigmaDetailerMaskPreviewNode,
        ]
