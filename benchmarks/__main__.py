"""``python -m benchmarks``: measure, keep the rows, draw the plots, write docs/evidence.md."""

from __future__ import annotations

import argparse
import platform
import subprocess
import sys
import time
from pathlib import Path

import torch

from . import evaluate, rows
from .plots import draw
from .report import PAGES, fill


def main() -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", default="", help=f"comma-separated questions of {', '.join(evaluate.QUESTIONS)}")
    parser.add_argument("--models", default="", help=f"semicolon-separated models of {'; '.join(evaluate.MODELS)}")
    parser.add_argument("--dirty", action="store_true", help="measure a tree with uncommitted changes (development)")
    parser.add_argument("--report", action="store_true", help="measure nothing, write the page from the rows at hand")
    args = parser.parse_args()
    names = [q for q in args.only.split(",") if q] or list(evaluate.QUESTIONS)
    models = [m for m in args.models.split(";") if m] or list(evaluate.MODELS)
    if unknown := {*names, *models} - {*evaluate.QUESTIONS, *evaluate.MODELS}:
        parser.error(f"nothing is called {', '.join(sorted(unknown))}; --help lists what is")
    # What a measurement writes itself does not make the tree dirty.
    changed = _git("status", "--porcelain", "--", ".", *(f":!{p}" for p in (*PAGES, rows.ROWS.parent)))
    if changed and not (args.dirty or args.report):
        print(f"uncommitted changes: commit them, or say --dirty\n{changed}", file=sys.stderr)
        return 1
    commit = _git("rev-parse", "--short", "HEAD") + ("+" if changed else "")
    device = f"{platform.machine()}, torch {torch.__version__}, {torch.get_num_threads()} threads"
    for model in [] if args.report else models:
        for name in names:
            question, asked_of = evaluate.QUESTIONS[name]
            if model not in asked_of:
                continue
            began, found = time.perf_counter(), list[rows.Row]()
            for row in question(model):
                found.append(row)
                print(f"{time.perf_counter() - began:6.0f} s  {row.key}", flush=True)
            # Rows that name something else than a model are all made anew.
            made = rows.Made(name, model, commit, device, time.perf_counter() - began)
            old = [r for r in rows.read() if r.question != name or r.model in {*evaluate.MODELS} - {model}]
            rows.write([*old, made, *found])
    kept = rows.read()
    draw(kept, rows.ROWS.parent)
    for page in map(Path, PAGES):
        page.write_text(fill(page.read_text(), kept))
    return 0


def _git(*args: str) -> str:
    return subprocess.run(["git", *args], check=True, capture_output=True, text=True).stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
