"""Other packs with nodes of our names: ComfyUI keeps the ones it loads last, and says nothing."""

from __future__ import annotations

import logging
import sys
from functools import cache
from pathlib import Path

import folder_paths

from . import words

logger = logging.getLogger(__name__)
OWN = Path(__file__).resolve().parents[3]
SHARED = "SelectiveSigmaDetailerNode"
"""A node id of the first published pack, which this one took over with its workflows."""


@cache
def warning() -> str:
    """What to say where another pack gives our nodes too, or nothing. Logged the first time."""
    for folder in map(Path, folder_paths.get_folder_paths("custom_nodes")):
        for pack in sorted(folder.iterdir()) if folder.is_dir() else ():
            if pack.name.endswith(".disabled") or pack.resolve() == OWN:
                continue
            entry = pack / "__init__.py" if pack.is_dir() else pack
            if entry.suffix == ".py" and entry.is_file() and names(entry):
                # What is there while we are being loaded came before us.
                loaded = getattr(sys.modules.get("nodes"), "NODE_CLASS_MAPPINGS", {})
                last = OWN if SHARED in loaded else pack
                said = words.NEIGHBOUR.format(ours=OWN, theirs=pack, last=last)
                logger.warning("Selective Sigma: %s", said)
                return said
    return ""


def names(entry: Path) -> bool:
    """Whether a pack's entry names one of our nodes, in the quotes of a mapping."""
    text = entry.read_text(encoding="utf-8", errors="replace")
    return f'"{SHARED}"' in text or f"'{SHARED}'" in text
