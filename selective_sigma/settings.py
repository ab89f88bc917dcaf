"""Every constant of the detailer, in one place, each with its reason."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from numbers import Real
from typing import Literal, get_args

MaskSource = Literal["change", "structure", "change_published", "first"]
MaskOverride = Literal["off", "ones", "half", "zeros"]
Passes = Literal["two", "economy"]
Lie = Literal["noise_to_signal", "fixed_input"]
Family = Literal["ve", "flow"]

_CHOICES: dict[str, tuple[str, ...]] = {
    "mask_source": get_args(MaskSource),
    "mask_override": get_args(MaskOverride),
    "passes": get_args(Passes),
    "lie": get_args(Lie),
}
_RANGES: dict[str, tuple[float, float]] = {
    "strength": (-1.0, 1.0),
    "coverage": (0.0, 1.0),
    "start": (0.0, 1.0),
    "end": (0.0, 1.0),
    "ema": (0.0, 1.0),
    "memory": (0.0, 10.0),
    "mask_clip_percentile": (0.0, 0.49),
    "refresh": (0.0, 10.0),
}


@dataclass(frozen=True)
class Settings:
    """What the detailer does. Bad values raise ``ValueError`` naming setting, value and range.

    The first seven stand in the order of the published node. Figures are those of
    docs/evidence.md: the embedded network, 20 steps, euler unless said otherwise.
    """

    strength: float = 0.1
    """Peak fraction of the noise-to-signal ratio hidden from the model; negative softens."""
    coverage: float = 0.5
    """0 nowhere, 0.5 the mask as it is, 1 everywhere (then one call a step)."""
    start: float = 0.2
    """Share of the run before detail begins; the first step is always clean.

    From 0.1 on, 1 % more detail for a quarter more change of the picture's mean, and two calls more.
    """
    end: float = 0.9
    """Share of the run after which detail has faded out; the last step is always clean."""
    ema: float = 0.9
    """``change_published`` only: weight of the previous mask, per step."""
    mask_clip_percentile: float = 0.2
    """Share of the pixels clipped at either end before the mask is stretched to [0, 1]."""
    mask_override: MaskOverride = "off"
    """A constant mask, to check the blend: always both passes, whatever the coverage."""
    mask_source: MaskSource = "structure"
    """What the mask is made from: where the prediction varies from pixel to pixel, or where it moves.

    Detail outside the region it belongs to, as a share of that inside: structure .12, change .22,
    published .34, no mask .42, the true region itself .11. Structure leads in every class of scene.
    Against it: on the exact mixture denoiser texture is made up in .14 of the smooth patches
    (change .08, published .14, no mask .16; euler).
    """
    memory: float = 0.7
    """``change`` only: memory of the mask in e-folds of sigma; 0 for none."""
    passes: Passes = "two"
    """``two`` is exact; ``economy`` holds the lie's effect and makes one call where it can.

    Economy makes 1.35 calls a step for 1.65, with an error of .09 of the effect on euler and
    dpmpp_2m, but .14 to .18 on stochastic samplers and .22 to .36 on flow: an option, no default.
    """
    refresh: float = 0.45
    """``economy``: e-folds of noise to signal after which the held effect is measured anew.

    The largest that keeps the error under .10 on deterministic VE samplers at 20 steps.
    """
    lie: Lie = "noise_to_signal"
    """On flow models, lie about noise against signal, or (as the peers do) about sigma alone.

    At equal detail it changes the picture's mean .20 and its contrast .07 times as much.
    """

    def __post_init__(self) -> None:
        for name, (low, high) in _RANGES.items():
            value: object = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, Real) or not low <= float(value) <= high:
                raise ValueError(f"{name} is {value!r}: give a number from {low:g} to {high:g}")
        for name, choices in _CHOICES.items():
            value = getattr(self, name)
            if value not in choices:
                raise ValueError(f"{name} is {value!r}: choose one of {', '.join(choices)}")
        if self.start >= self.end:
            raise ValueError(f"start is {self.start!r} and end is {self.end!r}: start must lie before end")

    @property
    def idle(self) -> bool:
        """True where the result is the plain run, so that a host need not wrap anything."""
        return self.mask_override == "off" and (self.strength == 0 or self.coverage == 0)


def check_sigmas(values: list[float], name: str = "sigmas") -> None:
    """Raise ``ValueError`` where a noise level is not a finite number of at least zero."""
    for value in values:
        if not math.isfinite(value) or value < 0:
            raise ValueError(f"{name} holds {value!r}: noise levels are finite numbers of at least 0")


SETTING_NAMES = tuple(field.name for field in fields(Settings))
RANGES = dict(_RANGES)
CHOICES = dict(_CHOICES)
