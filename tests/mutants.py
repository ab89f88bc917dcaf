"""Faults put into a copy of the core, one at a time: the core's tests must notice every one.

python tests/mutants.py      # or: make mutants; about two minutes
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
    """With ``new`` for ``old`` in ``selective_sigma/<file>.py``, ``tests/core/test_<tests>*.py`` must fail."""

    file: str
    old: str
    new: str
    tests: str


MUTANTS = [
    Mutant("schedule", "low < sigma <= step.high * tolerance:", "low <= sigma < step.high * tolerance:", "schedule"),
    Mutant("schedule", "self.steps[0].high * CHURN_FACTOR * tolerance", "self.steps[0].high", "schedule"),
    Mutant("schedule", "low / tolerance <= sigma <=", "low / tolerance < 0 <=", "schedule"),
    Mutant("schedule", "self.group_doses[group] += dose", "self.group_doses[group] = dose", "schedule"),
    Mutant("schedule", "lowest <= high * LEVEL_TOLERANCE and", "lowest < high and", "schedule"),
    Mutant("schedule", " and high > low", "", "schedule"),
    Mutant("schedule", "if low == 0 else", "if low == levels[-1] == 0 and high == levels[-2] else", "schedule"),
    Mutant("schedule", "ascends = len(levels) > 1 and levels[0] < levels[-1]", "ascends = False", "schedule"),
    Mutant("schedule", "Reason.ASCENDING if high < low else", "", "schedule"),
    Mutant("schedule", "Reason.IDLE if not settings.strength else", "", "schedule"),
    Mutant("schedule", "else step.high / tolerance**2", "else step.low * tolerance", "schedule"),
    Mutant("schedule", "return dose if index == step.index else 0.0", "return dose", "schedule"),
    Mutant("schedule", "self._missed_dose = self._due_dose(step) - dose", "self._missed_dose = 0.0", "schedule"),
    Mutant("schedule", "sum([*earlier, *later])", "sum(later)", "schedule"),
    Mutant("schedule", "min(abs(due), self._largest_dose)", "abs(due)", "schedule"),
    Mutant("schedule", "self._next_group = self._last_group(step) + 1", "self._next_group = step.group", "schedule"),
    Mutant("schedule", "if self._entered_index is None:", "if False:", "schedule"),
    Mutant("schedule", "self._missed_dose -= skipped_dose", "pass", "schedule"),
    Mutant("schedule", "dose = self._latest_dose = self.dose(step)", "dose = self.dose(step)", "schedule"),
    Mutant("schedule", "is_alone = lengths[i] > LONG_STEP or", "is_alone =", "schedule"),
    Mutant("schedule", "i - first < every", "i - first <= every", "schedule"),
    Mutant("published", "strength += share * (next_strength - strength)", "pass", "identities"),
    Mutant("published", "torch.lerp(change, memory, settings.ema)", "change", "published"),
    Mutant("published", ">= EMPTY_MEAN", ">= 0", "published"),
    Mutant("lie", "1.0 / (1.0 - (1.0 - self.keep) * level)", "1.0", "lie"),
    Mutant("lie", "return level * self.keep * self.scale(level)", "return level * self.keep", "lie"),
    Mutant("lie", "lower.clamp(max=1.0)", "lower", "lie"),
    Mutant("lie", "min(lower, 1.0)", "lower", "lie"),
    Mutant("lie", "max(1.0 - strength, SMALLEST_KEEP)", "1.0 - strength", "schedule"),
    Mutant("lie", "max(1.0 - sigma, 1e-4)", "1.0 - sigma", "lie"),
    Mutant("mask", "axes = tuple(range(1, values.ndim))", "axes = tuple(range(values.ndim))", "mask"),
    Mutant("mask", "if within is None:", "if True:", "mask"),
    Mutant("mask", 'mode="replicate"', 'mode="constant"', "mask"),
    Mutant("mask", "for energy in (held, added)", "for energy in (held, held)", "mask"),
    Mutant("mask", "div_(held.pow_(1.0 + HELD_POWER))", "div_(held)", "mask"),
    Mutant("mask", "minus=plain).clamp_(min=TINY_ENERGY)", "minus=plain)", "mask"),
    Mutant("mask", " / mean_added * floor_factors", " / mean_added", "mask"),
    Mutant("mask", "mean_added / dose**2", "mean_added / dose", "mask"),
    Mutant("mask", "(2.0 * (1.0 - coverage)) ** 2", "(2.0 * (1.0 - coverage)) ** 2.5", "mask"),
    Mutant("mask", "HALF_LIT * (2.0", "(2.0", "mask"),
    Mutant("mask", "(FLOOR * offered / variation)", "(FLOOR * offered / mean_held)", "mask"),
    Mutant("mask", "(MEAN_FLOOR * offered / mean_held)", "(0.0 * mean_held)", "mask"),
    Mutant("mask", "/ math.sqrt(2.0 * coverage)", "/ (2.0 * coverage)", "mask"),
    Mutant("mask", "pow_(POWER)", "pow_(2.0)", "mask"),
    Mutant("mask", "plain if guided is None else guided", "plain", "shared"),
    Mutant("mask", ".clamp(0, 1)", "", "mask"),
    Mutant("mask", "if values.isnan().any():", "if False:", "mask"),
    Mutant("blend", ".nan_to_num_(0.0, 0.0, 0.0)", "", "nonfinite"),
    Mutant("blend", "torch.where(mask <= 0, plain,", "torch.where(mask < 0, plain,", "nonfinite"),
    Mutant("blend", "torch.where(mask >= 1, lied, mixture)", "mixture", "nonfinite"),
    Mutant("blend", "others |= {name", "_ = {name", "shared"),
    Mutant("blend", "guided = None if plain.guided is None else", "guided = plain.guided if True else", "shared"),
    Mutant("blend", "map_streams(_blend, value, lied.others[name], mask)", "value", "detailer"),
    Mutant("blend", "_check_names(set(plain.others) ^ set(lied.others))", "pass", "errors"),
    Mutant("detailer", "torch.finfo(sigma.dtype).eps", "0.0", "detailer"),
    Mutant("detailer", "is_finite = finite_samples(plain, lied)", "is_finite = finite_samples(plain)", "nonfinite"),
    Mutant("detailer", 'settings.one_pass and limit is None', 'settings.one_pass', "identities"),
    Mutant("mask_maker", "not all(values.any() for", "not any(values.any() for", "shared"),
    Mutant("mask_maker", "                within = None", "                pass", "shared"),
    Mutant("mask_maker", 'mask_override != "off" else map_streams', 'mask_override else map_streams', "nonfinite"),
    Mutant("mask_maker", "resample(limit.to(masks[0])", "resample(limit.gt(0).to(masks[0])", "shared"),
    Mutant("detailer", 'return self.settings.mask_override == "ones"', "return False", "shared"),
    Mutant("detailer", 'conds = "positive" if self._mask_maker.is_response else "all"', 'conds = "all"', "shared"),
    Mutant("detailer", "self.report.skip(reason)", "self.report.skip(Reason.WINDOW)", "identities"),
    Mutant("detailer", "if reason is Reason.FIRST:", "if False:", "identities"),
    Mutant("detailer", "if plain is None or self._lied_call_is_last else", "if plain is None else", "shared"),
    Mutant("detailer", "if lied.cached:", "if False:", "shared"),
    Mutant("mask_maker", "return self._has_black_map and len(streams(x)) == 1", "return False", "shared"),
    Mutant("detailer", "if self._is_finished and step.index == first and", "if", "errors"),
    Mutant("detailer", "if any(level != levels[0] for level in levels)", "if False", "errors"),
    Mutant("prediction", ".sum(1, dtype=torch.float32)", ".sum(1)", "nonfinite"),
    Mutant("prediction", "if shapes != expected_shapes:", "if False:", "errors"),
    Mutant("settings", "self.strength == 0 or self.coverage == 0", "self.strength == 0", "settings"),
    Mutant("settings", "1.0 if self.coverage >= 1 else None", "None", "identities"),
    Mutant("settings", 'self.mask_override == "off" and self.coverage >= 1', "self.coverage >= 1", "settings"),
    Mutant("settings", "not math.isfinite(level) or level < 0", "level < 0", "settings"),
]  # fmt: skip


def outcome(mutant: Mutant) -> str:
    """``killed``, ``SURVIVED``, or the output of pytest; to be run in a process of its own, which imports the copy."""
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
        files = [str(path) for path in sorted(Path("tests/core").glob(f"test_{mutant.tests}*.py"))]
        output = io.StringIO()
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
            code = pytest.main(["-x", "-p", "no:cacheprovider", "--tb=no", *files])
        os.chdir(ROOT)
    return {0: "SURVIVED", 1: "killed"}.get(int(code), f"BROKEN: {output.getvalue()[-2000:]}")


def main() -> int:
    began = time.monotonic()
    # Forks, so that torch is imported once.
    with multiprocessing.get_context("fork").Pool(os.cpu_count(), maxtasksperchild=1) as pool:
        outcomes = pool.map(outcome, MUTANTS, chunksize=1)
    for mutant, result in zip(MUTANTS, outcomes, strict=True):
        print(f"{result:8}  {mutant.file + '.py':13}  {mutant.old}  ->  {mutant.new or 'nothing'}")
    killed = outcomes.count("killed")
    print(f"{killed} of {len(MUTANTS)} killed in {time.monotonic() - began:.0f} s")
    return int(killed != len(MUTANTS))


if __name__ == "__main__":
    sys.exit(main())
