"""The picture at the top of the README, ``docs/detail.png``, from what ``make demo`` has drawn.

make demo && python docs/draw_detail.py out
"""

from __future__ import annotations

import sys
from pathlib import Path

from PIL import Image

PHOTOS = ("chelsea", "astronaut")


def main(out: Path) -> None:
    sheets = [Image.open(out / f"{name}.png") for name in PHOTOS]
    whole = Image.new("RGB", (sheets[0].width, sum(s.height for s in sheets)))
    top = 0
    for sheet in sheets:
        whole.paste(sheet, (0, top))
        top += sheet.height
    whole.save(Path(__file__).with_name("detail.png"), optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "out"))
