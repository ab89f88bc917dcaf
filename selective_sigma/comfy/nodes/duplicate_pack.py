"""A warning about another pack that defines nodes with our ids. ComfyUI silently keeps those that it loads last."""

from __future__ import annotations

import logging
import sys
from functools import cache
from pathlib import Path

import folder_paths

from . import words

logger = logging.getLogger(__name__)
OUR_FOLDER = Path(__file__).resolve().parents[3]
SHARED_ID = "SelectiveSigmaDetailerNode"
"""A node id of the first published pack, which this pack took over so that its workflows open."""


@cache
def duplicate_warning() -> str:
    """The warning, or an empty string where no other pack has our node ids. The first call logs it."""
    for folder in map(Path, folder_paths.get_folder_paths("custom_nodes")):
        for pack in sorted(folder.iterdir()) if folder.is_dir() else ():
            if pack.name.endswith(".disabled") or pack.resolve() == OUR_FOLDER:
                continue
            entry = pack / "__init__.py" if pack.is_dir() else pack
            if entry.suffix == ".py" and entry.is_file() and has_shared_id(entry):
                # A node that exists while ours are being loaded was loaded before.
                loaded = getattr(sys.modules.get("nodes"), "NODE_CLASS_MAPPINGS", {})
                last = OUR_FOLDER if SHARED_ID in loaded else pack
                warning = words.DUPLICATE_PACK.format(ours=OUR_FOLDER, theirs=pack, last=last)
                logger.warning("Selective Sigma: %s", warning)
                return warning
    return ""


def has_shared_id(entry: Path) -> bool:
    """Whether the source of a pack's entry has ``SHARED_ID`` in quotes, as in a mapping of nodes."""
    text = entry.read_text(encoding="utf-8", errors="replace")
    return f'"{SHARED_ID}"' in text or f"'{SHARED_ID}'" in text
