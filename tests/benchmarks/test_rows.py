"""The tables of the pages are made from the stored rows."""

import re
from pathlib import Path

import pytest

import benchmarks.__main__ as main
from benchmarks.figures import Provenance, Value, read, write
from benchmarks.models import WHOLE_PHOTOGRAPHS
from benchmarks.report import BLOCKS, PAGES, fill, table

ROOT = Path(__file__).parents[2]
ROWS = read(ROOT / "docs/evidence/rows.jsonl")


@pytest.mark.parametrize("page", PAGES)
def test_tables_are_those_of_the_stored_rows(page):
    text = (ROOT / page).read_text()
    assert fill(text, ROWS) == text, "python -m benchmarks --report"


def test_the_evidence_shows_every_table():
    text = (ROOT / "docs/evidence.md").read_text()
    assert sorted(re.findall(r"<!-- figures: (.*?) -->", text)) == sorted(BLOCKS)
    assert len(re.findall(r"^\|", text, re.MULTILINE)) > 60


def test_a_figure_that_is_not_in_the_rows_is_replaced():
    rows = [Value("smooth", "photographs", "ours", 0.41)]
    stale_table = table(["", "ours"], [["photographs", "0.42"]])
    text = f"<!-- figures: smooth -->\n{stale_table}\n<!-- /figures -->"
    assert fill(text, rows) == text.replace("0.42", "0.41")
    with pytest.raises(KeyError):
        fill("<!-- figures: nothing -->\n<!-- /figures -->", rows)


def test_rows_are_read_as_they_were_written(tmp_path):
    rows = [Provenance("a", "m", "c", "d", 1.5), Value("a", "m", "l", 0.123), *ROWS[:50]]
    write(rows, tmp_path / "rows.jsonl")
    assert read(tmp_path / "rows.jsonl") == rows


def test_missing_photographs_are_reported_as_skipped(monkeypatch, capsys, tmp_path):
    """The message takes one line, and nothing is measured."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(main, "_git", lambda *_: "")
    monkeypatch.setattr(main, "HELD_OUT_FOLDER", None)
    monkeypatch.setattr(main, "PAGES", ())
    monkeypatch.setattr("sys.argv", ["benchmarks", "--only", "kinds", "--models", WHOLE_PHOTOGRAPHS])
    main.main()
    assert capsys.readouterr().err.splitlines()[0].startswith(f"SKIPPED {WHOLE_PHOTOGRAPHS}: set PHOTOGRAPHS to")
    assert not (tmp_path / "docs").exists()
