"""Writes example_workflows/*.json. Run by hand, with the answer of a ComfyUI that has this pack:

curl http://127.0.0.1:8188/object_info > object_info.json && python docs/templates.py object_info.json
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from template_graph import Graph, out
from template_parts import (
    DETAILER,
    FISHERMAN,
    FOURTH,
    HUB,
    LEFT,
    MODEL_NODE,
    PREVIEW,
    SAMPLER_NODE,
    SECOND,
    THIRD,
    checkpoint,
    decode,
    empty_latent,
    ksampler,
    loaders,
    preview_mask,
    prompts,
    sampler_and_sigmas,
    sampler_custom,
    save,
    two_runs,
)

if TYPE_CHECKING:
    from collections.abc import Callable

FOLDER = Path(__file__).resolve().parents[1] / "example_workflows"
Z_IMAGE = HUB + "Comfy-Org/z_image_turbo/resolve/main/split_files/"
WAN = HUB + "Comfy-Org/Wan_2.1_ComfyUI_repackaged/resolve/main/split_files/"
LISTS_VERSION = "0.33.0"
"""The first version of ComfyUI that is known to have Create List, Make Image Grid and Compare Images."""
DEBUG = "SelectiveSigmaDetailerDebugNode"
TEMPLATES: dict[str, tuple[Any, str]] = {}


def template(name: str, since: str = "0.3.64") -> Callable[[Any], Any]:
    def register(build: Any) -> Any:
        TEMPLATES[name] = build, since
        return build

    return register


TRY_NOTE = (
    "1. Press **Run**. It takes half a minute without a GPU. A small network that comes with the pack sees a blurred, "
    "shrunken copy of a photograph and draws it anew, twice with the same seed.\n\n"
    "2. {look}\n\n"
    "3. Change **strength** and **coverage**; the drawing below them shows at which steps detail is added. At coverage "
    "0.5 the subject gains detail and the blurred background stays as it was; 1 shows what a lie told everywhere does "
    "to it.\n\n"
    "4. For a photograph of yours, connect *Load Image* to **image**: hair and sky, or a face and bokeh. Large ones "
    "take up to a minute."
)


@template("01 Try it without a checkpoint", LISTS_VERSION)
def demo(graph: Graph) -> None:
    ours, latent, left, right = two_runs(graph)
    graph.add("ImageCompare", (1090, 0, 560, 470), {"image_a": left, "image_b": right}, title="Plain, with detail")
    # The classic view has no wipe.
    graph.add("PreviewImage", (1700, 0, 420, 470), {"images": left}, title="Plain")
    save(graph, (2170, 0, 420, 470), right, title="With detail")
    preview_mask(graph, (1090, 530, 560, 560), ours, latent, right)
    inputs = {"mask_ref": out(ours, "mask_ref"), "latent": latent, "show": "timeline", "image": right}
    graph.add(PREVIEW, (1700, 530, 560, 560), inputs, title="Step by step")
    look = (
        "Move the mouse over the large picture: left of the line plain, right of it with detail (Nodes 2.0; in the "
        "classic view compare the two beside it)."
    )
    graph.note((LEFT, 520, 340), TRY_NOTE.format(look=look))


@template("02 Before and after", LISTS_VERSION)
def before(graph: Graph) -> None:
    parts = checkpoint(graph)
    parts["latent"] = empty_latent(graph)
    sampler, sigmas = sampler_and_sigmas(graph, parts["model"])
    ours = graph.add(SAMPLER_NODE, (SECOND, 370, 360, DETAILER), {"sampler": sampler})
    latent = sampler_custom(graph, parts, (THIRD, 0), sampler, sigmas, title="Plain")
    plain = decode(graph, (THIRD, 660), latent, parts["vae"], title="Decode plain")
    latent = sampler_custom(graph, parts, (FOURTH, 0), out(ours), sigmas, title="With detail")
    detailed = decode(graph, (FOURTH, 660), latent, parts["vae"], title="Decode with detail")
    graph.add("ImageCompare", (1500, 0, 700, 750), {"image_a": plain, "image_b": detailed}, title="Plain, with detail")
    graph.add("PreviewImage", (2250, 0, 420, 340), {"images": plain}, title="Plain picture")
    save(graph, (2250, 400, 420, 350), detailed, title="Picture with detail")
    graph.note(
        (SECOND, 630, 360),
        "Same seed twice. Move the mouse over the large picture: left of the line plain, right of it with detail "
        "(Nodes 2.0; in the classic view compare the two beside it). Look at hair and fabric, then at the sky, at "
        "100 %.\n\nA grainy sky on *both* sides is your model's own.",
    )


@template("03 Plain KSampler")
def plain(graph: Graph) -> None:
    parts = checkpoint(graph)
    ours = graph.add(MODEL_NODE, (SECOND, 370, 360, DETAILER), {"model": parts["model"]})
    inputs = {name: parts[name] for name in ("positive", "negative")} | {
        "model": out(ours),
        "latent_image": empty_latent(graph),
    }
    latent = ksampler(graph, (THIRD, 0), inputs)
    picture = decode(graph, (FOURTH, 0), latent, parts["vae"])
    save(graph, (FOURTH, 120, 480, 570), picture)
    preview_mask(graph, (1680, 0, 480, 690), ours, latent, picture)
    graph.note(
        (LEFT, 410, 340),
        "The model node goes last before the sampler, after LoRAs. It works with everything that samples with a "
        "MODEL: KSampler, KSampler (Advanced), FaceDetailer, upscalers. Use it or the sampler node, not both.",
    )


@template("04 Sweep", LISTS_VERSION)
def sweep(graph: Graph) -> None:
    parts = checkpoint(graph)
    parts["latent"] = empty_latent(graph)
    sampler, sigmas = sampler_and_sigmas(graph, parts["model"])
    ours = [
        graph.add(SAMPLER_NODE, (x, 660, 300, DETAILER), {"sampler": sampler, "strength": strength}, title=title)
        for x, strength, title in (
            (THIRD, 0.05, "First strength"),
            (1140, 0.1, "Second strength"),
            (1480, 0.15, "Third strength"),
        )
    ]
    inputs = {f"inputs.input{i}": out(detailer) for i, detailer in enumerate(ours)}
    sampler_list = out(graph.add("CreateList", (THIRD, 930, 300, 120), inputs, title="Strengths"))
    runs = [
        sampler_custom(graph, parts, (THIRD + 340 * i, 0), sampler_list, sigmas, seed=seed, title=f"Seed {seed}")
        for i, seed in enumerate((7, 8, 9))
    ]
    inputs = {f"inputs.input{i}": run for i, run in enumerate(runs)}
    latents = graph.add("CreateList", (1140, 930, 300, 120), inputs, title="All nine")
    pictures = decode(graph, (1480, 930), out(latents), parts["vae"])
    inputs = {"images": pictures, "columns": 3, "cell_width": 512, "cell_height": 512}
    save(graph, (1840, 0, 760, 850), out(graph.add("ImageGrid", (1840, 930, 300, 140), inputs)))
    graph.note(
        (SECOND, 370, 360),
        "Nine pictures in one grid. Across: three strengths. Down: three seeds.\n\n*Create List* makes one list of the "
        "three samplers with detail, and each node after it works through the list by itself. For a fourth strength "
        "copy a detailer, connect it to *Strengths*, and set *columns* to 4.\n\nTo compare coverages instead, give the "
        "three one strength and different coverages.",
    )


@template("05 Hires fix in two stages")
def hires(graph: Graph) -> None:
    parts = checkpoint(graph)
    both_prompts = {name: parts[name] for name in ("positive", "negative")}
    small = ksampler(
        graph,
        (THIRD, 0),
        {"model": parts["model"], "latent_image": empty_latent(graph), **both_prompts},
        title="First stage",
    )
    inputs = {"samples": small, "upscale_method": "bislerp", "scale_by": 1.5}
    large = out(graph.add("LatentUpscaleBy", (SECOND, 630, 360, 90), inputs))
    ours = graph.add(MODEL_NODE, (SECOND, 370, 360, DETAILER), {"model": parts["model"]})
    second = {"model": out(ours), "latent_image": large, "denoise": 0.5, **both_prompts}
    latent = ksampler(graph, (FOURTH, 0), second, title="Second stage, with detail")
    picture = decode(graph, (1500, 0), latent, parts["vae"])
    save(graph, (1500, 120, 600, 690), picture)
    preview_mask(graph, (2150, 0, 600, 810), ours, latent, picture)
    graph.note(
        (LEFT, 410, 340),
        "Composition in the first stage, detail in the second, where the picture has its final size.\n\nStart and end "
        "are counted in the model's own noise, so a stage at denoise 0.5 gets what the second half of a whole run "
        "gets. Connect the first stage to the model node as well if it should have detail too.",
    )


@template("06 Inpainting, face only")
def inpaint(graph: Graph) -> None:
    parts = checkpoint(graph, "portrait, detailed skin, sharp eyes, soft light, photograph")
    photo = graph.add("LoadImage", (LEFT, 220, 340, 380), {"image": "example.png"})
    mask = out(photo, "MASK")
    latent = out(graph.add("VAEEncode", (SECOND, 370, 360, 60), {"pixels": out(photo, "IMAGE"), "vae": parts["vae"]}))
    wider = out(graph.add("GrowMask", (SECOND, 490, 360, 90), {"mask": mask, "expand": 16}))
    limited = out(graph.add("SetLatentNoiseMask", (SECOND, 640, 360, 60), {"samples": latent, "mask": wider}))
    ours = graph.add(MODEL_NODE, (SECOND, 760, 360, DETAILER), {"model": parts["model"], "mask": mask})
    inputs = {name: parts[name] for name in ("positive", "negative")} | {"model": out(ours), "latent_image": limited}
    latent = ksampler(graph, (THIRD, 0), {**inputs, "denoise": 0.45})
    picture = decode(graph, (FOURTH, 0), latent, parts["vae"])
    save(graph, (FOURTH, 120, 600, 690), picture)
    preview_mask(graph, (1800, 0, 600, 810), ours, latent, picture)
    graph.note(
        (LEFT, 660, 340),
        "Load a picture, right-click it, *Open in Mask Editor*, paint the face.\n\nThe painted part, a little wider, "
        "is drawn anew; detail goes only inside the painted part itself. To redraw the face without adding detail, "
        "set strength 0.",
    )


@template("07 Flux-like (flow)", "0.3.75")
def flow(graph: Graph) -> None:
    unet, clip, vae = loaders(graph, Z_IMAGE, ("z_image_turbo_bf16", "qwen_3_4b", "ae"), "lumina2")
    inputs = {"clip": clip, "text": FISHERMAN}
    text = out(graph.add("CLIPTextEncode", (SECOND, 0, 360, 150), inputs, title="Prompt"))
    zero = out(graph.add("ConditioningZeroOut", (SECOND, 200, 360, 40), {"conditioning": text}))
    shifted = graph.add("ModelSamplingAuraFlow", (SECOND, 300, 360, 60), {"model": unet, "shift": 3.0})
    ours = graph.add(MODEL_NODE, (SECOND, 420, 360, DETAILER), {"model": out(shifted)})
    latent = empty_latent(graph, "EmptySD3LatentImage", 630)
    inputs = {"model": out(ours), "positive": text, "negative": zero, "latent_image": latent}
    inputs |= {"steps": 8, "cfg": 1.0, "sampler_name": "res_multistep", "scheduler": "simple"}
    latent = ksampler(graph, (THIRD, 0), inputs)
    picture = decode(graph, (FOURTH, 0), latent, vae)
    save(graph, (FOURTH, 120, 600, 690), picture)
    preview_mask(graph, (1800, 0, 600, 810), ours, latent, picture)
    graph.note(
        (SECOND, 680, 360),
        "Z-Image Turbo, 8 steps. Flux, SD3 and Qwen-Image are connected alike: load them, then the model node last.\n\n"
        "The same strength as on SDXL is right here; at 4 steps try up to twice as much. A value that you know "
        "from another pack is not: see the node's help.",
    )


@template("08 Video", LISTS_VERSION)  # SaveVideo has its present form since then
def video(graph: Graph) -> None:
    files = ("wan2.1_t2v_1.3B_fp16", "umt5_xxl_fp8_e4m3fn_scaled", "wan_2.1_vae")
    unet, clip, vae = loaders(graph, WAN, files, "wan")
    scene = "a fox in deep snow turns its head, fur in the wind, blurred forest behind, tracking camera"
    parts = prompts(graph, clip, scene, "blurry, low quality, static, overexposed")
    shifted = graph.add("ModelSamplingSD3", (SECOND, 370, 360, 60), {"model": unet, "shift": 8.0})
    ours = graph.add(MODEL_NODE, (SECOND, 490, 360, DETAILER), {"model": out(shifted)})
    latent = empty_latent(graph, "EmptyHunyuanLatentVideo", 630, width=832, height=480, length=33)
    inputs = {"model": out(ours), "latent_image": latent, "steps": 30, "sampler_name": "euler", "scheduler": "simple"}
    latent = ksampler(graph, (THIRD, 0), {**inputs, **parts})
    frames = decode(graph, (FOURTH, 0), latent, vae)
    clip = graph.add("CreateVideo", (FOURTH, 120, 300, 110), {"images": frames, "fps": 16.0})
    graph.add("SaveVideo", (1500, 0, 670, 560), {"video": out(clip), "filename_prefix": "video/selective_sigma"})
    preview_mask(graph, (2220, 0, 600, 560), ours, latent, frames)
    graph.note(
        (SECOND, 750, 360),
        "Wan 2.1, 1.3B. One mask scale for the whole clip, so that detail does not flicker. An optional *mask* may be "
        "one picture for all frames or one for each.",
    )


@template("09 Mask timeline")
def timeline(graph: Graph) -> None:
    parts = checkpoint(graph)
    parts["latent"] = empty_latent(graph)
    sampler, sigmas = sampler_and_sigmas(graph, parts["model"])
    ours = graph.add(DEBUG, (SECOND, 370, 360, 440), {"sampler": sampler})
    latent = sampler_custom(graph, parts, (THIRD, 0), out(ours, "sampler"), sigmas)
    picture = decode(graph, (THIRD, 660), latent, parts["vae"])
    inputs = {"mask_ref": out(ours, "mask_ref"), "latent": latent}
    graph.add(PREVIEW, (FOURTH, 0, 560, 830), {**inputs, "show": "timeline"}, title="Every step")
    save(graph, (1760, 0, 440, 380), picture)
    preview_mask(graph, (1760, 450, 440, 480), ours, latent, picture)
    graph.note(
        (LEFT, 720, 340),
        "White receives detail, black is untouched. Hair and fabric should be bright, sky and blur dark.\n\n"
        "The preview takes the latent from the sampler and the picture from VAE Decode.",
    )


@template("10 Try it on older ComfyUI")
def demo_without_compare(graph: Graph) -> None:
    """Template 01 for versions of ComfyUI without Compare Images."""
    ours, latent, left, right = two_runs(graph)
    graph.add("PreviewImage", (1090, 0, 480, 440), {"images": left}, title="Plain")
    save(graph, (1620, 0, 480, 440), right, title="With detail")
    preview_mask(graph, (1090, 500, 480, 560), ours, latent, right)
    inputs = {"mask_ref": out(ours, "mask_ref"), "latent": latent, "show": "timeline", "image": right}
    graph.add(PREVIEW, (1620, 500, 480, 560), inputs, title="Step by step")
    graph.note((LEFT, 520, 340), TRY_NOTE.format(look="Compare the two pictures at the right: plain, and with detail."))


def main(path: str) -> None:
    info = json.loads(Path(path).read_text())
    for name, (build, since) in TEMPLATES.items():
        graph = Graph(name, info, since)
        build(graph)
        (FOLDER / f"{name}.json").write_text(json.dumps(graph.saved(), indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
