"""Where ``selective-sigma`` and ``python -m selective_sigma`` begin.

Light, so that what comes before the command itself ends in one line as well: an absent extra, and Ctrl-C in the
seconds that imports take.
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
"""What the extra ``cli`` brings, as it is imported."""


def main() -> None:
    # At once, and not by KeyboardInterrupt, which some of the imports swallow; a command that has begun takes it back.
    signal.signal(signal.SIGINT, _stop)
    # Before torch is imported: threads that wait for one another spin, which beside other work makes all of it
    # several times slower; so few turns cost nothing on an idle machine (libgomp's own variable).
    os.environ.setdefault("GOMP_SPINCOUNT", "2000")
    try:
        from .cli import app

        app()
    except ModuleNotFoundError as error:
        # A module of ours that is missing, or one that only a checkpoint asks for, is another matter.
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
