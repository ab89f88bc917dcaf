"""Faults put into a copy of the core, one at a time: the core's tests must notice every one.

python tests/mutants.py      # or: make mutants; about a minute
"""

from __future__ import annotations

import contextlib
import io
import multiprocessing
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import hypothesis.strategies  # noqa: F401  what every copy's tests import, once for all
import pytest
import torch.nn.functional  # noqa: F401

ROOT = Path(__file__).resolve().parent.parent


class Mutant(NamedTuple):
    """``old`` stands once in ``selective_sigma/<file>.py``; with ``new`` in its place, ``tests`` must fail."""

    file: str
    old: str
    new: str
    tests: str


MUTANTS = [
    Mutant("schedule", "step.low * slack < sigma <= step.high", "step.low / slack <= sigma < step.high", "schedule"),
    Mutant("schedule", "self.steps[0].high * CHURN * slack", "self.steps[0].high", "schedule"),
    Mutant("schedule", "0 < self.steps[-1].low / slack <= sigma", "0 < self.steps[-1].low / slack < 0", "schedule"),
    Mutant("schedule", "-math.expm1(-dose)", "dose", "schedule"),
    Mutant("schedule", "doses[first] += efold", "doses[first] = efold", "schedule"),
    Mutant("schedule", "low <= a * SLACK and", "low < a and", "schedule"),
    Mutant("published", "share * (following.strength", "0 * (following.strength", "identities"),
    Mutant("schedule", " and a > b", "", "schedule"),
    Mutant("schedule", "if b == 0 else", "if b == levels[-1] == 0 and a == levels[-2] else", "schedule"),
    Mutant("detailer", "torch.finfo(sigma.dtype).eps", "0.0", "detailer"),
    Mutant("lie", "signal = 1.0 - (1.0 - keep) * sigma", "signal = 1.0", "lie"),
    Mutant("lie", "return (1.0 - lied) / max(1.0 - sigma, SMALLEST)", "return 1.0", "lie"),
    Mutant("mask", "axes = tuple(range(1, values.ndim))", "axes = tuple(range(values.ndim))", "mask"),
    Mutant("mask", "if within is None:", "if True:", "mask"),
    Mutant("mask", 'mode="replicate"', 'mode="constant"', "mask"),
    Mutant("mask", "for energy in (held, added)", "for energy in (held, held)", "mask"),
    Mutant("mask", "div_(held.pow_(1.0 + TRUST))", "div_(held)", "mask"),
    Mutant("mask", "detail(lied, plain).clamp_(min=TINY)", "detail(lied, plain)", "mask"),
    Mutant("mask", "floor.clamp_(min=1.0)", "1.0", "mask"),
    Mutant("mask", "FLOOR / e_folds**2", "FLOOR / e_folds", "mask"),
    Mutant("detailer", ".nan_to_num_(0.0, 0.0, 0.0)", "", "nonfinite"),
    Mutant("detailer", "finite(plain) & finite(lied)", "finite(plain)", "nonfinite"),
    Mutant("detailer", '== "off" and limit is None', '== "off"', "identities"),
    Mutant("detailer", "each(_blend, value, lied.others[name], made)", "value", "detailer"),
    Mutant("detailer", "Output(lied.denoised, lied.others,", "Output(lied.denoised, {},", "detailer"),
    Mutant("detailer", "own(level * of_sigma)", "own(level) * of_sigma", "lie"),
    Mutant("detailer", "x) if mask is None else []", "x)", "shared"),
    Mutant("detailer", "if any(level != levels[0] for level in levels)", "if False", "errors"),
    Mutant("published", "torch.lerp(fresh, memory, s.ema)", "fresh", "published"),
    Mutant("prediction", ".sum(1, dtype=torch.float32)", ".sum(1)", "nonfinite"),
    Mutant("settings", "self.strength == 0 or self.coverage == 0", "self.strength == 0", "settings"),
]  # fmt: skip


def outcome(mutant: Mutant) -> str:
    """``killed``, ``SURVIVED``, or what else pytest came to; in a process of its own, as it imports the copy."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        shutil.copy(ROOT / "pyproject.toml", copy)
        (copy / "selective_sigma").mkdir()
        for source in (ROOT / "selective_sigma").glob("*.py"):
            text = source.read_text()
            (copy / "selective_sigma" / source.name).write_text(
                text.replace(mutant.old, mutant.new) if source.stem == mutant.file else text
            )
        shutil.copytree(ROOT / "tests" / "core", copy / "tests" / "core", ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "tests" / "published.py", copy / "tests")
        os.chdir(copy)
        said = io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            code = pytest.main(["-x", "-p", "no:cacheprovider", "--tb=no", f"tests/core/test_{mutant.tests}.py"])
        os.chdir(ROOT)
    return {0: "SURVIVED", 1: "killed"}.get(int(code), f"BROKEN: {said.getvalue()[-2000:]}")


def main() -> int:
    began = time.monotonic()
    # Forks, so that torch is imported once.
    with multiprocessing.get_context("fork").Pool(os.cpu_count(), maxtasksperchild=1) as pool:
        outcomes = pool.map(outcome, MUTANTS, chunksize=1)
    for mutant, came_to in zip(MUTANTS, outcomes, strict=True):
        print(f"{came_to:8}  {mutant.file + '.py':13}  {mutant.old}  ->  {mutant.new or 'nothing'}")
    killed = outcomes.count("killed")
    print(f"{killed} of {len(MUTANTS)} killed in {time.monotonic() - began:.0f} s")
    return int(killed != len(MUTANTS))


if __name__ == "__main__":
    sys.exit(main())
