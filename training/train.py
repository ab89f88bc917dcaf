"""Train the embedded network on freshly drawn scenes; resumes where it was interrupted.

    python -m training.train                    # from the repository's root
    python -m training.train --steps 200 --run /tmp/try      # a quick look

Loss: mean squared error of ``v`` (Salimans & Ho 2022, eq. 12) on Stable Diffusion's noise
table, log-sigma drawn from a normal distribution (Karras et al. 2022, table 1).
"""

from __future__ import annotations

import copy
import json
import math
import time
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from safetensors.torch import save_file

from selective_sigma.demo.levels import log_sigma_table, to_timestep
from selective_sigma.demo.network import LATENT_SCALE, NULL_CLASS, NULL_REGION, SceneUNet
from selective_sigma.demo.scenes import KINDS, draw

ROOT = Path(__file__).resolve().parent.parent
LOG_SIGMA_MEAN, LOG_SIGMA_STD = -0.4, 1.5
DROP_BOTH, DROP_ONE = 0.12, 0.06
WARM_UP, DECAY_SHARE = 200, 0.3


def batch_of(size: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Latents, class labels and region maps, with conditions dropped for guidance."""
    per_kind = size // len(KINDS)
    drawn = [draw(kind, per_kind, generator) for kind in KINDS]
    image = torch.cat([s.image for s in drawn])
    region = torch.cat([s.region for s in drawn])
    labels = torch.arange(len(KINDS)).repeat_interleave(per_kind)
    flip = torch.rand(size, 1, 1, 1, generator=generator) < 0.5
    image, region = (torch.where(flip, t.flip(-1), t) for t in (image, region))
    u = torch.rand(size, generator=generator)
    labels = torch.where(u < DROP_BOTH + DROP_ONE, NULL_CLASS, labels)
    no_region = (u < DROP_BOTH) | (u > 1 - DROP_ONE)
    region = torch.where(no_region[:, None, None, None], torch.full_like(region, NULL_REGION), region)
    return image * LATENT_SCALE, labels, region


def loss_on(net, latent, labels, region, table, generator) -> torch.Tensor:
    log_sigma = LOG_SIGMA_MEAN + LOG_SIGMA_STD * torch.randn(len(latent), generator=generator)
    log_sigma = log_sigma.clamp(table[0], table[-1])
    sigma = log_sigma.exp()[:, None, None, None]
    noise = torch.randn(latent.shape, generator=generator)
    scale = (sigma**2 + 1).rsqrt()
    target = (noise - sigma * latent) * scale
    with torch.autocast("cpu", dtype=torch.bfloat16):
        v = net((latent + sigma * noise) * scale, to_timestep(log_sigma, table), labels, region).sample
    return (v.float() - target).square().mean()


def rate(step: int, steps: int, peak: float) -> float:
    """Linear warm-up, constant, then linear to zero over the last share of the run."""
    return peak * min(1.0, (step + 1) / WARM_UP, (steps - step) / (DECAY_SHARE * steps))


def export(ema: torch.nn.Module, facts: dict[str, object], path: Path) -> None:
    """Write half-precision weights with the facts of the training in their header."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {k: v.half().contiguous() for k, v in ema.state_dict().items()}
    save_file(tensors, path, metadata={k: json.dumps(v) for k, v in facts.items()})


def main(
    steps: Annotated[int, typer.Option(help="optimizer steps in all")] = 5100,
    batch: Annotated[int, typer.Option(help="pictures a step, a multiple of 4")] = 32,
    peak_rate: Annotated[float, typer.Option(help="peak learning rate")] = 1e-3,
    seed: int = 0,
    save_every: Annotated[int, typer.Option(help="steps between checkpoints")] = 250,
    run: Annotated[Path, typer.Option(help="folder for checkpoints and weights")] = ROOT / "training" / "run",
) -> None:
    run.mkdir(parents=True, exist_ok=True)
    table = log_sigma_table()
    torch.manual_seed(seed)
    net = SceneUNet().to(memory_format=torch.channels_last)
    ema = copy.deepcopy(net).eval().requires_grad_(False)
    optimizer = torch.optim.Adam(net.parameters(), lr=peak_rate, betas=(0.9, 0.99))
    generator = torch.Generator().manual_seed(seed)
    first, seconds, loss_mean = 0, 0.0, math.nan
    checkpoint = run / "checkpoint.pt"
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True)
        net.load_state_dict(saved["net"])
        ema.load_state_dict(saved["ema"])
        optimizer.load_state_dict(saved["optimizer"])
        generator.set_state(saved["generator"])
        first, seconds, loss_mean = saved["step"], saved["seconds"], saved["loss"]

    def save(step: int) -> None:
        state = {"net": net.state_dict(), "ema": ema.state_dict(), "optimizer": optimizer.state_dict()}
        state |= {"generator": generator.get_state(), "step": step, "seconds": seconds, "loss": loss_mean}
        torch.save(state, checkpoint.with_suffix(".tmp"))
        checkpoint.with_suffix(".tmp").replace(checkpoint)
        facts = {"steps": step, "batch": batch, "hours": round(seconds / 3600, 2), "loss": round(loss_mean, 4)}
        export(ema, facts, run / "weights.safetensors")

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns) as progress:
        task = progress.add_task("training", total=steps, completed=first)
        for step in range(first, steps):
            began = time.monotonic()
            for group in optimizer.param_groups:
                group["lr"] = rate(step, steps, peak_rate)
            loss = loss_on(net, *batch_of(batch, generator), table, generator)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimizer.step()
            decay = min(0.999, (step + 1) / (step + 10))
            with torch.no_grad():
                torch._foreach_lerp_(list(ema.parameters()), list(net.parameters()), 1 - decay)
            loss_mean = loss.item() if math.isnan(loss_mean) else 0.99 * loss_mean + 0.01 * loss.item()
            seconds += time.monotonic() - began
            progress.update(task, advance=1, description=f"loss {loss_mean:.4f}")
            if (step + 1) % save_every == 0 or step + 1 == steps:
                save(step + 1)
                progress.console.print(f"step {step + 1}: loss {loss_mean:.4f}, {seconds / 3600:.2f} h")


if __name__ == "__main__":
    typer.run(main)
