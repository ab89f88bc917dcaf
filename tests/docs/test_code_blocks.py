"""Every Python block of the guides is run as it stands; the blocks of a page are one script."""

import re
import runpy
from pathlib import Path
from typing import NamedTuple

import pytest

from . import stand_ins

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs").glob("*.md"))
FENCE = re.compile(r"(?:^<!-- test: (\w+) -->\n)?^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    line: int
    """How many lines of the page stand above it."""
    stand_in: str
    language: str
    text: str


def blocks(page: Path) -> list[Block]:
    text = page.read_text()
    found = [Block(text[: m.start(3)].count("\n"), m[1] or "", m[2], m[3]) for m in FENCE.finditer(text)]
    assert 2 * len(found) == text.count("```"), f"{page}: a fence is left open, or indented"
    return found


def script(page: Path) -> str:
    """The page's Python, each line on the line where the page has it, so that tracebacks point there."""
    lines: list[str] = []
    for block in blocks(page):
        if block.language == "python":
            lines += [""] * (block.line - len(lines)) + block.text.splitlines()
    return "\n".join(lines)


WITH_PYTHON = [page for page in PAGES if script(page)]


def test_there_is_something_to_run():
    assert {"sampler-loop.md", "reading-a-mask.md"} <= {page.name for page in WITH_PYTHON}


@pytest.mark.parametrize("page", WITH_PYTHON, ids=lambda page: page.name)
def test_python_blocks_run(page, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / f"{page.stem}.py"
    file.write_text(script(page))
    names: dict[str, object] = {}
    for stand_in in {block.stand_in for block in blocks(page)} - {""}:
        names |= getattr(stand_ins, stand_in)(monkeypatch)
    runpy.run_path(str(file), names)


def test_every_block_says_what_it_is():
    assert {block.language for page in PAGES for block in blocks(page)} <= {"python", "sh"}


def test_every_stand_in_has_its_block():
    asked = sum(page.read_text().count("<!-- test: ") for page in PAGES)
    assert asked == sum(bool(block.stand_in) for page in PAGES for block in blocks(page))
