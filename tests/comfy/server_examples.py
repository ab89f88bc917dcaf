"""The workflows that the server tests run, made small, and the pictures that come out."""

from __future__ import annotations

import json
import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import checkpoints
import numpy as np
from comfyui_version import __version__
from PIL import Image
from server_graph import to_prompt
from server_process import REPOSITORY, Server

if TYPE_CHECKING:
    from collections.abc import Iterator

WORKFLOWS = sorted((REPOSITORY / "example_workflows").glob("*.json"))
TO_ONE_PICTURE = [path for path in WORKFLOWS if path.stem[:2] in ("02", "03", "05", "06", "07", "09")]
"""Those that end in one saved picture."""
INPAINTING, FLOW, VIDEO = (WORKFLOWS[i] for i in (5, 6, 7))
SWEEP = REPOSITORY / "example_workflows/04 Sweep.json"
KSAMPLER = REPOSITORY / "example_workflows/03 Plain KSampler.json"
TIMELINE = REPOSITORY / "example_workflows/09 Mask timeline.json"
RUNNING = tuple(int(part) for part in __version__.split(".")[:3])
"""This ComfyUI's version."""
PACK = Path(os.environ.get("SSD_PACK") or "~/comfy/ComfyUI-Selective-Sigma-Detailer").expanduser()
"""The first published pack, where somebody has cloned it."""
PEERS = PACK / "example_workflows"
STEPS = 7
SMALL: dict[str, dict[str, Any]] = {
    "CheckpointLoaderSimple": {"ckpt_name": "tiny_sd15.ckpt"},
    "EmptyLatentImage": {"width": 128, "height": 64},
    "BasicScheduler": {"steps": STEPS},
    "KSampler": {"steps": STEPS},
    # Of the published hires fix: a node of newer ComfyUI, given by what it puts out.
    "ResolutionSelector": {"0": 64, "1": 128},
    "SplitSigmas": {"step": STEPS // 2},
    "LoadImage": {"image": "painted.png"},
    # Z-Image's stand-in is SD3: both are flow models of 16 channels, and Z-Image's own width is fixed.
    "EmptySD3LatentImage": {"width": 128, "height": 64},
    "EmptyHunyuanLatentVideo": {"width": 64, "height": 32, "length": 9},
}
TEXT = {"clip_name": "tiny_clip_l.ckpt", "type": "sd3"}
"""As wide as SD3's and Wan's text."""
STAND_INS: dict[str, dict[str, Any]] = {
    FLOW.stem: {
        "UNETLoader": {"unet_name": "tiny_sd3.safetensors"},
        "CLIPLoader": TEXT,
        "VAELoader": {"vae_name": "tiny_vae_16.safetensors"},
    },
    VIDEO.stem: {
        "UNETLoader": {"unet_name": "tiny_wan.safetensors"},
        "CLIPLoader": TEXT,
        "VAELoader": {"vae_name": "tiny_vae_wan.safetensors"},
    },
}
PREVIEW = "SelectiveSigmaDetailerMaskPreviewNode"
DEBUG = "SelectiveSigmaDetailerDebugNode"


@contextmanager
def serve(base: Path, **given: Any) -> Iterator[Server]:
    """A server with the small checkpoints and a picture to load."""
    checkpoints.write(base / "models")
    (base / "input").mkdir()
    # As ComfyUI brings one.
    picture = Image.linear_gradient("L").resize((64, 64)).convert("RGBA")
    picture.save(base / "input/example.png")
    # As the mask editor leaves one: what is painted is transparent.
    picture.paste((0, 0, 0, 0), (24, 24, 40, 40))
    picture.save(base / "input/painted.png")
    with Server(base, **given) as running:
        yield running


def load(path: Path, nodes: dict[str, Any], **more: dict[str, Any]) -> dict[str, Any]:
    return to_prompt(json.loads(path.read_text()), nodes, {**SMALL, **STAND_INS.get(path.stem, {}), **more})


def of_type(prompt: dict[str, Any], kind: str) -> list[str]:
    return [name for name, node in prompt.items() if node["class_type"] == kind]


def pixels(server: Server, outputs: dict[str, Any], name: str) -> list[np.ndarray]:
    return [np.asarray(server.picture(shown)) / 255 for shown in outputs[name]["images"]]


def only(pictures: list[np.ndarray]) -> np.ndarray:
    assert len(pictures) == 1
    return pictures[0]


def version(path: Path) -> tuple[int, ...]:
    """The first ComfyUI that has all nodes of a workflow."""
    core = [node["properties"] for node in json.loads(path.read_text())["nodes"] if node["properties"]]
    return max(tuple(map(int, one["ver"].split("."))) for one in core if one["cnr_id"] == "comfy-core")


DEMO_MODEL = next(path for path in (WORKFLOWS[0], WORKFLOWS[-1]) if version(path) <= RUNNING)
"""The template without a checkpoint; older ComfyUI, which has no Compare Images, has one of its own."""
