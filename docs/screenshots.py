"""Takes the pictures of ComfyUI.

- docs/comfyui-graph.png: the first template after its run;
- docs/comfyui-live.png: a run in progress, with the help open.

Run by hand with ComfyUI's own Python, which needs selenium and chromium: python docs/screenshots.py [graph] [live]
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image
from template_graph import Graph, out
from template_parts import ksampler

if TYPE_CHECKING:
    from tests.comfy.browser import Browser

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests/comfy"))
TEMPLATE = ROOT / "example_workflows/01 Try it without a checkpoint.json"
DEBUG = "SelectiveSigmaDetailerDebugNode"
LEFT, TOP = 66, 80
"""Width of ComfyUI's side bar and height of its title bar, in pixels of the page."""
SCALE = 1.5
"""Pixels of a screenshot for each pixel of the page."""


def live_workflow(info: dict[str, Any]) -> dict[str, Any]:
    """A workflow in which the demo model runs through the Debug node, with its live preview."""
    graph = Graph("Live", info)
    demo = graph.add("SelectiveSigmaDemoModelNode", (0, 0, 340, 150))
    inputs = {name: out(demo, i) for name, i in {"positive": 1, "negative": 2, "latent_image": 4}.items()}
    inputs |= {"steps": 24, "cfg": 1.0, "sampler_name": "euler", "scheduler": "karras"}
    ours = graph.add(DEBUG, (0, 230, 340, 330), {"model": out(demo), "live": True, "every": 1})
    latent = ksampler(graph, (390, 0), {"model": out(ours, "model"), **inputs})
    latent.node["size"] = [560, 560]
    graph.add("PreviewImage", (1000, 0, 300, 300), {"images": out(graph.add("VAEDecode", (1000, 350, 300, 50), {
        "samples": latent, "vae": out(demo, "vae")}))})  # fmt: skip
    return graph.saved()


def save_picture(page: Browser, name: str, folder: Path) -> None:
    """Save a screenshot of the page without its bars, at most 1800 pixels wide."""
    page.screenshot(folder / "shot.png")
    picture = Image.open(folder / "shot.png").convert("RGB")
    picture = picture.crop((int(LEFT * SCALE), int(TOP * SCALE), picture.width, picture.height))
    if picture.width > 1800:
        picture = picture.resize((1800, picture.height * 1800 // picture.width), Image.Resampling.LANCZOS)
    picture.save(ROOT / f"docs/{name}.png", optimize=True)


def take_graph(page: Browser, folder: Path) -> None:
    page.set_view(vue=True)  # The classic view has no wipe.
    page.load(TEMPLATE)
    page.queue(1800)
    time.sleep(6)  # Until "Job completed" is gone.
    page.fit(LEFT, TOP, margin=24)
    save_picture(page, "comfyui-graph", folder)
    page.set_view(vue=False)


def take_live(page: Browser, folder: Path, info: dict[str, Any]) -> None:
    page.set_view(vue=True)
    page.load(live_workflow(info))
    page.fit(LEFT, TOP, margin=24)
    page.help(DEBUG)
    page.run("window.ssdStep = 0; window.app.queuePrompt(0)")
    page.run("window.app.api.addEventListener('progress', e => { window.ssdStep = e.detail.value; })")
    page.wait("return window.ssdStep >= 19", 1800)
    save_picture(page, "comfyui-live", folder)
    page.set_view(vue=False)


def main(pictures: list[str]) -> None:
    from browser import Browser
    from server_process import Server

    with tempfile.TemporaryDirectory() as folder_name:
        folder = Path(folder_name)
        with Server(folder) as server, Browser(server.url, 1760, 1010, scale=SCALE) as page:
            if "graph" in pictures:
                take_graph(page, folder)
            if "live" in pictures:
                take_live(page, folder, server.get("/object_info"))


if __name__ == "__main__":
    main(sys.argv[1:] or ["graph", "live"])
