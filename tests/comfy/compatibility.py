"""The ComfyUI part of docs/compatibility.md, from what the last ``make test-comfy`` wrote to out/compat."""

from __future__ import annotations

import json
import re
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
PAGE = REPOSITORY / "docs/compatibility.md"
BEGIN, END = "<!-- comfyui: made by make compatibility -->", "<!-- comfyui: end -->"
WORDS = {"passed": "yes", "failed": "**no**", "skipped": "-"}


def feature_table(runs: dict[str, dict[str, dict]]) -> str:
    """A row for each feature and behaviour. The cell of a version is the worst outcome of the test's cases."""
    versions = sorted(runs, key=lambda version: [int(part) for part in version.split(".")])
    rows: dict[str, dict] = {}
    for run in runs.values():
        for key, row in run.items():
            rows.setdefault(key, row)
    lines = [f"| With | What happens | {' | '.join(versions)} | Test |", "|---" * (3 + len(versions)) + "|"]
    for key, row in sorted(rows.items()):
        file, _, name = row["test"].partition("::")
        cells = [worst_outcome(runs[version].get(key)) for version in versions]
        lines.append(f"| {key} | {' | '.join(cells)} | [{name.removeprefix('test_')}](../{file}) |")
    return "\n".join(lines)


def worst_outcome(row: dict | None) -> str:
    outcomes = set(row["went"]) if row else {"skipped"}
    return WORDS["failed" if "failed" in outcomes else "passed" if "passed" in outcomes else "skipped"]


def main() -> None:
    runs = {path.stem: json.loads(path.read_text()) for path in sorted((REPOSITORY / "out/compat").glob("*.json"))}
    if not runs:
        raise SystemExit("nothing in out/compat: run make test-comfy first")
    text = PAGE.read_text()
    section = f"{BEGIN}\n{feature_table(runs)}\n{END}"
    PAGE.write_text(re.sub(re.escape(BEGIN) + ".*?" + re.escape(END), lambda _: section, text, flags=re.DOTALL))


if __name__ == "__main__":
    main()
