"""The folder that pictures go to."""

from __future__ import annotations

import tempfile
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def make(folder: Path) -> None:
    """Make the folder where it is missing, and see that it can be written to.

    Raises:
        ValueError: the folder cannot be made or written to; the message says what to do.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise ValueError(f"out is {str(folder)!r}, {reason}: give a folder that can be written to") from None
