"""The command line: ``selective-sigma demo | sweep``."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from .settings import Settings

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)
# Progress and talk go to stderr, so that --json leaves stdout to machines.
talk = Console(stderr=True)


def floats(text: str, option: str) -> list[float]:
    """A comma-separated list of numbers."""
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no list of numbers: write {option} 0,0.1,0.2") from None


def progress() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=talk)


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="folder for the pictures")] = Path("out"),
    steps: Annotated[int, typer.Option(help="sampler steps", min=2)] = 20,
    seed: int = 0,
    photo: Annotated[Path | None, typer.Option(help="a picture of yours in place of ours")] = None,
    strength: Annotated[float, typer.Option(help="of Selective Sigma; the lie everywhere is matched to it")] = 0.15,
    open_page: Annotated[bool, typer.Option("--open", help="open the page in a browser")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print the figures as JSON")] = False,
) -> None:
    """Redraw photographs plain, with the lie told everywhere, and with Selective Sigma; sweep both sliders."""
    from .demo.show import show

    try:
        Settings(strength=strength)
        with progress() as bar:
            shown = show(out, steps, seed, bar, photo, strength)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    if open_page:
        typer.launch(Path(shown.page).resolve().as_uri())
    if as_json:
        typer.echo(json.dumps(asdict(shown)))
        return
    table = Table(title="fine detail where the photograph has most and least of it", title_justify="left")
    for heading in ("photograph", "method", "strength", "calls", "inside", "outside"):
        table.add_column(heading, justify="left" if heading in ("photograph", "method") else "right")
    for row in shown.rows:
        cost = f"{row.calls} ({row.calls / row.steps:.2f}x)"
        table.add_row(row.photo, row.method, f"{row.strength:.3g}", cost, f"{row.inside:.4f}", f"{row.outside:.4f}")
    console = Console()
    console.print(table)
    console.print(shown.text)


@app.command()
def sweep(
    strength: Annotated[str, typer.Option(help="comma-separated strengths, -1 to 1")] = "0,0.1,0.2",
    coverage: Annotated[str, typer.Option(help="comma-separated coverages, 0 to 1")] = "0,0.25,0.5,1",
    sampler: Annotated[str, typer.Option(help="sampler name; 'own' keeps a checkpoint's scheduler")] = "euler",
    steps: Annotated[int, typer.Option(min=2)] = 20,
    seed: int = 11,
    guidance: Annotated[float, typer.Option(help="classifier-free guidance scale")] = 1.0,
    photo: Annotated[
        str, typer.Option(help="photograph that the embedded network redraws, by name or file")
    ] = "chelsea",
    flow: Annotated[bool, typer.Option(help="embedded network as a rectified-flow model")] = False,
    model: Annotated[Path | None, typer.Option(help="folder of a local diffusers checkpoint")] = None,
    prompt: Annotated[str, typer.Option(help="for --model")] = "",
    mask_source: str = Settings.mask_source,
    lie: str = Settings.lie,
    out: Annotated[Path, typer.Option(help="folder for cells and figure")] = Path("out/sweep"),
    as_json: Annotated[bool, typer.Option("--json", help="print the cells' reports as JSON")] = False,
) -> None:
    """Sample a grid of strengths and coverages; finished cells are kept and not made twice.

    Several GPUs or machines: ``accelerate launch -m selective_sigma sweep ...`` shares the cells.
    """
    strengths, coverages = floats(strength, "--strength"), floats(coverage, "--coverage")
    extra: dict[str, Any] = {"mask_source": mask_source, "lie": lie}
    try:
        for s in strengths:
            for c in coverages:
                Settings(strength=s, coverage=c, **extra)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None

    import torch
    from accelerate import PartialState

    from .demo import sweep as sweeping
    from .demo.source import open_source

    # Told so, accelerate also shares the cells out where there are only CPUs.
    state = PartialState(cpu=not torch.accelerator.is_available())
    job = sweeping.Job(
        model=str(model.resolve()) if model else "embedded, flow" if flow else "embedded",
        sampler=sampler,
        steps=steps,
        seed=seed,
        guidance=guidance,
        subject=prompt if model else photo,
        settings=tuple(extra.items()),
    )
    try:
        pipe, sample = open_source(job, flow, model, state.device)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    folder = sweeping.Folder(out, job)
    wanted = sweeping.cells(strengths, coverages)
    missing = folder.missing(wanted)
    # All look before anyone begins, or the shares would not fit together.
    state.wait_for_everyone()
    try:
        with state.split_between_processes(missing) as share, progress() as bar:
            task = bar.add_task(f"process {state.process_index}", total=len(share))
            for _ in sweeping.run(folder, pipe, sample, share):
                bar.advance(task)
    except KeyboardInterrupt:
        left = len(folder.missing(wanted))
        talk.print(
            f"Stopped. {len(wanted) - left} of {len(wanted)} cells are in {out}; the same command makes the rest."
        )
        raise typer.Exit(130) from None
    state.wait_for_everyone()
    if not state.is_main_process:
        return
    folder.figure(strengths, coverages).save(out / "sweep.png")
    reports = [{**cell._asdict(), **done.report} for cell in wanted if (done := folder.load(cell))]
    if as_json:
        typer.echo(json.dumps({"figure": str(out / "sweep.png"), "cells": reports}))
        return
    names = ("strength", "coverage", "calls", "plain", "lied")
    table = Table(*(name.replace("calls", "model calls") for name in names), title=f"{out / 'sweep.png'}")
    for r in reports:
        table.add_row(*(f"{r[name]:g}" for name in names))
    Console().print(table)


def main() -> None:
    """Entry point; an interrupt ends quietly with the shell's own code."""
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(130)
