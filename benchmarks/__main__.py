"""``python -m benchmarks``: measure, keep the rows, draw the plots, write docs/evidence.md."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import torch

from .evaluate import QUESTIONS, answer
from .figures import ROWS, Row, read, write
from .plots import draw
from .report import PAGES, fill

MODELS = tuple(dict.fromkeys(model for _, models in QUESTIONS.values() for model in models))


def main() -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    usual = [question for question in QUESTIONS if question != "comfyui"]
    parser.add_argument("--only", nargs="+", choices=QUESTIONS, default=usual, help="questions; all but comfyui")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=MODELS, help="asked about these; all")
    parser.add_argument("--jobs", type=int, choices=range(1, 65), metavar="N", default=1, help="processes at once")
    parser.add_argument("--dirty", action="store_true", help="measure a tree with uncommitted changes (development)")
    parser.add_argument("--report", action="store_true", help="measure nothing, write the page from the rows at hand")
    args = parser.parse_args()
    # What a measurement writes itself does not make the tree dirty.
    changed = _git("status", "--porcelain", "--", ".", *(f":!{p}" for p in (*PAGES, ROWS.parent)))
    if changed and not (args.dirty or args.report):
        print(f"uncommitted changes: commit them, or say --dirty\n{changed}", file=sys.stderr)
        return 1
    if not args.report:
        commit = _git("rev-parse", "--short", "HEAD") + ("+" if changed else "")
        asked = [(name, model) for model in args.models for name in args.only if model in QUESTIONS[name][1]]
        for made, *found in _measured(asked, commit, args.jobs):
            # Rows that name something else than a model are all made anew.
            old = [r for r in read() if r.question != made.question or r.model in {*MODELS} - {made.model}]
            write([*old, made, *found])
    kept = read()
    draw(kept, ROWS.parent)
    for page in map(Path, PAGES):
        page.write_text(fill(page.read_text(), kept))
    return 0


def _measured(asked: list[tuple[str, str]], commit: str, jobs: int) -> Iterator[list[Row]]:
    """Rows of each question, in the order asked; what times a step comes last and alone."""
    ask = partial(answer, commit=commit)
    threads = max(1, (os.cpu_count() or 1) // jobs)
    with ProcessPoolExecutor(jobs, get_context("spawn"), torch.set_num_threads, (threads,)) as pool:
        yield from pool.map(ask, [(name, model) for name, model in asked if name != "step_time"])
    yield from map(ask, [(name, model) for name, model in asked if name == "step_time"])


def _git(*args: str) -> str:
    return subprocess.run(["git", *args], check=True, capture_output=True, text=True).stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
