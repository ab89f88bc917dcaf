"""Rows of the census on disk, and the table of the compatibility page."""

from __future__ import annotations

import json
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "compatibility-diffusers.md"
VERDICTS = ("right", "refused", "nothing", "wrong", "not run")


def write(out: Path, file: str, test: str, pipeline: str, verdict: str, why: str) -> None:
    row = {"file": file, "test": test, "pipeline": pipeline, "verdict": verdict, "why": " ".join(why.split())[:300]}
    print(f"{verdict:8} {pipeline or file} {test}: {why}", flush=True)
    with out.open("a") as there:
        there.write(json.dumps(row) + "\n")


def read(out: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in out.read_text().splitlines()] if out.is_file() else []


def write_page(rows: list[dict[str, str]]) -> None:
    """The table between the page's markers: right, refused with the reason, without effect, not run."""
    lines = []
    counts = {verdict: sum(row["verdict"] == verdict for row in rows) for verdict in VERDICTS}
    lines += [", ".join(f"{n} {verdict}" for verdict, n in counts.items()) + f"; {len(rows)} in all.", ""]
    lines += ["| | pipeline | |", "|---|---|---|"]
    for verdict in VERDICTS:
        group: dict[str, set[str]] = {}
        for row in rows:
            if row["verdict"] == verdict:
                why = (
                    "" if verdict == "right" else row["why"].partition(": ")[2] if verdict == "refused" else row["why"]
                )
                name = row["pipeline"] or row["file"].partition("/")[0]
                why = why.replace("AbsentError: ", "only on the hub: ").replace("|", "/")[:140]
                group.setdefault(why, set()).add(name.removesuffix("Pipeline"))
        for why, names in sorted(group.items()):
            lines.append(f"| {verdict} | {', '.join(sorted(names))} | {why} |")
    text = PAGE.read_text()
    begin, end = "<!-- census -->\n", "<!-- /census -->"
    before, rest = text.split(begin)
    PAGE.write_text(before + begin + "\n".join(lines) + "\n" + end + rest.split(end)[1])
