"""Selective Sigma: more detail from diffusion samplers, only where the model draws it.

>>> from selective_sigma import Detailer, Prediction, Settings
>>> detailer = Detailer(Settings(strength=0.1, coverage=0.5), sigmas)
>>> denoised = detailer.step(lambda call: Prediction(model(call.x, call.sigma)), x, sigma).denoised
"""

from .detailer import Detailer, MaskRecord
from .prediction import Call, Evaluate, Output, Prediction
from .report import Report
from .settings import Settings

__all__ = ["Call", "Detailer", "Evaluate", "MaskRecord", "Output", "Prediction", "Report", "Settings"]
__version__ = "0.1.0"
