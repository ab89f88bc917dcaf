"""The workflows in ComfyUI's own frontend, in a headless browser; skipped loudly where there is none."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import browser
import pytest
from server_examples import DEMO_MODEL, KSAMPLER, PEERS, PREVIEW, RUNNING, STEPS, TIMELINE, WORKFLOWS, serve, version
from server_graph import to_prompt

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from server_process import Server

FILES = [*WORKFLOWS, PEERS / "ssd_simple.json", PEERS / "ssd_debug.json"]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    if reason := browser.missing():
        pytest.skip(f"LOUD: the frontend was not tested: {reason}")
    with serve(tmp_path_factory.mktemp("comfyui")) as running:
        yield running


@pytest.fixture(scope="module")
def page(server: Server) -> Iterator[browser.Browser]:
    with browser.Browser(server.url) as opened:
        yield opened


def tiny(workflow: dict[str, Any]) -> dict[str, Any]:
    """The saved graph with the small checkpoint and a small picture."""
    for node in workflow["nodes"]:
        for place, value in {
            "CheckpointLoaderSimple": {0: "tiny_sd15.ckpt"},
            "EmptyLatentImage": {0: 128, 1: 64},
            "BasicScheduler": {1: STEPS},
        }.get(node["type"], {}).items():
            node["widgets_values"][place] = value
    return workflow


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_frontend_opens_a_workflow(page: browser.Browser, server: Server, path: Path):
    if not path.is_file():
        pytest.skip(f"LOUD: no {path}")
    if path in WORKFLOWS and version(path) > RUNNING:
        pytest.skip(f"{path.stem} has nodes of a newer ComfyUI")
    page.load(path)
    made = {name: node for name, node in page.prompt().items() if node.pop("_meta", True)}
    assert made == to_prompt(json.loads(path.read_text()), server.get("/object_info"), {})


def test_the_node_shows_two_numbers_and_nothing_else(page: browser.Browser):
    page.load(KSAMPLER)
    widgets = page.run(
        "return app.graph.findNodesByType('SelectiveSigmaDetailerModelNode')[0].widgets.map(w => [w.name, w.type])"
    )
    assert widgets == [["strength", "number"], ["coverage", "number"]]


@pytest.mark.parametrize("vue", [False, True], ids=["classic", "vue"])
def test_a_typed_strength_is_kept_and_arrows_hit_the_usual_ones(page: browser.Browser, vue: bool):
    kind = "SelectiveSigmaDetailerModelNode"
    if vue and RUNNING < (0, 33):
        pytest.skip("this frontend does not draw nodes with Vue")
    try:
        page.show(vue)
        page.load(DEMO_MODEL)
        page.fit()
        for text in ("0.075", "0.15", "0", "0.5"):
            if vue:
                page.type_number_in_vue(kind, text)
            else:
                page.type_number(kind, "strength", text)
            assert page.widget(kind, "strength") == float(text)
    finally:
        page.show(False)
    seen = []
    for up in (False, False, True):
        page.step_number(kind, "strength", up)
        seen.append(round(page.widget(kind, "strength"), 6))
    assert seen == [0.45, 0.4, 0.45]


@pytest.mark.compat("ComfyUI's own frontend", "opens, runs and shows the workflows")
def test_the_frontend_runs_the_timeline_and_shows_it(page: browser.Browser, tmp_path: Path):
    page.load(tiny(json.loads(TIMELINE.read_text())))
    page.queue()
    page.fit()
    page.screenshot(tmp_path / "graph.png")
    sizes = page.run(f"return app.graph.findNodesByType('{PREVIEW}').map(n => n.imgs.map(i => i.naturalWidth))")
    assert [len(shown) for shown in sizes] == [1, 1]
    assert min(shown[0] for shown in sizes) >= 128
