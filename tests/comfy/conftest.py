"""ComfyUI on the path, in CPU mode, or one loud line saying what was not tested."""

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
GIVEN = os.environ.get("COMFYUI_PATH")
COMFYUI = Path(GIVEN or "~/comfy/ComfyUI").expanduser()


def missing() -> str | None:
    """Why ComfyUI cannot be used, or None where it can."""
    if not (COMFYUI / "comfy" / "samplers.py").is_file():
        return f"no ComfyUI at {COMFYUI}"
    # Last, so that its folders named tests and utils hide nobody else's.
    sys.path.append(str(COMFYUI))
    try:
        # Parses no command line of ours unless ComfyUI's own main asks for it.
        importlib.import_module("comfy.cli_args").args.cpu = True
        importlib.import_module("comfy.samplers")
    except ImportError as error:
        if GIVEN:
            raise
        sys.path.remove(str(COMFYUI))
        return f"{COMFYUI} does not import here ({error})"
    return None


MISSING = missing()
sys.path.insert(0, str(HERE))
# By its path: on sys.path, the folder above would make these tests a part of ``comfy``.
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
"""Of docs/compatibility.md: by feature and what happens, the tests that show it and how they went."""


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


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Paths of the tiny checkpoints, by file name."""
    import checkpoints

    return checkpoints.write(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A ComfyUI with the pack in it."""
    from server_examples import serve

    with serve(tmp_path_factory.mktemp("comfyui")) as running:
        yield running


@pytest.fixture(scope="module")
def nodes(server: Server) -> dict[str, Any]:
    """What the server offers, by class."""
    return server.get("/object_info")
