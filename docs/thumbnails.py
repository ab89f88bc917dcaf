"""Draws example_workflows/*.jpg and the pictures of the help with the embedded network. No two show the same subject.

Run by hand: python docs/thumbnails.py FOLDER [NUMBER ...]

FOLDER holds the held-out photographs. All pictures take two minutes of CPU time.
"""

from __future__ import annotations

import sys
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from PIL import Image, ImageDraw, ImageFont

from selective_sigma import Call, Detailer, Prediction, Settings
from selective_sigma.demo.network import load
from selective_sigma.demo.photos import FACTOR, cropped, open_photo, photograph, thumbnail, to_picture
from selective_sigma.demo.pipeline import open_pipeline
from selective_sigma.demo.sample import noise_levels, redraw
from selective_sigma.demo.scene import image
from selective_sigma.diffusers import detail

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

FOLDER = Path(__file__).resolve().parents[1] / "example_workflows"
HELP = FOLDER.parent / "web/docs/plain-detail-mask.jpg"
LIVE = HELP.with_name("picture-and-mask.jpg")
STRENGTH, STEPS, GAP, SIZE = 0.1, 20, 6, (640, 480)
SHAPE = (192, 256)
"""Height and width of most drawings, in pixels."""
PLAIN, OURS = Settings(strength=0.0), Settings(strength=STRENGTH)
NETWORK = load()
Pictures = dict[str, Image.Image]


def draw(photo: Tensor, settings: Settings = OURS, seed: int = 0) -> Image.Image:
    return image(redraw(NETWORK, thumbnail(photo, FACTOR), settings, STEPS, seed).picture)


@torch.inference_mode()
def draw_steps(photo: Tensor) -> dict[int, tuple[Image.Image, Image.Image]]:
    """For each step that adds detail, by its number: the prediction of the network, and the mask."""
    enlarged, sigmas = thumbnail(photo, FACTOR), noise_levels(STEPS)
    detailer = Detailer(OURS, sigmas, record=True)
    x = enlarged + sigmas[0] * torch.randn(photo.shape, generator=torch.Generator().manual_seed(0))
    predictions: list[Image.Image] = []

    def evaluate(call: Call) -> Prediction:
        return Prediction(NETWORK.denoise(call.x, call.sigma, enlarged))

    for sigma, next_sigma in pairwise(sigmas):
        denoised = detailer.step(evaluate, x, sigma).denoised
        x = denoised + (x - denoised) * next_sigma / sigma
        predictions.append(image(denoised))
    return {record.step + 1: (predictions[record.step], image(2 * record.mask - 1)) for record in detailer.masks}


def part(folder: Path, name: str, box: tuple[int, int, int, int], size: tuple[int, int] = SHAPE) -> Tensor:
    """A part (left, top, right, bottom) of a photograph in the folder, as (1, 3, height, width)."""
    return to_picture(cropped(open_photo(folder / f"budgie-{name}.jpg").crop(box), size))


def cover(picture: Image.Image, size: tuple[int, int] = SIZE) -> Image.Image:
    """The middle of a picture, scaled to fill ``size``."""
    scale = max(size[0] / picture.width, size[1] / picture.height)
    scaled = picture.convert("RGB").resize((round(picture.width * scale), round(picture.height * scale)))
    left, top = (scaled.width - size[0]) // 2, (scaled.height - size[1]) // 2
    return scaled.crop((left, top, left + size[0], top + size[1]))


def labelled(picture: Image.Image, text: str, right: bool = False, size: int = 24) -> Image.Image:
    """The picture with ``text`` in its lower left corner, or in the lower right one."""
    picture, font = picture.convert("RGB"), ImageFont.load_default(size=size)
    pen = ImageDraw.Draw(picture)
    width, height = pen.textlength(text, font) + 16, size + 12
    left, top = picture.width - width if right else 0, picture.height - height
    pen.rectangle([left, top, left + width, picture.height], "#101012")
    pen.text((left + 8, top + height / 2), text, "#ebebeb", font, anchor="lm")
    return picture


def tiled(lines: list[list[Image.Image]], size: tuple[int, int] = SIZE) -> Image.Image:
    """Lines of pictures that fill ``size``, each cropped to its cell."""
    canvas = Image.new("RGB", size, "#101012")
    height = (size[1] + GAP) // len(lines)
    for row, line in enumerate(lines):
        width = (size[0] + GAP) // len(line)
        for column, picture in enumerate(line):
            canvas.paste(cover(picture, (width - GAP, height - GAP)), (column * width, row * height))
    return canvas


def wiped(left: Image.Image, right: Image.Image) -> Image.Image:
    """The left half of one picture and the right half of another, with the handle of a wipe between them."""
    picture = cover(right)
    picture.paste(cover(left).crop((0, 0, SIZE[0] // 2, SIZE[1])), (0, 0))
    pen = ImageDraw.Draw(picture)
    pen.line([(SIZE[0] // 2, 0), (SIZE[0] // 2, SIZE[1])], "white", 3)
    pen.ellipse([SIZE[0] // 2 - 12, SIZE[1] // 2 - 12, SIZE[0] // 2 + 12, SIZE[1] // 2 + 12], "white")
    return picture


def try_it(_: Path) -> Pictures:
    """Templates 01, 09 and 10, and the help: the photograph that comes with the demo node."""
    wren = photograph("wren", 256)
    plain, sample = draw(wren, PLAIN), redraw(NETWORK, thumbnail(wren, FACTOR), OURS)
    ours, mask = image(sample.picture), image(2 * sample.mask - 1)
    pictures = {"plain": plain, "detail": ours, "mask": mask}
    tiled([[*pictures.values()]], (732, 240)).save(HELP, quality=85)
    steps = draw_steps(wren)
    last_steps = sorted(steps)[-9:]
    tiled([list(steps[last_steps[-3]])], (606, 300)).save(LIVE, quality=85)
    timeline = [labelled(cover(steps[step][1], (209, 156)), f"step {step}", size=18) for step in last_steps]
    heads = {label: cover(picture.crop((60, 20, 200, 195)), (209, 480)) for label, picture in pictures.items()}
    bird = [picture.crop((20, 20, 233, 180)) for picture in (plain, ours)]
    return {
        "01": labelled(labelled(wiped(*bird), "plain"), "with detail", right=True),
        "09": tiled([timeline[i : i + 3] for i in (0, 3, 6)]),
        "10": tiled([[labelled(head, label) for label, head in heads.items()]]),
    }


def before_and_after(folder: Path) -> Pictures:
    otter = part(folder, "oakland-zoo-otters", (560, 240, 1160, 690))
    settings = {"before": PLAIN, "after": OURS}
    heads = {label: draw(otter, settings[label]).crop((0, 0, 128, 192)) for label in settings}
    return {"02": tiled([[labelled(cover(head, (317, 480)), label) for label, head in heads.items()]])}


def plain_ksampler(folder: Path) -> Pictures:
    arches = part(folder, "roman-colosseum", (400, 260, 1360, 980))
    return {"03": labelled(cover(draw(arches)), "detail with a plain KSampler")}


def grid_of_strengths(_: Path) -> Pictures:
    eye = photograph("chelsea", 256)[:, :, 48:128, 0:104]

    def cell(strength: float, seed: int) -> Image.Image:
        picture = draw(eye, Settings(strength=strength), seed)
        return labelled(cover(picture, (209, 156)), f"{strength:g}, seed {seed}", size=18)

    lines = [[cell(strength, seed) for strength in (0.05, 0.1, 0.15)] for seed in (7, 8, 9)]
    return {"04": tiled(lines)}


def two_stages(folder: Path) -> Pictures:
    box = (330, 200, 1130, 800)
    second = labelled(cover(draw(part(folder, "perched-osprey", box))), "second stage, with detail", right=True)
    first = draw(part(folder, "perched-osprey", box, (96, 128)), PLAIN)
    first = labelled(cover(first, (256, 192)), "first stage", size=20)
    second.paste(first, (368, 16))
    ImageDraw.Draw(second).rectangle([367, 15, 624, 208], outline="white", width=2)
    return {"05": second}


def inpainting(folder: Path) -> Pictures:
    """Detail only in the painted part, as with a mask on the model node."""
    face = part(folder, "oakland-zoo-otters", (540, 260, 860, 500))
    picture = cover(draw(face, PLAIN))
    painted = Image.new("L", SIZE)
    ellipse = [30, 50, 390, 390]
    ImageDraw.Draw(painted).ellipse(ellipse, fill=255)
    picture.paste(cover(draw(face)), (0, 0), painted)
    ImageDraw.Draw(picture).ellipse(ellipse, outline="#ff8c2e", width=4)
    return {"06": labelled(picture, "painted: detail only here")}


def flow(_: Path) -> Pictures:
    pipe = open_pipeline("euler", flow=True)
    with detail(pipe, strength=STRENGTH):
        cup = pipe(thumbnail(photograph("coffee", SHAPE), FACTOR), num_inference_steps=8)
    return {"07": labelled(cover(image(2 * cup - 1)), "rectified flow, 8 steps")}


def video(folder: Path) -> Pictures:
    bird = draw(part(folder, "perched-osprey", (480, 120, 1320, 540), (192, 384)))
    picture = Image.new("RGB", SIZE, "#101012")
    picture.paste(tiled([[bird.crop((x, 0, x + 134, 192)) for x in (0, 40, 80)]], (640, 300)), (0, 90))
    pen = ImageDraw.Draw(picture)
    for x in range(10, SIZE[0], 36):
        for y in (40, SIZE[1] - 62):
            pen.rounded_rectangle([x, y, x + 18, y + 22], 4, fill="#d8d8d8")
    return {"08": labelled(picture, "one mask scale for the whole clip", size=20)}


SUBJECTS: dict[str, Callable[[Path], Pictures]] = {
    "01 09 10": try_it,
    "02": before_and_after,
    "03": plain_ksampler,
    "04": grid_of_strengths,
    "05": two_stages,
    "06": inpainting,
    "07": flow,
    "08": video,
}


def main(folder: Path, chosen: list[str]) -> None:
    for numbers, draw_subject in SUBJECTS.items():
        if not chosen or set(chosen) & set(numbers.split()):
            for number, picture in draw_subject(folder).items():
                (path,) = FOLDER.glob(f"{number} *.json")
                picture.save(path.with_suffix(".jpg"), quality=85)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
