"""Draws example_workflows/*.jpg and the pictures of the help on the embedded network, each another one. By hand:

python docs/thumbnails.py FOLDER [NUMBER ...]      FOLDER holds the held-out photographs; two minutes of CPU time
"""

from __future__ import annotations

import sys
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from PIL import Image, ImageDraw, ImageFont

from selective_sigma import Detailer, Prediction, Settings
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
"""Height and width of most drawings."""
PLAIN, OURS = Settings(strength=0.0), Settings(strength=STRENGTH)
NETWORK = load()
Pictures = dict[str, Image.Image]


def draw(photo: Tensor, settings: Settings = OURS, seed: int = 0) -> Image.Image:
    return image(redraw(NETWORK, thumbnail(photo, FACTOR), settings, STEPS, seed).picture)


@torch.inference_mode()
def draw_steps(photo: Tensor) -> dict[int, tuple[Image.Image, Image.Image]]:
    """By the number of each step that adds detail: what the network predicts there, and the mask."""
    small, sigmas = thumbnail(photo, FACTOR), noise_levels(STEPS)
    detailer = Detailer(OURS, sigmas, record=True)
    x = small + sigmas[0] * torch.randn(photo.shape, generator=torch.Generator().manual_seed(0))
    predicted: list[Image.Image] = []
    for sigma, following in pairwise(sigmas):
        denoised = detailer.step(lambda call: Prediction(NETWORK.denoise(call.x, call.sigma, small)), x, sigma).denoised
        x = denoised + (x - denoised) * following / sigma
        predicted.append(image(denoised))
    return {record.step + 1: (predicted[record.step], image(2 * record.mask - 1)) for record in detailer.masks}


def part(folder: Path, name: str, box: tuple[int, int, int, int], size: tuple[int, int] = SHAPE) -> Tensor:
    """A part (left, top, right, bottom) of a photograph in the folder, as (1, 3, height, width)."""
    return to_picture(cropped(open_photo(folder / f"budgie-{name}.jpg").crop(box), size))


def cover(picture: Image.Image, size: tuple[int, int] = SIZE) -> Image.Image:
    """The middle of a picture, scaled to fill ``size``."""
    scale = max(size[0] / picture.width, size[1] / picture.height)
    large = picture.convert("RGB").resize((round(picture.width * scale), round(picture.height * scale)))
    left, top = (large.width - size[0]) // 2, (large.height - size[1]) // 2
    return large.crop((left, top, left + size[0], top + size[1]))


def labelled(picture: Image.Image, text: str, right: bool = False, size: int = 24) -> Image.Image:
    """``text`` in the lower left corner, or the lower right one."""
    picture, font = picture.convert("RGB"), ImageFont.load_default(size=size)
    pen = ImageDraw.Draw(picture)
    wide, high = pen.textlength(text, font) + 16, size + 12
    left, top = picture.width - wide if right else 0, picture.height - high
    pen.rectangle([left, top, left + wide, picture.height], "#101012")
    pen.text((left + 8, top + high / 2), text, "#ebebeb", font, anchor="lm")
    return picture


def tiled(lines: list[list[Image.Image]], size: tuple[int, int] = SIZE) -> Image.Image:
    """Lines of pictures that fill ``size``, each cropped to its cell."""
    canvas = Image.new("RGB", size, "#101012")
    high = (size[1] + GAP) // len(lines)
    for i, line in enumerate(lines):
        wide = (size[0] + GAP) // len(line)
        for j, picture in enumerate(line):
            canvas.paste(cover(picture, (wide - GAP, high - GAP)), (j * wide, i * high))
    return canvas


def wiped(left: Image.Image, right: Image.Image) -> Image.Image:
    """Two pictures with the wipe in the middle."""
    halves = cover(right)
    halves.paste(cover(left).crop((0, 0, SIZE[0] // 2, SIZE[1])), (0, 0))
    pen = ImageDraw.Draw(halves)
    pen.line([(SIZE[0] // 2, 0), (SIZE[0] // 2, SIZE[1])], "white", 3)
    pen.ellipse([SIZE[0] // 2 - 12, SIZE[1] // 2 - 12, SIZE[0] // 2 + 12, SIZE[1] // 2 + 12], "white")
    return halves


def try_it(_: Path) -> Pictures:
    """Templates 01, 09 and 10 and the help: the photograph that the demo node brings."""
    wren = photograph("wren", 256)
    plain, sample = draw(wren, PLAIN), redraw(NETWORK, thumbnail(wren, FACTOR), OURS)
    ours, mask = image(sample.picture), image(2 * sample.mask - 1)
    three = [plain, ours, mask]
    tiled([three], (732, 240)).save(HELP, quality=85)
    steps = draw_steps(wren)
    last = sorted(steps)[-9:]
    tiled([list(steps[last[-3]])], (606, 300)).save(LIVE, quality=85)
    timeline = [labelled(cover(steps[i][1], (209, 156)), f"step {i}", size=18) for i in last]
    upper = [picture.crop((60, 20, 200, 195)) for picture in three]
    bird = [picture.crop((20, 20, 233, 180)) for picture in (plain, ours)]
    return {
        "01": labelled(labelled(wiped(*bird), "plain"), "with detail", right=True),
        "09": tiled([timeline[i : i + 3] for i in (0, 3, 6)]),
        "10": tiled(
            [[labelled(cover(p, (209, 480)), t) for p, t in zip(upper, ("plain", "detail", "mask"), strict=True)]]
        ),
    }


def before_and_after(folder: Path) -> Pictures:
    otter = part(folder, "oakland-zoo-otters", (560, 240, 1160, 690))
    names = {"before": PLAIN, "after": OURS}
    half = (317, 480)
    return {"02": tiled([[labelled(cover(draw(otter, s).crop((0, 0, 128, 192)), half), n) for n, s in names.items()]])}


def plain_ksampler(folder: Path) -> Pictures:
    arches = part(folder, "roman-colosseum", (400, 260, 1360, 980))
    return {"03": labelled(cover(draw(arches)), "detail with a plain KSampler")}


def grid_of_strengths(_: Path) -> Pictures:
    eye = photograph("chelsea", 256)[:, :, 48:128, 0:104]
    lines = [
        [
            labelled(cover(draw(eye, Settings(strength=s), seed), (209, 156)), f"{s:g}, seed {seed}", size=18)
            for s in (0.05, 0.1, 0.15)
        ]
        for seed in (7, 8, 9)
    ]
    return {"04": tiled(lines)}


def two_stages(folder: Path) -> Pictures:
    box = (330, 200, 1130, 800)
    second = labelled(cover(draw(part(folder, "perched-osprey", box))), "second stage, with detail", right=True)
    small = draw(part(folder, "perched-osprey", box, (96, 128)), PLAIN)
    first = labelled(cover(small, (256, 192)), "first stage", size=20)
    second.paste(first, (368, 16))
    ImageDraw.Draw(second).rectangle([367, 15, 624, 208], outline="white", width=2)
    return {"05": second}


def inpainting(folder: Path) -> Pictures:
    """Detail in the painted part alone, as the model node's mask does."""
    face = part(folder, "oakland-zoo-otters", (540, 260, 860, 500))
    whole = cover(draw(face, PLAIN))
    painted = Image.new("L", SIZE)
    ellipse = [30, 50, 390, 390]
    ImageDraw.Draw(painted).ellipse(ellipse, fill=255)
    whole.paste(cover(draw(face)), (0, 0), painted)
    ImageDraw.Draw(whole).ellipse(ellipse, outline="#ff8c2e", width=4)
    return {"06": labelled(whole, "painted: detail only here")}


def flow(_: Path) -> Pictures:
    pipe = open_pipeline("euler", flow=True)
    with detail(pipe, strength=STRENGTH):
        cup = pipe(thumbnail(photograph("coffee", SHAPE), FACTOR), num_inference_steps=8)
    return {"07": labelled(cover(image(2 * cup - 1)), "rectified flow, 8 steps")}


def video(folder: Path) -> Pictures:
    bird = draw(part(folder, "perched-osprey", (480, 120, 1320, 540), (192, 384)))
    film = Image.new("RGB", SIZE, "#101012")
    film.paste(tiled([[bird.crop((x, 0, x + 134, 192)) for x in (0, 40, 80)]], (640, 300)), (0, 90))
    pen = ImageDraw.Draw(film)
    for x in range(10, SIZE[0], 36):
        for y in (40, SIZE[1] - 62):
            pen.rounded_rectangle([x, y, x + 18, y + 22], 4, fill="#d8d8d8")
    return {"08": labelled(film, "one mask scale for the whole clip", size=20)}


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


def main(folder: Path, wanted: list[str]) -> None:
    for numbers, make in SUBJECTS.items():
        if not wanted or set(wanted) & set(numbers.split()):
            for number, picture in make(folder).items():
                (path,) = FOLDER.glob(f"{number} *.json")
                picture.save(path.with_suffix(".jpg"), quality=85)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
