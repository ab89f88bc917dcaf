"""One photograph redrawn by each method, with equal detail where it belongs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch.nn.functional as F

from ..settings import Settings
from . import truth
from .figure import to_image
from .measure import Detail, detail, luma
from .photos import FACTOR, thumbnail
from .sample import Sample, redraw

if TYPE_CHECKING:
    from collections.abc import Callable

    from PIL.Image import Image
    from torch import Tensor

    from .network import Network

CLOSE = 128
"""Side of a close-up, in pixels: half of a picture, shown at twice its size."""
STRETCH = 2.0
"""Contrast of the smooth close-up: what a screen hides and a print shows."""
FIRST_GUESS = 0.3
"""First guess of ``Scene.strength_everywhere``, as a share of the strength under the mask."""
TOLERANCE, TRIES = 0.02, 4
"""Limits of ``Scene.strength_everywhere``: relative error of the detail inside, and runs of the sampler."""


@dataclass
class Scene:
    """A photograph, its thumbnail, and the samples drawn from it, by (strength, coverage)."""

    network: Network
    photo: Tensor
    """(1, 3, h, w) in [-1, 1]."""
    smooth: Tensor | None = None
    """Where the photograph is smooth, (1, 1, h, w); None takes the third with the least fine detail."""
    steps: int = 20
    seed: int = 0
    advance: Callable[[], object] = lambda: None
    """Called after each run of the sampler."""
    factor: float = FACTOR
    samples: dict[tuple[float, float], Sample] = field(default_factory=dict[tuple[float, float], Sample])

    def __post_init__(self):
        self.thumbnail = thumbnail(self.photo, self.factor)
        self.regions = truth.measured(self.photo)

    def draw(self, strength: float, coverage: float = 0.5) -> Sample:
        if not strength or not coverage:
            strength, coverage = 0.0, 0.0
        if (strength, coverage) not in self.samples:
            settings = Settings(strength=strength, coverage=coverage)
            self.samples[strength, coverage] = redraw(self.network, self.thumbnail, settings, self.steps, self.seed)
            self.advance()
        return self.samples[strength, coverage]

    def detail(self, picture: Tensor) -> Detail:
        """Fine detail of brightness; specks of colour do not count."""
        return detail(luma(picture), *self.regions)

    def strength_everywhere(self, selective: float) -> float:
        """The strength at which the lie everywhere gives as much detail inside as ``selective`` does under the mask."""
        if not selective:
            return 0.0
        target = self.detail(self.draw(selective).picture).inside.item()
        previous = (0.0, self.detail(self.draw(0.0).picture).inside.item())
        guess = FIRST_GUESS * selective
        errors: dict[float, float] = {}
        for _ in range(TRIES):
            inside = self.detail(self.draw(guess, 1.0).picture).inside.item()
            errors[guess] = abs(inside / target - 1)
            if errors[guess] < TOLERANCE or inside == previous[1]:
                break
            slope = (inside - previous[1]) / (guess - previous[0])
            previous = guess, inside
            guess = round(min(max(guess + (target - inside) / slope, -0.9), 0.9), 4)
        return min(errors, key=errors.__getitem__)

    def busy_corner(self) -> tuple[int, int]:
        """(top, left) of the close-up that holds most of the part with most detail."""
        return best_window(self.regions.inside)

    def smooth_corner(self) -> tuple[int, int]:
        """(top, left) of the close-up that holds most of the smooth part."""
        return best_window(self.regions.outside if self.smooth is None else self.smooth)


def best_window(region: Tensor, side: int = CLOSE) -> tuple[int, int]:
    """(top, left) of the square with most of ``region`` (1, 1, h, w) in it, and among equal ones most around it."""
    side = min(side, *region.shape[2:])
    surroundings = F.avg_pool2d(region, 9, 1, 4)
    shares = F.avg_pool2d(region + 0.01 * surroundings, side, 1)[0, 0]
    return divmod(int(shares.argmax()), shares.shape[1])


def image(picture: Tensor) -> Image:
    """The first of ``picture`` (batch, channels, h, w) in [-1, 1]."""
    return to_image(picture[0] / 2 + 0.5)


def close_up(picture: Tensor, corner: tuple[int, int], stretch: float = 1.0) -> Image:
    """A square of ``picture`` (1, channels, h, w) in [-1, 1], its contrast about its mean times ``stretch``."""
    top, left = corner
    square = picture[:, :, top : top + CLOSE, left : left + CLOSE]
    mean = square.mean((2, 3), keepdim=True)
    return image(mean + (square - mean) * stretch)
