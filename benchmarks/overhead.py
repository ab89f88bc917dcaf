"""Own work beside the model: time per step and memory between steps, with a denoiser that returns at once."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from statistics import fmean, median
from typing import Any

import torch
from torch import Tensor

from selective_sigma import Detailer, Prediction, Settings
from selective_sigma.mask import blur, change
from selective_sigma.percentile import stretch

from . import charts, words
from .methods import PUBLISHED
from .samplers import karras
from .study import STRENGTH, Study, Track

TITLE = "Overhead"
SHAPES = ((1, 4, 128, 128), (1, 16, 128, 128), (1, 16, 21, 90, 160))
STEPS, ROUNDS = 20, 3
TIMED = slice(4, 15)
"""Steps of a run that are timed: active, at full strength, and after the first mask."""
SIGMAS = karras(STEPS, 0.03, 14.6)

Step = Callable[[Callable[[Tensor, Tensor], Prediction], Tensor, Tensor], object]


class Arithmetic:
    """The published method's own operations on an active step, from its formula (method.md section 2).

    Mean over channels of |D - D_last|, two ``torch.quantile``, stretch, EMA, coverage, blend.
    """

    def __init__(self) -> None:
        self.last: Tensor | None = None
        self.mask: Tensor | None = None

    def step(self, evaluate: Callable[[Tensor, Tensor], Prediction], x: Tensor, sigma: Tensor) -> Tensor:
        lied = evaluate(x, sigma * (1 - STRENGTH)).denoised
        true = evaluate(x, sigma).denoised
        last, self.last = self.last, true
        if last is None:
            return true
        raw = (true - last).abs().mean(1, keepdim=True)
        flat = raw.flatten(1)
        low, high = (torch.quantile(flat, q, dim=1).reshape(-1, *[1] * (x.ndim - 1)) for q in (0.2, 0.8))
        mask = ((raw - low) / (high - low + 1e-8)).clamp(0, 1)
        self.mask = mask if self.mask is None else 0.9 * self.mask + 0.1 * mask
        mask = (self.mask + 2 * (0.5 - 0.5)).clamp(0, 1)
        if float(mask.mean()) < 0.02:
            return true
        return true * (1 - mask) + lied * mask


class Instant:
    """A denoiser that returns at once: one of a few tensors made before, in turn."""

    def __init__(self, shape: tuple[int, ...]):
        generator = torch.Generator().manual_seed(0)
        self.outputs = [torch.randn(shape, generator=generator) for _ in range(3)]
        self.calls = 0

    def __call__(self, x: Tensor, sigma: Tensor) -> Prediction:
        self.calls += 1
        return Prediction(self.outputs[self.calls % len(self.outputs)])


def contestants() -> dict[str, Callable[[], Any]]:
    """Fresh state for one run, by label; each has ``step(evaluate, x, sigma)``."""

    def detailer(**settings: Any) -> Callable[[], Any]:
        return lambda: Detailer(Settings(strength=STRENGTH, **settings), SIGMAS)

    return {
        "published arithmetic": Arithmetic,
        "published, by our core": detailer(**dict(PUBLISHED.settings)),
        "ours, two passes": detailer(passes="two"),
        "ours, economy": detailer(passes="economy"),
    }


def measure(study: Study, track: Track) -> dict[str, Any]:
    """Milliseconds per active step: mean over a run's steps, median over runs, all contestants interleaved."""
    rows: list[dict[str, Any]] = []
    for shape in track(SHAPES):
        x = torch.randn(shape)
        times: dict[str, list[float]] = {label: [] for label in contestants()}
        bare: list[float] = []
        held: dict[str, int] = {}
        for _ in range(ROUNDS):
            for label, make in contestants().items():
                method, instant = make(), Instant(shape)
                spent = _run(method.step, instant, x)
                # Mean over steps: a method may spend more on some steps than on others.
                times[label].append(fmean(spent[TIMED]))
                held[label] = _bytes(method, {id(t) for t in instant.outputs})
            bare.append(fmean(_run(lambda evaluate, x, sigma: evaluate(x, sigma), Instant(shape), x)[TIMED]))
        for label, spent in times.items():
            own = 1e3 * (median(spent) - median(bare))
            rows.append({"shape": list(shape), "label": label, "ms": own, "bytes": held[label]})
    return {"rows": rows, "mask": {"x".join(map(str, shape)): _mask_shift(shape) for shape in SHAPES}}


def _run(step: Step, instant: Instant, x: Tensor) -> list[float]:
    """Seconds of each step of one run; it ends with the last one timed."""
    spent = []
    for level in SIGMAS[: TIMED.stop]:
        sigma = torch.full((len(x),), level)
        began = time.perf_counter()
        step(instant, x, sigma)
        spent.append(time.perf_counter() - began)
    return spent


def _bytes(owner: object, foreign: set[int]) -> int:
    """Bytes of tensors that an object keeps, however deep; ``foreign`` ones are the model's own.

    Predictions kept by reference count as well, for they could be freed otherwise.
    """
    seen: set[int] = set()
    storages: dict[int, int] = {}

    def visit(value: object) -> None:
        if id(value) in seen:
            return
        seen.add(id(value))
        if isinstance(value, Tensor):
            storages[value.untyped_storage().data_ptr()] = value.untyped_storage().nbytes()
        elif isinstance(value, dict):
            for item in value.values():
                visit(item)
        elif isinstance(value, list | tuple):
            for item in value:
                visit(item)
        elif hasattr(value, "__dict__"):
            visit(vars(value))

    visit(owner)
    return sum(storages.values())


def _mask_shift(shape: tuple[int, ...]) -> float:
    """Mean absolute difference of a mask made from sampled percentiles to one from all pixels."""
    generator = torch.Generator().manual_seed(1)
    raw = blur(change(*(torch.randn(shape, generator=generator) for _ in range(2))))
    clip = Settings().mask_clip_percentile
    return float((stretch(raw.clone(), clip) - stretch(raw.clone(), clip, samples=None)).abs().mean())


def plot(data: dict[str, Any], path: Path) -> None:
    with charts.chart(path, len(SHAPES), 2.6, sharey=True) as axes:
        for ax, shape in zip(axes, SHAPES, strict=True):
            rows = [r for r in data["rows"] if r["shape"] == list(shape)]
            colours = [charts.colour_of(r["label"] + ("*" if "economy" in r["label"] else "")) for r in rows]
            ax.barh(range(len(rows)), [r["ms"] for r in rows], 0.6, color=colours)
            for i, r in enumerate(rows):
                ax.text(r["ms"], i, f" {r['ms']:.2f}" if r["ms"] < 10 else f" {r['ms']:.0f}", va="center", fontsize=9)
            ax.set_yticks(range(len(rows)), [r["label"] for r in rows])
            ax.set_ylim(len(rows) - 0.5, -0.5)
            ax.set_xlim(0, 1.2 * max(r["ms"] for r in rows))
            ax.grid(axis="y", visible=False)
            ax.set_title(" x ".join(map(str, shape)))
            ax.set_xlabel("ms per active step")


def describe(data: dict[str, Any]) -> str:
    head = ["latent", "method", "own time per step", "of the published arithmetic", "held between steps"]
    body = []
    for r in data["rows"]:
        base = next(q for q in data["rows"] if q["shape"] == r["shape"])
        shape = " x ".join(map(str, r["shape"]))
        held = f"{r['bytes'] / 2**20:.2f} MiB"
        body.append([shape, r["label"], f"{r['ms']:.2f} ms", words.figure(r["ms"] / base["ms"]), held])
    shifts = ", ".join(f"{shape} {shift:.4f}" for shape, shift in data["mask"].items())
    return (
        f"Time of an active step beyond that of the bare call, {ROUNDS} interleaved runs each, with "
        f"{torch.get_num_threads()} threads; `published arithmetic` is the formula written out with "
        "`torch.quantile`. Mean absolute difference of the mask from one with exact percentiles: "
        f"{shifts}.\n\n" + words.table(head, body)
    )


def targets(data: dict[str, Any]) -> list[words.Target]:
    label = "ours, " + ("economy" if Settings().passes == "economy" else "two passes")
    shares = []
    for shape in SHAPES:
        found = {r["label"]: r["ms"] for r in data["rows"] if r["shape"] == list(shape)}
        shares.append(found[label] / found["published arithmetic"])
    shift = max(data["mask"].values())
    return [
        words.Target(
            f"own work at most a fifth of the published method's ({label})",
            ", ".join(f"{s:.2f} at {'x'.join(map(str, shape))}" for s, shape in zip(shares, SHAPES, strict=True)),
            max(shares) <= 0.2,
        ),
        words.Target("sampled percentiles change the mask by less than 0.01", f"at most {shift:.4f}", shift < 0.01),
    ]
