"""Makes ComfyUI importable, in CPU mode. Without ComfyUI, one red line says what was not tested."""

from __future__ import annotations

import importlib
import importlib.util
import json
import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from server_process import Server

HERE = Path(__file__).parent
PATH_SET = os.environ.get("COMFYUI_PATH")
COMFYUI = Path(PATH_SET or "~/comfy/ComfyUI").expanduser()


def missing() -> str | None:
    """Why ComfyUI cannot be used, or None where it can."""
    if not (COMFYUI / "comfy" / "samplers.py").is_file():
        return f"no ComfyUI at {COMFYUI}"
    # At the end of the path, so that its folders named tests and utils do not hide others.
    sys.path.append(str(COMFYUI))
    try:
        # Does not parse pytest's command line: only ComfyUI's main does.
        importlib.import_module("comfy.cli_args").args.cpu = True
        importlib.import_module("comfy.samplers")
    except ImportError as error:
        if PATH_SET:
            raise
        sys.path.remove(str(COMFYUI))
        return f"{COMFYUI} does not import here ({error})"
    return None


MISSING = missing()
sys.path.insert(0, str(HERE))
# By its path. With tests/ on sys.path, this folder would be imported as ``comfy``.
spec = importlib.util.spec_from_file_location("published", HERE.parent / "published.py")
assert spec is not None
assert spec.loader is not None
sys.modules["published"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(sys.modules["published"])
if MISSING is not None:
    collect_ignore_glob = ["test_[!_]*.py", "server*"]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if MISSING is not None:
        terminalreporter.write_line(
            f"SKIPPED all of tests/comfy: {MISSING}. Set COMFYUI_PATH and run with ComfyUI's own python.",
            red=True,
            bold=True,
        )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "compat(feature, what): a row of docs/compatibility.md")


ROWS: dict[str, dict[str, Any]] = {}
"""Rows of docs/compatibility.md: by feature and behaviour, the test that shows it and the outcomes of its cases."""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.when == "call" or report.skipped:
        for marker in item.iter_markers("compat"):
            row = ROWS.setdefault(" | ".join(marker.args), {"test": item.nodeid.partition("[")[0], "went": []})
            row["went"].append(report.outcome)
    return report


def pytest_sessionfinish() -> None:
    if target := os.environ.get("COMPAT"):
        Path(target).parent.mkdir(parents=True, exist_ok=True)
        Path(target).write_text(json.dumps(ROWS, indent=1))


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="selective_sigma")


@pytest.fixture
def temp_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which ComfyUI saves previews."""
    monkeypatch.setattr("folder_paths.temp_directory", str(tmp_path))
    return tmp_path


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Paths of the tiny checkpoints by file name."""
    import checkpoints

    return checkpoints.write_checkpoints(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A ComfyUI server with the pack."""
    from server_examples import serve

    with serve(tmp_path_factory.mktemp("comfyui")) as running:
        yield running


@pytest.fixture(scope="module")
def nodes(server: Server) -> dict[str, Any]:
    """The server's ``/object_info``: nodes by their ids."""
    return server.get("/object_info")
