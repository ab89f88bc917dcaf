"""The ComfyUI nodes. Their ids and input names are kept for good; what they say is in ``words``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from comfy_api.latest import ComfyExtension, io
from comfy_execution.graph_utils import ExecutionBlocker

from ...settings import SETTING_NAMES, Settings
from ..run.model_patch import patch
from ..run.sampler import wrap
from . import words
from .demo import SelectiveSigmaDemoModelNode
from .live import install, mask_in_preview
from .preview_node import NodeCapture, SelectiveSigmaDetailerMaskPreviewNode
from .widgets import PATCHES, PUBLISHED, SAMPLERS, MaskRef, amounts, schema, settings_of, widget

if TYPE_CHECKING:
    from torch import Tensor


def limit_from(mask: Tensor | None) -> Tensor | None:
    """A MASK, (height, width) or (batch, height, width), as (batch, 1, height, width) in [0, 1]."""
    if mask is None:
        return None
    if mask.ndim not in (2, 3) or 0 in mask.shape:
        raise ValueError(f"mask has shape {tuple(mask.shape)}: connect a MASK of (batch, height, width)")
    if not mask.isfinite().all():
        raise ValueError("mask holds NaN or inf: connect a MASK with values from 0 to 1")
    return mask.reshape(-1, 1, *mask.shape[-2:]).float().clamp(0, 1)


class SelectiveSigmaDetailerNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="SelectiveSigmaDetailerNode",
            display_name="Selective Sigma Detailer",
            category=SAMPLERS,
            description=words.SIMPLE,
            inputs=[
                io.Sampler.Input("sampler", tooltip=words.SAMPLER),
                *amounts(),
                io.Mask.Input("mask", optional=True, tooltip=words.MASK),
            ],
            outputs=[io.Sampler.Output("sampler_out", display_name="sampler", tooltip=words.SAMPLER_OUT)],
        )

    @classmethod
    def execute(cls, sampler: Any, strength: float, coverage: float, mask: Tensor | None = None) -> io.NodeOutput:
        return io.NodeOutput(wrap(sampler, settings_of(strength, coverage), limit=limit_from(mask)))


class SelectiveSigmaDetailerModelNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="SelectiveSigmaDetailerModelNode",
            display_name="Selective Sigma Detailer (Model)",
            category=PATCHES,
            description=words.ON_MODEL,
            inputs=[
                io.Model.Input("model", tooltip=words.MODEL),
                *amounts(),
                io.Mask.Input("mask", optional=True, tooltip=words.MASK),
            ],
            outputs=[
                io.Model.Output("model_out", display_name="model", tooltip=words.MODEL_OUT),
                MaskRef.Output("mask_ref", display_name="mask_ref", tooltip=words.REF),
            ],
        )

    @classmethod
    def execute(cls, model: Any, strength: float, coverage: float, mask: Tensor | None = None) -> io.NodeOutput:
        settings = settings_of(strength, coverage)
        capture = NodeCapture(settings, model)
        return io.NodeOutput(patch(model, settings, capture=capture, limit=limit_from(mask)), capture)


class SelectiveSigmaDetailerDebugNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="SelectiveSigmaDetailerDebugNode",
            display_name="Selective Sigma Detailer (Debug)",
            category=SAMPLERS,
            description=words.DEBUG,
            inputs=[
                io.Sampler.Input("sampler", optional=True, tooltip=words.SAMPLER_TOO),
                *(widget(name, optional=name not in PUBLISHED) for name in SETTING_NAMES),
                io.Mask.Input("mask", optional=True, tooltip=words.MASK),
                io.Model.Input("model", optional=True, tooltip=words.MODEL_TOO),
                # After what graphs know already: widgets are saved by their places.
                io.Boolean.Input("live", default=False, optional=True, tooltip=words.LIVE),
            ],
            outputs=[
                io.Sampler.Output("sampler_out", display_name="sampler", tooltip=words.SAMPLER_OUT),
                MaskRef.Output("mask_ref", display_name="mask_ref", tooltip=words.REF),
                io.Model.Output("model_out", display_name="model", tooltip=words.MODEL_OUT),
            ],
        )

    # No validate_inputs: ComfyUI repeats what it says for every input that it takes.
    @classmethod
    def execute(
        cls,
        sampler: Any = None,
        mask: Tensor | None = None,
        model: Any = None,
        live: bool = False,
        **values: Any,
    ) -> io.NodeOutput:
        if sampler is None and model is None:
            raise ValueError(words.NOTHING)
        settings = Settings(**values)
        capture = NodeCapture(settings, model)
        given: dict[str, Any] = {"capture": capture, "limit": limit_from(mask), "around_callback": None}
        if live:
            install()
            given["around_callback"] = mask_in_preview
        # What is not connected stops what hangs on it, with these words.
        outs: list[Any] = [
            ExecutionBlocker(words.UNCONNECTED.format(out=f"{name}_out", given=name)) for name in ("sampler", "model")
        ]
        if sampler is not None:
            outs[0] = wrap(sampler, settings, **given)
        if model is not None:
            outs[1] = patch(model, settings, **given)
        return io.NodeOutput(outs[0], capture, outs[1])


class SelectiveSigmaExtension(ComfyExtension):
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [
            SelectiveSigmaDetailerNode,
            SelectiveSigmaDetailerModelNode,
            SelectiveSigmaDetailerDebugNode,
            SelectiveSigmaDetailerMaskPreviewNode,
            SelectiveSigmaDemoModelNode,
        ]
