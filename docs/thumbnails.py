"""Draws example_workflows/*.jpg and the pictures of the help on the embedded network: no shrunken graphs. By hand:

python docs/thumbnails.py        (about four minutes on two CPU cores; needs scikit-image)
"""

from __future__ import annotations

import sys
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from PIL import Image, ImageDraw

from selective_sigma import Detailer, Prediction, Settings
from selective_sigma.demo.network import SIGMA_MAX, SIGMA_MIN, load
from selective_sigma.demo.photos import photograph, thumbnail

if TYPE_CHECKING:
    from torch import Tensor

FOLDER = Path(__file__).resolve().parents[1] / "example_workflows"
HELP = FOLDER.parent / "web/docs/plain-detail-mask.jpg"
LIVE = HELP.with_name("picture-and-mask.jpg")
STEPS, STRENGTH, GAP = 20, 0.1, 6
WIDE = (640, 480)
NETWORK = load(Path(sys.argv[1])) if len(sys.argv) > 1 else load()


@torch.no_grad()
def draw(
    photo: Tensor, strength: float = STRENGTH, coverage: float = 0.5, steps: int = STEPS, seed: int = 0
) -> tuple[Tensor, list[Tensor]]:
    """The photograph (1, 3, h, w) drawn anew, or what it is at after ``steps``, and the masks of the run."""
    share = torch.linspace(0, 1, STEPS)
    levels = (SIGMA_MAX ** (1 / 7) + share * (SIGMA_MIN ** (1 / 7) - SIGMA_MAX ** (1 / 7))) ** 7
    sigmas = torch.cat([levels, torch.zeros(1)])
    small = thumbnail(photo)
    x = sigmas[0] * torch.randn(photo.shape, generator=torch.Generator().manual_seed(seed))
    detailer = Detailer(Settings(strength, coverage), sigmas, record=True)
    for sigma, following in list(pairwise(sigmas))[:steps]:
        denoised = detailer.step(lambda call: Prediction(NETWORK.denoise(call.x, call.sigma, small)), x, sigma).denoised
        x = denoised + (x - denoised) * following / sigma
    return x if steps == STEPS else denoised, [record.mask for record in detailer.masks]


def picture(values: Tensor) -> Image.Image:
    """(1, 3 or 1, h, w) in [-1, 1] as a picture."""
    pixels = ((values[0].clamp(-1, 1) + 1) * 127.5).round().byte().expand(3, -1, -1)
    return Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy())


def row(pictures: list[Image.Image], size: tuple[int, int]) -> Image.Image:
    """Side by side, each cropped and scaled to ``size``."""
    sheet = Image.new("RGB", (len(pictures) * (size[0] + GAP) - GAP, size[1]))
    for i, one in enumerate(pictures):
        sheet.paste(cover(one, size), (i * (size[0] + GAP), 0))
    return sheet


def cover(one: Image.Image, size: tuple[int, int]) -> Image.Image:
    scale = max(size[0] / one.width, size[1] / one.height)
    large = one.resize((round(one.width * scale), round(one.height * scale)), Image.Resampling.LANCZOS)
    left, top = (large.width - size[0]) // 2, (large.height - size[1]) // 2
    return large.crop((left, top, left + size[0], top + size[1]))


def wiped(left: Image.Image, right: Image.Image) -> Image.Image:
    """Two pictures with the wipe in the middle."""
    halves = cover(right, WIDE)
    halves.paste(cover(left, WIDE).crop((0, 0, WIDE[0] // 2, WIDE[1])), (0, 0))
    pen = ImageDraw.Draw(halves)
    pen.line([(WIDE[0] // 2, 0), (WIDE[0] // 2, WIDE[1])], "white", 3)
    pen.ellipse([WIDE[0] // 2 - 12, WIDE[1] // 2 - 12, WIDE[0] // 2 + 12, WIDE[1] // 2 + 12], "white")
    return halves


def keep(name: str, one: Image.Image) -> None:
    (path,) = FOLDER.glob(f"{name} *.json")
    one.save(path.with_suffix(".jpg"), quality=85)


def main() -> None:
    cat, face = photograph("chelsea", 256), photograph("astronaut", 512)[:, :, :192, 80:336]
    (plain, _), (ours, masks) = draw(cat, 0.0), draw(cat)
    mean = 2 * torch.stack(masks).mean(0) - 1
    left, right, where = picture(plain), picture(ours), picture(mean)
    keep("10", row([left, right, where], (210, 480)))
    row([left, right, where], (240, 240)).save(HELP, quality=85)
    so_far, live = draw(cat, steps=14)
    row([picture(so_far), picture(2 * live[-1] - 1)], (300, 300)).save(LIVE, quality=85)
    keep("01", wiped(left, right))
    coffee = photograph("coffee", (192, 256))
    cup, of_cup = draw(coffee)
    keep("02", wiped(picture(draw(coffee, 0.0)[0]), picture(cup)))
    keep("03", cover(right, WIDE))
    part = cat[:, :, 48:208, 32:192]
    sheet = Image.new("RGB", (WIDE[0], WIDE[1]))
    for i in range(3):
        line = row([picture(draw(part, strength, seed=i)[0]) for strength in (0.05, 0.1, 0.15)], (210, 156))
        sheet.paste(line, (0, i * (156 + GAP)))
    keep("04", sheet)
    stages = cover(right, WIDE)
    stages.paste(left.resize((200, 200)), (16, WIDE[1] - 216))
    ImageDraw.Draw(stages).rectangle([15, WIDE[1] - 217, 216, WIDE[1] - 16], outline="white", width=2)
    keep("05", stages)
    painted = cover(picture(face), WIDE)
    ImageDraw.Draw(painted).ellipse([250, 90, 450, 460], outline="#ff8c2e", width=4)
    keep("06", painted)
    keep("07", cover(picture(cup), WIDE))
    film = Image.new("RGB", WIDE, "#101012")
    film.paste(row([right.crop((x, 40, x + 150, 190)) for x in (0, 50, 100)], (209, 300)), (0, 90))
    for x in range(10, WIDE[0], 36):
        for y in (40, WIDE[1] - 62):
            ImageDraw.Draw(film).rounded_rectangle([x, y, x + 18, y + 22], 4, fill="#d8d8d8")
    keep("08", film)
    shown = [picture(2 * mask - 1) for mask in (*masks[-8:], *of_cup[-4:])]
    lines = Image.new("RGB", WIDE)
    for i in range(3):
        lines.paste(row(shown[i * 4 : i * 4 + 4], (155, 155)), (0, i * (155 + GAP)))
    keep("09", lines)


if __name__ == "__main__":
    main()
