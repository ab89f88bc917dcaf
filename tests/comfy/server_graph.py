"""Converts a workflow, as ComfyUI's frontend saves it, to the prompt that the server takes."""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]
WIDGETS = {"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"}
CHOICE = "COMFY_DYNAMICCOMBO_V3"
WITHOUT_CODE = {"Note", "MarkdownNote"}
ENTRY, EXIT = -10, -20


def to_prompt(workflow: Json, nodes: Json, values: dict[str, Json]) -> Json:
    """The prompt of a workflow.

    Args:
        nodes: the server's ``/object_info``.
        values: widget values to use in place of the saved ones, by node type and input name.
    """
    definitions = {d["id"]: d for d in workflow.get("definitions", {}).get("subgraphs", [])}
    prompt: Json = {}
    add(workflow, "", {}, definitions, nodes, values, prompt)
    return prompt


def links_of(graph: Json) -> dict[int, tuple[int, int]]:
    """Origin node and slot of each link by id. Links are lists in the main graph and objects in subgraphs."""
    pairs = [(k["id"], k["origin_id"], k["origin_slot"]) if isinstance(k, dict) else k[:3] for k in graph["links"]]
    return {link: (origin, slot) for link, origin, slot in pairs}


def add(
    graph: Json, prefix: str, entries: dict[int, Any], definitions: Json, nodes: Json, values: Json, prompt: Json
) -> None:
    """Add a graph's nodes to ``prompt``; ``entries`` are the links into a subgraph, by input slot."""
    links = links_of(graph)
    by_id = {node["id"]: node for node in graph["nodes"]}

    def source(link: int | None) -> Any:
        if link is None:
            return None
        origin, slot = links[link]
        if origin == ENTRY:
            return entries.get(slot)
        inner, name = definitions.get(by_id[origin]["type"]), f"{prefix}{origin}"
        while inner is not None:
            origin, slot = next(
                links_of(inner)[k["id"]] for k in inner["links"] if k["target_id"] == EXIT and k["target_slot"] == slot
            )
            name = f"{name}:{origin}"
            inner = definitions.get({node["id"]: node["type"] for node in inner["nodes"]}[origin])
        # In place of a node that the server does not have, the values of its outputs.
        kind = by_id[links[link][0]]["type"]
        return values[kind][str(slot)] if kind not in definitions and kind not in nodes else [name, slot]

    for node in graph["nodes"]:
        kind, name = node["type"], f"{prefix}{node['id']}"
        linked = {socket["name"]: source(socket.get("link")) for socket in node.get("inputs", [])}
        if kind in definitions:
            slots = {i: linked.get(socket["name"]) for i, socket in enumerate(definitions[kind]["inputs"])}
            add(definitions[kind], f"{name}:", slots, definitions, nodes, values, prompt)
        elif kind in nodes:
            inputs = {**saved_widgets(node, nodes[kind]), **values.get(kind, {})}
            inputs |= {
                key: value for key, value in linked.items() if value is not None and key not in values.get(kind, {})
            }
            prompt[name] = {"class_type": kind, "inputs": inputs}
        elif kind not in WITHOUT_CODE and kind not in values:
            raise ValueError(f"the server has no node {kind!r} (node {name})")


def saved_widgets(node: Json, info: Json) -> Json:
    """The widget values by input name, which are saved in the order of the inputs; defaults for missing ones."""
    saved = list(node.get("widgets_values") or [])
    values: Json = {}
    take(info["input"], "", saved, values)
    if saved:
        raise ValueError(f"{node['type']} has {len(saved)} widget values too many: {saved}")
    return values


def take(inputs: Json, prefix: str, saved: list[Any], values: Json) -> None:
    """Move the values of ``inputs`` from ``saved`` to ``values``. A choice of a dynamic combo adds further inputs."""
    for part in ("required", "optional"):
        for name, (kind, *rest) in inputs.get(part, {}).items():
            extra = rest[0] if rest else {}
            if kind == CHOICE:
                options = {option["key"]: option["inputs"] for option in extra["options"]}
                hidden = extra.get("hidden") or not saved
                values[prefix + name] = chosen = next(iter(options)) if hidden else saved.pop(0)
                take(options[chosen], f"{prefix}{name}.", saved, values)
            elif kind == "IMAGECOMPARE":  # What the frontend sends.
                values[prefix + name] = {"__value__": ["", ""]}
            elif (isinstance(kind, list) or kind in WIDGETS) and not extra.get("forceInput"):
                if saved:
                    values[prefix + name] = saved.pop(0)
                    if saved and (extra.get("control_after_generate") or name in ("seed", "noise_seed")):
                        saved.pop(0)
                elif "default" in extra:
                    values[prefix + name] = extra["default"]
                elif options := kind if isinstance(kind, list) else extra.get("options"):
                    values[prefix + name] = options[0]
