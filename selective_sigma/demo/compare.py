"""One photograph redrawn by each method, at equal detail where it belongs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch.nn.functional as F

from ..settings import Settings
from . import DRAWN, photos, truth
from .figure import to_image
from .measure import Detail, detail
from .sample import Drawn, redraw

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from PIL.Image import Image
    from torch import Tensor

    from .network import Network

CLOSE = 72
"""Side of a crop, in pixels."""
TOLERANCE, TRIES = 0.01, 4
"""Of the search for the strength that gives equal detail inside."""


@dataclass
class Scene:
    """A photograph, its thumbnail, and what was drawn from it, by (strength, coverage)."""

    network: Network
    source: str | Path
    size: int | tuple[int, int]
    zoom: float | None = None
    steps: int = 20
    seed: int = 0
    advance: Callable[[], object] = lambda: None
    done: dict[tuple[float, float], Drawn] = field(default_factory=dict[tuple[float, float], Drawn])

    def __post_init__(self):
        self.photo = photos.photograph(self.source, self.size, self.zoom)
        self.thumbnail = photos.thumbnail(self.photo)
        self.regions = truth.measured(self.photo)

    def draw(self, strength: float, coverage: float = 0.5) -> Drawn:
        if not strength or not coverage:
            strength, coverage = 0.0, 0.0
        if (strength, coverage) not in self.done:
            settings = Settings(strength=strength, coverage=coverage)
            self.done[strength, coverage] = redraw(self.network, self.thumbnail, settings, self.steps, self.seed)
            self.advance()
        return self.done[strength, coverage]

    def detail(self, picture: Tensor) -> Detail:
        return detail(picture, *self.regions)

    def everywhere(self, selective: float) -> float:
        """The strength at which the lie told everywhere gives as much detail inside as ``selective`` under the mask."""
        if not selective:
            return 0.0
        wanted = self.detail(self.draw(selective).picture).inside.item()
        before = (0.0, self.detail(self.draw(0.0).picture).inside.item())
        guess = 0.5 * selective
        for _ in range(TRIES):
            got = self.detail(self.draw(guess, 1.0).picture).inside.item()
            if abs(got / wanted - 1) < TOLERANCE or got == before[1]:
                break
            slope = (got - before[1]) / (guess - before[0])
            before = guess, got
            guess = round(min(max(guess + (wanted - got) / slope, -0.9), 0.9), 4)
        return min(
            (s for s, c in self.done if c == 1.0),
            key=lambda s: abs(self.detail(self.draw(s, 1.0).picture).inside.item() - wanted),
        )

    def places(self) -> dict[str, tuple[int, int]]:
        """Top left corners of the crops: most of what the photograph has most detail in, and most of what is smooth.

        Smooth is what was drawn by hand, where there is such.
        """
        named = DRAWN.get(str(self.source), {}).get("smooth")
        smooth = truth.drawn(str(self.source), self.size, self.zoom).outside if named else self.regions.outside
        return {"busy": best_window(self.regions.inside), "smooth": best_window(smooth)}


def best_window(region: Tensor, side: int = CLOSE) -> tuple[int, int]:
    """(top, left) of the square that holds most of ``region`` (1, 1, h, w), and is most surrounded by it."""
    side = min(side, *region.shape[2:])
    near = F.avg_pool2d(region, 9, 1, 4)
    held = F.avg_pool2d(region + 0.01 * near, side, 1)[0, 0]
    return divmod(int(held.argmax()), held.shape[1])


def image(picture: Tensor) -> Image:
    """The first of ``picture`` (batch, 3, h, w) in [-1, 1]."""
    return to_image(picture[0] / 2 + 0.5)


def crop(picture: Tensor, place: tuple[int, int], side: int = CLOSE, stretch: float = 1.0) -> Image:
    """A square of ``picture`` (1, channels, h, w), its contrast about its mean times ``stretch``."""
    top, left = place
    cut = picture[:, :, top : top + side, left : left + side]
    mean = cut.mean((2, 3), keepdim=True)
    return image(mean + (cut - mean) * stretch)
