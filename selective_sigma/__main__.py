"""Entry point of ``selective-sigma`` and ``python -m selective_sigma``.

Imports nothing heavy at the top. A missing extra, or Ctrl-C during the seconds that the imports take, therefore ends
in one line and not in a traceback.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import NoReturn

EXTRA = {
    *("PIL", "accelerate", "diffusers", "numpy", "rich", "safetensors", "skimage", "torchsde"),
    *("transformers", "typer"),
}
"""Modules that the extra ``cli`` installs, by the names they are imported by."""


def main() -> None:
    # Exit at once: some of the imports swallow KeyboardInterrupt. A command installs a handler of its own later.
    signal.signal(signal.SIGINT, _stop)
    # libgomp reads this when torch is imported. Its threads spin while they wait for one another. On a busy machine the
    # spinning makes everything several times slower. A limit of 2000 turns costs nothing on an idle machine.
    os.environ.setdefault("GOMP_SPINCOUNT", "2000")
    try:
        from .cli import app

        app()
    except ModuleNotFoundError as error:
        # A missing module of this package, or one that only a checkpoint imports, keeps its traceback.
        if (error.name or "").partition(".")[0] not in EXTRA:
            raise
        print(f'{error.name} is not installed: pip install "selective-sigma[cli]"', file=sys.stderr)
        sys.exit(2)


def _stop(*_: object) -> NoReturn:
    # A progress bar has hidden the cursor.
    print("\x1b[?25h" * sys.stderr.isatty() + "Stopped.", file=sys.stderr, flush=True)
    os._exit(130)


if __name__ == "__main__":
    main()
