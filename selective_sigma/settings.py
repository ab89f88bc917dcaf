"""Every setting that a user may change, with its range and its reason."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from numbers import Integral, Real
from typing import Any, Literal, get_args

MaskSource = Literal["response", "change", "first"]
MaskOverride = Literal["off", "ones", "half", "zeros"]
LieKind = Literal["noise_to_signal", "fixed_input"]
Family = Literal["ve", "flow"]

CHOICES: dict[str, tuple[str, ...]] = {
    "mask_source": get_args(MaskSource),
    "mask_override": get_args(MaskOverride),
    "lie": get_args(LieKind),
}
RANGES: dict[str, tuple[float, float]] = {
    "strength": (-1.0, 1.0),
    "coverage": (0.0, 1.0),
    "start": (0.0, 1.0),
    "end": (0.0, 1.0),
    "ema": (0.0, 1.0),
    "mask_clip_percentile": (0.0, 0.49),
    "every": (1, 8),
}


@dataclass(frozen=True)
class Settings:
    """What the detailer does. An invalid value raises ``ValueError``, which names the setting, the value and the range.

    The first seven settings have the order of the published node's inputs.
    """

    strength: float = 0.1
    """Share of the noise-to-signal ratio that the lie hides from the model in each step. Negative values soften.

    The last step hides less (method.md section 5). A group of steps hides the shares of all its steps at once.
    """
    coverage: float = 0.5
    """Where detail goes: 0 nowhere, 0.5 the mask as it is, 1 everywhere (with one model call a step)."""
    start: float = 0.2
    """Share of the model's noise range after which the lie is told. The composition is decided before it."""
    end: float = 1.0
    """Share of the model's noise range up to which the lie is told.

    Fine detail is decided at low noise. A lower value loses most of the effect where the last steps are long,
    as on rectified flow and in runs of few steps (method.md section 5).
    """
    ema: float = 0.9
    """``change`` only: weight of the previous mask at each step."""
    mask_clip_percentile: float = 0.2
    """``change`` and ``first`` only: share of the pixels that is clipped at either end before the stretch to [0, 1]."""
    mask_override: MaskOverride = "off"
    """A constant mask, to check the blend. Both calls are made at any coverage."""
    every: int = 2
    """The lie is told at every n-th active step, with the dose of n steps. A skipped step passes its dose on."""
    mask_source: MaskSource = "response"
    """What the mask is made from.

    - ``response``: the detail that the prediction holds, compared with what the lie would add to it.
    - ``change``: how much the prediction changes from step to step, as published.
    - ``first``: the latent at the first active step.

    The last two also use the published schedule.
    """
    lie: LieKind = "noise_to_signal"
    """What the lie is about on flow models: the noise-to-signal ratio, or sigma alone, as in other packs."""

    def __post_init__(self) -> None:
        for name, (low, high) in RANGES.items():
            value: object = getattr(self, name)
            is_whole = name == "every"
            number_type = Integral if is_whole else Real
            if isinstance(value, bool) or not isinstance(value, number_type) or not low <= float(value) <= high:
                number = "whole number" if is_whole else "number"
                raise ValueError(f"{name} is {value!r}: give a {number} from {low:g} to {high:g}")
        for name, choices in CHOICES.items():
            value = getattr(self, name)
            if value not in choices:
                raise ValueError(f"{name} is {value!r}: choose one of {', '.join(choices)}")
        if self.start >= self.end:
            raise ValueError(f"start is {self.start!r} and end is {self.end!r}: start must lie before end")

    # These properties say which kind of mask the settings ask for. For the effect of coverage on a response mask, see
    # ``mask.odds``.
    @property
    def idle(self) -> bool:
        """Whether the result is the plain run, so that a host need not wrap anything."""
        return self.mask_override == "off" and (self.strength == 0 or self.coverage == 0)

    @property
    def constant_mask(self) -> float | None:
        """The value of the mask if it is the same everywhere; else None."""
        override = {"ones": 1.0, "half": 0.5, "zeros": 0.0}
        return override.get(self.mask_override, 1.0 if self.coverage >= 1 else None)

    @property
    def one_pass(self) -> bool:
        """Whether the mask is 1 everywhere and needs no plain call. Under ``mask_override`` both calls are made."""
        return self.mask_override == "off" and self.coverage >= 1


def check_sigmas(values: Any, name: str = "sigmas") -> list[float]:
    """The noise levels as floats, in one transfer from the device.

    Raises:
        TypeError: if ``values`` are not numbers.
        ValueError: if a value is not finite, or is below zero.
    """
    try:
        levels = [
            float(value) for value in (values.detach().flatten().tolist() if hasattr(values, "detach") else values)
        ]
    except (TypeError, ValueError):
        raise TypeError(f"{name} is {values!r}: give a sequence or a tensor of noise levels") from None
    for level in levels:
        if not math.isfinite(level) or level < 0:
            raise ValueError(f"{name} holds {level!r}: noise levels are finite numbers of at least 0")
    return levels


SETTING_NAMES = tuple(field.name for field in fields(Settings))
