"""The workflows of the server tests, with small models and sizes, and their pictures."""

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
"""Workflows with one SaveImage node, of one picture."""
INPAINTING, FLOW, VIDEO = (WORKFLOWS[i] for i in (5, 6, 7))
SWEEP = REPOSITORY / "example_workflows/04 Sweep.json"
KSAMPLER = REPOSITORY / "example_workflows/03 Plain KSampler.json"
TIMELINE = REPOSITORY / "example_workflows/09 Mask timeline.json"
RUNNING = tuple(int(part) for part in __version__.split(".")[:3])
"""This ComfyUI's version."""
PACK = Path(os.environ.get("SSD_PACK") or "~/comfy/ComfyUI-Selective-Sigma-Detailer").expanduser()
"""The first published pack, if it is cloned here."""
PUBLISHED_WORKFLOWS = PACK / "example_workflows"
STEPS = 7
SMALL: dict[str, dict[str, Any]] = {
    "CheckpointLoaderSimple": {"ckpt_name": "tiny_sd15.ckpt"},
    "EmptyLatentImage": {"width": 128, "height": 64},
    "BasicScheduler": {"steps": STEPS},
    "KSampler": {"steps": STEPS},
    # In the published hires fix. Older versions of ComfyUI lack this node, in place of which its outputs are used.
    "ResolutionSelector": {"0": 64, "1": 128},
    "SplitSigmas": {"step": STEPS // 2},
    "LoadImage": {"image": "painted.png"},
    # SD3 in place of Z-Image, whose width is fixed. Both are flow models of 16 channels.
    "EmptySD3LatentImage": {"width": 128, "height": 64},
    "EmptyHunyuanLatentVideo": {"width": 64, "height": 32, "length": 9},
}
TEXT = {"clip_name": "tiny_clip_l.ckpt", "type": "sd3"}
"""Its embeddings are as wide as those of SD3 and Wan."""
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
def serve(base: Path, **options: Any) -> Iterator[Server]:
    """A server with the small checkpoints and a picture to load."""
    checkpoints.write_checkpoints(base / "models")
    (base / "input").mkdir()
    # In place of the one that comes with ComfyUI.
    picture = Image.linear_gradient("L").resize((64, 64)).convert("RGBA")
    picture.save(base / "input/example.png")
    # As from the mask editor: painted parts are transparent.
    picture.paste((0, 0, 0, 0), (24, 24, 40, 40))
    picture.save(base / "input/painted.png")
    with Server(base, **options) as running:
        yield running


def load_prompt(path: Path, nodes: dict[str, Any], **more: dict[str, Any]) -> dict[str, Any]:
    return to_prompt(json.loads(path.read_text()), nodes, {**SMALL, **STAND_INS.get(path.stem, {}), **more})


def of_type(prompt: dict[str, Any], kind: str) -> list[str]:
    return [name for name, node in prompt.items() if node["class_type"] == kind]


def pictures_of(server: Server, outputs: dict[str, Any], name: str) -> list[np.ndarray]:
    return [np.asarray(server.picture(entry)) / 255 for entry in outputs[name]["images"]]


def only(pictures: list[np.ndarray]) -> np.ndarray:
    assert len(pictures) == 1
    return pictures[0]


def version(path: Path) -> tuple[int, ...]:
    """The first ComfyUI that has all nodes of a workflow."""
    core = [node["properties"] for node in json.loads(path.read_text())["nodes"] if node["properties"]]
    return max(tuple(map(int, one["ver"].split("."))) for one in core if one["cnr_id"] == "comfy-core")


DEMO_MODEL = next(path for path in (WORKFLOWS[0], WORKFLOWS[-1]) if version(path) <= RUNNING)
"""The template without a checkpoint. There is one without Compare Images, for older versions of ComfyUI."""
