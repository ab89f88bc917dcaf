"""The detailer nodes and the extension. Ids and input names never change, since workflows hold them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from comfy_api.latest import ComfyExtension, io
from comfy_execution.graph_utils import ExecutionBlocker

from ...settings import SETTING_NAMES, Settings
from ..run.model_patch import patch
from ..run.sampler import wrap
from . import words
from .demo import SelectiveSigmaDemoModelNode
from .live import install_hook, mask_in_preview
from .preview_node import SelectiveSigmaDetailerMaskPreviewNode, new_capture
from .widgets import (
    PATCHES,
    PUBLISHED,
    SAMPLERS,
    MaskRef,
    node_schema,
    production_settings,
    production_widgets,
    setting_widget,
)

if TYPE_CHECKING:
    from torch import Tensor


def limit_from(mask: Tensor | None) -> Tensor | None:
    """A MASK, (height, width) or (batch, height, width), as (batch, 1, height, width) in [0, 1].

    Raises:
        ValueError: the mask has another shape, or holds NaN or inf.
    """
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
        return node_schema(
            node_id="SelectiveSigmaDetailerNode",
            display_name="Selective Sigma Detailer",
            category=SAMPLERS,
            description=words.SIMPLE,
            inputs=[
                io.Sampler.Input("sampler", tooltip=words.SAMPLER),
                *production_widgets(),
                io.Mask.Input("mask", optional=True, tooltip=words.MASK),
            ],
            outputs=[io.Sampler.Output("sampler_out", display_name="sampler", tooltip=words.SAMPLER_OUT)],
        )

    @classmethod
    def execute(cls, sampler: Any, strength: float, coverage: float, mask: Tensor | None = None) -> io.NodeOutput:
        return io.NodeOutput(wrap(sampler, production_settings(strength, coverage), limit=limit_from(mask)))


class SelectiveSigmaDetailerModelNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return node_schema(
            node_id="SelectiveSigmaDetailerModelNode",
            display_name="Selective Sigma Detailer (Model)",
            category=PATCHES,
            description=words.ON_MODEL,
            inputs=[
                io.Model.Input("model", tooltip=words.MODEL),
                *production_widgets(),
                io.Mask.Input("mask", optional=True, tooltip=words.MASK),
            ],
            outputs=[
                io.Model.Output("model_out", display_name="model", tooltip=words.MODEL_OUT),
                MaskRef.Output("mask_ref", display_name="mask_ref", tooltip=words.REF),
            ],
        )

    @classmethod
    def execute(cls, model: Any, strength: float, coverage: float, mask: Tensor | None = None) -> io.NodeOutput:
        settings = production_settings(strength, coverage)
        capture = new_capture(settings, model)
        return io.NodeOutput(patch(model, settings, capture=capture, limit=limit_from(mask)), capture)


class SelectiveSigmaDetailerDebugNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return node_schema(
            node_id="SelectiveSigmaDetailerDebugNode",
            display_name="Selective Sigma Detailer (Debug)",
            category=SAMPLERS,
            description=words.DEBUG,
            inputs=[
                io.Sampler.Input("sampler", optional=True, tooltip=words.SAMPLER_TOO),
                *(setting_widget(name, optional=name not in PUBLISHED) for name in SETTING_NAMES),
                io.Mask.Input("mask", optional=True, tooltip=words.MASK),
                io.Model.Input("model", optional=True, tooltip=words.MODEL_TOO),
                # The last widget: workflows save the values of widgets by position.
                io.Boolean.Input("live", default=False, optional=True, tooltip=words.LIVE),
            ],
            outputs=[
                io.Sampler.Output("sampler_out", display_name="sampler", tooltip=words.SAMPLER_OUT),
                MaskRef.Output("mask_ref", display_name="mask_ref", tooltip=words.REF),
                io.Model.Output("model_out", display_name="model", tooltip=words.MODEL_OUT),
            ],
        )

    # No validate_inputs: ComfyUI shows its message once for each of its arguments.
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
        capture = new_capture(settings, model)
        options: dict[str, Any] = {"capture": capture, "limit": limit_from(mask)}
        if live:
            install_hook()
            options["around_callback"] = mask_in_preview
        # The output of an input that is not connected blocks the nodes behind it, with a message.
        outputs: list[Any] = [
            ExecutionBlocker(words.UNCONNECTED.format(out=f"{name}_out", input=name)) for name in ("sampler", "model")
        ]
        if sampler is not None:
            outputs[0] = wrap(sampler, settings, **options)
        if model is not None:
            outputs[1] = patch(model, settings, **options)
        return io.NodeOutput(outputs[0], capture, outputs[1])


class SelectiveSigmaExtension(ComfyExtension):
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [
            SelectiveSigmaDetailerNode,
            SelectiveSigmaDetailerModelNode,
            SelectiveSigmaDetailerDebugNode,
            SelectiveSigmaDetailerMaskPreviewNode,
            SelectiveSigmaDemoModelNode,
        ]
