"""The templates compared with the running ComfyUI's nodes: no missing node, link, value or download."""

from __future__ import annotations

import itertools
import json
from typing import TYPE_CHECKING, Any

import pytest
from comfyui_version import __version__
from server_examples import RUNNING, SWEEP, WORKFLOWS, serve, version
from server_graph import WIDGETS, WITHOUT_CODE
from server_process import NAME

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LOADED = {"ckpt_name": "checkpoints", "unet_name": "diffusion_models", "clip_name": "text_encoders", "vae_name": "vae"}
"""Widgets that name a file, and the folder that it is loaded from."""
LOADERS = {"CheckpointLoaderSimple", "UNETLoader", "CLIPLoader", "VAELoader"}
TITLE, FOOTER = 30, 60
PREVIEW_HEIGHT = {"KSampler": 320, "SamplerCustom": 320}
"""Height of the preview that a sampler shows below itself."""
ANYTHING = {"COMFY_MATCHTYPE_V3", "*"}
Json = dict[str, Any]


@pytest.fixture(scope="module")
def info(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Json]:
    with serve(tmp_path_factory.mktemp("comfyui")) as server:
        yield server.get("/object_info")


def nodes_of(path: Path) -> list[Json]:
    if version(path) > RUNNING:
        pytest.skip(f"{path.stem} needs ComfyUI {'.'.join(map(str, version(path)))}; this is {__version__}")
    return [node for node in json.loads(path.read_text())["nodes"] if node["type"] not in WITHOUT_CODE]


def inputs_of(node: Json, info: Json) -> dict[str, tuple[Any, Json, bool]]:
    """Type, options and whether it is required, of each input by name; of a growing list, the inputs of this node."""
    inputs = {}
    for part in ("required", "optional"):
        for name, (kind, *rest) in info[node["type"]]["input"].get(part, {}).items():
            extra = rest[0] if rest else {}
            if kind == "COMFY_AUTOGROW_V3":
                grown = [socket["name"] for socket in node["inputs"] if socket["name"].startswith(f"{name}.")]
                inputs |= {one: ("*", {}, True) for one in grown}
            elif not (extra.get("socketless") or extra.get("hidden")):
                inputs[name] = kind, extra, part == "required"
    return inputs


def is_widget(kind: Any) -> bool:
    return isinstance(kind, list) or kind in WIDGETS or kind == "COMFY_DYNAMICCOMBO_V3"


templates = pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)


def test_the_simple_one_comes_first_and_each_has_a_picture():
    numbers = [path.stem.split(" ", 1)[0] for path in WORKFLOWS]
    assert numbers == [f"{i + 1:02}" for i in range(len(WORKFLOWS))]
    assert WORKFLOWS[0].stem == "01 Try it without a checkpoint"
    for path in WORKFLOWS:
        assert path.with_suffix(".jpg").read_bytes()[:2] == b"\xff\xd8"


@templates
def test_every_node_is_comfyuis_or_ours(info: Json, path: Path):
    for node in nodes_of(path):
        module = info[node["type"]]["python_module"]
        assert module == f"custom_nodes.{NAME}" or module.split(".")[0] in ("nodes", "comfy_extras"), node["type"]
        assert not info[node["type"]].get("deprecated"), node["type"]


@templates
def test_links_and_sockets_agree(info: Json, path: Path):
    graph, nodes = json.loads(path.read_text()), {node["id"]: node for node in nodes_of(path)}
    assert graph["links"]
    for link, source, slot, target, place, kind in graph["links"]:
        output, taken = nodes[source]["outputs"][slot], nodes[target]["inputs"][place]
        assert link in output["links"]
        assert taken["link"] == link
        offered = info[nodes[source]["type"]]["output"][slot]
        wanted = inputs_of(nodes[target], info)[taken["name"]][0]
        assert output["type"] == kind
        assert offered == kind or offered in ANYTHING
        assert wanted == kind or wanted in ANYTHING, f"{taken['name']} of {nodes[target]['type']}"


@templates
def test_required_inputs_are_linked_or_have_a_value(info: Json, path: Path):
    for node in nodes_of(path):
        wanted, values = inputs_of(node, info), list(node["widgets_values"])
        linked = {socket["name"]: socket["link"] for socket in node["inputs"]}
        assert set(wanted) <= set(linked), node["type"]
        assert not any(linked[name] for name in set(linked) - set(wanted)), node["type"]
        for name, (kind, extra, required) in wanted.items():
            if not is_widget(kind):
                assert linked[name] or not required, f"{name} of {node['type']} is not linked"
                continue
            if not values and not linked[name]:
                assert extra.get("default") is not None or not required, f"{name} of {node['type']} is not given"
                continue
            value = values.pop(0)
            if extra.get("control_after_generate"):
                assert values.pop(0) == "fixed"  # So that each run makes the same picture.
            options = kind if isinstance(kind, list) else extra.get("options")
            if kind == "COMFY_DYNAMICCOMBO_V3":
                options = [option["key"] for option in options]
                del values[:1]  # The input that comes with the choice.
            if options and name not in LOADED and not extra.get("image_upload"):
                assert value in options, f"{name} of {node['type']} is {value!r}"
            if kind in ("INT", "FLOAT"):
                assert extra.get("min", value) <= value <= extra.get("max", value), f"{name} of {node['type']}"
        assert not values, f"{node['type']} has {values} too many"


def boxes(nodes: list[Json]) -> list[tuple[Json, tuple[float, float, float, float]]]:
    """Left, top, right and bottom of each node, with its title and with room for what may appear below it."""
    placed = []
    for node in nodes:
        (x, y), (width, height) = node["pos"], node["size"]
        grows = PREVIEW_HEIGHT.get(node["type"], FOOTER if node["type"] in LOADERS else 0)
        placed.append((node, (x, y - TITLE, x + width, y + height + grows)))
    return placed


@templates
def test_nodes_have_room(path: Path):
    """Also with the preview in each sampler, and with the notes about missing files."""
    nodes = json.loads(path.read_text())["nodes"]
    for (one, a), (other, b) in itertools.combinations(boxes(nodes), 2):
        apart = a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]
        assert apart, f"{title(one)} and {title(other)}"


def title(node: Json) -> str:
    return node.get("title", node["type"])


@templates
def test_no_two_nodes_have_one_title(path: Path):
    titles = [title(node) for node in json.loads(path.read_text())["nodes"]]
    assert sorted(titles) == sorted(set(titles))


@templates
def test_strengths_are_the_advised_ones(info: Json, path: Path):
    strengths = [
        node["widgets_values"][0]
        for node in nodes_of(path)
        if node["type"].startswith("SelectiveSigmaDetailer") and "strength" in inputs_of(node, info)
    ]
    assert strengths == ([0.05, 0.1, 0.15] if path == SWEEP else [0.1])


@templates
def test_every_mask_is_shown(path: Path):
    """Each ``mask_ref`` output is linked."""
    for node in json.loads(path.read_text())["nodes"]:
        for output in node["outputs"]:
            assert output["type"] != "SSD_MASK_REF" or output["links"], title(node)


@templates
def test_a_missing_file_is_offered_for_download(path: Path):
    for node in nodes_of(path):
        names = [one["name"] for one in node["inputs"] if one["name"] in LOADED]
        for name in names:
            (offered,) = node["properties"]["models"]
            assert offered["name"] == node["widgets_values"][0]
            assert offered["directory"] == LOADED[name]
            assert offered["url"].startswith("https://huggingface.co/")
            assert offered["url"].endswith(f"/{offered['name']}")
