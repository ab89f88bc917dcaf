"""A workflow as ComfyUI's frontend saves it, built node by node from the server's description of its nodes."""

from __future__ import annotations

import math
import uuid
from dataclasses import dataclass
from typing import Any, NamedTuple

Json = dict[str, Any]
WIDGET_TYPES = {"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO", "COMFY_DYNAMICCOMBO_V3"}
LIST_TYPE = "COMFY_AUTOGROW_V3"
WITHOUT_CODE = {"MarkdownNote"}
NOTE_COLOURS = {"color": "#223", "bgcolor": "#181a24"}
"""Dark, since one frontend writes the text of notes in grey and another in white."""
OURS = "SelectiveSigma"


class Socket(NamedTuple):
    """An output of a node."""

    node: Json
    slot: int

    @property
    def type(self) -> str:
        return self.node["outputs"][self.slot]["type"]


@dataclass
class Graph:
    """One workflow."""

    name: str
    info: Json
    """The answer of ComfyUI's ``/object_info``."""
    since: str = "0.3.64"
    """The first version of ComfyUI that has all nodes of the workflow."""

    def __post_init__(self) -> None:
        self.nodes: list[Json] = []
        self.links: list[list[Any]] = []

    def add(self, kind: str, place: tuple[int, int, int, int], values: Json | None = None, **more: Any) -> Json:
        """Add a node.

        Args:
            kind: the class of the node.
            place: x, y, width, height.
            values: by input name, the value of a widget, or the ``Socket`` that the input is linked to.
            more: ``title``, ``models`` (what a loader offers to download), ``mode``.

        Raises:
            ValueError: if the node has no input of a name in ``values``.
        """
        values = dict(values or {})
        info = self.info[kind]
        node = self._node(kind, place)
        node["properties"] = {
            "cnr_id": "selective-sigma" if kind.startswith(OURS) else "comfy-core",
            "ver": "0.1.0" if kind.startswith(OURS) else self.since,
            "Node name for S&R": kind,
        }
        if models := more.pop("models", None):
            node["properties"]["models"] = models
        node |= more
        node["outputs"] = [
            {"localized_name": name, "name": name, "type": io_type, "links": []}
            for name, io_type in zip(info["output_name"], info["output"], strict=True)
        ]
        sockets, widgets, widget_values, saved_count = [], [], [], 0
        inputs = [
            (name, spec, group)
            for group in ("required", "optional")
            for name, spec in info["input"].get(group, {}).items()
        ]
        for name, (io_type, *rest), group in inputs:
            options = rest[0] if rest else {}
            if io_type == LIST_TYPE:
                item_names = [key for key in values if key.startswith(f"{name}.")]
                sockets += [self._input(node, key, values[key].type, values.pop(key)) for key in item_names]
                for output in node["outputs"]:
                    output["type"] = sockets[-1]["type"]
            elif options.get("socketless") or options.get("hidden"):
                continue
            elif isinstance(io_type, list) or io_type in WIDGET_TYPES:
                value = values.pop(name, options.get("default", first_choice(io_type, options)))
                link = value if isinstance(value, Socket) else None
                widgets.append(self._input(node, name, "COMBO" if isinstance(io_type, list) else io_type, link))
                widgets[-1]["widget"] = {"name": name}
                widget_values.append(options.get("default", 0.0) if link else value)
                # Inputs that later versions added at the end are saved only if they are not at their default, so that
                # earlier versions can load the workflow.
                if (group == "required" and not options.get("advanced")) or value != options.get("default"):
                    saved_count = len(widget_values)
                if options.get("control_after_generate"):
                    widget_values.append("fixed")
                    saved_count = len(widget_values)
                if io_type == "COMFY_DYNAMICCOMBO_V3":
                    widget_values += nested_defaults(options["options"][0])
                    saved_count = len(widget_values)
            else:
                sockets.append(self._input(node, name, io_type, values.pop(name, None)))
                if group == "optional":
                    sockets[-1]["shape"] = 7
        if values:
            raise ValueError(f"{kind} has no input {', '.join(values)}")
        node["inputs"] = [*sockets, *widgets]
        slots = {id(socket): slot for slot, socket in enumerate(node["inputs"])}
        for link, target in self._pending:
            link[4] = slots[id(target)]
        node["widgets_values"] = widget_values[:saved_count]
        return node

    def note(self, place: tuple[int, int, int], text: str) -> None:
        """Add a note at x, y with this width, as high as its text."""
        node = self._node("MarkdownNote", (*place, note_height(text, place[2])))
        node |= {"title": "Note", "properties": {}, "widgets_values": [text], **NOTE_COLOURS}

    def _node(self, kind: str, place: tuple[int, int, int, int]) -> Json:
        self._pending: list[tuple[list[Any], Json]] = []
        node = {"id": len(self.nodes) + 1, "type": kind, "pos": list(place[:2]), "size": list(place[2:])}
        node |= {"flags": {}, "order": len(self.nodes), "mode": 0, "inputs": [], "outputs": []}
        self.nodes.append(node)
        return node

    def _input(self, node: Json, name: str, io_type: str, source: Socket | None) -> Json:
        socket = {"localized_name": name, "name": name, "type": io_type, "link": None}
        if source is not None:
            socket["link"] = len(self.links) + 1
            self.links.append([socket["link"], source.node["id"], source.slot, node["id"], 0, source.type])
            source.node["outputs"][source.slot]["links"].append(socket["link"])
            self._pending.append((self.links[-1], socket))
        return socket

    def saved(self) -> Json:
        return {
            "id": str(uuid.uuid5(uuid.NAMESPACE_URL, f"selective-sigma/{self.name}")),
            "revision": 0,
            "last_node_id": len(self.nodes),
            "last_link_id": len(self.links),
            "nodes": self.nodes,
            "links": self.links,
            "groups": [],
            "config": {},
            "extra": {"ds": {"scale": 0.7, "offset": [60, 60]}},
            "version": 0.4,
        }


def note_height(text: str, width: int) -> int:
    """The height of a note with this text, in pixels, large enough in both views."""
    paragraphs = text.split("\n\n")
    lines = sum(math.ceil(len(paragraph) / ((width - 50) / 5.4)) for paragraph in paragraphs)
    return 26 + 14 * lines + 9 * len(paragraphs)


def out(node: Json, name: str | int = 0) -> Socket:
    """An output of a node, by its slot or its name."""
    if isinstance(name, str):
        name = [output["name"] for output in node["outputs"]].index(name)
    return Socket(node, name)


def first_choice(io_type: Any, options: Json) -> Any:
    """The value of a choice without a default: the first one; None for an input that is no choice."""
    choices = io_type if isinstance(io_type, list) else options.get("options")
    if not choices:
        return None
    return choices[0]["key"] if isinstance(choices[0], dict) else choices[0]


def nested_defaults(choice: Json) -> list[Any]:
    """The values of the inputs that a choice brings with it."""
    widget_values: list[Any] = []
    for group in choice.get("inputs", {}).values():
        for io_type, options in group.values():
            widget_values.append(options.get("default", first_choice(io_type, options)))
            if io_type == "COMFY_DYNAMICCOMBO_V3":
                widget_values += nested_defaults(options["options"][0])
    return widget_values
