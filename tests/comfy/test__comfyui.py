"""The one test that is always collected: it skips where there is no ComfyUI."""

import importlib.util

import pytest


def test_comfyui_is_here():
    if importlib.util.find_spec("comfy") is None or importlib.util.find_spec("comfy.samplers") is None:
        pytest.skip("no ComfyUI: set COMFYUI_PATH and run with its own python")
