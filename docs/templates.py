"""Writes example_workflows/*.json. By hand, with the answer of a ComfyUI that has this pack:

curl http://127.0.0.1:8188/object_info > object_info.json && python docs/templates.py object_info.json
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from template_graph import Graph, out
from template_parts import FISHERMAN, HUB, checkpoint, choices, custom, decode, empty, file, ksampler, prompts, save

if TYPE_CHECKING:
    from collections.abc import Callable

FOLDER = Path(__file__).resolve().parents[1] / "example_workflows"
Z_IMAGE = HUB + "Comfy-Org/z_image_turbo/resolve/main/split_files/"
WAN = HUB + "Comfy-Org/Wan_2.1_ComfyUI_repackaged/resolve/main/split_files/"
LISTS = "0.33.0"
"""First ComfyUI here known to have Create List, Make Image Grid and Compare Images."""
SAMPLER_NODE, MODEL_NODE = "SelectiveSigmaDetailerNode", "SelectiveSigmaDetailerModelNode"
DEBUG, PREVIEW = "SelectiveSigmaDetailerDebugNode", "SelectiveSigmaDetailerMaskPreviewNode"
DEMO = "SelectiveSigmaDemoModelNode"
TEMPLATES: dict[str, tuple[Any, str]] = {}


def template(name: str, since: str = "0.3.64") -> Callable[[Any], Any]:
    def keep(make: Any) -> Any:
        TEMPLATES[name] = make, since
        return make

    return keep


@template("01 Try it without a checkpoint")
def demo(g: Graph) -> None:
    made = g.add(DEMO, (0, 0, 340, 150))
    parts = {name: out(made, i) for i, name in enumerate(("model", "positive", "negative", "vae", "latent"))}
    given = {k: parts[k] for k in ("positive", "negative")} | {"latent_image": parts["latent"]}
    given |= {"steps": 20, "cfg": 1.0, "sampler_name": "euler", "scheduler": "karras"}
    ours = g.add(MODEL_NODE, (0, 210, 340, 130), {"model": parts["model"], "strength": 0.2})
    plain = ksampler(g, (390, 0), {"model": parts["model"], **given}, title="Plain")
    detailed = ksampler(g, (390, 330), {"model": out(ours), **given}, title="With detail")
    left = decode(g, (390, 660), plain, parts["vae"])
    right = decode(g, (390, 760), detailed, parts["vae"])
    g.add("PreviewImage", (740, 0, 480, 400), {"images": left}, title="Plain")
    g.add("PreviewImage", (1250, 0, 480, 400), {"images": right}, title="With detail")
    where = {"mask_ref": out(ours, "mask_ref"), "latent": detailed}
    laid_over = {**where, "show": "average", "image": right}
    g.add(PREVIEW, (740, 460, 480, 500), laid_over, title="Where the detail went")
    g.add(PREVIEW, (1250, 460, 480, 500), {**where, "show": "timeline"}, title="Step by step")
    g.note(
        (0, 400, 340, 280),
        "1. Press **Run**. It takes half a minute without a GPU. A small network that comes with the pack sees a "
        "blurred, shrunken copy of a photograph and draws it anew, twice with the same seed.\n\n"
        "2. Change **strength** and **coverage**. At coverage 0.5 fur gains detail and the blurred background stays "
        "as it was; 1 shows what a lie told everywhere does to it.\n\n"
        "3. For a photograph of yours, connect *Load Image* to **image**: hair and sky, or a face and bokeh. Large "
        "ones take up to a minute.",
    )


@template("02 Before and after", LISTS)
def before(g: Graph) -> None:
    parts = checkpoint(g)
    parts["latent"] = empty(g)
    sampler, sigmas = choices(g, parts["model"])
    ours = g.add(SAMPLER_NODE, (390, 360, 360, 130), {"sampler": sampler})
    plain = decode(g, (800, 280), custom(g, parts, (800, 0), sampler, sigmas, title="Plain"), parts["vae"])
    latent = custom(g, parts, (800, 390), out(ours), sigmas, title="With detail")
    detailed = decode(g, (800, 670), latent, parts["vae"])
    g.add("ImageCompare", (1150, 0, 600, 640), {"image_a": plain, "image_b": detailed})
    save(g, (1150, 690, 600, 330), detailed)
    g.note(
        (390, 540, 360, 180),
        "Same seed twice. Move the mouse over the picture: left plain, right with detail. Look at hair and fabric, "
        "then at the sky, at 100 %.\n\nA grainy sky on *both* sides is your model's own.",
    )


@template("03 Plain KSampler")
def plain(g: Graph) -> None:
    parts = checkpoint(g)
    ours = g.add(MODEL_NODE, (390, 360, 360, 130), {"model": parts["model"]})
    given = {k: parts[k] for k in ("positive", "negative")} | {"model": out(ours), "latent_image": empty(g)}
    save(g, (1150, 0, 460, 530), decode(g, (800, 320), ksampler(g, (800, 0), given), parts["vae"]))
    g.note(
        (0, 330, 340, 200),
        "The model node goes last before the sampler, after LoRAs. It works with everything that samples with a "
        "MODEL: KSampler, KSampler (Advanced), FaceDetailer, upscalers. Use it or the sampler node, not both.",
    )


@template("04 Sweep", LISTS)
def sweep(g: Graph) -> None:
    parts = checkpoint(g)
    parts["latent"] = empty(g)
    sampler, sigmas = choices(g, parts["model"])
    lists = {}
    for i, (name, values) in enumerate({"strength": (0.1, 0.2, 0.3), "coverage": (0.3, 0.5, 1.0)}.items()):
        made = [
            g.add("PrimitiveFloat", (390 + 370 * i, 360 + 100 * k, 300, 60), {"value": value}, title=f"{name} {k + 1}")
            for k, value in enumerate(values)
        ]
        cells = [(row, column)[i] for row in range(3) for column in range(3)]
        given = {f"inputs.input{k}": out(made[cell]) for k, cell in enumerate(cells)}
        lists[name] = out(g.add("CreateList", (390 + 370 * i, 680, 300, 240), given, title=f"{name} of each picture"))
    ours = g.add(SAMPLER_NODE, (1130, 360, 300, 130), {"sampler": sampler, **lists})
    pictures = decode(g, (1130, 820), custom(g, parts, (1130, 530), out(ours), sigmas), parts["vae"])
    given = {"images": pictures, "columns": 3, "cell_width": 512, "cell_height": 512}
    save(g, (1480, 180, 760, 800), out(g.add("ImageGrid", (1480, 0, 300, 130), given)))
    g.note(
        (800, 0, 560, 190),
        "Nine pictures of one seed in one grid. Down: strength. Across: coverage. Change the six numbers; the lists "
        "repeat them for each cell.\n\nThe right column, coverage 1, is a lie told everywhere, as other packs do.",
    )


@template("05 Hires fix in two stages")
def hires(g: Graph) -> None:
    parts = checkpoint(g)
    both = {k: parts[k] for k in ("positive", "negative")}
    small = ksampler(g, (800, 0), {"model": parts["model"], "latent_image": empty(g), **both}, title="First stage")
    given = {"samples": small, "upscale_method": "bislerp", "scale_by": 1.5}
    large = out(g.add("LatentUpscaleBy", (800, 330, 300, 90), given))
    ours = g.add(MODEL_NODE, (390, 470, 360, 130), {"model": parts["model"]})
    second = {"model": out(ours), "latent_image": large, "denoise": 0.5, **both}
    latent = ksampler(g, (800, 470), second, title="Second stage, with detail")
    save(g, (1150, 0, 700, 740), decode(g, (800, 790), latent, parts["vae"]))
    g.note(
        (0, 330, 340, 300),
        "Composition in the first stage, detail in the second, where the picture has its final size.\n\nStart and end "
        "are counted in the model's own noise, so a stage at denoise 0.5 gets what the second half of a whole run "
        "gets. Connect the first stage to the model node as well if it should have detail too.",
    )


@template("06 Inpainting, face only")
def inpaint(g: Graph) -> None:
    parts = checkpoint(g, "portrait, detailed skin, sharp eyes, soft light, photograph")
    photo = g.add("LoadImage", (0, 150, 340, 380), {"image": "example.png"})
    mask = out(photo, "MASK")
    latent = out(g.add("VAEEncode", (390, 360, 360, 50), {"pixels": out(photo, "IMAGE"), "vae": parts["vae"]}))
    wider = out(g.add("GrowMask", (390, 460, 360, 90), {"mask": mask, "expand": 16}))
    limited = out(g.add("SetLatentNoiseMask", (390, 600, 360, 50), {"samples": latent, "mask": wider}))
    ours = g.add(MODEL_NODE, (390, 700, 360, 130), {"model": parts["model"], "mask": mask, "strength": 0.15})
    given = {k: parts[k] for k in ("positive", "negative")} | {"model": out(ours), "latent_image": limited}
    done = ksampler(g, (800, 0), {**given, "denoise": 0.45})
    save(g, (1150, 0, 600, 640), decode(g, (800, 320), done, parts["vae"]))
    g.note(
        (0, 580, 340, 260),
        "Load a picture, right-click it, *Open in Mask Editor*, paint the face.\n\nThe painted part, a little wider, "
        "is drawn anew; detail goes only inside the painted part itself. To redraw the face without adding detail, "
        "set strength 0.",
    )


@template("07 Flux-like (flow)", "0.3.75")
def flow(g: Graph) -> None:
    name = {"unet_name": "z_image_turbo_bf16.safetensors"}
    url = Z_IMAGE + "diffusion_models/z_image_turbo_bf16.safetensors"
    unet = g.add("UNETLoader", (0, 0, 340, 90), name, models=file(url, "diffusion_models"))
    url = Z_IMAGE + "text_encoders/qwen_3_4b.safetensors"
    given = {"clip_name": "qwen_3_4b.safetensors", "type": "lumina2"}
    clip = g.add("CLIPLoader", (0, 300, 340, 110), given, models=file(url, "text_encoders"))
    url = Z_IMAGE + "vae/ae.safetensors"
    vae = g.add("VAELoader", (0, 460, 340, 60), {"vae_name": "ae.safetensors"}, models=file(url, "vae"))
    text = out(g.add("CLIPTextEncode", (390, 0, 360, 150), {"clip": out(clip), "text": FISHERMAN}))
    zero = out(g.add("ConditioningZeroOut", (390, 200, 360, 30), {"conditioning": text}))
    shifted = g.add("ModelSamplingAuraFlow", (390, 280, 360, 60), {"model": out(unet), "shift": 3.0})
    ours = g.add(MODEL_NODE, (390, 390, 360, 130), {"model": out(shifted)})
    given = {"model": out(ours), "positive": text, "negative": zero, "latent_image": empty(g, "EmptySD3LatentImage")}
    given |= {"steps": 8, "cfg": 1.0, "sampler_name": "res_multistep", "scheduler": "simple"}
    save(g, (1150, 0, 600, 640), decode(g, (800, 320), ksampler(g, (800, 0), given), out(vae)))
    g.note(
        (800, 420, 300, 240),
        "Z-Image Turbo, 8 steps. Flux, SD3 and Qwen-Image are connected alike: load them, then the model node last.\n\n"
        "The same strength as on SDXL is right here; at 4 to 8 steps try up to twice as much. A value that you know "
        "from another pack is not: see the node's help.",
    )


@template("08 Video", LISTS)  # SaveVideo has its present form since then
def video(g: Graph) -> None:
    name = {"unet_name": "wan2.1_t2v_1.3B_fp16.safetensors"}
    url = WAN + "diffusion_models/wan2.1_t2v_1.3B_fp16.safetensors"
    unet = g.add("UNETLoader", (0, 0, 340, 90), name, models=file(url, "diffusion_models"))
    given = {"clip_name": "umt5_xxl_fp8_e4m3fn_scaled.safetensors", "type": "wan"}
    url = WAN + "text_encoders/umt5_xxl_fp8_e4m3fn_scaled.safetensors"
    clip = g.add("CLIPLoader", (0, 330, 340, 110), given, models=file(url, "text_encoders"))
    url = WAN + "vae/wan_2.1_vae.safetensors"
    vae = g.add("VAELoader", (0, 490, 340, 60), {"vae_name": "wan_2.1_vae.safetensors"}, models=file(url, "vae"))
    scene = "a fox in deep snow turns its head, fur in the wind, blurred forest behind, tracking camera"
    parts = prompts(g, out(clip), scene, "blurry, low quality, static, overexposed")
    shifted = g.add("ModelSamplingSD3", (390, 360, 360, 60), {"model": out(unet), "shift": 8.0})
    ours = g.add(MODEL_NODE, (390, 470, 360, 130), {"model": out(shifted)})
    latent = empty(g, "EmptyHunyuanLatentVideo", width=832, height=480, length=33)
    given = {"model": out(ours), "latent_image": latent, "steps": 30, "sampler_name": "euler", "scheduler": "simple"}
    frames = decode(g, (800, 320), ksampler(g, (800, 0), {**given, **parts}), out(vae))
    clip = g.add("CreateVideo", (800, 420, 300, 110), {"images": frames, "fps": 16.0})
    g.add("SaveVideo", (1150, 0, 670, 540), {"video": out(clip), "filename_prefix": "video/selective_sigma"})
    g.note(
        (0, 600, 340, 160),
        "Wan 2.1, 1.3B. One mask scale for the whole clip, so that detail does not flicker. An optional *mask* may be "
        "one picture for all frames or one for each.",
    )


@template("09 Mask timeline")
def timeline(g: Graph) -> None:
    parts = checkpoint(g)
    parts["latent"] = empty(g)
    sampler, sigmas = choices(g, parts["model"])
    ours = g.add(DEBUG, (390, 360, 360, 400), {"sampler": sampler})
    latent = custom(g, parts, (800, 0), out(ours, "sampler"), sigmas)
    picture = decode(g, (800, 300), latent, parts["vae"])
    given = {"mask_ref": out(ours, "mask_ref"), "latent": latent}
    g.add(PREVIEW, (1150, 0, 560, 800), {**given, "show": "timeline"}, title="Every step")
    over = {**given, "show": "average", "image": picture}
    g.add(PREVIEW, (1760, 430, 440, 480), over, title="Laid over the picture")
    save(g, (1760, 0, 440, 380), picture)
    g.note(
        (800, 400, 300, 230),
        "White receives detail, black is untouched. Hair and fabric should be bright, sky and blur dark.\n\n"
        "The preview takes the latent from the sampler and the picture from VAE Decode.",
    )


def main(path: str) -> None:
    info = json.loads(Path(path).read_text())
    for name, (make, since) in TEMPLATES.items():
        graph = Graph(name, info, since)
        make(graph)
        (FOLDER / f"{name}.json").write_text(json.dumps(graph.saved(), indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
