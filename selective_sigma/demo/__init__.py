"""The embedded network, photographs in, pictures out."""

import json
from pathlib import Path
from typing import Any

# Here and not in photos.py, so that the command line's --help can name them without torch.
DRAWN: dict[str, Any] = json.loads(Path(__file__).with_name("photos.json").read_text())
"""Of each photograph in scikit-image's wheel (public domain or CC0): file, centre of interest and hand-drawn regions.

Positions are shares of the whole photograph, left to right and top to bottom.
"""
NAMES = tuple(DRAWN)
STRENGTH = 0.2
"""Of the demo: more than the default, so that the difference shows at reading size."""
