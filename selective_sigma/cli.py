"""The command line: ``selective-sigma demo | sweep``. ``__main__`` is its entry point."""

# pyright: standard

from __future__ import annotations

import json
import math
import zlib
from dataclasses import asdict
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from typer.core import TyperCommand, TyperGroup

from . import __version__
from .demo import DEFAULT, NAMES
from .demo.samplers import FLOW, VE
from .demo.terminal import ProgressBar, interruptions, refusals, show_table
from .settings import CHOICES, Settings

if TYPE_CHECKING:
    from collections.abc import Iterable


def one_of(names: Iterable[str]) -> str:
    return f"one of {', '.join(names)}"


SEEDS = 2**64 - 1
"""The largest seed that torch takes."""
PHOTOS = ", ".join(NAMES)
SAMPLERS = f"{one_of(VE)}; with --flow {one_of(FLOW)}; with --model also own, the checkpoint's scheduler"


class HelpFlag:
    """Lists ``--help`` as a flag, without a type."""

    def get_help_option(self, ctx: Any) -> Any:
        option = super().get_help_option(ctx)  # pyright: ignore[reportAttributeAccessIssue]
        if option is not None:
            option.metavar = ""
        return option


class Command(HelpFlag, TyperCommand):
    pass


class Group(HelpFlag, TyperGroup):
    pass


app = typer.Typer(cls=Group, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


def floats(text: str, option: str) -> list[float]:
    """A comma-separated list of numbers."""
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise ValueError(f"{option} is {text!r}: give numbers, as in {option} 0,0.05,0.1") from None


def _print_version(is_requested: bool) -> None:
    if is_requested:
        typer.echo(f"selective-sigma {__version__}")
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[
        bool, typer.Option("--version", metavar="", callback=_print_version, is_eager=True, help="print the version")
    ] = False,
) -> None:
    """More detail from diffusion samplers, only where the model draws it."""


@app.command(cls=Command)
def demo(
    out: Annotated[Path, typer.Option(help="folder for the pictures")] = Path("out"),
    steps: Annotated[int, typer.Option(help="sampler steps; from 4 on detail is plain to see", min=2)] = 20,
    seed: Annotated[int, typer.Option(min=0, max=SEEDS)] = 0,
    photo: Annotated[str | None, typer.Option(help=f"in place of ours, a picture of yours or one of {PHOTOS}")] = None,
    strength: Annotated[
        float, typer.Option(help="of Selective Sigma; the lie everywhere is matched to it")
    ] = Settings.strength,
    open_page: Annotated[bool, typer.Option("--open", metavar="", help="open the page in a browser")] = False,
    as_json: Annotated[bool, typer.Option("--json", metavar="", help="print the figures as JSON")] = False,
) -> None:
    """Redraw photographs plain, with the lie told everywhere, and with Selective Sigma; sweep both sliders."""
    with refusals():
        Settings(strength=strength)

        with ProgressBar() as progress:
            # Torch takes seconds to import, during which something has to be seen. Ctrl-C is still handled by __main__.
            progress.begin("loading torch")
            from .demo.show import COLUMNS, cells, draw_demo
        with interruptions(), progress:
            drawn = draw_demo(out, steps, seed, progress, photo, strength)
    if open_page:
        typer.launch(Path(drawn.page).resolve().as_uri())
    if as_json:
        typer.echo(json.dumps(asdict(drawn)))
        return
    table = Table(title="fine detail where the photograph has most and least of it", title_justify="left")
    for heading in COLUMNS:
        table.add_column(heading, justify="left" if heading in ("photograph", "method") else "right")
    for row in drawn.rows:
        table.add_row(*cells(row))
    show_table(table)
    console = Console()
    # In a pipe, lines are not wrapped: the reader may wrap them.
    console.print(drawn.text, soft_wrap=not console.is_terminal, markup=False, highlight=False)


@app.command(cls=Command)
def sweep(
    strength: Annotated[str, typer.Option(help="comma-separated strengths, -1 to 1")] = "0,0.05,0.1,0.15",
    coverage: Annotated[str, typer.Option(help="comma-separated coverages, 0 to 1")] = "0,0.25,0.5,1",
    sampler: Annotated[str, typer.Option(help=SAMPLERS)] = "euler",
    steps: Annotated[int, typer.Option(help="sampler steps; one alone gets no detail", min=2)] = 20,
    seed: Annotated[int, typer.Option(min=0, max=SEEDS)] = 11,
    guidance: Annotated[float, typer.Option(help="classifier-free guidance scale")] = 1.0,
    photo: Annotated[
        str | None,
        typer.Option(
            help=f"what the embedded network redraws: a picture of yours, or one of {PHOTOS}", show_default=DEFAULT
        ),
    ] = None,
    flow: Annotated[
        bool, typer.Option("--flow", metavar="", help="embedded network as a rectified-flow model")
    ] = False,
    model: Annotated[Path | None, typer.Option(help="folder of a local diffusers checkpoint")] = None,
    prompt: Annotated[str | None, typer.Option(help="for --model")] = None,
    mask_source: Annotated[str, typer.Option(help=one_of(CHOICES["mask_source"]))] = Settings.mask_source,
    lie: Annotated[str, typer.Option(help=one_of(CHOICES["lie"]))] = Settings.lie,
    out: Annotated[Path, typer.Option(help="folder for cells and figure")] = Path("out/sweep"),
    as_json: Annotated[bool, typer.Option("--json", metavar="", help="print the cells' reports as JSON")] = False,
) -> None:
    """Sample a grid of strengths and coverages; finished cells are kept and not made twice.

    Several GPUs or machines: ``accelerate launch -m selective_sigma sweep ...`` shares the cells.
    """
    with refusals():
        strengths, coverages = floats(strength, "--strength"), floats(coverage, "--coverage")
        extra: dict[str, Any] = {"mask_source": mask_source, "lie": lie}
        for cell in product(strengths, coverages):
            Settings(*cell, **extra)
        if not math.isfinite(guidance):
            raise ValueError(f"guidance is {guidance}: give a finite number; 1 is none")
        if not model and (prompt is not None or sampler == "own"):
            option = "--prompt" if prompt is not None else "--sampler own"
            raise ValueError(f"{option} is for a checkpoint: give --model FOLDER too")
        if model and (photo is not None or flow):
            raise ValueError(f"{'--flow' if flow else '--photo'} is for the embedded network: leave out it or --model")

        import torch
        from accelerate import PartialState

        from .demo import sweep as sweeping
        from .demo.source import check_checkpoint, open_source

        # With cpu=True accelerate shares the cells between processes that have no GPU.
        state: Any = PartialState(cpu=not torch.accelerator.is_available())
        job = sweeping.Job(
            model=str(model.resolve()) if model else "embedded, flow" if flow else "embedded",
            sampler=sampler,
            steps=steps,
            seed=seed,
            guidance=guidance,
            subject=prompt or "" if model else photo or DEFAULT,
            content=f"{zlib.crc32(Path(photo).read_bytes()):08x}" if photo and Path(photo).is_file() else "",
            settings=tuple(extra.items()),
        )
        # Check the model before the folder: if both are wrong, the error is about the model.
        if model:
            check_checkpoint(model)
        folder = sweeping.Folder(out, job)
        pipe, sample = open_source(job, flow, model, state.device)
        folder.make()
    all_cells = sweeping.cells(strengths, coverages)
    missing = folder.missing(all_cells)
    # Every process lists the missing cells before any of them is drawn. Otherwise the shares would overlap.
    state.wait_for_everyone()

    def stopped() -> str:
        pictures = {cell.name for cell in all_cells}
        finished = len(pictures) - len(folder.missing(all_cells))
        return f"Stopped. {finished} of {len(pictures)} pictures are in {out}; the same command makes the rest."

    with interruptions(stopped), state.split_between_processes(missing) as share, ProgressBar() as progress:
        progress.begin(f"process {state.process_index}", len(share))
        for _ in sweeping.run(folder, pipe, sample, share):
            progress.advance()
    state.wait_for_everyone()
    if not state.is_main_process:
        return
    folder.figure(strengths, coverages).save(out / "sweep.png")
    reports = [{**cell._asdict(), **result.report} for cell in all_cells if (result := folder.load(cell))]
    if as_json:
        typer.echo(json.dumps({"figure": str(out / "sweep.png"), "cells": reports}))
        return
    names = ("strength", "coverage", "calls", "plain", "lied")
    table = Table(*(name.replace("calls", "model calls") for name in names), title=f"{out / 'sweep.png'}")
    for report in reports:
        table.add_row(*(f"{report[name]:g}" for name in names))
    show_table(table)
