"""``make mutants`` takes a minute. These tests only check that every mutant can still be put into the core."""

import pytest

from tests.mutants import MUTANTS, ROOT


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: f"{mutant.file}: {mutant.old}")
def test_every_mutant_s_text_stands_once_in_the_core(mutant):
    assert (ROOT / "selective_sigma" / f"{mutant.file}.py").read_text().count(mutant.old) == 1
    assert (ROOT / "tests" / "core" / f"test_{mutant.tests}.py").is_file()
