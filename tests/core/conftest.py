"""Shared by the core's tests: an analytic denoiser, its runs, hypothesis kept short."""

import torch
from hypothesis import settings

settings.register_profile("core", max_examples=25, deadline=None, derandomize=True)
settings.load_profile("core")
torch.set_num_threads(1)
