"""What a pipeline's model is called with in a run with detail, and whether that is right.

Nothing here uses what the adapter has learned: samples and times are the arguments that differ between a plain and a
lied call, noise levels are what the scheduler adds.
"""

from __future__ import annotations

import copy
import math
from itertools import product
from typing import Any

import torch

from .census_watch import Watch, WrongError, leaves

KEEP = 0.9
"""Share of the noise that strength 0.1 leaves."""


def rows_of(part: torch.Tensor, whole: torch.Tensor) -> torch.Tensor | None:
    """The rows of ``whole`` that ``part`` has, the last ones where it has fewer."""
    if part.shape == whole.shape:
        return whole
    if part.ndim and whole.ndim == part.ndim and part.shape[1:] == whole.shape[1:] and len(part) < len(whole):
        return whole[-len(part) :]
    return None


def levels(scheduler: Any) -> list[tuple[float, float, float]]:
    """(time, share of signal, share of noise) of each step, as the scheduler adds noise."""
    steps = []
    for time in scheduler.timesteps.split(1):
        for name in ("_begin_index", "_step_index"):
            if hasattr(scheduler, name):
                setattr(scheduler, name, None)
        add = getattr(scheduler, "scale_noise", None)
        one, zero = torch.ones(1, 1), torch.zeros(1, 1)
        pairs = ((one, zero), (zero, one))
        mixed = [add(s, time, n) if add else scheduler.add_noise(s, n, time) for s, n in pairs]
        steps.append((float(time), *map(float, mixed)))
    return steps


def differences(lied: Any, plain: Any) -> tuple[list[float], list[tuple[float, float]]]:
    """By what factors the large arguments differ, and (true, lied) of the small ones, which tell the time."""
    scales, moved = [], []
    for path, true in plain[1].items():
        other = lied[1].get(path)
        if isinstance(true, torch.Tensor) and isinstance(other, torch.Tensor):
            there = rows_of(other, true)
            if there is None or torch.equal(other.double(), there.double()):
                continue
            a, b = other.double().flatten(), there.double().flatten()
            differ = a != b
            if len(b.unique()) > 32:
                scales.append(float((a / b)[differ & (b != 0)].median()))
            else:
                moved.append((float(b[differ][-1]), float(a[differ][-1])))
        elif isinstance(true, (int, float)) and true != other:
            moved.append((float(true), float(other)))
    return scales, moved


def check_noise(pipe: Any, pairs: list[Any]) -> None:
    """Raises ``WrongError`` unless the lied pass has nine tenths of the noise to signal, in its sample and its time."""
    table = levels(copy.deepcopy(pipe.scheduler))
    flow = all(abs(s + n - 1) < 1e-3 for _, s, n in table)
    # The last step, of each chunk of a clip, has half the dose.
    keeps = (KEEP, (1 + KEEP) / 2)
    for lied, plain, _ in pairs:
        scales, moved = differences(lied, plain)
        if not moved:
            raise WrongError("no time differs")
        ratios = [noise_ratio(pipe, times, flow, k) for times in moved for k in keeps]
        if all(abs(ratio - k) > 0.01 for ratio in ratios for k in keeps):
            raise WrongError(f"told {min(ratios, key=lambda r: abs(r - KEEP)):.4f} of the noise")
        # By the sample's scale: flow samples shrink less than their noise does, others are at unit variance.
        wanted = []
        for (_, s, n), k in product(table, keeps):
            if flow:
                # Mochi counts signal where others count noise.
                wanted += [1 / (1 - (1 - k) * sigma) for sigma in (s, n)]
            else:
                data = (
                    pipe.scheduler.config.get("sigma_data", 1.0)
                    if hasattr(pipe.scheduler, "precondition_noise")
                    else 1.0
                )
                v = n / max(s, 1e-6) / data
                wanted.append(math.hypot(1, v) / math.hypot(1, k * v))
        if scales and all(abs(scale - w) > 0.004 for scale in scales for w in wanted):
            raise WrongError(f"shown the sample at {scales[0]:.4f} of its size")
    if not pairs:
        raise WrongError("no step was asked twice")


def noise_ratio(pipe: Any, times: tuple[float, float], flow: bool, keep: float) -> float:
    """Ratio of the lied to the true noise to signal, by (true, lied) times in any likely unit."""
    true, lied = times
    if flow:
        ratios = []
        for unit in (1.0, 1000.0, float(pipe.scheduler.config.get("num_train_timesteps") or 1000)):
            a, b = true / unit, lied / unit
            if 0 < a < 1 and 0 < b < 1:
                ratio = (b / (1 - b)) / (a / (1 - a))
                ratios += [ratio, 1 / ratio]
        return min(ratios, key=lambda r: abs(r - keep), default=math.nan)
    if hasattr(pipe.scheduler, "precondition_noise") or pipe.scheduler.config.get("timestep_type") == "continuous":
        sigma = [math.exp(4 * t) for t in times]
        if type(pipe.scheduler).__name__.startswith("Cosine"):
            sigma = [math.tan(t * math.pi / 2) for t in times]
        return sigma[1] / sigma[0]
    table = pipe.scheduler.alphas_cumprod.double()
    logs = ((1 - table) / table).log() / 2

    def at(time: float) -> float:
        low = min(max(int(time), 0), len(logs) - 2)
        return float(logs[low] + (time - low) * (logs[low + 1] - logs[low]))

    return math.exp(at(lied) - at(true))


def check_answer(pipe: Any, plain: Watch, everywhere: Watch) -> None:
    """At coverage 1, what the pipeline gets of a lied answer means at the true level what that meant at the lied one.

    Looked at where sample and answer have one shape, at the first step with a lie, where both runs are still one.
    """
    _, true, _ = plain.pairs[0]
    begun = next(i for i, (mine, _) in enumerate(plain.outside) if len(mine) == 2)
    mine, answer = everywhere.outside[begun]
    outer = next(v for v in leaves(answer).values() if isinstance(v, torch.Tensor)).double()
    inner = next(iter(everywhere.inside[mine[-1]][2].values())).double()
    arguments = everywhere.inside[mine[-1]][1]
    # Linear in the answer and in the sample: outer = a inner + b x, with b = 0 but for velocity and v.
    inputs = [
        (v.double(), true[1][k].double())
        for k, v in arguments.items()
        if isinstance(v, torch.Tensor) and v.shape == inner.shape and isinstance(true[1].get(k), torch.Tensor)
    ]
    basis = [inner.flatten()] + [x.flatten() for pair in inputs[:1] for x in pair[1:]]
    # Tokens of a reference picture stay as they are.
    changed = (outer != inner).flatten()
    matrix, goal = torch.stack(basis, 1)[changed], outer.flatten()[changed]
    if not len(goal):
        return
    fit = torch.linalg.lstsq(matrix, goal[:, None]).solution.flatten()
    rest = float((matrix @ fit - goal).norm() / goal.norm())
    if rest > 0.02 and inputs:
        raise WrongError(f"the answer comes back as something else ({rest:.3f})")
    if not inputs:
        return
    table = levels(copy.deepcopy(pipe.scheduler))
    flow = all(abs(s + n - 1) < 1e-3 for _, s, n in table)
    wanted = []
    for (_, s, n), keep in product(table, (KEEP, (1 + KEEP) / 2)):
        if flow:
            for sigma in (s, n):
                if sigma <= 0:
                    continue
                scale = 1 / (1 - (1 - keep) * sigma)
                # o = (x - x' + sigma' o') / sigma, for velocity either way; the clean picture comes back as it is.
                wanted += [(keep * scale, (1 - scale) / sigma), (keep * scale, -(1 - scale) / sigma), (1.0, 0.0)]
        else:
            data = (
                pipe.scheduler.config.get("sigma_data", 1.0) if hasattr(pipe.scheduler, "precondition_noise") else 1.0
            )
            v = n / max(s, 1e-6) / data
            low = keep * v
            unit, lied_unit = math.hypot(1, v), math.hypot(1, low)
            # epsilon, the clean picture, and v, whose D' = x / lied_unit^2 - low / lied_unit o'.
            gap = unit * (1 / unit**2 - 1 / lied_unit**2) * unit / v if v else 0.0
            slope = low / lied_unit * unit / v if v else 0.0
            wanted += [(keep, 0.0), (1.0, 0.0), (slope, gap), (slope, -gap)]
    b = float(fit[1]) if len(fit) > 1 else 0.0
    best = min(abs(float(fit[0]) - a) + abs(b - c) for a, c in wanted)
    if best > 0.01:
        raise WrongError(f"the answer comes back {float(fit[0]):.4f} times, with {b:.4f} of the sample")


def check_effect(watch: Watch) -> None:
    """By default settings all copies of a batch are moved by the same, and by something."""
    for _, plain, answer in watch.pairs:
        inner = next(iter(plain[2].values())).double()
        outer = next(v for v in leaves(answer).values() if isinstance(v, torch.Tensor)).double()
        moved = outer - inner
        if len(moved) == 2 and float((moved[0] - moved[1]).abs().max()) > 0.02 * float(moved.abs().max()) + 1e-5:
            raise WrongError("the copies of a batch are moved apart")


def check_grid(pipe: Any, run: Any, sample: torch.Tensor) -> str:
    """Raises ``WrongError`` unless the mask has a value for each place of the latent, or, noted, for each token."""
    mask = run.mask[0] if isinstance(run.mask, list) else run.mask
    config = getattr(getattr(pipe, "vae", None), "config", {})
    names = ("latent_channels", "z_dim", "vq_embed_dim", "latent_dim", "decoder_input_channels")
    channels = next((config.get(n) for n in names if isinstance(config.get(n), int)), None)
    places = mask[0].numel()
    per = sample[0].numel() / places
    if channels and sample.ndim == 3 and places == sample.shape[1] and per % channels == 0 and per > channels:
        return ", a mask of tokens"
    # Channels of several pictures may share a place (Marigold's intrinsics).
    if channels and (per % channels if sample.ndim > 3 else per != channels):
        raise WrongError(f"the mask has {places} values for a latent of {tuple(sample.shape)} with {channels} channels")
    return ""
