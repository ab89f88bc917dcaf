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


def checkpoint(g: Graph, positive: str = FISHERMAN, negative: str = "blurry, low quality") -> dict[str, Socket]:
    """SDXL and two prompts, at the left."""
    node = g.add(
        "CheckpointLoaderSimple",
        (0, 0, 340, 100),
        {"ckpt_name": "sd_xl_base_1.0.safetensors"},
        models=file(SDXL, "checkpoints"),
    )
    return {"model": out(node, "MODEL"), "vae": out(node, "VAE"), **prompts(g, out(node, "CLIP"), positive, negative)}


def prompts(g: Graph, clip: Socket, positive: str, negative: str) -> dict[str, Socket]:
    texts = {"positive": (positive, (390, 0, 360, 150)), "negative": (negative, (390, 200, 360, 110))}
    return {k: out(g.add("CLIPTextEncode", at, {"clip": clip, "text": text})) for k, (text, at) in texts.items()}


def empty(g: Graph, kind: str = "EmptyLatentImage", width: int = 1024, height: int = 1024, **more: int) -> Socket:
    given = {"width": width, "height": height, "batch_size": 1, **more}
    return out(g.add(kind, (0, 150, 340, 110 + 24 * len(more)), given))


def ksampler(g: Graph, at: tuple[int, int], given: Json, **more: Any) -> Socket:
    values = {"steps": 25, "cfg": 6.0, "sampler_name": "dpmpp_2m", "scheduler": "karras", "seed": 7, **given}
    return out(g.add("KSampler", (*at, 300, 270), values, **more))


def decode(g: Graph, at: tuple[int, int], latent: Socket, vae: Socket) -> Socket:
    return out(g.add("VAEDecode", (*at, 300, 50), {"samples": latent, "vae": vae}))


def save(g: Graph, place: tuple[int, int, int, int], images: Socket) -> None:
    g.add("SaveImage", place, {"images": images, "filename_prefix": "selective_sigma"})


def custom(
    g: Graph, parts: dict[str, Socket], at: tuple[int, int], sampler: Socket, sigmas: Socket, **more: Any
) -> Socket:
    given = {k: parts[k] for k in ("model", "positive", "negative")} | {"latent_image": parts["latent"]}
    given |= {"sampler": sampler, "sigmas": sigmas, "noise_seed": 7, "cfg": 6.0}
    return out(g.add("SamplerCustom", (*at, 300, 250), given, **more))


def choices(g: Graph, model: Socket) -> tuple[Socket, Socket]:
    """Sampler and noise levels."""
    sampler = g.add("KSamplerSelect", (0, 330, 340, 60), {"sampler_name": "dpmpp_2m"})
    given = {"model": model, "scheduler": "karras", "steps": 25}
    return out(sampler), out(g.add("BasicScheduler", (0, 440, 340, 110), given))
