"""Writes subgraphs/*.json, the presets as blueprints: detailer, sampler and preview in one node.

Run by hand, with the answer of a ComfyUI that has this pack:

curl http://127.0.0.1:8188/object_info > object_info.json && python docs/blueprints.py object_info.json
"""

from __future__ import annotations

import json
import sys
import uuid
from pathlib import Path
from typing import Any

from template_graph import Graph, Json, out
from template_parts import PREVIEW

FOLDER = Path(__file__).resolve().parents[1] / "subgraphs"
DEBUG = "SelectiveSigmaDetailerDebugNode"
ENTRY, EXIT = -10, -20
"""The ids that links use for the inputs and the outputs of a subgraph."""
PRESETS: dict[str, tuple[Json, Json, str]] = {
    "Selective Sigma, portrait": (
        {"strength": 0.1, "coverage": 0.4, "every": 2},
        {"steps": 25, "cfg": 6.0, "sampler_name": "dpmpp_2m", "scheduler": "karras"},
        "Hair, skin and fabric gain detail, the blur stays blurred.",
    ),
    "Selective Sigma, landscape": (
        {"strength": 0.1, "coverage": 0.5, "every": 2},
        {"steps": 25, "cfg": 6.0, "sampler_name": "dpmpp_2m", "scheduler": "karras"},
        "Rock, leaves and water gain detail, the sky stays clean.",
    ),
    "Selective Sigma, few steps": (
        {"strength": 0.15, "coverage": 0.5, "every": 1},
        {"steps": 8, "cfg": 1.0, "sampler_name": "euler", "scheduler": "simple"},
        "For models that need 4 to 8 steps: detail at every step.",
    ),
}
"""By name: settings of the detailer, settings of the sampler, description. The help of the Debug node has them too."""


def identity(*words: str) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_URL, "/".join(("selective-sigma", *words))))


class Blueprint:
    """A subgraph around the nodes of a graph."""

    def __init__(self, graph: Graph):
        self.graph = graph
        self.links = [dict(zip(LINK, link, strict=True)) for link in graph.links]
        self.inputs: list[Json] = []
        self.outputs: list[Json] = []
        self.values: dict[str, Any] = {}
        """The values of the widgets that are inputs of the subgraph, by name."""

    def add_input(self, node: Json, name: str) -> None:
        """Add an input to the subgraph, linked to that of a node. If it is a widget, the subgraph gets the widget."""
        slot, socket = next((i, socket) for i, socket in enumerate(node["inputs"]) if socket["name"] == name)
        socket["link"] = self._link(ENTRY, len(self.inputs), node["id"], slot, socket["type"])
        self.inputs.append(self._slot("in", name, socket["type"], [socket["link"]], len(self.inputs)))
        if "widget" in socket:
            self.values[name] = node["widgets_values"][self._value_index(node, name)]

    def add_output(self, name: str, node: Json, slot: int) -> None:
        """Add an output to the subgraph, linked to that of a node."""
        output = node["outputs"][slot]
        link = self._link(node["id"], slot, EXIT, len(self.outputs), output["type"])
        output["links"].append(link)
        self.outputs.append(self._slot("out", name, output["type"], [link], len(self.outputs)))

    def saved(self, description: str) -> Json:
        """The contents of the file: one node, which is the subgraph."""
        kind = identity("blueprints", self.graph.name)
        node = {
            "id": 1,
            "type": kind,
            "pos": [0, 0],
            "size": [360, 640],
            "flags": {},
            "order": 0,
            "mode": 0,
            "inputs": [self._socket(slot) for slot in self.inputs],
            "outputs": [{"name": slot["name"], "type": slot["type"], "links": None} for slot in self.outputs],
            "properties": {"proxyWidgets": [["-1", name] for name in self.values]},
            "widgets_values": list(self.values.values()),
        }
        right = max(inner["pos"][0] + inner["size"][0] for inner in self.graph.nodes)
        subgraph = {
            "id": kind,
            "version": 1,
            "state": {
                "lastGroupId": 0,
                "lastNodeId": len(self.graph.nodes),
                "lastLinkId": len(self.links),
                "lastRerouteId": 0,
            },
            "revision": 0,
            "config": {},
            "name": self.graph.name,
            "description": description,
            "category": "Selective Sigma",
            "inputNode": {"id": ENTRY, "bounding": [-240, 0, 120, 40 + 20 * len(self.inputs)]},
            "outputNode": {"id": EXIT, "bounding": [right + 80, 0, 120, 40 + 20 * len(self.outputs)]},
            "inputs": self.inputs,
            "outputs": self.outputs,
            "widgets": [],
            "nodes": self.graph.nodes,
            "groups": [],
            "links": self.links,
            "extra": {},
        }
        saved = {**self.graph.saved(), "nodes": [node], "links": [], "last_node_id": 1, "last_link_id": 0}
        return {**saved, "definitions": {"subgraphs": [subgraph]}}

    def _socket(self, slot: Json) -> Json:
        widget = {"widget": {"name": slot["name"]}} if slot["name"] in self.values else {}
        return {"name": slot["name"], "type": slot["type"], **widget, "link": None}

    @staticmethod
    def _value_index(node: Json, name: str) -> int:
        """The index of a widget's value among those saved. A seed has a second value behind it."""
        names: list[str] = []
        for socket in node["inputs"]:
            if "widget" in socket:
                names += [socket["name"], "control"] if socket["name"] == "seed" else [socket["name"]]
        return names.index(name)

    def _link(self, *ends: Any) -> int:
        self.links.append(dict(zip(LINK, (len(self.links) + 1, *ends), strict=True)))
        return len(self.links)

    def _slot(self, direction: str, name: str, io_type: str, link_ids: list[int], index: int) -> Json:
        slot = {"id": identity("blueprints", self.graph.name, direction, name), "name": name}
        slot |= {"type": io_type, "linkIds": link_ids}
        return {**slot, "pos": [-140 if direction == "in" else 0, 20 + 20 * index]}


LINK = ("id", "origin_id", "origin_slot", "target_id", "target_slot", "type")


def preset(graph: Graph, settings: Json, sampler: Json, description: str) -> Json:
    ours = graph.add(DEBUG, (0, 0, 360, 440), settings)
    run = graph.add("KSampler", (410, 0, 300, 270), {"model": out(ours, "model"), "seed": 7, **sampler})
    picture = graph.add("VAEDecode", (760, 0, 300, 60), {"samples": out(run)})
    inputs = {"mask_ref": out(ours, "mask_ref"), "latent": out(run), "image": out(picture), "show": "average"}
    preview = graph.add(PREVIEW, (760, 120, 420, 480), inputs, title="Where the detail went")
    blueprint = Blueprint(graph)
    blueprint.add_input(ours, "model")
    for name in ("positive", "negative", "latent_image"):
        blueprint.add_input(run, name)
    blueprint.add_input(picture, "vae")
    blueprint.add_input(ours, "mask")
    for name in ("strength", "coverage"):
        blueprint.add_input(ours, name)
    for name in ("seed", "steps", "cfg", "sampler_name", "scheduler", "denoise"):
        blueprint.add_input(run, name)
    blueprint.add_output("image", picture, 0)
    blueprint.add_output("latent", run, 0)
    blueprint.add_output("mask", preview, 2)
    blueprint.add_output("where", preview, 1)
    return blueprint.saved(description)


def main(path: str) -> None:
    info = json.loads(Path(path).read_text())
    FOLDER.mkdir(exist_ok=True)
    for name, parts in PRESETS.items():
        saved = preset(Graph(name, info), *parts)
        (FOLDER / f"{name}.json").write_text(json.dumps(saved, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
