"""What the templates have in common: checkpoints, prompts, samplers and pictures."""

from __future__ import annotations

from typing import Any

from template_graph import Graph, Json, Socket, out

HUB = "https://huggingface.co/"
SDXL = HUB + "stabilityai/stable-diffusion-xl-base-1.0/resolve/main/sd_xl_base_1.0.safetensors"
FISHERMAN = "an old fisherman in a knitted sweater mending a net, harbour at dawn, clear sky, soft light, photograph"


def download(url: str, folder: str) -> list[Json]:
    """The file that the frontend offers to download if it is missing."""
    return [{"name": url.rsplit("/", 1)[-1], "url": url, "directory": folder}]


LEFT, SECOND, THIRD, FOURTH = 0, 390, 800, 1150
"""The x of four columns. They leave room for what appears later: below a loader, the line that says that its file is
missing; below a sampler, the preview of its steps. Nothing stands below a sampler."""
DETAILER = 200
"""The height of the detailer nodes with their drawing."""
SAMPLER_NODE, MODEL_NODE = "SelectiveSigmaDetailerNode", "SelectiveSigmaDetailerModelNode"
PREVIEW = "SelectiveSigmaDetailerMaskPreviewNode"
DEMO = "SelectiveSigmaDemoModelNode"


def checkpoint(graph: Graph, positive: str = FISHERMAN, negative: str = "blurry, low quality") -> dict[str, Socket]:
    """SDXL and two prompts, in the left column."""
    node = graph.add(
        "CheckpointLoaderSimple",
        (LEFT, 0, 340, 100),
        {"ckpt_name": "sd_xl_base_1.0.safetensors"},
        models=download(SDXL, "checkpoints"),
    )
    return {
        "model": out(node, "MODEL"),
        "vae": out(node, "VAE"),
        **prompts(graph, out(node, "CLIP"), positive, negative),
    }


def prompts(graph: Graph, clip: Socket, positive: str, negative: str) -> dict[str, Socket]:
    values = {"clip": clip, "text": positive}
    first = graph.add("CLIPTextEncode", (SECOND, 0, 360, 150), values, title="Prompt")
    values = {"clip": clip, "text": negative}
    second = graph.add("CLIPTextEncode", (SECOND, 200, 360, 110), values, title="Negative prompt")
    return {"positive": out(first), "negative": out(second)}


def empty_latent(graph: Graph, kind: str = "EmptyLatentImage", y: int = 220, **more: int) -> Socket:
    values = {"width": 1024, "height": 1024, "batch_size": 1, **more}
    return out(graph.add(kind, (LEFT, y, 340, 110 + 24 * ("length" in more)), values))


def ksampler(graph: Graph, at: tuple[int, int], values: Json, **more: Any) -> Socket:
    values = {"steps": 25, "cfg": 6.0, "sampler_name": "dpmpp_2m", "scheduler": "karras", "seed": 7, **values}
    return out(graph.add("KSampler", (*at, 300, 270), values, **more))


def decode(graph: Graph, at: tuple[int, int], latent: Socket, vae: Socket, **more: Any) -> Socket:
    return out(graph.add("VAEDecode", (*at, 300, 60), {"samples": latent, "vae": vae}, **more))


def save(graph: Graph, place: tuple[int, int, int, int], images: Socket, **more: Any) -> None:
    graph.add("SaveImage", place, {"images": images, "filename_prefix": "selective_sigma"}, **more)


def preview_mask(graph: Graph, place: tuple[int, int, int, int], ours: Json, latent: Socket, picture: Socket) -> None:
    """The mask preview, with the mask laid over the picture."""
    values = {"mask_ref": out(ours, "mask_ref"), "latent": latent, "show": "average", "image": picture}
    graph.add(PREVIEW, place, values, title="Where the detail went")


def sampler_custom(
    graph: Graph, parts: dict[str, Socket], at: tuple[int, int], sampler: Socket, sigmas: Socket, **more: Any
) -> Socket:
    values = {name: parts[name] for name in ("model", "positive", "negative")} | {"latent_image": parts["latent"]}
    values |= {"sampler": sampler, "sigmas": sigmas, "noise_seed": more.pop("seed", 7), "cfg": 6.0}
    return out(graph.add("SamplerCustom", (*at, 300, 250), values, **more))


def sampler_and_sigmas(graph: Graph, model: Socket) -> tuple[Socket, Socket]:
    """The sampler and its noise levels, below checkpoint and latent."""
    sampler = graph.add("KSamplerSelect", (LEFT, 410, 340, 60), {"sampler_name": "dpmpp_2m"})
    values = {"model": model, "scheduler": "karras", "steps": 25}
    return out(sampler), out(graph.add("BasicScheduler", (LEFT, 530, 340, 120), values))


def loaders(graph: Graph, url: str, names: tuple[str, str, str], kind: str) -> list[Socket]:
    """Model, text encoder and VAE, each from a file of its own below one URL, in the left column."""
    folders = ("diffusion_models", "text_encoders", "vae")
    nodes = (
        ("UNETLoader", (LEFT, 0, 340, 90), "unet_name"),
        ("CLIPLoader", (LEFT, 210, 340, 120), "clip_name"),
        ("VAELoader", (LEFT, 450, 340, 60), "vae_name"),
    )
    sockets: list[Socket] = []
    for folder, name, (loader, place, widget) in zip(folders, names, nodes, strict=True):
        values = {widget: f"{name}.safetensors"} | ({"type": kind} if loader == "CLIPLoader" else {})
        sockets.append(
            out(graph.add(loader, place, values, models=download(f"{url}{folder}/{name}.safetensors", folder)))
        )
    return sockets


def two_runs(graph: Graph) -> tuple[Json, Socket, Socket, Socket]:
    """Two runs of the demo model: the detailer, the latent with detail, the plain picture and the one with detail."""
    demo = graph.add(DEMO, (LEFT, 0, 340, 200))
    parts = {name: out(demo, i) for i, name in enumerate(("model", "positive", "negative", "vae", "latent"))}
    values = {name: parts[name] for name in ("positive", "negative")} | {"latent_image": parts["latent"]}
    values |= {"steps": 20, "cfg": 1.0, "sampler_name": "euler", "scheduler": "karras"}
    ours = graph.add(MODEL_NODE, (LEFT, 260, 340, DETAILER), {"model": parts["model"]})
    plain = ksampler(graph, (SECOND, 0), {"model": parts["model"], **values}, title="Plain run")
    detailed = ksampler(graph, (740, 0), {"model": out(ours), **values}, title="Run with detail")
    left = decode(graph, (SECOND, 660), plain, parts["vae"], title="Decode plain")
    right = decode(graph, (740, 660), detailed, parts["vae"], title="Decode with detail")
    return ours, detailed, left, right
