"""Writes subgraphs/*.json, the presets as blueprints: detailer, sampler and preview in one node. By hand, with the
answer of a ComfyUI that has this pack:

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
"""By name: the detailer's settings, the sampler's, and what it is for. The help of the Debug node has them too."""


def identity(*words: str) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_URL, "/".join(("selective-sigma", *words))))


class Blueprint:
    """A subgraph around the nodes of a graph."""

    def __init__(self, g: Graph):
        self.g = g
        self.links = [dict(zip(LINK, link, strict=True)) for link in g.links]
        self.inputs: list[Json] = []
        self.outputs: list[Json] = []
        self.values: dict[str, Any] = {}
        """Of the widgets that are inputs of the subgraph."""

    def add_input(self, node: Json, name: str) -> None:
        """An input of the subgraph, linked to that of the node; a widget is then one of the subgraph's."""
        slot, one = next((i, one) for i, one in enumerate(node["inputs"]) if one["name"] == name)
        one["link"] = self._link(ENTRY, len(self.inputs), node["id"], slot, one["type"])
        self.inputs.append(self._slot("in", name, one["type"], [one["link"]], len(self.inputs)))
        if "widget" in one:
            self.values[name] = node["widgets_values"][self._place(node, name)]

    def add_output(self, name: str, node: Json, slot: int) -> None:
        """An output of the subgraph."""
        output = node["outputs"][slot]
        link = self._link(node["id"], slot, EXIT, len(self.outputs), output["type"])
        output["links"].append(link)
        self.outputs.append(self._slot("out", name, output["type"], [link], len(self.outputs)))

    def saved(self, description: str) -> Json:
        """The file: one node that is the subgraph."""
        kind = identity("blueprints", self.g.name)
        node = {
            "id": 1,
            "type": kind,
            "pos": [0, 0],
            "size": [360, 640],
            "flags": {},
            "order": 0,
            "mode": 0,
            "inputs": [self._socket(one) for one in self.inputs],
            "outputs": [{"name": one["name"], "type": one["type"], "links": None} for one in self.outputs],
            "properties": {"proxyWidgets": [["-1", name] for name in self.values]},
            "widgets_values": list(self.values.values()),
        }
        right = max(one["pos"][0] + one["size"][0] for one in self.g.nodes)
        subgraph = {
            "id": kind,
            "version": 1,
            "state": {
                "lastGroupId": 0,
                "lastNodeId": len(self.g.nodes),
                "lastLinkId": len(self.links),
                "lastRerouteId": 0,
            },
            "revision": 0,
            "config": {},
            "name": self.g.name,
            "description": description,
            "category": "Selective Sigma",
            "inputNode": {"id": ENTRY, "bounding": [-240, 0, 120, 40 + 20 * len(self.inputs)]},
            "outputNode": {"id": EXIT, "bounding": [right + 80, 0, 120, 40 + 20 * len(self.outputs)]},
            "inputs": self.inputs,
            "outputs": self.outputs,
            "widgets": [],
            "nodes": self.g.nodes,
            "groups": [],
            "links": self.links,
            "extra": {},
        }
        saved = {**self.g.saved(), "nodes": [node], "links": [], "last_node_id": 1, "last_link_id": 0}
        return {**saved, "definitions": {"subgraphs": [subgraph]}}

    def _socket(self, one: Json) -> Json:
        widget = {"widget": {"name": one["name"]}} if one["name"] in self.values else {}
        return {"name": one["name"], "type": one["type"], **widget, "link": None}

    @staticmethod
    def _place(node: Json, name: str) -> int:
        """Where a widget's value is saved; a seed has another behind it."""
        names: list[str] = []
        for one in node["inputs"]:
            if "widget" in one:
                names += [one["name"], "control"] if one["name"] == "seed" else [one["name"]]
        return names.index(name)

    def _link(self, *ends: Any) -> int:
        self.links.append(dict(zip(LINK, (len(self.links) + 1, *ends), strict=True)))
        return len(self.links)

    def _slot(self, way: str, name: str, kind: str, ids: list[int], place: int) -> Json:
        named = {"id": identity("blueprints", self.g.name, way, name), "name": name, "type": kind, "linkIds": ids}
        return {**named, "pos": [-140 if way == "in" else 0, 20 + 20 * place]}


LINK = ("id", "origin_id", "origin_slot", "target_id", "target_slot", "type")


def preset(g: Graph, settings: Json, sampler: Json, description: str) -> Json:
    ours = g.add(DEBUG, (0, 0, 360, 440), settings)
    run = g.add("KSampler", (410, 0, 300, 270), {"model": out(ours, "model"), "seed": 7, **sampler})
    picture = g.add("VAEDecode", (760, 0, 300, 60), {"samples": out(run)})
    inputs = {"mask_ref": out(ours, "mask_ref"), "latent": out(run), "image": out(picture), "show": "average"}
    preview = g.add(PREVIEW, (760, 120, 420, 480), inputs, title="Where the detail went")
    blueprint = Blueprint(g)
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
