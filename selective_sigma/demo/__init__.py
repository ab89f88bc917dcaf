"""The embedded network, photographs in, pictures out."""

import json
from pathlib import Path
from typing import Any

# Here and not in photos.py, so that the command line's --help can name them without torch.
PHOTOGRAPHS: dict[str, Any] = json.loads(Path(__file__).with_name("photos.json").read_text())
"""Of each named photograph: file, centre of interest and hand-drawn regions.

Positions are shares of the whole photograph, left to right and top to bottom. ``wren.jpg`` comes with the package: a
canyon wren, CC0 1.0, a part of ``backgrounds/canyon-wren.jpg`` of github.com/BuddiesOfBudgie/budgie-backgrounds. The
other files come with scikit-image, and are public domain or CC0. The network was trained on none of them.
"""
NAMES = tuple(PHOTOGRAPHS)
DEFAULT = NAMES[0]
"""The photograph that comes with the package."""
