"""The maps of README and CONTRIBUTING, what is packed, and what is pinned, against the tree itself."""

import ast
import re
import subprocess
from pathlib import Path

import pytest
import tomllib

from selective_sigma.demo.network import facts

ROOT = Path(__file__).parents[2]
CORE = ROOT / "selective_sigma"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
MAPS = ("README.md", "CONTRIBUTING.md")
# In a checkout, only the files that git tracks.
TRACKED = subprocess.run(
    ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False
).stdout.splitlines() or [str(path.relative_to(ROOT)) for path in ROOT.rglob("*.*")]


def named(page: str) -> set[str]:
    """Paths in the tables of a page; a bare file name is one of the core's."""
    rows = [line for line in (ROOT / page).read_text().splitlines() if line.startswith("|")]
    return set(re.findall(r"`((?:[\w.]+/)+[\w.]*|\w+\.py)`", "\n".join(rows)))


def place(name: str) -> Path:
    homes = (ROOT, CORE) if "/" in name else (CORE,)
    return next((home / name for home in homes if (home / name).exists()), ROOT / name)


@pytest.mark.parametrize("page", MAPS)
def test_every_path_in_a_map_exists(page: str):
    names = named(page)
    assert len(names) > 8
    assert [name for name in names if not place(name).exists()] == []


def test_every_folder_is_in_the_readme():
    folders = {name.partition("/")[0] for name in TRACKED if "/" in name and not name.startswith(".")}
    assert folders - {name.partition("/")[0] for name in named("README.md")} == set()
    packages = {f"selective_sigma/{path.parent.name}/" for path in CORE.glob("*/__init__.py")}
    assert packages - named("README.md") == set()


def test_every_module_of_the_core_is_in_a_map():
    mapped = {place(name) for page in MAPS for name in named(page)}
    assert {path for path in CORE.glob("[!_]*.py") if path not in mapped} == set()


@pytest.mark.parametrize("question", ["CFG++", "why a call differed"])
@pytest.mark.parametrize("page", MAPS)
def test_what_newcomers_ask_for_is_in_the_maps(page: str, question: str):
    (row,) = [line for line in (ROOT / page).read_text().splitlines() if line.startswith("| ") and question in line]
    assert re.findall(r"`[\w/]+\.py`", row)


def test_tests_have_their_folders_in_the_readme():
    (row,) = [line for line in (ROOT / "README.md").read_text().splitlines() if line.startswith("| `tests/`")]
    folders = {Path(name).parts[1] for name in TRACKED if re.match(r"tests/\w+/", name)}
    assert folders == set(re.findall(r"`(\w+)`", row))


def test_what_is_left_out_of_the_node_pack_exists():
    left_out = [line for line in (ROOT / ".comfyignore").read_text().splitlines() if line and line[0] != "#"]
    assert len(left_out) > 8
    assert [line for line in left_out if not list(ROOT.glob(line.strip("/")))] == []


def test_what_is_shipped_imports_nothing_that_is_not():
    """The wheel holds ``selective_sigma`` alone; its extra brings the rest."""
    (packed,) = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    assert packed == "selective_sigma"
    not_shipped = {"benchmarks", "training", "tests", "docs"}
    for path in CORE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            assert not not_shipped & {name.partition(".")[0] for name in names}, path


ROOMS = {
    "comfy/nodes": {"comfy/run", "demo", "core"},
    "comfy/run": {"core"},
    "diffusers": {"core"},
    "demo": {"diffusers", "core"},
    "cli.py": {"demo", "core"},
    "__main__.py": {"cli.py"},
    "core": set(),
}
"""The rooms of the package, and which other rooms each may import. The core is all that has no entry of its own."""


def room_of(module: str) -> str:
    """The room of a module, from its path in the package, with or without ``.py``."""
    matching = [room for room in ROOMS if f"{module.removesuffix('.py')}/".startswith(f"{room.removesuffix('.py')}/")]
    return matching[0] if matching else "core"


def imports_up(path: str, source: str) -> list[str]:
    """Modules that the file at ``path`` in the package imports from a room that its own room may not import."""
    folder = ["selective_sigma", *Path(path).parent.parts]
    modules: list[str] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            modules += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            start = folder[: len(folder) + 1 - node.level] if node.level else []
            start = [*start, *(node.module or "").split(".")] if node.module else start
            modules += [".".join([*start, alias.name]) for alias in node.names]
    inside = [module.split(".", 1)[1].replace(".", "/") for module in modules if module.startswith("selective_sigma.")]
    room = room_of(path)
    return [module for module in inside if room_of(module) not in {room, *ROOMS[room]}]


def test_imports_go_down_only():
    files = {str(path.relative_to(CORE)): path.read_text() for path in CORE.rglob("*.py")}
    assert {room_of(name) for name in files} == set(ROOMS)
    assert {name: imports for name, source in files.items() if (imports := imports_up(name, source))} == {}


@pytest.mark.parametrize(
    ("path", "line", "module"),
    [
        ("comfy/run/sampler.py", "from ..nodes import words", "comfy/nodes/words"),
        ("comfy/run/sampler.py", "from ..nodes.live import install", "comfy/nodes/live/install"),
        ("comfy/run/sampler.py", "from .. import nodes", "comfy/nodes"),
        ("comfy/run/sampler.py", "def f():\n    import selective_sigma.demo.network", "demo/network"),
        ("detailer.py", "from .comfy.run.latent import first", "comfy/run/latent/first"),
        ("detailer.py", "from . import cli", "cli"),
        ("diffusers/run.py", "from ..comfy.run import latent", "comfy/run/latent"),
    ],
)
def test_an_import_that_goes_up_is_found(path: str, line: str, module: str):
    assert imports_up(path, line) == [module]


def test_linters_have_one_pin():
    dev = PROJECT["project"]["optional-dependencies"]["dev"]
    assert {line.partition("==")[0] for line in dev if "==" in line} == {"pyright", "ruff"}
    hooks = (ROOT / ".pre-commit-config.yaml").read_text()
    # The hooks run what is in .venv, and so have no version of their own.
    assert re.findall(r"entry: (\S+)", hooks) == [".venv/bin/ruff", ".venv/bin/ruff", ".venv/bin/pyright"]
    assert "rev:" not in hooks


def test_ci_installs_the_floors_that_are_declared():
    workflow = (ROOT / ".github/workflows/test.yml").read_text()
    assert "--resolution ${{ matrix.of }}" in workflow
    assert "of: lowest-direct" in workflow
    extras = PROJECT["project"]["optional-dependencies"]
    floors = [*PROJECT["project"]["dependencies"], *extras["diffusers"], *extras["cli"]]
    assert [line for line in floors if ">=" not in line and not line.startswith("selective-sigma[")] == []


PERCENT = re.compile(r"(\d+(?:\.\d+)?) ?%")


def test_the_settings_claim_no_figure_of_their_own():
    """Numbers in settings.py are defaults and ranges. What was measured stands in docs/evidence.md."""
    assert PERCENT.findall((CORE / "settings.py").read_text()) == []


def test_the_readmes_prose_figures_are_backed():
    """Those in its tables are compared with the rows (tests/benchmarks)."""
    prose = re.sub(r"<!-- figures.*?<!-- /figures -->", "", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    stated = PERCENT.findall(prose)
    backed = PERCENT.findall((ROOT / "docs/method.md").read_text() + (ROOT / "docs/evidence.md").read_text())
    assert stated
    assert [figure for figure in stated if figure not in backed] == []
    # The caption of the first picture.
    hours = re.search(r"\(([\d.]+) hours of training on two CPU cores\)", prose)
    assert hours
    assert float(hours[1]) == round(facts()["hours"], 1)
    assert f"{facts()['hours']} h, training loss" in (ROOT / "training/README.md").read_text()
