"""The picture at the top of the README, ``docs/detail.png``: run from the repository's root.

python docs/draw_detail.py
"""

from __future__ import annotations

import sys
from pathlib import Path

from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from selective_sigma.demo.compare import Scene
from selective_sigma.demo.network import load
from selective_sigma.demo.show import PHOTOS, STRENGTH, compared


def main() -> None:
    network = load()
    sheets = [compared(Scene(network, name, 256, 1.0), name, STRENGTH)[0] for name in PHOTOS]
    whole = Image.new("RGB", (sheets[0].width, sum(s.height for s in sheets)))
    top = 0
    for sheet in sheets:
        whole.paste(sheet, (0, top))
        top += sheet.height
    whole.save(Path(__file__).with_name("detail.png"), optimize=True)


if __name__ == "__main__":
    main()
