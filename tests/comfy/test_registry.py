"""What the registry's archive contains, and how ComfyUI loads it."""

from __future__ import annotations

import asyncio
import importlib.util
import re
import sys
from typing import TYPE_CHECKING, Any

from comfy_api.latest import ComfyExtension
from server_process import REPOSITORY, packed_files

from selective_sigma.comfy.nodes import nodes

if TYPE_CHECKING:
    from pathlib import Path


def load_as_comfyui(folder: Path) -> Any:
    """The repository, loaded by its path under a generated name."""
    name = f"{folder}".replace(".", "_x_")
    spec = importlib.util.spec_from_file_location(name, folder / "__init__.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def test_the_entry_hands_on_the_extension():
    module = load_as_comfyui(REPOSITORY)
    ours = asyncio.run(nodes.SelectiveSigmaExtension().get_node_list())
    extension = asyncio.run(module.comfy_entrypoint())
    assert isinstance(extension, ComfyExtension)
    assert [kind.__name__ for kind in asyncio.run(extension.get_node_list())] == [kind.__name__ for kind in ours]
    assert (REPOSITORY / module.WEB_DIRECTORY / "docs").is_dir()
    # If it existed, even empty, ComfyUI would not call the entry point.
    assert not hasattr(module, "NODE_CLASS_MAPPINGS")


def test_the_registry_gets_what_comfyui_reads_and_nothing_else():
    tops = {path.partition("/")[0] for path in packed_files()}
    assert tops >= {"__init__.py", "README.md", "web", "locales", "example_workflows", "subgraphs", "selective_sigma"}
    assert "LICENSE" in tops
    assert {
        f"selective_sigma/demo/{name}" for name in ("__init__.py", "network.py", "weights.safetensors")
    } <= packed_files()
    assert not tops & {"tests", "training", "benchmarks", "Makefile", ".github", ".ci"}


def test_the_registry_gets_the_pictures_that_comfyui_shows():
    """Those of the help and the templates. ComfyUI does not show those of the README, a quarter of all bytes."""
    pages = [path for path in packed_files() if path.startswith("web/docs/") and path.endswith(".md")]
    pictures = {name for path in pages for name in re.findall(r"!\[[^]]*\]\((.+?)\)", (REPOSITORY / path).read_text())}
    assert pictures
    assert {f"web/docs/{name}" for name in pictures} <= packed_files()
    assert not [path for path in packed_files() if path.endswith(".png")]
    large = {path for path in packed_files() if (REPOSITORY / path).stat().st_size > 100_000}
    assert large == {"selective_sigma/demo/weights.safetensors"}


def test_the_registry_gets_the_blueprints():
    blueprints = {path for path in packed_files() if path.startswith("subgraphs/")}
    assert len(blueprints) == 3


def test_the_registry_gets_the_module_of_every_script():
    scripts = re.search(r"\[project\.scripts\]\n((?:.+\n)+)", (REPOSITORY / "pyproject.toml").read_text())
    assert scripts is not None
    modules = re.findall(r'= "([\w.]+):', scripts[1])
    assert modules
    assert {module.replace(".", "/") + ".py" for module in modules} <= packed_files()


def test_the_registry_finds_the_version():
    """comfy-cli and hatch read it from the file that pyproject.toml names."""
    text = (REPOSITORY / "pyproject.toml").read_text()
    named = re.search(r'\[tool\.comfy\.version\]\npath = "(.+)"', text)
    assert named is not None
    assert re.search(r'^__version__ = "\d+\.\d+\.\d+"$', (REPOSITORY / named[1]).read_text(), re.MULTILINE)
