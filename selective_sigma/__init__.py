"""Selective Sigma: more detail from diffusion samplers, only where the model draws it.

>>> from selective_sigma import Detailer, Prediction, Settings
>>> detailer = Detailer(Settings(strength=0.1, coverage=0.5), sigmas)
>>> denoised = detailer.step(lambda call: Prediction(model(call.x, call.sigma)), x, sigma).denoised
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .detailer import Detailer, MaskRecord
    from .lie import Lie
    from .prediction import Call, Evaluate, Output, Prediction
    from .report import Reason, Report
    from .settings import Settings

__all__ = ["Call", "Detailer", "Evaluate", "Lie", "MaskRecord", "Output", "Prediction", "Reason", "Report", "Settings"]
__version__ = "0.1.0"

_HOMES = {
    "detailer": ("Detailer", "MaskRecord"),
    "prediction": ("Call", "Evaluate", "Output", "Prediction"),
    "lie": ("Lie",),
    "report": ("Reason", "Report"),
    "settings": ("Settings",),
}


def __getattr__(name: str) -> object:
    # Import on first access: torch takes seconds to import, and the command line's --help need not wait for it.
    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f".{home}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
