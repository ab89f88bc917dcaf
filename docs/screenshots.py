"""Runs the first template in ComfyUI and takes its picture: docs/comfyui-graph.png.

By hand, with ComfyUI's own python, chromium and selenium at hand: python docs/screenshots.py PHOTOGRAPH
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests/comfy"))
TEMPLATE = ROOT / "example_workflows/01 Try it without a checkpoint.json"
# ComfyUI's own title bar and side bar, in pixels of the page.
LEFT, TOP, SCALE = 66, 80, 1.5


def main(photograph: str) -> None:
    from browser import Browser
    from server_process import Server

    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        (base / "input").mkdir()
        Image.open(photograph).convert("RGB").save(base / "input/example.png")
        with Server(base) as server, Browser(server.url, 1760, 1010, scale=SCALE) as page:
            page.load(TEMPLATE)
            page.queue(600)
            time.sleep(6)  # Until "Job completed" is gone.
            page.fit(LEFT, TOP, margin=24)
            page.screenshot(base / "shot.png")
            picture = Image.open(base / "shot.png").convert("RGB")
            picture = picture.crop((int(LEFT * SCALE), int(TOP * SCALE), *picture.size))
            picture.resize((1800, picture.height * 1800 // picture.width), Image.Resampling.LANCZOS).save(
                ROOT / "docs/comfyui-graph.png", optimize=True
            )


if __name__ == "__main__":
    main(sys.argv[1])
