"""The preview of each step as ComfyUI's own callback sends it, with ``live`` and without."""

from __future__ import annotations

import asyncio
import io
import json
from typing import TYPE_CHECKING, Any

import aiohttp
import comfy.utils
import latent_preview
import numpy as np
import pytest
import tiny
import torch
from PIL import Image
from server_examples import serve

from selective_sigma.comfy.nodes import nodes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from server_process import Server

STEPS = 10
PREVIEW_IMAGE = 1
"""ComfyUI's type number of binary messages with a picture."""


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """Previews that the progress hook gets. In a server, they are sent to the browser."""
    got: list[Any] = []
    before = comfy.utils.PROGRESS_BAR_HOOK
    comfy.utils.set_progress_bar_global_hook(lambda *args, node_id: got.append(args[2]))  # noqa: ARG005
    monkeypatch.setattr(latent_preview.args, "preview_method", latent_preview.LatentPreviewMethod.Auto)
    yield got
    comfy.utils.set_progress_bar_global_hook(before)


def run(live: bool, axes: int = 2, **options: Any) -> torch.Tensor:
    """A run of the Debug node's sampler, with the callback of ComfyUI's sampler nodes."""
    model = tiny.model(axes=axes)
    sampler = nodes.SelectiveSigmaDetailerDebugNode.execute(tiny.sampler("euler"), live=live, every=1).args[0]
    callback = latent_preview.prepare_callback(model, STEPS)
    return tiny.sample(model, sampler, tiny.schedule(model, STEPS), callback=callback, **options)


def split_preview(preview: Any) -> tuple[np.ndarray, np.ndarray]:
    form, picture, largest = preview
    assert (form, picture.mode) == ("JPEG", "RGB")
    width = (picture.width - 1) // 2
    assert largest == round(latent_preview.MAX_PREVIEW_RESOLUTION * picture.width / max(width, picture.height))
    values = np.asarray(picture)
    return values[:, :width], values[:, width + 1 :]


def test_the_mask_stands_beside_the_picture(sent: list[Any]):
    shape = (3, tiny.CHANNELS, 16, 8)
    plain = run(False, shape=shape)
    bare, sent[:] = list(sent), []
    assert torch.equal(run(True, shape=shape), plain)
    assert len(sent) == len(bare) == STEPS
    masks = []
    for with_mask, without in zip(sent, bare, strict=True):
        picture, mask = split_preview(with_mask)
        np.testing.assert_array_equal(picture, np.asarray(without[1]))
        masks.append(mask)
    # Black before the first step with detail, then the mask of each step.
    assert not masks[0].any()
    ref = nodes.SelectiveSigmaDetailerDebugNode.execute(tiny.sampler("euler"), every=1).args
    tiny.sample(tiny.model(), ref[0], tiny.schedule(tiny.model(), STEPS), shape=shape)
    for record in ref[1].run.masks:
        wanted = (record.mask[0, 0] * 255).round().byte().numpy()
        np.testing.assert_array_equal(masks[record.step][..., 0], wanted)


def test_nothing_is_changed_or_installed_where_it_is_off(sent: list[Any], monkeypatch: pytest.MonkeyPatch):
    hook = comfy.utils.PROGRESS_BAR_HOOK
    monkeypatch.setattr(nodes, "mask_in_preview", pytest.fail)
    run(False)
    assert comfy.utils.PROGRESS_BAR_HOOK is hook
    assert {preview[1].size for preview in sent} == {(8, 8)}


def test_runs_without_live_keep_their_previews_after_a_live_one(sent: list[Any]):
    run(True)
    run(True)
    assert {preview[1].size for preview in sent} == {(17, 8)}
    sent.clear()
    run(False)
    assert {preview[1].size for preview in sent} == {(8, 8)}


@pytest.mark.parametrize(
    ("axes", "space", "size"), [(2, (16, 8), (17, 16)), (3, (3, 16, 8), (17, 16)), (1, (64,), (64, 1))], ids=str
)
def test_where_previews_are_off_the_cheapest_is_shown(
    sent: list[Any], monkeypatch: pytest.MonkeyPatch, axes: int, space: tuple[int, ...], size: tuple[int, int]
):
    monkeypatch.setattr(latent_preview.args, "preview_method", latent_preview.LatentPreviewMethod.NoPreviews)
    run(True, axes, shape=(1, tiny.CHANNELS, *space))
    # Sound has no picture, and shows the mask alone. ComfyUI skips some of many fast steps, but never the last one.
    assert sent
    assert {preview[1].size for preview in sent} == {size}
    assert np.asarray(sent[-1][1]).any()


def test_packed_latents_show_their_first_stream(sent: list[Any]):
    pytest.importorskip("comfy.nested_tensor")
    import test_streams

    sampler = nodes.SelectiveSigmaDetailerDebugNode.execute(tiny.sampler("euler"), live=True).args[0]
    callback = latent_preview.prepare_callback(test_streams.av(), 8)
    done = test_streams.sample(test_streams.av(), sampler, callback=callback)
    bare = nodes.SelectiveSigmaDetailerDebugNode.execute(tiny.sampler("euler")).args[0]
    assert test_streams.equal_streams(done, test_streams.sample(test_streams.av(), bare))
    *_, height, width = test_streams.SIZES[0]
    sizes = [preview[1].size for preview in sent]
    assert set(sizes) <= {(2 * width + 1, height), (width, height)}
    assert len(sizes) >= 2


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serve(tmp_path_factory.mktemp("comfyui"), options=["--preview-method", "auto"]) as running:
        yield running


async def previews(server: Server, prompt: dict[str, Any]) -> list[Image.Image]:
    """The previews that a browser gets while a prompt runs."""
    got: list[Image.Image] = []
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(f"{server.url}/ws?clientId=live", max_msg_size=0) as socket,
    ):
        body = {"prompt": prompt, "client_id": "live"}
        async with session.post(f"{server.url}/prompt", json=body) as answer:
            assert answer.status == 200, await answer.text()
        async for message in socket:
            if message.type == aiohttp.WSMsgType.BINARY:
                if int.from_bytes(message.data[:4], "big") == PREVIEW_IMAGE:
                    got.append(Image.open(io.BytesIO(message.data[8:])).convert("RGB"))
                continue
            event = json.loads(message.data)
            assert event["type"] != "execution_error", event
            if event["type"] == "execution_success":
                return got
    raise AssertionError("the server hung up")


@pytest.mark.compat("The preview of each step", "shows the mask beside the picture where asked to")
@pytest.mark.parametrize("on_model", [True, False], ids=["model", "sampler"])
def test_the_browser_gets_the_mask_beside_the_picture(server: Server, on_model: bool):
    def prompt(live: bool, seed: int) -> dict[str, Any]:
        demo = {name: ["1", i] for i, name in enumerate(("model", "positive", "negative", "vae", "latent_image"))}
        settings = {"strength": 0.2, "coverage": 0.5, "start": 0.2, "end": 1.0, "ema": 0.9}
        settings |= {"mask_clip_percentile": 0.2, "mask_override": "off", "every": 1, "live": live}
        graph = {"1": ("SelectiveSigmaDemoModelNode", {"image": ["0", 0], "family": "ve"})}
        graph["0"] = "EmptyImage", {"width": 96, "height": 64, "batch_size": 2, "color": 0x806040}
        inputs = {key: demo[key] for key in ("positive", "negative", "latent_image")} | {"cfg": 1.0}
        if on_model:
            graph["2"] = "SelectiveSigmaDetailerDebugNode", {**settings, "model": demo["model"]}
            inputs |= {"model": ["2", 2], "sampler_name": "euler", "scheduler": "karras", "steps": 6, "denoise": 1.0}
            graph["5"] = "KSampler", {**inputs, "seed": seed}
        else:
            graph["3"] = "KSamplerSelect", {"sampler_name": "euler"}
            graph["4"] = "KarrasScheduler", {"steps": 6, "sigma_max": 10.0, "sigma_min": 0.01, "rho": 7.0}
            graph["2"] = "SelectiveSigmaDetailerDebugNode", {**settings, "sampler": ["3", 0]}
            inputs |= {"model": demo["model"], "sampler": ["2", 0], "sigmas": ["4", 0], "add_noise": True}
            graph["5"] = "SamplerCustom", {**inputs, "noise_seed": seed}
        graph["6"] = "VAEDecode", {"samples": ["5", 0], "vae": demo["vae"]}
        graph["7"] = "PreviewImage", {"images": ["6", 0]}
        return {key: {"class_type": kind, "inputs": inputs} for key, (kind, inputs) in graph.items()}

    plain = asyncio.run(previews(server, prompt(False, 1)))
    with_mask = asyncio.run(previews(server, prompt(True, 1)))
    again = asyncio.run(previews(server, prompt(False, 2)))
    assert len(plain) == len(with_mask) == len(again) == 6
    assert {picture.size for picture in (*plain, *again)} == {(512, 341)}
    for alone, both in zip(plain, with_mask, strict=True):
        assert both.height == 341
        left = both.crop((0, 0, 512, 341))
        assert np.abs(np.asarray(left, float) - np.asarray(alone, float)).mean() < 2
        colours = np.asarray(both.crop((both.width - 500, 0, both.width, 341)), float)
        assert np.ptp(colours, -1).mean() < 2  # Grey, as the mask is.
    assert colours.std() > 5
