"""What the templates have in common: checkpoint, prompts, samplers, pictures."""

from __future__ import annotations

from typing import Any

from template_graph import Graph, Json, Socket, out

HUB = "https://huggingface.co/"
SDXL = HUB + "stabilityai/stable-diffusion-xl-base-1.0/resolve/main/sd_xl_base_1.0.safetensors"
FISHERMAN = "an old fisherman in a knitted sweater mending a net, harbour at dawn, clear sky, soft light, photograph"


def file(url: str, folder: str) -> list[Json]:
    """What the frontend offers to download where the file is missing."""
    return [{"name": url.rsplit("/", 1)[-1], "url": url, "directory": folder}]


# Columns, which leave room for what grows: below a loader the line that says that its file is missing, below a
# sampler the preview of its steps. Nothing stands below a sampler.
LEFT, SECOND, THIRD, FOURTH = 0, 390, 800, 1150
DETAILER = 200
"""Height of the detailer nodes with their drawing."""
SAMPLER_NODE, MODEL_NODE = "SelectiveSigmaDetailerNode", "SelectiveSigmaDetailerModelNode"
PREVIEW = "SelectiveSigmaDetailerMaskPreviewNode"
DEMO = "SelectiveSigmaDemoModelNode"


def checkpoint(g: Graph, positive: str = FISHERMAN, negative: str = "blurry, low quality") -> dict[str, Socket]:
    """SDXL and two prompts, at the left."""
    node = g.add(
        "CheckpointLoaderSimple",
        (LEFT, 0, 340, 100),
        {"ckpt_name": "sd_xl_base_1.0.safetensors"},
        models=file(SDXL, "checkpoints"),
    )
    return {"model": out(node, "MODEL"), "vae": out(node, "VAE"), **prompts(g, out(node, "CLIP"), positive, negative)}


def prompts(g: Graph, clip: Socket, positive: str, negative: str) -> dict[str, Socket]:
    values = {"clip": clip, "text": positive}
    first = g.add("CLIPTextEncode", (SECOND, 0, 360, 150), values, title="Prompt")
    values = {"clip": clip, "text": negative}
    second = g.add("CLIPTextEncode", (SECOND, 200, 360, 110), values, title="Negative prompt")
    return {"positive": out(first), "negative": out(second)}


def empty(g: Graph, kind: str = "EmptyLatentImage", y: int = 220, **more: int) -> Socket:
    values = {"width": 1024, "height": 1024, "batch_size": 1, **more}
    return out(g.add(kind, (LEFT, y, 340, 110 + 24 * ("length" in more)), values))


def ksampler(g: Graph, at: tuple[int, int], values: Json, **more: Any) -> Socket:
    values = {"steps": 25, "cfg": 6.0, "sampler_name": "dpmpp_2m", "scheduler": "karras", "seed": 7, **values}
    return out(g.add("KSampler", (*at, 300, 270), values, **more))


def decode(g: Graph, at: tuple[int, int], latent: Socket, vae: Socket, **more: Any) -> Socket:
    return out(g.add("VAEDecode", (*at, 300, 60), {"samples": latent, "vae": vae}, **more))


def save(g: Graph, place: tuple[int, int, int, int], images: Socket, **more: Any) -> None:
    g.add("SaveImage", place, {"images": images, "filename_prefix": "selective_sigma"}, **more)


def where(g: Graph, place: tuple[int, int, int, int], ours: Json, latent: Socket, picture: Socket) -> None:
    """The mask, laid over the picture."""
    values = {"mask_ref": out(ours, "mask_ref"), "latent": latent, "show": "average", "image": picture}
    g.add(PREVIEW, place, values, title="Where the detail went")


def custom(
    g: Graph, parts: dict[str, Socket], at: tuple[int, int], sampler: Socket, sigmas: Socket, **more: Any
) -> Socket:
    values = {k: parts[k] for k in ("model", "positive", "negative")} | {"latent_image": parts["latent"]}
    values |= {"sampler": sampler, "sigmas": sigmas, "noise_seed": more.pop("seed", 7), "cfg": 6.0}
    return out(g.add("SamplerCustom", (*at, 300, 250), values, **more))


def choices(g: Graph, model: Socket) -> tuple[Socket, Socket]:
    """Sampler and noise levels, below checkpoint and latent."""
    sampler = g.add("KSamplerSelect", (LEFT, 410, 340, 60), {"sampler_name": "dpmpp_2m"})
    values = {"model": model, "scheduler": "karras", "steps": 25}
    return out(sampler), out(g.add("BasicScheduler", (LEFT, 530, 340, 120), values))


def loaders(g: Graph, url: str, names: tuple[str, str, str], kind: str) -> list[Socket]:
    """Model, text encoder and VAE from files of their own, below one address; at the left."""
    folders = ("diffusion_models", "text_encoders", "vae")
    nodes = (
        ("UNETLoader", (LEFT, 0, 340, 90), "unet_name"),
        ("CLIPLoader", (LEFT, 210, 340, 120), "clip_name"),
        ("VAELoader", (LEFT, 450, 340, 60), "vae_name"),
    )
    sockets: list[Socket] = []
    for folder, name, (loader, place, widget) in zip(folders, names, nodes, strict=True):
        values = {widget: f"{name}.safetensors"} | ({"type": kind} if loader == "CLIPLoader" else {})
        sockets.append(out(g.add(loader, place, values, models=file(f"{url}{folder}/{name}.safetensors", folder))))
    return sockets


def two_runs(g: Graph) -> tuple[Json, Socket, Socket, Socket]:
    """The demo model, plain and with detail: the detailer, its latent, and the two pictures."""
    made = g.add(DEMO, (LEFT, 0, 340, 200))
    parts = {name: out(made, i) for i, name in enumerate(("model", "positive", "negative", "vae", "latent"))}
    values = {k: parts[k] for k in ("positive", "negative")} | {"latent_image": parts["latent"]}
    values |= {"steps": 20, "cfg": 1.0, "sampler_name": "euler", "scheduler": "karras"}
    ours = g.add(MODEL_NODE, (LEFT, 260, 340, DETAILER), {"model": parts["model"]})
    plain = ksampler(g, (SECOND, 0), {"model": parts["model"], **values}, title="Plain run")
    detailed = ksampler(g, (740, 0), {"model": out(ours), **values}, title="Run with detail")
    left = decode(g, (SECOND, 660), plain, parts["vae"], title="Decode plain")
    right = decode(g, (740, 660), detailed, parts["vae"], title="Decode with detail")
    return ours, detailed, left, right
