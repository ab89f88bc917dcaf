"""ComfyUI on the path, in CPU mode, or one loud line saying what was not tested."""

import importlib
import importlib.util
import logging
import os
import sys
from pathlib import Path

import pytest

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


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="selective_sigma")


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Paths of the tiny checkpoints, by file name."""
    import checkpoints

    return checkpoints.write(tmp_path_factory.mktemp("models"))
