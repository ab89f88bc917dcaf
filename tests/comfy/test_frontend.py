"""The workflows in ComfyUI's own frontend, in a headless browser. Skipped, with a reason, without a browser."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import browser
import numpy as np
import pytest
from comfy.model_sampling import ModelSamplingDiscrete
from comfy.samplers import calculate_sigmas
from server_examples import (
    DEBUG,
    DEMO_MODEL,
    KSAMPLER,
    PREVIEW,
    PUBLISHED_WORKFLOWS,
    RUNNING,
    STEPS,
    TIMELINE,
    WORKFLOWS,
    serve,
    version,
)
from server_graph import to_prompt

from selective_sigma.comfy.run.latent import noise_window
from selective_sigma.published import PublishedSchedule
from selective_sigma.schedule import Schedule
from selective_sigma.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from server_process import Server

FILES = [*WORKFLOWS, PUBLISHED_WORKFLOWS / "ssd_simple.json", PUBLISHED_WORKFLOWS / "ssd_debug.json"]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    if reason := browser.missing_program():
        pytest.skip(f"LOUD: the frontend was not tested: {reason}")
    with serve(tmp_path_factory.mktemp("comfyui")) as running:
        yield running


@pytest.fixture(scope="module")
def page(server: Server) -> Iterator[browser.Browser]:
    with browser.Browser(server.url) as opened:
        yield opened


def shrunk(workflow: dict[str, Any]) -> dict[str, Any]:
    """The workflow with the tiny checkpoint and a small picture."""
    for node in workflow["nodes"]:
        for position, value in {
            "CheckpointLoaderSimple": {0: "tiny_sd15.ckpt"},
            "EmptyLatentImage": {0: 128, 1: 64},
            "BasicScheduler": {1: STEPS},
        }.get(node["type"], {}).items():
            node["widgets_values"][position] = value
    return workflow


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_frontend_opens_a_workflow(page: browser.Browser, server: Server, path: Path):
    if not path.is_file():
        pytest.skip(f"LOUD: no {path}")
    if path in WORKFLOWS and version(path) > RUNNING:
        pytest.skip(f"{path.stem} has nodes of a newer ComfyUI")
    page.load(path)
    prompt = {name: node for name, node in page.prompt().items() if node.pop("_meta", True)}
    assert prompt == to_prompt(json.loads(path.read_text()), server.get("/object_info"), {})


def test_the_node_has_two_number_widgets_and_a_drawing(page: browser.Browser):
    page.load(KSAMPLER)
    widgets = page.run(
        "return app.graph.findNodesByType('SelectiveSigmaDetailerModelNode')[0].widgets.map(w => [w.name, w.type])"
    )
    assert widgets == [["strength", "number"], ["coverage", "number"], ["schedule", "selective_sigma_schedule"]]
    # The drawing is neither saved nor sent to the server.
    (saved,) = (node for node in page.graph()["nodes"] if node["type"] == "SelectiveSigmaDetailerModelNode")
    assert saved["widgets_values"] == [0.1, 0.5]
    (sent,) = (node for node in page.prompt().values() if node["class_type"] == saved["type"])
    assert set(sent["inputs"]) == {"model", "strength", "coverage"}


def test_the_drawing_shows_the_schedule(page: browser.Browser):
    """The browser's doses equal those of the core, for 20 Karras steps on SDXL."""
    model = ModelSamplingDiscrete()
    levels = [float(level) for level in calculate_sigmas(model, "karras", 20)]
    cases = [
        {"strength": strength, "coverage": 0.5, "start": start, "end": end, "every": every, "mask_source": source}
        for strength in (0.1, 0.5, -0.2)
        for start, end in ((0.2, 1.0), (0.0, 0.9), (0.45, 0.8))
        for every in (1, 2, 8)
        for source in ("response", "change")
    ]
    script = """
    const done = arguments[1];
    import('/extensions/selective-sigma/schedule.js').then(m => done([m.levels, arguments[0].map(m.doses)]));
    """
    theirs, drawn = page.driver.execute_async_script(script, cases)
    np.testing.assert_allclose(theirs, levels, rtol=1e-4)
    for case, doses in zip(cases, drawn, strict=True):
        settings = Settings(**case)
        if settings.mask_source == "response":
            schedule = Schedule(levels, settings, "ve", noise_window(model, settings))
        else:
            schedule = PublishedSchedule(levels, settings, "ve")
        strengths = []
        for step in schedule.steps:
            schedule.enter(step)
            strengths.append(-np.expm1(-schedule.mark_told(step)))
        np.testing.assert_allclose(doses, strengths, atol=1e-6, err_msg=str(case))


@pytest.mark.parametrize("vue", [False, True], ids=["classic", "vue"])
def test_the_drawing_follows_the_settings(page: browser.Browser, vue: bool):
    if vue and RUNNING < (0, 33):
        pytest.skip("this frontend does not draw nodes with Vue")
    script = """
    const node = app.graph.findNodesByType(arguments[0])[0];
    const box = node.widgets.find(w => w.name === 'schedule').element;
    const bars = [...box.querySelectorAll('rect')];
    return [box.offsetHeight, node.size[1], bars.map(bar => +bar.getAttribute('height')),
            bars.map(bar => +bar.getAttribute('fill-opacity'))];
    """
    change = "const w = app.graph.findNodesByType(arguments[0])[0].widgets.find(w => w.name === arguments[1]);"
    change += "w.value = arguments[2]; w.callback?.(w.value);"
    try:
        page.set_view(vue)
        page.load(TIMELINE)
        page.fit()

        def after(**values: float) -> tuple[list[float], list[float]]:
            for name, value in values.items():
                page.run(change, DEBUG, name, value)
            time.sleep(0.5)
            height, of_node, bars, shades = page.run(script, DEBUG)
            assert 40 < height < of_node < 600
            return bars, shades

        bars, shades = after()
        assert len(bars) == 8
        lower, _ = after(strength=0.05)
        assert max(lower) < max(bars)
        every, _ = after(every=1)
        assert len(every) > len(bars)
        late, _ = after(start=0.6)
        assert len(late) < len(every)
        early, _ = after(start=0.2, end=0.6)
        assert len(early) < len(every)
        _, dim = after(coverage=0.2)
        assert max(dim) < min(shades)
        assert after(coverage=0.0) == ([], [])
    finally:
        page.set_view(False)


def test_dragging_changes_a_number_by_a_hundredth_a_pixel(page: browser.Browser):
    page.set_view(False)
    page.load(DEMO_MODEL)
    page.fit()
    kind = "SelectiveSigmaDetailerModelNode"
    for name in ("strength", "coverage"):
        before = page.widget(kind, name)
        page.drag_number(kind, name, 10)
        assert page.widget(kind, name) - before == pytest.approx(0.1, abs=0.011)


@pytest.mark.parametrize("vue", [False, True], ids=["classic", "vue"])
def test_a_typed_strength_is_kept_and_arrows_step_by_a_twentieth(page: browser.Browser, vue: bool):
    kind = "SelectiveSigmaDetailerModelNode"
    if vue and RUNNING < (0, 33):
        pytest.skip("this frontend does not draw nodes with Vue")
    try:
        page.set_view(vue)
        page.load(DEMO_MODEL)
        page.fit()
        for text in ("0.075", "0.15", "0", "0.5"):
            if vue:
                page.type_number_in_vue(kind, text)
            else:
                page.type_number(kind, "strength", text)
            assert page.widget(kind, "strength") == float(text)
    finally:
        page.set_view(False)
    seen = []
    for up in (False, False, True):
        page.step_number(kind, "strength", up)
        seen.append(round(page.widget(kind, "strength"), 6))
    assert seen == [0.45, 0.4, 0.45]


@pytest.mark.compat("ComfyUI's own frontend", "opens, runs and shows the workflows")
def test_the_frontend_runs_the_timeline_and_shows_it(page: browser.Browser, tmp_path: Path):
    page.load(shrunk(json.loads(TIMELINE.read_text())))
    page.queue()
    page.fit()
    page.screenshot(tmp_path / "graph.png")
    sizes = page.run(f"return app.graph.findNodesByType('{PREVIEW}').map(n => n.imgs.map(i => i.naturalWidth))")
    assert [len(node_sizes) for node_sizes in sizes] == [1, 1]
    assert min(node_sizes[0] for node_sizes in sizes) >= 128
