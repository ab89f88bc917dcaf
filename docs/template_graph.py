"""A workflow in the form that ComfyUI's frontend saves, written node by node from the server's own description."""

from __future__ import annotations

import math
import uuid
from dataclasses import dataclass
from typing import Any, NamedTuple

Json = dict[str, Any]
WIDGETS = {"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO", "COMFY_DYNAMICCOMBO_V3"}
LIST = "COMFY_AUTOGROW_V3"
WITHOUT_CODE = {"MarkdownNote"}
NOTE = {"color": "#223", "bgcolor": "#181a24"}
"""Dark, since one frontend writes notes in grey, another in white."""
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
    """One workflow; ``info`` is ``/object_info``."""

    name: str
    info: Json
    since: str = "0.3.64"
    """The first ComfyUI that has all of its nodes."""

    def __post_init__(self) -> None:
        self.nodes: list[Json] = []
        self.links: list[list[Any]] = []

    def add(self, kind: str, place: tuple[int, int, int, int], values: Json | None = None, **more: Any) -> Json:
        """One node.

        Args:
            place: x, y, width, height.
            values: by input name, a widget's value or the ``Socket`` that it is linked to.
            more: ``title``, ``models`` (what a loader offers to download), ``mode``.
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
            (n, spec, part) for part in ("required", "optional") for n, spec in info["input"].get(part, {}).items()
        ]
        for name, (io_type, *rest), part in inputs:
            extra = rest[0] if rest else {}
            if io_type == LIST:
                grown = [key for key in values if key.startswith(f"{name}.")]
                sockets += [self._input(node, key, values[key].type, values.pop(key)) for key in grown]
                for output in node["outputs"]:
                    output["type"] = sockets[-1]["type"]
            elif extra.get("socketless") or extra.get("hidden"):
                continue
            elif isinstance(io_type, list) or io_type in WIDGETS:
                value = values.pop(name, extra.get("default", first(io_type, extra)))
                link = value if isinstance(value, Socket) else None
                widgets.append(self._input(node, name, "COMBO" if isinstance(io_type, list) else io_type, link))
                widgets[-1]["widget"] = {"name": name}
                widget_values.append(extra.get("default", 0.0) if link else value)
                # What later versions added at the end and is left at its default is not saved, for the earlier ones.
                if (part == "required" and not extra.get("advanced")) or value != extra.get("default"):
                    saved_count = len(widget_values)
                if extra.get("control_after_generate"):
                    widget_values.append("fixed")
                    saved_count = len(widget_values)
                if io_type == "COMFY_DYNAMICCOMBO_V3":
                    widget_values += nested(extra["options"][0])
                    saved_count = len(widget_values)
            else:
                sockets.append(self._input(node, name, io_type, values.pop(name, None)))
                if part == "optional":
                    sockets[-1]["shape"] = 7
        if values:
            raise ValueError(f"{kind} has no input {', '.join(values)}")
        node["inputs"] = [*sockets, *widgets]
        slots = {id(one): i for i, one in enumerate(node["inputs"])}
        for link, target in self._pending:
            link[4] = slots[id(target)]
        node["widgets_values"] = widget_values[:saved_count]
        return node

    def note(self, place: tuple[int, int, int], text: str) -> None:
        """Words at x, y and so many pixels wide, as high as they are."""
        node = self._node("MarkdownNote", (*place, written_height(text, place[2])))
        node |= {"title": "Note", "properties": {}, "widgets_values": [text], **NOTE}

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


def written_height(text: str, width: int) -> int:
    """Of a note, in either view."""
    paragraphs = text.split("\n\n")
    lines = sum(math.ceil(len(one) / ((width - 50) / 5.4)) for one in paragraphs)
    return 26 + 14 * lines + 9 * len(paragraphs)


def out(node: Json, name: str | int = 0) -> Socket:
    """An output by its place or its name."""
    if isinstance(name, str):
        name = [output["name"] for output in node["outputs"]].index(name)
    return Socket(node, name)


def first(io_type: Any, extra: Json) -> Any:
    """What a choice without a default stands at."""
    options = io_type if isinstance(io_type, list) else extra.get("options")
    if not options:
        return None
    return options[0]["key"] if isinstance(options[0], dict) else options[0]


def nested(option: Json) -> list[Any]:
    """The first choices below a choice that brings inputs of its own."""
    widget_values: list[Any] = []
    for part in option.get("inputs", {}).values():
        for io_type, extra in part.values():
            widget_values.append(extra.get("default", first(io_type, extra)))
            if io_type == "COMFY_DYNAMICCOMBO_V3":
                widget_values += nested(extra["options"][0])
    return widget_values
