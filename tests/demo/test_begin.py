"""What comes before a command: imports, in which Ctrl-C and an absent extra end in one line."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

BEGIN = """
import os, signal, sys

class Finder:
    def find_spec(self, name, *_):
        if name == {at!r}:
            {does}

sys.meta_path.insert(0, Finder())
sys.argv = ["selective-sigma", "demo", "--out", {out!r}]
from selective_sigma.__main__ import main
main()
"""


def begin(at: str, does: str, out: Path):
    """The command in a process of its own, where something happens at the first import of ``at``."""
    script = BEGIN.format(at=at, does=does, out=str(out))
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize("at", ["typer", "torch", "safetensors"])
def test_an_interrupt_before_anything_has_begun_ends_in_one_line(at: str, tmp_path: Path):
    done = begin(at, "os.kill(os.getpid(), signal.SIGINT)", tmp_path / "out")
    assert (done.returncode, done.stderr.splitlines()[-1]) == (130, "Stopped.")
    assert "Traceback" not in done.stderr


def test_something_is_seen_before_torch_is_imported(tmp_path: Path):
    done = begin("torch", "os._exit(3)", tmp_path / "out")
    assert (done.returncode, done.stderr) == (3, "loading torch\n")


@pytest.mark.parametrize("at", ["typer", "PIL"])
def test_without_its_extra_it_says_how_to_get_it(at: str, tmp_path: Path):
    done = begin(at, f"raise ModuleNotFoundError('no', name={at!r})", tmp_path / "out")
    message = f'{at} is not installed: pip install "selective-sigma[cli]"'
    assert (done.returncode, done.stderr.splitlines()[-1]) == (2, message)


def test_a_missing_module_of_ours_is_a_fault_and_shown_as_one(tmp_path: Path):
    name = "selective_sigma.demo.show"
    done = begin(name, f"raise ModuleNotFoundError('no', name={name!r})", tmp_path / "out")
    assert done.returncode == 1
    assert "Traceback" in done.stderr
