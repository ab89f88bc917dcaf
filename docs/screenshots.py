"""Takes the pictures of ComfyUI: docs/comfyui-graph.png, the first template after its run, and docs/comfyui-live.png,
a run under way with the help open.

By hand, with ComfyUI's own python, chromium and selenium at hand: python docs/screenshots.py [graph] [live]
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
# ComfyUI's own title bar and side bar, in pixels of the page.
LEFT, TOP, SCALE = 66, 80, 1.5


def under_way(info: dict[str, Any]) -> dict[str, Any]:
    """The demo model through the Debug node, live."""
    g = Graph("Live", info)
    demo = g.add("SelectiveSigmaDemoModelNode", (0, 0, 340, 150))
    inputs = {name: out(demo, i) for name, i in {"positive": 1, "negative": 2, "latent_image": 4}.items()}
    inputs |= {"steps": 24, "cfg": 1.0, "sampler_name": "euler", "scheduler": "karras"}
    ours = g.add(DEBUG, (0, 230, 340, 330), {"model": out(demo), "live": True, "every": 1})
    latent = ksampler(g, (390, 0), {"model": out(ours, "model"), **inputs})
    latent.node["size"] = [560, 560]
    g.add("PreviewImage", (1000, 0, 300, 300), {"images": out(g.add("VAEDecode", (1000, 350, 300, 50), {
        "samples": latent, "vae": out(demo, "vae")}))})  # fmt: skip
    return g.saved()


def keep(page: Browser, name: str, folder: Path, right: int = 0) -> None:
    """The page without its bars, and without ``right`` pixels, 1800 wide at most."""
    page.screenshot(folder / "shot.png")
    picture = Image.open(folder / "shot.png").convert("RGB")
    picture = picture.crop((int(LEFT * SCALE), int(TOP * SCALE), picture.width - int(right * SCALE), picture.height))
    if picture.width > 1800:
        picture = picture.resize((1800, picture.height * 1800 // picture.width), Image.Resampling.LANCZOS)
    picture.save(ROOT / f"docs/{name}.png", optimize=True)


def graph(page: Browser, folder: Path) -> None:
    page.set_view(vue=True)  # The classic view has no wipe.
    page.load(TEMPLATE)
    page.queue(1800)
    time.sleep(6)  # Until "Job completed" is gone.
    page.fit(LEFT, TOP, margin=24)
    keep(page, "comfyui-graph", folder)
    page.set_view(vue=False)


def live(page: Browser, folder: Path, info: dict[str, Any]) -> None:
    page.set_view(vue=True)
    page.load(under_way(info))
    page.fit(LEFT, TOP, margin=24)
    page.help(DEBUG)
    page.run("window.ssdStep = 0; window.app.queuePrompt(0)")
    page.run("window.app.api.addEventListener('progress', e => { window.ssdStep = e.detail.value; })")
    page.wait("return window.ssdStep >= 15", 1800)
    keep(page, "comfyui-live", folder)
    page.set_view(vue=False)


def main(which: list[str]) -> None:
    from browser import Browser
    from server_process import Server

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with Server(folder) as server, Browser(server.url, 1760, 1010, scale=SCALE) as page:
            if "graph" in which:
                graph(page, folder)
            if "live" in which:
                live(page, folder, server.get("/object_info"))


if __name__ == "__main__":
    main(sys.argv[1:] or ["graph", "live"])
