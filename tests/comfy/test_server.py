"""The pack in a ComfyUI server: its nodes, its pictures and its errors."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np
import pytest
from comfy import cli_args
from server_examples import (
    DEBUG,
    PACK,
    PREVIEW,
    PUBLISHED_WORKFLOWS,
    TIMELINE,
    WORKFLOWS,
    load_prompt,
    of_type,
    only,
    pictures_of,
    serve,
)
from server_process import NAME, Refused, Server

if TYPE_CHECKING:
    from pathlib import Path

DEMO = "SelectiveSigmaDemoModelNode"
LANGUAGES = ("en", "ja", "zh", "ko")
NODES = {
    "SelectiveSigmaDetailerNode": ["strength", "coverage"],
    "SelectiveSigmaDetailerModelNode": ["strength", "coverage"],
    "SelectiveSigmaDetailerDebugNode": [
        *("strength", "coverage", "start", "end", "ema", "mask_clip_percentile", "mask_override"),
        *("every", "mask_source", "lie", "live"),
    ],
    "SelectiveSigmaDetailerMaskPreviewNode": ["show"],
    DEMO: ["family"],
}


@pytest.mark.compat("The registry's pack, unpacked", "loads and runs")
@pytest.mark.parametrize("kind", NODES)
def test_the_server_offers_the_node(nodes: dict[str, Any], kind: str):
    info = nodes[kind]
    inputs = {name: spec for part in ("required", "optional") for name, spec in info["input"].get(part, {}).items()}
    widgets = [name for name, (io_type, *_) in inputs.items() if io_type in ("FLOAT", "INT", "COMBO", "BOOLEAN")]
    assert widgets == NODES[kind]
    assert all(spec[1].get("tooltip") for spec in inputs.values())
    assert all(info["output_tooltips"])
    assert info["description"]
    assert info["experimental"] == (kind == DEMO)
    assert info["python_module"] == f"custom_nodes.{NAME}"


def test_there_are_no_other_nodes_and_no_errors_in_the_log(server: Server, nodes: dict[str, Any]):
    assert {k for k, v in nodes.items() if v["python_module"] == f"custom_nodes.{NAME}"} == set(NODES)
    log = server.log.read_text()
    assert "Import times for custom nodes" in log
    assert "IMPORT FAILED" not in log
    assert "Error while calling comfy_entrypoint" not in log


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("kind", NODES)
def test_the_server_serves_help(server: Server, nodes: dict[str, Any], kind: str, language: str):
    page = server.raw(f"/extensions/{NAME}/docs/{kind}{'' if language == 'en' else f'/{language}'}.md").decode()
    inputs = nodes[kind]["input"]
    for name in [*inputs.get("required", {}), *inputs.get("optional", {}), *nodes[kind]["output_name"]]:
        assert f"`{name}`" in page
    for picture in re.findall(r"!\[[^]]+\]\((.+?)\)", page):  # They are beside the English page.
        assert server.raw(f"/extensions/{NAME}/docs/{picture}")[:2] == b"\xff\xd8"
    # Two columns: three do not fit the help panel.
    assert all(line.count("|") == 3 for line in page.splitlines() if line.startswith("|"))


def test_the_server_serves_translations_and_workflows(server: Server):
    words = server.get("/i18n")
    whole = {language for language, translation in words.items() if set(NODES) <= set(translation.get("nodeDefs", {}))}
    assert whole >= set(LANGUAGES)
    assert sorted(server.get("/workflow_templates")[NAME]) == sorted(path.stem for path in WORKFLOWS)
    for path in WORKFLOWS:
        assert server.raw(f"/api/workflow_templates/{NAME}/{quote(path.stem)}.jpg")[:2] == b"\xff\xd8"


@pytest.fixture
def timeline(nodes: dict[str, Any]) -> dict[str, Any]:
    return load_prompt(TIMELINE, nodes)


def test_the_previews_show_the_run_and_still_do_when_queued_again(server: Server, timeline: dict[str, Any]):
    previews = of_type(timeline, PREVIEW)
    first = server.run(timeline)
    again = server.run(timeline)
    assert set(again["cached"]) >= set(of_type(timeline, "SamplerCustom"))
    for name in previews:
        picture = only(pictures_of(server, first, name))
        assert picture.std() > 0.05
        np.testing.assert_array_equal(picture, only(pictures_of(server, again, name)))
    # With another value of the preview alone, sampling is cached, and the masks are still there.
    for name in previews:
        timeline[name]["inputs"] |= {"show": "every step"}
    other = server.run(timeline)
    assert set(other["cached"]) >= set(of_type(timeline, "SamplerCustom"))
    assert len({len(other[name]["images"]) for name in previews}) == 1
    assert len(other[previews[0]]["images"]) > 1
    steps = [pictures_of(server, other, name) for name in previews]
    assert all(np.abs(a - b).max() > 0 for pictures in steps for a, b in pairwise(pictures))


@pytest.mark.compat("Every cache mode", "the mask belongs to the latent it is shown with")
@pytest.mark.parametrize("option", ["", "--cache-classic", "--cache-lru 60", "--cache-ram 1", "--cache-none"])
def test_a_mask_belongs_to_the_latent_it_is_shown_with(tmp_path: Path, option: str):
    """Runs with two seeds, then with the first again, whose latent comes from the cache if the mode keeps it."""
    if option and option.split(maxsplit=1)[0] not in cli_args.parser._option_string_actions:
        pytest.skip(f"this ComfyUI has no {option.split(maxsplit=1)[0]}")
    with serve(tmp_path, options=option.split()) as server:
        prompt = load_prompt(TIMELINE, server.get("/object_info"))
        (sampler,) = of_type(prompt, "SamplerCustom")
        preview = next(name for name in of_type(prompt, PREVIEW) if "image" not in prompt[name]["inputs"])
        pictures = {}
        for turn, (seed, show) in enumerate([(101, "last step"), (202, "last step"), (101, "every step")]):
            prompt[sampler]["inputs"]["noise_seed"] = seed
            prompt[preview]["inputs"]["show"] = show
            outputs = server.run(prompt)
            pictures[turn] = pictures_of(server, outputs, preview)
        # The classic mode keeps one value for each node. The RAM mode, default since 0.33, keeps what fits.
        if option.startswith(("--cache-lru", "--cache-none", "--cache-classic")):
            assert (sampler in outputs["cached"]) == option.startswith("--cache-lru")
    np.testing.assert_array_equal(pictures[2][-1], only(pictures[0]))
    assert np.abs(pictures[2][-1] - only(pictures[1])).max() > 0.05


@pytest.mark.compat("The first published pack beside this one", "one warning names both folders")
def test_beside_the_first_published_pack_both_folders_are_named(tmp_path: Path):
    if not PACK.is_dir():
        pytest.skip(f"LOUD: no published pack at {PACK}: two packs at once were not tried")
    with serve(tmp_path, packs=[PACK]) as server:
        lines = [line for line in server.log.read_text().splitlines() if "Two packs give nodes" in line]
        (line,) = lines
        assert str(PACK.name) in line
        assert NAME in line
        nodes = server.get("/object_info")
    used = nodes["SelectiveSigmaDetailerNode"]["python_module"].removeprefix("custom_nodes.")
    assert f"here {tmp_path / 'custom_nodes' / used}" in line
    assert "Two packs" in nodes["SelectiveSigmaDetailerModelNode"]["description"]


def test_a_batch_has_a_mask_for_each_picture(server: Server, nodes: dict[str, Any]):
    small = {"EmptyLatentImage": {"width": 64, "height": 64, "batch_size": 3}, PREVIEW: {"show": "last step"}}
    prompt = load_prompt(TIMELINE, nodes, **small)
    outputs = server.run(prompt)
    for name in of_type(prompt, PREVIEW):
        a, b, c = pictures_of(server, outputs, name)
        assert np.abs(a - b).max() > 0.05
        assert np.abs(b - c).max() > 0.05


@pytest.mark.compat("Bypass and mute", "the preview says that there is no mask")
@pytest.mark.parametrize("nothing", [{"strength": 0.0}, "bypassed"], ids=["strength 0", "bypassed"])
def test_a_run_without_detail_says_so(server: Server, timeline: dict[str, Any], nothing: Any):
    (debug,) = of_type(timeline, DEBUG)
    previews = of_type(timeline, PREVIEW)
    if nothing == "bypassed":  # As the frontend sends it: the input in place of the first output, and no other output.
        source = timeline.pop(debug)["inputs"]["sampler"]
        for node in timeline.values():
            for name, value in list(node["inputs"].items()):
                if isinstance(value, list) and value[0] == debug:
                    node["inputs"].pop(name)
                    if value[1] == 0:
                        node["inputs"][name] = source
    else:
        timeline[debug]["inputs"] |= nothing
    outputs = server.run(timeline)
    pictures = [only(pictures_of(server, outputs, name)) for name in previews]
    np.testing.assert_array_equal(*pictures)
    assert pictures[0].shape == (256, 512, 3)
    assert pictures[0].max() > 0.9


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"start": 0.9, "end": 0.2}, "start must lie before end"),
        ({"mask_source": "guess"}, "mask_source"),
        ({"strength": 2.0}, "strength"),
    ],
    ids=str,
)
def test_bad_values_are_refused_with_the_remedy(
    server: Server, timeline: dict[str, Any], values: dict[str, Any], says: str
):
    timeline[of_type(timeline, DEBUG)[0]]["inputs"] |= values
    with pytest.raises(Refused, match=says):
        server.run(timeline)


def test_both_nodes_at_once_are_refused(server: Server, timeline: dict[str, Any]):
    (sampler,) = of_type(timeline, "SamplerCustom")
    inputs = {"model": timeline[sampler]["inputs"]["model"], "strength": 0.1, "coverage": 0.5}
    timeline["100"] = {"class_type": "SelectiveSigmaDetailerModelNode", "inputs": inputs}
    timeline[sampler]["inputs"]["model"] = ["100", 0]
    with pytest.raises(Refused, match="applied twice"):
        server.run(timeline)


@pytest.mark.compat("Graphs of the first published pack", "its workflows run unchanged")
@pytest.mark.parametrize("name", ["simple", "debug", "hiresfix"])
def test_a_published_workflow_runs(server: Server, nodes: dict[str, Any], name: str):
    path = PUBLISHED_WORKFLOWS / f"ssd_{name}.json"
    if not path.is_file():
        pytest.skip(f"LOUD: no published pack at {PUBLISHED_WORKFLOWS.parent}: its workflow {path.name} was not run")
    prompt = load_prompt(path, nodes)
    outputs = server.run(prompt)
    pictures = [
        only(pictures_of(server, outputs, node)) for kind in ("SaveImage", PREVIEW) for node in of_type(prompt, kind)
    ]
    assert len(pictures) == (2 if name == "debug" else 1)
    assert all(picture.std() > 0.02 for picture in pictures)


def test_a_graph_of_the_published_debug_node_lacks_no_input(nodes: dict[str, Any]):
    theirs = ["strength", "coverage", "start", "end", "ema", "mask_clip_percentile", "mask_override"]
    # Required inputs are those of the published node, but for its sampler, in place of which ours takes a model.
    assert list(nodes[DEBUG]["input"]["required"]) == theirs
    assert next(iter(nodes[DEBUG]["input"]["optional"])) == "sampler"
    assert list(nodes[DEBUG]["output_name"])[:2] == ["sampler", "mask_ref"]
    assert list(nodes[PREVIEW]["input"]["required"]) == ["latent"]
