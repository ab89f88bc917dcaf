"""``python -m benchmarks``: measure, keep the rows, write docs/evidence.md."""

import argparse
import subprocess
import sys
from pathlib import Path

from .evaluate import COMFYUI_QUESTIONS, QUESTIONS, answer
from .figures import ROWS, read, write
from .models import HELD_OUT, HELD_OUT_FOLDER, WHOLE_PHOTOGRAPHS
from .report import PAGES, fill

MODEL_NAMES = tuple(dict.fromkeys(model for _, models in QUESTIONS.values() for model in models))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    default = [question for question in QUESTIONS if question not in COMFYUI_QUESTIONS]
    only_help = f"questions; all but {', '.join(COMFYUI_QUESTIONS)}"
    parser.add_argument("--only", nargs="+", choices=QUESTIONS, default=default, help=only_help)
    parser.add_argument("--models", nargs="+", choices=MODEL_NAMES, default=MODEL_NAMES, help="asked about these; all")
    parser.add_argument("--dirty", action="store_true", help="measure a tree with uncommitted changes (development)")
    parser.add_argument("--report", action="store_true", help="measure nothing, write the page from the rows at hand")
    args = parser.parse_args()
    # Files that a measurement writes do not count as changes.
    changes = _git("status", "--porcelain", "--", ".", *(f":!{path}" for path in (*PAGES, ROWS.parent)))
    if changes and not (args.dirty or args.report):
        sys.exit(f"uncommitted changes: commit them, or say --dirty\n{changes}")
    commit = _git("rev-parse", "--short", "HEAD") + ("+" if changes else "")
    tasks = [(name, model) for model in args.models for name in args.only if model in QUESTIONS[name][1]]
    for question, model in () if args.report else tasks:
        if model == WHOLE_PHOTOGRAPHS and HELD_OUT_FOLDER is None:
            print(f"SKIPPED {model}: set PHOTOGRAPHS to the folder that holds {', '.join(HELD_OUT)}", file=sys.stderr)
            continue
        rows = answer(question, model, commit)
        # Rows of other models are kept. Rows that name no model (but a shape or a schedule) are all replaced.
        others = {*MODEL_NAMES} - {model}
        write([*(row for row in read() if row.question != question or row.model in others), *rows])
    for page in map(Path, PAGES):
        page.write_text(fill(page.read_text(), read()))


def _git(*args: str) -> str:
    return subprocess.run(["git", *args], check=True, capture_output=True, text=True).stdout.strip()


if __name__ == "__main__":
    main()
