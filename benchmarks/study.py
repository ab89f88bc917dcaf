"""The runs behind the questions: each made once, and counted."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from selective_sigma.demo.scenes import KINDS
from selective_sigma.settings import Family

from .exact import Mixture
from .figures import Figures, compare, spread
from .methods import Method, plain
from .models import Embedded, Model, Scene
from .run import Result, sample

DETAILED_KINDS = tuple(kind for kind in KINDS if kind != "smooth")
STRENGTH = 0.1
"""The usual dose."""
MOST = 0.6
"""Most that a strength is raised to in search of equal gain."""

T = TypeVar("T")


class Track(Protocol):
    """Yields the items of a sequence and shows how far it has come."""

    def __call__(self, items: Sequence[T]) -> Iterable[T]: ...


@dataclass(frozen=True)
class Pictures:
    """Which pictures are sampled: seeds by kinds by ``count``, in this order, as one batch."""

    seeds: int = 3
    kinds: tuple[str, ...] = DETAILED_KINDS
    count: int = 1
    family: Family = "ve"
    guidance: float = 1.0
    mixture: bool = False
    """The exact mixture instead of the embedded network; ``kinds`` then means nothing."""

    @property
    def scenes(self) -> list[Scene]:
        each = [(seed, kind, i) for seed in range(self.seeds) for kind in self.kinds for i in range(self.count)]
        return [Scene(kind, 10_000 * seed + 100 * KINDS.index(kind) + i) for seed, kind, i in each]

    def model(self) -> Model:
        if self.mixture:
            return Mixture([10_000 * seed + i for seed in range(self.seeds) for i in range(self.count)])
        return Embedded(self.scenes, self.family, self.guidance)

    def by_seed(self, values: Sequence[float]) -> list[list[list[float]]]:
        """Values of the batch as [seed][kind][picture]."""
        kinds = 1 if self.mixture else len(self.kinds)
        rows = [list(values[i : i + self.count]) for i in range(0, len(values), self.count)]
        return [rows[i : i + kinds] for i in range(0, len(rows), kinds)]

    def mean(self, values: Sequence[float]) -> dict[str, float]:
        """Mean and spread over seeds."""
        return spread([fmean(v for kind in seed for v in kind) for seed in self.by_seed(values)])


class Study:
    """Runs by what they depend on; ``evaluations`` counts pictures denoised by the network."""

    def __init__(self, seeds: int = 3, make: Callable[[Pictures], Model] = Pictures.model):
        self.seeds = seeds
        self.evaluations = 0
        self._make = make
        self._models: dict[Pictures, Model] = {}
        self._plain: dict[tuple[Pictures, str, int], Tensor] = {}
        self._figures: dict[tuple[Pictures, Method, float, str, int], Figures] = {}

    def pictures(self, **options: object) -> Pictures:
        return Pictures(seeds=self.seeds, **options)  # type: ignore[arg-type]

    def model(self, pictures: Pictures) -> Model:
        if pictures not in self._models:
            self._models[pictures] = self._make(pictures)
        return self._models[pictures]

    def run(self, pictures: Pictures, method: Method, strength: float, sampler: str, steps: int) -> Result:
        """One run, made anew."""
        model = self.model(pictures)
        before = model.evaluations
        with torch.no_grad():
            result = sample(model, method, strength, sampler, steps)
        self.evaluations += model.evaluations - before
        return result

    def plain(self, pictures: Pictures, sampler: str, steps: int) -> Tensor:
        """Pictures without detail, (batch, channels, H, W)."""
        key = (pictures, sampler, steps)
        if key not in self._plain:
            self._plain[key] = self.run(pictures, plain, 0.0, sampler, steps).picture
        return self._plain[key]

    def figures(
        self, pictures: Pictures, method: Method, strength: float = STRENGTH, sampler: str = "euler", steps: int = 20
    ) -> Figures:
        """What a method did to pictures."""
        key = (pictures, method, strength, sampler, steps)
        if key not in self._figures:
            bare = self.plain(pictures, sampler, steps)
            result = self.run(pictures, method, strength, sampler, steps)
            calls = steps if sampler != "dpmpp_sde" else 2 * steps - 1
            self._figures[key] = compare(result.picture, bare, self.model(pictures).region, result.calls, calls)
        return self._figures[key]

    def matched(
        self,
        pictures: Pictures,
        method: Method,
        target: float,
        sampler: str,
        steps: int,
        amount: Callable[[Figures], Sequence[float]] = lambda f: f.inside,
        runs: int = 1,
    ) -> float:
        """The strength at which a method adds ``target`` detail, from a run at the usual dose.

        The effect of a small lie is linear in its strength (method.md section 1); where it is not,
        further ``runs`` start from what the one before found.
        """
        strength = STRENGTH
        for _ in range(runs):
            found = fmean(amount(self.figures(pictures, method, strength, sampler, steps)))
            strength = min(MOST, strength * target / found) if found > 0 else MOST
        return strength


def leaks(pictures: Pictures, inside: Sequence[float], outside: Sequence[float]) -> list[list[float]]:
    """Outside / inside as [seed][kind], each pooled over the kind's pictures."""
    return [
        [sum(o) / sum(i) for i, o in zip(a, b, strict=True)]
        for a, b in zip(pictures.by_seed(inside), pictures.by_seed(outside), strict=True)
    ]


def leak_rms(pictures: Pictures, figures: Figures) -> list[list[float]]:
    """By RMS of the fine detail added, [seed][kind]."""
    energies = ([v * v for v in values] for values in (figures.inside, figures.outside))
    return [[value**0.5 for value in seed] for seed in leaks(pictures, *energies)]


def leak_energy(pictures: Pictures, figures: Figures) -> list[float]:
    """By high-frequency energy gained, pooled over all of a seed's pictures: gains may be negative."""
    sums = ([sum(map(sum, seed)) for seed in pictures.by_seed(v)] for v in (figures.energy_out, figures.energy_in))
    return [out / inside for out, inside in zip(*sums, strict=True)]
