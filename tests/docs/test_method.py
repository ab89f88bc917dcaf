"""docs/method.md is what the code cites: its sections exist, name the files that follow them, hold their constants."""

import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
METHOD = (ROOT / "docs" / "method.md").read_text()
HEADINGS = {int(n): title for n, title in re.findall(r"^## (\d+) (.+)$", METHOD, re.MULTILINE)}
SECTIONS = {int(part.split()[0]): part for part in METHOD.split("\n## ")[1:]}
CITATION = re.compile(r"method\.md,? sections? (\d+(?:(?:, | and )\d+)*)")
FOLDERS = ("selective_sigma", "benchmarks", "tests", "training", "docs", "web")
FILES = [
    *ROOT.glob("*.md"),
    *(f for folder in FOLDERS for kind in ("py", "md", "js") for f in (ROOT / folder).rglob(f"*.{kind}")),
]


def find_citations() -> list[tuple[Path, int]]:
    citations: list[tuple[Path, int]] = []
    for file in FILES:
        # A citation may run over a line's end, in a comment too, and be a link in Markdown.
        text = re.sub(r"\s+(?:#\s+)?", " ", file.read_text()).replace("](method.md)", "").replace("[method", "method")
        citations += [(file, int(n)) for match in CITATION.finditer(text) for n in re.findall(r"\d+", match[1])]
    return citations


CITATIONS = find_citations()
CONSTANTS = re.findall(r"^\| `([A-Z_]+)` \| ([\d.]+) \| `(\w+)\.py` \|$", METHOD, re.MULTILINE)


def test_the_sections():
    assert list(HEADINGS) == [1, 2, 3, 4, 5]
    assert len(CITATIONS) >= 8


def test_every_cited_section_exists():
    assert [(str(file), n) for file, n in CITATIONS if n not in HEADINGS] == []


def test_a_section_names_the_files_that_cite_it():
    cited = [(file.name, n) for file, n in CITATIONS if file.is_relative_to(ROOT / "selective_sigma")]
    assert cited
    assert [(name, n) for name, n in cited if name not in SECTIONS[n]] == []


def test_files_that_it_names_exist():
    named = set(re.findall(r"`((?:selective_sigma|tests|benchmarks)/[\w/.]*)`", METHOD))
    assert named
    assert [name for name in named if not (ROOT / name).exists()] == []


@pytest.mark.parametrize(("name", "value", "module"), CONSTANTS)
def test_its_constants_are_the_codes(name, value, module):
    assert getattr(importlib.import_module(f"selective_sigma.{module}"), name) == float(value)


def test_its_tables_hold_what_is_tuned():
    stated = {name for name, _, _ in CONSTANTS}
    assert {"POWER", "FLOOR", "LAST_STEP_SHARE", "LONG_STEP"} <= stated
