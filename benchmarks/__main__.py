"""``python -m benchmarks``: measure, keep the rows, write docs/evidence.md."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from .evaluate import OF_COMFYUI, QUESTIONS, answer
from .figures import ROWS, read, write
from .models import FOLDER, HELD_OUT, WHOLE
from .report import PAGES, fill

MODELS = tuple(dict.fromkeys(model for _, models in QUESTIONS.values() for model in models))


def main() -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    usual = [question for question in QUESTIONS if question not in OF_COMFYUI]
    parser.add_argument("--only", nargs="+", choices=QUESTIONS, default=usual, help=f"questions; all but {OF_COMFYUI}")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=MODELS, help="asked about these; all")
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
        tasks = [(name, model) for model in args.models for name in args.only if model in QUESTIONS[name][1]]
        if FOLDER is None and any(model == WHOLE for _, model in tasks):
            print(f"SKIPPED {WHOLE}: set PHOTOGRAPHS to the folder that holds {', '.join(HELD_OUT)}", file=sys.stderr)
            tasks = [(name, model) for name, model in tasks if model != WHOLE]
        for provenance, *rows in (answer(task, commit) for task in tasks):
            # Rows whose model is none of ours (a shape, a schedule) are all replaced.
            old = [r for r in read() if r.question != provenance.question or r.model in {*MODELS} - {provenance.model}]
            write([*old, provenance, *rows])
    for page in map(Path, PAGES):
        page.write_text(fill(page.read_text(), read()))
    return 0


def _git(*args: str) -> str:
    return subprocess.run(["git", *args], check=True, capture_output=True, text=True).stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
