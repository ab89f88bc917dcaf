"""Runs the example workflows on the embedded network in ComfyUI and takes their pictures.

Writes docs/comfyui-graph.png and example_workflows/*.jpg. By hand, with chromium and selenium at hand:

    DIFFUSERS_PATH=.venv/lib/python3.11/site-packages python docs/screenshots.py PYTHON_OF_COMFYUI
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests/comfy"))
SCENE = "landscape 3"
# ComfyUI's own title bar and side bar, in pixels of the page.
LEFT, TOP = 66, 80


def on_the_embedded_network(workflow: dict[str, Any]) -> dict[str, Any]:
    """The workflow with the network in place of a checkpoint, its prompts and its size."""
    prompts = iter([SCENE, ""])
    for node in sorted(workflow["nodes"], key=lambda node: node["pos"][1]):
        match node["type"]:
            case "CheckpointLoaderSimple":
                node.update(type="LoadSceneNetwork", inputs=[], widgets_values=[])
                node["properties"] = {}
            case "CLIPTextEncode":
                node["widgets_values"] = [next(prompts)]
            case "EmptyLatentImage":
                node["widgets_values"] = [512, 512, 1]
            case "SamplerCustom":
                node["widgets_values"][-1] = 2.0
            case "KSampler":
                node["widgets_values"][3] = 2.0
    return workflow


def main(python: str) -> None:
    from browser import Browser
    from server_process import Server

    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        with (
            Server(base, python, packs=[Path(__file__).parent / "scene_nodes"]) as server,
            Browser(server.url, 1760, 1010, scale=1.5) as page,
        ):
            for path in sorted((ROOT / "example_workflows").glob("*.json")):
                page.load(on_the_embedded_network(json.loads(path.read_text())))
                page.queue()
                page.fit(LEFT, TOP, margin=24)
                shot = base / "shot.png"
                page.screenshot(shot)
                picture = Image.open(shot).convert("RGB")
                picture = picture.crop((int(LEFT * 1.5), int(TOP * 1.5), *picture.size))
                if "timeline" in path.stem:
                    graph = picture.resize((1800, picture.height * 1800 // picture.width), Image.Resampling.LANCZOS)
                    graph.save(ROOT / "docs/comfyui-graph.png", optimize=True)
                picture.thumbnail((1200, 1200))
                picture.save(path.with_suffix(".jpg"), quality=82)


if __name__ == "__main__":
    main(sys.argv[1])
