"""A small LTX-2, with its own nodes in the server: picture and sound in one latent."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import checkpoints
import comfy.ops
import pytest
import safetensors.torch
import torch
from server_examples import PREVIEW, TEXT, pictures_of, serve

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from server_process import Server

av_model = pytest.importorskip("comfy.ldm.lightricks.av_model", reason="this ComfyUI has no LTX-2")
# The text embeddings are those of CLIP, 4096 wide, as LTX-2's connectors would return them.
SMALL = {"num_layers": 1, "num_attention_heads": 2, "attention_head_dim": 32, "cross_attention_dim": 64}
SMALL |= {"audio_num_attention_heads": 2, "audio_attention_head_dim": 32, "audio_cross_attention_dim": 64}
SMALL |= {"caption_channels": 2048, "connector_num_layers": 1}
SMALL |= {"connector_num_attention_heads": 1, "connector_attention_head_dim": 64}
VIDEO, SOUND = (1, 128, 2, 4, 6), (1, 8, 9, 16)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    base = tmp_path_factory.mktemp("comfyui")
    with torch.device("meta"):
        net = av_model.LTXAVModel(**SMALL, dtype=torch.float32, operations=comfy.ops.disable_weight_init)
    weights = {k: v.contiguous() for k, v in checkpoints.filled_weights(checkpoints.tensor_shapes(net)).items()}
    (base / "models/diffusion_models").mkdir(parents=True)
    config = json.dumps({"transformer": SMALL})
    path = base / "models/diffusion_models/tiny_ltx2.safetensors"
    safetensors.torch.save_file(weights, path, metadata={"config": config})
    with serve(base) as running:
        empty = {"latent_tensor": torch.zeros(SOUND), "latent_format_version_0": torch.tensor([])}
        safetensors.torch.save_file(empty, base / "input/sound.latent")
        yield running


def ltx_prompt(changed: dict[str, Any] | None) -> dict[str, Any]:
    """LTX-2's graph.

    Args:
        changed: settings of our node; None leaves it out.
    """
    settings = {"strength": 0.2, "coverage": 0.5, "start": 0.2, "end": 1.0, "ema": 0.9}
    settings |= {"mask_clip_percentile": 0.2, "mask_override": "off", "every": 1}
    size = {"width": VIDEO[4] * 32, "height": VIDEO[3] * 32, "length": VIDEO[2] * 8 - 7, "batch_size": 1}
    graph = {
        "unet": ("UNETLoader", {"unet_name": "tiny_ltx2.safetensors", "weight_dtype": "default"}),
        "clip": ("CLIPLoader", TEXT),
        "yes": ("CLIPTextEncode", {"clip": ["clip", 0], "text": "rain on a tin roof"}),
        "no": ("CLIPTextEncode", {"clip": ["clip", 0], "text": "blurry"}),
        "rate": ("LTXVConditioning", {"positive": ["yes", 0], "negative": ["no", 0], "frame_rate": 25.0}),
        "video": ("EmptyLTXVLatentVideo", size),
        "sound": ("LoadLatent", {"latent": "sound.latent"}),
        "both": ("LTXVConcatAVLatent", {"video_latent": ["video", 0], "audio_latent": ["sound", 0]}),
        "sampler": ("KSamplerSelect", {"sampler_name": "euler"}),
        "levels": (
            "LTXVScheduler",
            {
                "steps": 8,
                "max_shift": 2.05,
                "base_shift": 0.95,
                "stretch": True,
                "terminal": 0.1,
                "latent": ["both", 0],
            },
        ),
        "noise": ("RandomNoise", {"noise_seed": 7}),
        "ours": ("SelectiveSigmaDetailerDebugNode", {**settings, **(changed or {}), "model": ["unet", 0]}),
        "guider": (
            "CFGGuider",
            {"model": ["ours", 2], "positive": ["rate", 0], "negative": ["rate", 1], "cfg": 3.0},
        ),
        "run": (
            "SamplerCustomAdvanced",
            {"noise": ["noise", 0], "guider": ["guider", 0], "sampler": ["sampler", 0], "sigmas": ["levels", 0]}
            | {"latent_image": ["both", 0]},
        ),
        "parts": ("LTXVSeparateAVLatent", {"av_latent": ["run", 0]}),
        "one": ("SaveLatent", {"samples": ["parts", 0], "filename_prefix": "one"}),
        "two": ("SaveLatent", {"samples": ["parts", 1], "filename_prefix": "two"}),
        "shown": (PREVIEW, {"mask_ref": ["ours", 1], "latent": ["run", 0], "show": "timeline"}),
    }
    if changed is None:
        del graph["ours"], graph["shown"]
        graph["guider"][1]["model"] = ["unet", 0]
    return {name: {"class_type": kind, "inputs": inputs} for name, (kind, inputs) in graph.items()}


def saved_streams(base: Path, outputs: dict[str, Any]) -> list[torch.Tensor]:
    files = [outputs[name]["latents"][0]["filename"] for name in ("one", "two")]
    return [safetensors.torch.load_file(base / "output" / file)["latent_tensor"] for file in files]


@pytest.mark.compat("LTX-2 by its own nodes", "zeros is the bare run in picture and sound; both gain detail")
def test_the_graph_of_ltx_2(server: Server):
    base = server.log.parent
    bare = saved_streams(base, server.run(ltx_prompt(None)))
    assert [tuple(stream.shape) for stream in bare] == [VIDEO, SOUND]
    outputs = server.run(ltx_prompt({}))
    for ours, plain in zip(saved_streams(base, outputs), bare, strict=True):
        assert ours.isfinite().all()
        assert 1e-5 < float((ours - plain).norm() / plain.norm()) < 0.5
    # One sheet for each frame of the picture's mask.
    assert len(pictures_of(server, outputs, "shown")) == VIDEO[2]
    zeros = saved_streams(base, server.run(ltx_prompt({"mask_override": "zeros"})))
    assert all(torch.equal(a, b) for a, b in zip(zeros, bare, strict=True))
