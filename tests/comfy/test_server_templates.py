"""The templates, run in a ComfyUI server with tiny checkpoints of their kinds of model."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from server_examples import (
    DEBUG,
    DEMO_MODEL,
    KSAMPLER,
    PREVIEW,
    RUNNING,
    SWEEP,
    TO_ONE_PICTURE,
    VIDEO,
    load_prompt,
    of_type,
    only,
    pictures_of,
    version,
)

if TYPE_CHECKING:
    from pathlib import Path

    from server_process import Server

DETAILERS = ("SelectiveSigmaDetailerNode", "SelectiveSigmaDetailerModelNode", DEBUG)


def test_the_first_template_needs_no_file(server: Server, nodes: dict[str, Any]):
    prompt = load_prompt(DEMO_MODEL, nodes, KSampler={"steps": 4})
    assert not [name for name in prompt if "Load" in prompt[name]["class_type"]]
    outputs = server.run(prompt)
    picture_nodes = [*of_type(prompt, "PreviewImage"), *of_type(prompt, "SaveImage")]
    plain, detailed = (only(pictures_of(server, outputs, name)) for name in picture_nodes)
    assert plain.shape == (512, 512, 3)  # The bundled photograph.
    assert plain.std() > 0.1
    assert 1e-4 < np.abs(plain - detailed).mean() < 0.1
    assert all(len(outputs[name]["images"]) == 1 for name in of_type(prompt, PREVIEW))


@pytest.mark.parametrize("path", TO_ONE_PICTURE, ids=lambda path: path.stem)
def test_an_example_runs_and_adds_detail(server: Server, nodes: dict[str, Any], path: Path):
    if version(path) > RUNNING:
        pytest.skip(f"{path.stem} has nodes of a newer ComfyUI")
    prompt = load_prompt(path, nodes)
    (save,) = of_type(prompt, "SaveImage")
    detailer = next(name for kind in DETAILERS for name in of_type(prompt, kind))
    picture = only(pictures_of(server, server.run(prompt), save))
    sizes = {"05": (96, 192, 3), "06": (64, 64, 3)}
    assert picture.shape == sizes.get(path.stem[:2], (64, 128, 3))
    assert picture.std() > 0.01  # The random decoder of the flow model makes dark pictures.
    prompt[detailer]["inputs"]["strength"] = 0.0
    plain = only(pictures_of(server, server.run(prompt), save))
    assert 0 < np.abs(picture - plain).mean() < 0.2


def test_the_sampler_node_and_the_model_node_give_one_picture(server: Server, nodes: dict[str, Any]):
    prompt = load_prompt(KSAMPLER, nodes)
    (save,), (sampler,) = of_type(prompt, "SaveImage"), of_type(prompt, "KSampler")
    patched = only(pictures_of(server, server.run(prompt), save))
    settings, (ours,) = prompt[sampler]["inputs"], of_type(prompt, "SelectiveSigmaDetailerModelNode")
    amounts = {key: prompt[ours]["inputs"][key] for key in ("strength", "coverage")}
    model = prompt[ours]["inputs"]["model"]
    prompt["100"] = {"class_type": "KSamplerSelect", "inputs": {"sampler_name": settings["sampler_name"]}}
    prompt["101"] = {"class_type": "SelectiveSigmaDetailerNode", "inputs": {"sampler": ["100", 0], **amounts}}
    levels = {key: settings[key] for key in ("scheduler", "steps", "denoise")}
    prompt["102"] = {"class_type": "BasicScheduler", "inputs": {"model": model, **levels}}
    kept = {key: settings[key] for key in ("positive", "negative", "latent_image", "cfg")}
    kept |= {
        "add_noise": True,
        "noise_seed": settings["seed"],
        "model": model,
        "sampler": ["101", 0],
        "sigmas": ["102", 0],
    }
    prompt[sampler] = {"class_type": "SamplerCustom", "inputs": kept}
    del prompt[ours]
    np.testing.assert_array_equal(only(pictures_of(server, server.run(prompt), save)), patched)


def test_the_sweep_is_a_grid_of_nine_different_pictures(server: Server, nodes: dict[str, Any]):
    if version(SWEEP) > RUNNING:
        pytest.skip("the sweep has nodes of a newer ComfyUI")
    prompt = load_prompt(SWEEP, nodes, ImageGrid={"cell_width": 64, "cell_height": 64, "padding": 0})
    grid = only(pictures_of(server, server.run(prompt), of_type(prompt, "SaveImage")[0]))
    cells = [part for row in np.split(grid, 3) for part in np.split(row, 3, axis=1)]
    assert cells[0].shape == (64, 64, 3)
    assert all(np.abs(a - b).max() > 0 for a, b in pairwise(cells))


def test_the_video_is_a_video_with_detail(server: Server, nodes: dict[str, Any]):
    if version(VIDEO) > RUNNING:
        pytest.skip("the video has nodes of a newer ComfyUI")
    prompt = load_prompt(VIDEO, nodes)
    (save,), (decoded,), (ours,) = (of_type(prompt, kind) for kind in ("SaveVideo", "VAEDecode", DETAILERS[1]))
    prompt["100"] = {"class_type": "PreviewImage", "inputs": {"images": [decoded, 0]}}
    outputs = server.run(prompt)
    (file,) = outputs[save]["images"]
    assert file["filename"].endswith(".mp4")
    frames = np.stack(pictures_of(server, outputs, "100"))
    assert frames.shape == (9, 32, 64, 3)
    prompt[ours]["inputs"]["strength"] = 0.0
    plain = np.stack(pictures_of(server, server.run(prompt), "100"))
    assert (np.abs(frames - plain).mean((1, 2, 3)) > 0).all()
