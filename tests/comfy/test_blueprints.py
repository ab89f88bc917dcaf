"""The presets (subgraph blueprints): each runs on the demo model, and the help lists its settings."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from server_examples import DEBUG, PREVIEW, of_type, only, pictures_of
from server_graph import to_prompt
from server_process import REPOSITORY

if TYPE_CHECKING:
    from pathlib import Path

    from server_process import Server

BLUEPRINTS = sorted((REPOSITORY / "subgraphs").glob("*.json"))
HELP = REPOSITORY / f"web/docs/{DEBUG}.md"
DEMO_OUTPUTS = {"model": 0, "positive": 1, "negative": 2, "vae": 3, "latent_image": 4}
presets = pytest.mark.parametrize("path", BLUEPRINTS, ids=lambda path: path.stem)


def on_the_demo(path: Path) -> dict[str, Any]:
    """A workflow of the demo model, the blueprint and a preview of its picture."""
    workflow = json.loads(path.read_text())
    (node,) = workflow["nodes"]
    links = []
    for slot, socket in enumerate(node["inputs"]):
        if socket["name"] in DEMO_OUTPUTS:
            socket["link"] = len(links) + 1
            links.append([socket["link"], 2, DEMO_OUTPUTS[socket["name"]], 1, slot, socket["type"]])
    preview = {"id": 3, "type": "PreviewImage", "inputs": [{"name": "images", "type": "IMAGE", "link": len(links) + 1}]}
    links.append([len(links) + 1, 1, 0, 3, 0, "IMAGE"])
    demo = {"id": 2, "type": "SelectiveSigmaDemoModelNode", "inputs": [], "widgets_values": ["ve"]}
    return {**workflow, "nodes": [node, demo, {**preview, "widgets_values": []}], "links": links}


@presets
def test_a_preset_runs(server: Server, nodes: dict[str, Any], path: Path):
    prompt = to_prompt(on_the_demo(path), nodes, {})
    for name in of_type(prompt, "KSampler"):
        prompt[name]["inputs"] |= {"steps": 4, "cfg": 1.0}
    outputs = server.run(prompt)
    picture = only(pictures_of(server, outputs, *of_type(prompt, "PreviewImage")))
    assert picture.std() > 0.1
    mask = only(pictures_of(server, outputs, *of_type(prompt, PREVIEW)))
    assert mask.shape[1] == picture.shape[1]
    (ours,) = of_type(prompt, DEBUG)
    prompt[ours]["inputs"]["strength"] = 0.0
    plain = only(pictures_of(server, server.run(prompt), *of_type(prompt, "PreviewImage")))
    assert np.abs(picture - plain).max() > 0


@presets
def test_the_help_lists_the_settings_of_a_preset(nodes: dict[str, Any], path: Path):
    prompt = to_prompt(on_the_demo(path), nodes, {})
    (ours,) = (prompt[name]["inputs"] for name in of_type(prompt, DEBUG))
    settings = f"| `strength` {ours['strength']}, `coverage` {ours['coverage']}, `every` {ours['every']} |"
    title = path.stem.partition(", ")[2]
    (row,) = (line for line in HELP.read_text().splitlines() if line.lower().startswith(f"| {title}"))
    assert row.endswith(settings)


@presets
def test_the_widgets_are_on_the_node(path: Path):
    workflow = json.loads(path.read_text())
    (node,), (inside,) = workflow["nodes"], workflow["definitions"]["subgraphs"]
    widgets = [socket["name"] for socket in node["inputs"] if "widget" in socket]
    assert widgets[:2] == ["strength", "coverage"]
    assert [name for _, name in node["properties"]["proxyWidgets"]] == widgets
    values = dict(zip(widgets, node["widgets_values"], strict=True))
    of_nodes = {}
    for one in inside["nodes"]:
        names = [socket["name"] for socket in one["inputs"] if "widget" in socket]
        if "seed" in names:
            names.insert(names.index("seed") + 1, "control")
        of_nodes |= dict(zip(names, one["widgets_values"], strict=False))
    assert values == {name: of_nodes[name] for name in widgets}
    # The search shows the description.
    assert re.match(r"[A-Z].+\.$", inside["description"])


def test_there_are_three():
    assert len(BLUEPRINTS) == 3
    names = [json.loads(path.read_text())["definitions"]["subgraphs"][0]["name"] for path in BLUEPRINTS]
    assert names == [path.stem for path in BLUEPRINTS]
