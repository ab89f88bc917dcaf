"""What the nodes have in common: widgets of the settings, categories, search words."""

from __future__ import annotations

import inspect
from dataclasses import fields
from typing import Any

from comfy_api.latest import io
from nodes import KSampler  # pyright: ignore[reportAttributeAccessIssue]  ComfyUI's nodes.py, not ours

from ...settings import CHOICES, RANGES, SETTING_NAMES, Settings
from . import words
from .neighbours import warning

MaskRef = io.Custom("SSD_MASK_REF")
DEFAULTS = Settings()
AMOUNT = (0.0, 0.5)
"""Strength on the production nodes, which do not soften."""
STEPS = {"strength": 0.05, "coverage": 0.05, "ema": 0.05, "mask_clip_percentile": 0.005}
ROUND = {"strength": 0.001}
"""Finer than the step: what is typed stays."""
PUBLISHED = SETTING_NAMES[: SETTING_NAMES.index("mask_override") + 1]
"""What the published debug node asks for; all else is optional, so that its graphs need not give it."""
ADVANCED = ("ema", "mask_clip_percentile", "lie", "mask_source")
"""Folded away where this ComfyUI can."""
CAN_FOLD = "advanced" in inspect.signature(io.Float.Input.__init__).parameters
# Where the core's own nodes of the kind are.
RENAMED = KSampler.CATEGORY.startswith("model/")
SAMPLERS = "model/sampling/samplers" if RENAMED else "sampling/custom_sampling/samplers"
PATCHES = "model/patch" if RENAMED else "model_patches"
DEMO = "model/sampling/demo" if RENAMED else "sampling/demo"


def widget(name: str, optional: bool = False, within: tuple[float, float] | None = None) -> io.Input:
    """The widget of one setting, from the range or the choices that ``Settings`` checks."""
    given: dict[str, Any] = {"default": getattr(DEFAULTS, name), "tooltip": words.SETTINGS[name], "optional": optional}
    if CAN_FOLD and name in ADVANCED:
        given["advanced"] = True
    if name in CHOICES:
        return io.Combo.Input(name, options=list(CHOICES[name]), **given)
    low, high = within or RANGES[name]
    if isinstance(given["default"], int):
        return io.Int.Input(name, min=int(low), max=int(high), **given)
    if name in ROUND:
        given["round"] = ROUND[name]
    # A number and not a slider: sliders ignore the step in the classic view, and take no typing.
    return io.Float.Input(name, min=low, max=high, step=STEPS.get(name, 0.01), **given)


def amounts() -> list[io.Input]:
    """``strength`` and ``coverage`` of the production nodes."""
    strength = widget("strength", within=AMOUNT)
    strength.tooltip = words.STRENGTH
    return [strength, widget("coverage")]


def settings_of(strength: float, coverage: float) -> Settings:
    """What a production node is set to; a linked strength outside its range is refused as a typed one is."""
    low, high = AMOUNT
    if isinstance(strength, (int, float)) and not low <= strength <= high:
        raise ValueError(f"strength is {strength!r}: give a number from {low:g} to {high:g}")
    return Settings(strength, coverage)


def schema(**given: Any) -> io.Schema:
    """A schema with search words, where this ComfyUI has them, and with a warning where it is not alone."""
    given["description"] += f" {said}" if (said := warning()) else ""
    if "search_aliases" in {field.name for field in fields(io.Schema)}:
        given["search_aliases"] = words.ALIASES.get(given["node_id"], [])
    return io.Schema(**given)
