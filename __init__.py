"""The entry for ComfyUI, which loads this folder from ``custom_nodes``. The package is ``selective_sigma``."""

from __future__ import annotations

from typing import Any

WEB_DIRECTORY = "./web"


async def comfy_entrypoint() -> Any:
    # Imported here, so that this folder can be imported where there is no ComfyUI.
    from .selective_sigma.comfy.nodes.nodes import SelectiveSigmaExtension

    return SelectiveSigmaExtension()
