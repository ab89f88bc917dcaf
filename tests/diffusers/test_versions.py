"""Which releases of diffusers are accepted, and what a user of another one is told."""

from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path

import diffusers
import pytest
import tomllib
from diffusers import FirstBlockCacheConfig

from selective_sigma.diffusers import attach, enable

from .pipes import flux

ROOT = Path(__file__).parents[2]


def imported(version: str) -> subprocess.CompletedProcess[str]:
    """Imports the package where diffusers has this version, as far as the package can tell."""
    stub = f"import sys, types; sys.modules['diffusers'] = types.SimpleNamespace(__version__={version!r})"
    code = f"{stub}; import selective_sigma.diffusers; print('imported')"
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)


def test_an_older_release_is_refused_at_import():
    result = imported("0.41.2")
    assert result.returncode == 1
    line = result.stderr.splitlines()[-1]
    assert line == (
        "ImportError: Selective Sigma needs diffusers>=0.42,<0.43, and 0.41.2 is installed: "
        "pip install 'diffusers>=0.42,<0.43'"
    )


def test_a_newer_release_is_warned_of_at_import():
    result = imported("0.43.0.dev0")
    assert result.stdout == "imported\n"
    assert "UserWarning: Selective Sigma is tested with diffusers>=0.42,<0.43, and 0.43.0.dev0" in result.stderr


@pytest.mark.parametrize("version", ["0.42.0", "0.42.1", "0.42.9.post1"])
def test_tested_releases_are_accepted_in_silence(version):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        attach.check_version(version)


def test_a_cache_of_unknown_build_is_refused(monkeypatch):
    """Whatever the release is called: the private field is looked for."""
    tiny = flux()
    tiny.module.enable_cache(FirstBlockCacheConfig(threshold=0.5))
    for part in tiny.module.modules():
        for hook in getattr(getattr(part, "_diffusers_hook", None), "hooks", {}).values():
            for name, value in list(vars(hook).items()):
                if hasattr(value, "_context"):
                    monkeypatch.setattr(hook, name, object())
    monkeypatch.setattr(diffusers, "__version__", "0.43.0")
    message = r"^FBC\w+ keeps its state elsewhere than in diffusers>=0.42,<0.43, and 0.43.0 is installed: call disable"
    with pytest.raises(ValueError, match=message) as caught:
        enable(tiny.pipe)
    assert "\n" not in str(caught.value)


def test_the_cap_stands_in_two_places_alone():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert attach.WANTED in extras["diffusers"]
    assert [line for lines in extras.values() for line in lines if line.startswith("diffusers")] == [attach.WANTED]
