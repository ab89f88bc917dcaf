"""What the nodes have in common: widgets of the settings, categories, search aliases."""

from __future__ import annotations

import inspect
from dataclasses import fields
from typing import Any

from comfy_api.latest import io
from nodes import KSampler  # pyright: ignore[reportAttributeAccessIssue]  ComfyUI's nodes.py, not ours

from ...settings import CHOICES, RANGES, SETTING_NAMES, Settings
from . import words
from .duplicate_pack import duplicate_warning

MaskRef = io.Custom("SSD_MASK_REF")
DEFAULTS = Settings()
PRODUCTION_STRENGTH = (0.0, 0.5)
"""Range of the strength on the production nodes, which do not soften."""
WIDGET_STEPS = {"strength": 0.05, "coverage": 0.05, "ema": 0.05, "mask_clip_percentile": 0.005}
WIDGET_ROUND = {"strength": 0.001}
"""Finer than the step, so that a typed value is kept."""
PUBLISHED = SETTING_NAMES[: SETTING_NAMES.index("mask_override") + 1]
"""Inputs of the first published pack's debug node. All others are optional, so that its workflows run."""
ADVANCED = ("ema", "mask_clip_percentile", "lie", "mask_source")
"""Folded away by versions of ComfyUI that can."""
HAS_ADVANCED = "advanced" in inspect.signature(io.Float.Input.__init__).parameters
# The categories of ComfyUI's own nodes of the same kind; newer versions renamed them.
RENAMED = KSampler.CATEGORY.startswith("model/")
SAMPLERS = "model/sampling/samplers" if RENAMED else "sampling/custom_sampling/samplers"
PATCHES = "model/patch" if RENAMED else "model_patches"
DEMO = "model/sampling/demo" if RENAMED else "sampling/demo"


def setting_widget(name: str, optional: bool = False, limits: tuple[float, float] | None = None) -> io.Input:
    """The widget of one setting, with the range or the choices of ``Settings``."""
    options: dict[str, Any] = {"default": getattr(DEFAULTS, name), "tooltip": words.SETTINGS[name]}
    options["optional"] = optional
    if HAS_ADVANCED and name in ADVANCED:
        options["advanced"] = True
    if name in CHOICES:
        return io.Combo.Input(name, options=list(CHOICES[name]), **options)
    low, high = limits or RANGES[name]
    if isinstance(options["default"], int):
        return io.Int.Input(name, min=int(low), max=int(high), **options)
    if name in WIDGET_ROUND:
        options["round"] = WIDGET_ROUND[name]
    # Displayed as a number. A slider ignores the step in the classic view, and a value cannot be typed.
    return io.Float.Input(name, min=low, max=high, step=WIDGET_STEPS.get(name, 0.01), **options)


def production_widgets() -> list[io.Input]:
    """``strength`` and ``coverage`` of the production nodes."""
    strength = setting_widget("strength", limits=PRODUCTION_STRENGTH)
    strength.tooltip = words.STRENGTH
    return [strength, setting_widget("coverage")]


def production_settings(strength: float, coverage: float) -> Settings:
    """The settings of a production node.

    Raises:
        ValueError: strength, which may come from another node's output, is outside the range of the widget.
    """
    low, high = PRODUCTION_STRENGTH
    if isinstance(strength, (int, float)) and not low <= strength <= high:
        raise ValueError(f"strength is {strength!r}: give a number from {low:g} to {high:g}")
    return Settings(strength, coverage)


def node_schema(**options: Any) -> io.Schema:
    """A schema, with search aliases if this ComfyUI has them, and with the warning about a duplicate pack."""
    if warning := duplicate_warning():
        options["description"] += f" {warning}"
    if "search_aliases" in {field.name for field in fields(io.Schema)}:
        options["search_aliases"] = words.ALIASES.get(options["node_id"], [])
    return io.Schema(**options)
