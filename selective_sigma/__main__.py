"""``python -m selective_sigma``, also for ``accelerate launch -m selective_sigma``."""

from .cli import main

main()
