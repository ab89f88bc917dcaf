"""Every Python block of the README and the guides is run as it stands; the blocks of a page are one script."""

import re
import runpy
from pathlib import Path
from typing import NamedTuple

import pytest
import tomllib

from . import stand_ins

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"(?:^<!-- test: (\w+) -->\n)?^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    line: int
    """How many lines of the page stand above it."""
    stand_in: str
    language: str
    text: str


def blocks(page: Path) -> list[Block]:
    text = page.read_text()
    blocks = [Block(text[: m.start(3)].count("\n"), m[1] or "", m[2], m[3]) for m in FENCE.finditer(text)]
    assert 2 * len(blocks) == text.count("```"), f"{page}: a fence is left open, or indented"
    return blocks


def script(page: Path) -> str:
    """The page's Python, each line on the line where the page has it, so that tracebacks point there."""
    lines: list[str] = []
    for block in blocks(page):
        if block.language == "python":
            lines += [""] * (block.line - len(lines)) + block.text.splitlines()
    return "\n".join(lines)


WITH_PYTHON = [page for page in PAGES if script(page)]


def test_there_is_something_to_run():
    assert {"README.md", "diffusers.md", "sampler-loop.md", "reading-a-mask.md"} <= {page.name for page in WITH_PYTHON}


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


def commands() -> list[list[str]]:
    """Lines of the shell blocks, as words, without their comments."""
    shell = [block.text for page in PAGES for block in blocks(page) if block.language == "sh"]
    return [words for text in shell for line in text.splitlines() if (words := line.partition("#")[0].split())]


def test_make_targets_exist():
    rules = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    asked = {target for words in commands() if words[0] == "make" for target in words[1:]}
    assert "demo" in asked
    assert asked <= rules


def test_clones_are_of_this_repository():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert {words[-1] for words in commands() if words[:2] == ["git", "clone"]} == {project["urls"]["Repository"]}


OURS = [words for words in commands() if words[0] == "selective-sigma"]


@pytest.mark.parametrize("words", OURS, ids=[" ".join(words) for words in OURS])
def test_commands_have_these_options(words):
    """The command's parser takes them; ``--help`` at the end keeps it from running."""
    from typer.testing import CliRunner

    from selective_sigma.cli import app

    result = CliRunner().invoke(app, [*words[1:], "--help"])
    assert result.exit_code == 0, result.output
