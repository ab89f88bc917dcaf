"""Train the embedded network on a folder of photographs. An interrupted run continues from its checkpoint.

    python -m training.train ../shared/photos --hours 2      # from the repository's root
    torchrun --nproc-per-node 2 -m training.train ../shared/photos     # one process for each of two cores
    python -m training.train ../shared/photos --go-on-from selective_sigma/demo/weights.safetensors

The loss is that of Karras et al. 2022 (eq. 8, with their weighting), with log-sigma from a normal distribution.
The learning rate follows the time spent, not the steps, so that a busy machine still ends on time.
"""

from __future__ import annotations

import copy
import json
import math
import os
import time
from pathlib import Path
from typing import Annotated

import torch
import torch.distributed as dist
import typer
from safetensors.torch import save_file
from torch import Tensor

from selective_sigma.demo import network as networks
from selective_sigma.demo.network import SIGMA_MAX, SIGMA_MIN, Network, data_scale

from .data import Crops, read

ROOT = Path(__file__).resolve().parent.parent
LOG_SIGMA_MEAN, LOG_SIGMA_STD = -2.0, 1.3
EVEN_SHARE = 0.15
"""Share of the noise levels drawn evenly (in their logarithm) over all that sampling uses."""
WARM_UP = 0.02
HELD_OUT = (
    "aitzgorri",
    "wp24-tourist-and-building",
    "budgie-canyon-wren",
    "budgie-roman-colosseum",
    "budgie-oakland-zoo-otters",
    "budgie-perched-osprey",
)
"""Photographs for the held-out loss, which are not trained on."""
LEFT_OUT = (
    "gpl-", "wp24-hotel-facade", "wp24-museum", "wp25-404-image", "wp25-agenda-img-4", "wp25-book-image",
    "wp25-campanula-alliariifolia-flower", "wp25-category-cactus", "wp25-coming-soon-bg-image",
    "wp25-delphinium-flowers", "wp25-grid-flower-2", "wp25-hero-podcast", "wp25-link-in-bio-background",
    "wp25-link-in-bio-image", "wp25-location", "wp25-man-in-hat", "wp25-nurse", "wp25-parthenon-square",
    "wp25-poster-image-background", "wp25-ruins-image", "wp25-services-subscriber-photo", "wp25-star-thristle-flower",
    "wp25-typewriter", "wp25-vash-gon-square", "wp25-woman-splashing-water", "fossa", "greentock",
)  # fmt: skip
"""Beginnings of the names of scans with film grain, near-copies, drawings and mock-ups, which teach grain."""


def loss_on(network: Network, picture: Tensor, condition: Tensor, log_sigma: Tensor, noise: Tensor) -> Tensor:
    """Mean of ``(denoised - picture)^2 / c_out^2``."""
    sigma = log_sigma.exp()
    wide = sigma[:, None, None, None]
    x = (picture + wide * noise).contiguous(memory_format=torch.channels_last)
    error = network.preconditioned(x, sigma, condition) - picture
    sigma_data = data_scale(condition[:, 3:])
    return (error.square() * (wide**2 + sigma_data**2) / (wide * sigma_data) ** 2).mean()


def levels(count: int, generator: torch.Generator) -> Tensor:
    """(count,) logarithms of noise levels."""
    bell = LOG_SIGMA_MEAN + LOG_SIGMA_STD * torch.randn(count, generator=generator)
    low, high = math.log(SIGMA_MIN), math.log(SIGMA_MAX)
    even = low + (high - low) * torch.rand(count, generator=generator)
    return torch.where(torch.rand(count, generator=generator) < EVEN_SHARE, even, bell)


def rate(share: float, peak: float) -> float:
    """Linear warm-up, then half a cosine to zero, over the share of the time that has passed."""
    return peak * min(1.0, share / WARM_UP) * 0.5 * (1 + math.cos(math.pi * min(share, 1.0)))


def export(ema: torch.nn.Module, facts: dict[str, object], path: Path) -> None:
    """Write half-precision weights with the facts of the training in their header."""
    tensors = {name: tensor.half().contiguous() for name, tensor in ema.state_dict().items()}
    part = path.with_suffix(".part")
    save_file(tensors, part, metadata={name: json.dumps(value) for name, value in facts.items()})
    part.replace(path)


def average(network: torch.nn.Module, seconds: float) -> float:
    """Average the gradients over all processes, and return the ``seconds`` of the first process.

    All processes use its clock, so that they agree on when to end.
    """
    gradients = [p.grad for p in network.parameters() if p.grad is not None]
    flat = torch.cat([g.flatten() for g in gradients] + [torch.tensor([seconds if dist.get_rank() == 0 else 0.0])])
    dist.all_reduce(flat)
    for gradient, mean in zip(
        gradients, (flat[:-1] / dist.get_world_size()).split([g.numel() for g in gradients]), strict=True
    ):
        gradient.copy_(mean.view_as(gradient))
    return flat[-1].item()


def held_out_batch(photos: list[list[Tensor]], count: int = 96) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The same crops, noise levels and noise in every call, so that losses can be compared."""
    generator = torch.Generator().manual_seed(1)
    picture, condition = Crops(photos, 1).batch(count)
    return picture, condition, levels(count, generator), torch.randn(picture.shape, generator=generator)


def main(  # noqa: PLR0915
    folder: Annotated[Path, typer.Argument(help="photographs to learn from", exists=True, file_okay=False)],
    hours: Annotated[float, typer.Option(help="training time of this run, over every resumption")] = 2.0,
    go_on_from: Annotated[
        Path | None,
        typer.Option(help="weights of an earlier run, to begin with and to add to", exists=True, dir_okay=False),
    ] = None,
    batch: Annotated[int, typer.Option(help="crops a step and process")] = 12,
    peak_rate: Annotated[float, typer.Option(help="peak learning rate")] = 1e-3,
    seed: int = 0,
    save_minutes: Annotated[float, typer.Option(help="between checkpoints")] = 5.0,
    run: Annotated[Path, typer.Option(help="folder for checkpoints and weights")] = ROOT / "training" / "run",
) -> None:
    run.mkdir(parents=True, exist_ok=True)
    rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    if world > 1:
        dist.init_process_group("gloo")
    photos = read(folder, LEFT_OUT)
    held = held_out_batch([photos.pop(name) for name in HELD_OUT if name in photos] or list(photos.values()))
    torch.manual_seed(seed)
    network = networks.load(go_on_from).train().requires_grad_() if go_on_from else Network()
    network = network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]  as in network.load
    before = networks.facts(go_on_from) if go_on_from else {"steps": 0, "hours": 0.0}
    ema = copy.deepcopy(network).eval().requires_grad_(False)
    optimizer = torch.optim.AdamW(network.parameters(), lr=peak_rate, betas=(0.9, 0.99))
    step, seconds, best, loss_mean = 0, 0.0, math.inf, math.nan
    checkpoint = run / "checkpoint.pt"
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True)
        network.load_state_dict(saved["network"])
        ema.load_state_dict(saved["ema"])
        optimizer.load_state_dict(saved["optimizer"])
        step, seconds, best, loss_mean = (saved[name] for name in ("step", "seconds", "best", "loss"))
    draw = seed + step * world + rank
    crops = Crops(list(photos.values()), draw)
    generator = torch.Generator().manual_seed(draw)

    def save() -> None:
        nonlocal best
        with torch.no_grad():
            held_loss = sum(loss_on(ema, *(t[i : i + 16] for t in held)).item() for i in range(0, 96, 16)) / 6
        facts = {"steps": before["steps"] + step, "batch": batch * world}
        facts["hours"] = round(before["hours"] + seconds / 3600, 2)
        facts |= {"loss": round(loss_mean, 4), "held_out_loss": round(held_loss, 4), "photographs": len(photos)}
        export(ema, facts, run / "latest.safetensors")
        if held_loss <= best:
            best = held_loss
            export(ema, facts, run / "weights.safetensors")
        state = {"network": network.state_dict(), "ema": ema.state_dict(), "optimizer": optimizer.state_dict()}
        state |= {"step": step, "seconds": seconds, "best": best, "loss": loss_mean}
        torch.save(state, checkpoint.with_suffix(".tmp"))
        checkpoint.with_suffix(".tmp").replace(checkpoint)
        print(f"{time.strftime('%H:%M')} {json.dumps(facts)}", flush=True)

    last_save, clock = seconds, time.monotonic()
    while seconds < hours * 3600:
        for group in optimizer.param_groups:
            group["lr"] = rate(seconds / (hours * 3600), peak_rate)
        picture, condition = crops.batch(batch)
        noise = torch.randn(picture.shape, generator=generator)
        loss = loss_on(network, picture, condition, levels(batch, generator), noise)
        optimizer.zero_grad()
        loss.backward()
        now = time.monotonic()
        seconds, clock = seconds + now - clock, now
        if world > 1:
            seconds = average(network, seconds)
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        step += 1
        decay = min(0.9995, (before["steps"] + step + 1) / (before["steps"] + step + 10))
        with torch.no_grad():
            torch._foreach_lerp_(list(ema.parameters()), list(network.parameters()), 1 - decay)
        loss_mean = loss.item() if math.isnan(loss_mean) else 0.99 * loss_mean + 0.01 * loss.item()
        if step % 50 == 0 and rank == 0:
            print(f"step {step}: loss {loss_mean:.4f}, {seconds / 3600:.3f} h", flush=True)
        if seconds - last_save > save_minutes * 60:
            last_save = seconds
            if rank == 0:
                save()
    if rank == 0:
        save()


if __name__ == "__main__":
    typer.run(main)
