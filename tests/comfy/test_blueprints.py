"""The presets: one node each, with every link inside it, run on the demo model; the help says the same of them."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from server_examples import DEBUG, PREVIEW, of_type, only, pixels
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
    """A workflow of the demo model, the blueprint, and the picture that comes out."""
    workflow = json.loads(path.read_text())
    (node,) = workflow["nodes"]
    links = []
    for slot, given in enumerate(node["inputs"]):
        if given["name"] in DEMO_OUTPUTS:
            given["link"] = len(links) + 1
            links.append([given["link"], 2, DEMO_OUTPUTS[given["name"]], 1, slot, given["type"]])
    shown = {"id": 3, "type": "PreviewImage", "inputs": [{"name": "images", "type": "IMAGE", "link": len(links) + 1}]}
    links.append([len(links) + 1, 1, 0, 3, 0, "IMAGE"])
    demo = {"id": 2, "type": "SelectiveSigmaDemoModelNode", "inputs": [], "widgets_values": ["ve"]}
    return {**workflow, "nodes": [node, demo, {**shown, "widgets_values": []}], "links": links}


@presets
def test_a_preset_runs(server: Server, nodes: dict[str, Any], path: Path):
    prompt = to_prompt(on_the_demo(path), nodes, {})
    for name in of_type(prompt, "KSampler"):
        prompt[name]["inputs"] |= {"steps": 4, "cfg": 1.0}
    outputs = server.run(prompt)
    picture = only(pixels(server, outputs, *of_type(prompt, "PreviewImage")))
    assert picture.std() > 0.1
    mask = only(pixels(server, outputs, *of_type(prompt, PREVIEW)))
    assert mask.shape[1] == picture.shape[1]
    (ours,) = of_type(prompt, DEBUG)
    prompt[ours]["inputs"]["strength"] = 0.0
    plain = only(pixels(server, server.run(prompt), *of_type(prompt, "PreviewImage")))
    assert np.abs(picture - plain).max() > 0


@presets
def test_the_help_says_what_a_preset_is_set_to(nodes: dict[str, Any], path: Path):
    prompt = to_prompt(on_the_demo(path), nodes, {})
    (ours,) = (prompt[name]["inputs"] for name in of_type(prompt, DEBUG))
    said = f"| `strength` {ours['strength']}, `coverage` {ours['coverage']}, `every` {ours['every']} |"
    title = path.stem.partition(", ")[2]
    (row,) = (line for line in HELP.read_text().splitlines() if line.lower().startswith(f"| {title}"))
    assert row.endswith(said)


@presets
def test_the_widgets_are_on_the_node(path: Path):
    workflow = json.loads(path.read_text())
    (node,), (inside,) = workflow["nodes"], workflow["definitions"]["subgraphs"]
    widgets = [given["name"] for given in node["inputs"] if "widget" in given]
    assert widgets[:2] == ["strength", "coverage"]
    assert [name for _, name in node["properties"]["proxyWidgets"]] == widgets
    values = dict(zip(widgets, node["widgets_values"], strict=True))
    of_nodes = {}
    for one in inside["nodes"]:
        names = [given["name"] for given in one["inputs"] if "widget" in given]
        if "seed" in names:
            names.insert(names.index("seed") + 1, "control")
        of_nodes |= dict(zip(names, one["widgets_values"], strict=False))
    assert values == {name: of_nodes[name] for name in widgets}
    # The description is what the search shows.
    assert re.match(r"[A-Z].+\.$", inside["description"])


def test_there_are_three():
    assert len(BLUEPRINTS) == 3
    names = [json.loads(path.read_text())["definitions"]["subgraphs"][0]["name"] for path in BLUEPRINTS]
    assert names == [path.stem for path in BLUEPRINTS]
