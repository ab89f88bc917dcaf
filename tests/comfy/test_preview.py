"""Masks as pictures."""

from __future__ import annotations

import pytest
import torch

from selective_sigma.comfy.nodes import preview, sheet
from selective_sigma.detailer import MaskRecord
from selective_sigma.settings import Settings


def spot(*space: int, batch: int = 1) -> torch.Tensor:
    """White in the first cell of every axis, black elsewhere."""
    mask = torch.zeros(batch, 1, *space)
    mask[(slice(None), 0, *[0] * len(space))] = 1
    return mask


def records(*masks: torch.Tensor) -> list[MaskRecord]:
    """The masks as records of every second step."""
    return [MaskRecord(2 * i, 8.0 / 2**i, 0.1, mask) for i, mask in enumerate(masks)]


def render_masks(masks: list[torch.Tensor], *args: object, **more: object) -> torch.Tensor:
    return preview.render(records(*masks), *args, **more)


def without_caption(pictures: torch.Tensor, height: int) -> torch.Tensor:
    """The pictures without their captions, of which there must be some."""
    assert 8 < pictures.shape[1] - height < 48
    assert pictures[:, height:].amax((1, 2, 3)).min() > 0.5
    return pictures[:, :height]


@pytest.mark.parametrize(
    ("space", "frames", "size"),
    [((256,), 1, (32, 512)), ((16, 24), 1, (160, 240)), ((3, 16, 24), 3, (160, 240)), ((128, 96), 1, (1024, 768))],
    ids=str,
)
def test_one_to_three_axes_become_pictures(space: tuple[int, ...], frames: int, size: tuple[int, int]):
    mask = spot(*space, batch=2)
    picture = without_caption(render_masks([mask]), size[0])
    assert picture.shape == (2 * frames, *size, 3)
    assert picture.dtype == torch.float32
    # Each cell is as large as the others: the mean is that of the mask.
    assert float(picture.mean()) == pytest.approx(float(mask.mean()))
    assert picture[0, 0, 0].tolist() == [1, 1, 1]
    assert picture[0, -1, -1].tolist() == [0, 0, 0]


def test_every_step_comes_in_run_order_and_its_batch_within():
    steps = [torch.stack([torch.full((1, 32, 32), (2 * i + b) / 10) for b in range(2)]) for i in range(3)]
    pictures = without_caption(render_masks(steps, "every step"), 256)
    torch.testing.assert_close(pictures.mean((1, 2, 3)), torch.arange(6) / 10)
    torch.testing.assert_close(render_masks(steps, "last step")[:, :256], pictures[4:])
    torch.testing.assert_close(render_masks(steps, "average")[:, :256], pictures[2:4])


@pytest.mark.parametrize("space", [(64,), (32, 32), (2, 32, 32)], ids=str)
def test_the_timeline_holds_every_step_row_by_row(space: tuple[int, ...]):
    steps = [torch.full((1, 1, *space), i / 4) for i in range(5)]
    sheets = render_masks(steps, "timeline", steps=12)
    assert len(sheets) == (2 if len(space) == 3 else 1)
    width = render_masks(steps).shape[2]
    height = (32 if len(space) == 1 else 256) + round(1.6 * (width // 8))  # With a caption of large letters.
    gap = max(2, min(height, width) // 64)
    assert not sheets[:, :8].any()  # The frame.
    assert not sheets[:, :, :8].any()
    sheets = sheets[:, (frame := (sheets[0, :, sheets.shape[2] // 2, 0] > 0).int().argmax()) :, frame:]
    columns, rows = (2, 3) if len(space) == 1 else (3, 2)
    levels = [
        float(sheets[0, gap + (height + gap) * r + 8, gap + (width + gap) * c + width // 2, 0])
        for r in range(rows)
        for c in range(columns)
    ]
    assert levels[:5] == [0, 0.25, 0.5, 0.75, 1]


def test_a_latent_that_grows_has_pictures_of_one_size():
    assert without_caption(render_masks([spot(8, 8), spot(16, 16)], "every step"), 256).shape == (2, 256, 256, 3)


def test_laid_over_the_picture_is_readable_without_colour():
    for grey in (0.0, 0.25, 0.5, 0.75, 1.0):
        pictures = render_masks([spot(2, 2)], image=torch.full((1, 64, 64, 3), grey))[0]
        luma = pictures @ torch.tensor([0.299, 0.587, 0.114])
        assert float(luma[8, 8] - luma[40, 40]) > 0.15


def test_laid_over_the_picture_glows_where_detail_went():
    picture = torch.rand(1, 64, 48, 3, generator=torch.Generator().manual_seed(1))
    pictures = without_caption(render_masks([spot(8, 6)], image=picture), 64)
    assert pictures.shape == picture.shape
    red, green, blue = pictures[0, :8, :8].mean((0, 1))
    assert red > green > blue
    dark = pictures[0, 8:, 8:]
    torch.testing.assert_close(dark, 0.4 * picture[0, 8:, 8:].mean(-1, keepdim=True).expand_as(dark))


@pytest.mark.parametrize(
    ("space", "batch", "pictures", "count"),
    [
        ((8, 8), 2, 2, 2),
        ((8, 8), 2, 1, 2),  # one picture for both
        ((8, 8), 1, 3, 3),  # one mask for all
        ((3, 8, 8), 1, 9, 9),  # video: a latent frame is several pictures
        ((3, 8, 8), 2, 18, 18),
        ((40,), 1, 1, 1),  # sound over its spectrum
    ],
    ids=str,
)
def test_masks_and_pictures_are_matched(space: tuple[int, ...], batch: int, pictures: int, count: int):
    image = torch.full((pictures, 32, 40, 3), 0.5)
    pictures = render_masks([spot(*space, batch=batch)], image=image)[:, :32]
    assert pictures.shape == (count, 32, 40, 3)
    reused = preview.mask_output(records(spot(*space, batch=batch)), torch.zeros(batch, 4, *space), image=image)
    assert reused.shape == (count, 32, 40)
    assert [bool(one.any()) for one in reused] == [bool((one[..., 0] > one[..., 2] + 0.1).any()) for one in pictures]
    lit = [bool((one[..., 0] > one[..., 2] + 0.1).any()) for one in pictures]
    # The first latent frame of three is the first third of each clip's pictures.
    third = count // batch // 3
    clip = [True] * third + [False] * 2 * third
    assert lit == (clip * batch if len(space) == 3 else [True] * count)


def test_long_videos_are_rendered_small_enough():
    masks = [torch.zeros(1, 1, 21, 90, 160)] * 20
    assert render_masks(masks, "every step").numel() <= 3 * preview.MOST_PIXELS


@pytest.mark.parametrize(
    ("show", "image", "says"),
    [("all", None, "choose one of last step"), ("average", torch.zeros(8, 8, 3), "connect an IMAGE")],
    ids=["show", "image"],
)
def test_bad_arguments_are_refused(show: str, image: torch.Tensor | None, says: str):
    with pytest.raises(ValueError, match=says):
        render_masks([spot(8, 8)], show, image)


def test_a_message_is_a_picture_that_differs_with_its_words():
    one, other = preview.message("no mask"), preview.message("no mask: bypassed")
    assert one.shape == other.shape == (1, 256, 512, 3)
    assert 0 == one.min() < one.mean() < other.mean() < one.max() <= 1
    # A long message is broken into lines and fits.
    long = preview.message("word " * 40)
    assert long.mean() > 3 * one.mean()
    assert not long[:, :, -8:].any()
    assert not long[:, -8:].any()


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """All texts that are drawn into pictures."""
    seen: list[str] = []
    monkeypatch.setattr(
        sheet, "text_picture", lambda text, *args, **more: seen.append(text) or written(text, *args, **more)
    )
    written = preview.text_picture
    plot = sheet.plot_picture
    monkeypatch.setattr(
        sheet, "plot_picture", lambda steps, size, title: seen.append(title) or plot(steps, size, title)
    )
    return seen


def test_a_batch_says_which_picture(lines: list[str]):
    masks = [spot(8, 8, batch=3)] * 2
    render_masks(masks, "every step")
    assert [line.partition("   ")[0] for line in lines] == [f"picture {i} of 3" for i in (1, 2, 3)] * 2
    lines.clear()
    # All frames of a video belong to the same picture.
    render_masks([spot(2, 8, 8, batch=2)], "last step")
    assert [line.partition("   ")[0] for line in lines] == ["picture 1 of 2"] * 2 + ["picture 2 of 2"] * 2
    lines.clear()
    render_masks([spot(8, 8)], "every step")
    assert not any("picture" in line for line in lines)


@pytest.mark.parametrize(
    ("every", "how"),
    [(1, "on every step"), (2, "on every 2nd step"), (3, "on every 3rd step"), (8, "on every 8th step")],
)
def test_the_timeline_names_the_settings(lines: list[str], every: int, how: str):
    # The title has the setting, and not the larger strength of a dose.
    run_records = [MaskRecord(every * i, 8.0 / 2**i, 0.36, spot(8, 8)) for i in range(4)]
    preview.render(run_records, "timeline", settings=Settings(strength=0.2, every=every))
    assert lines[-1] == f"strength 0.2, {how}"
    # Long steps have a dose of their own, so that no rule holds for all steps.
    run_records = [MaskRecord(i, 8.0 / 2**i, 0.36, spot(8, 8)) for i in (1, 4, 5, 7)]
    preview.render(run_records, "timeline", settings=Settings(strength=0.2, every=every), steps=8)
    assert lines[-1] == "strength 0.2, at 4 of 8 steps"


def test_the_timeline_is_readable_where_a_node_shows_it(monkeypatch: pytest.MonkeyPatch):
    """A node is about 460 pixels wide, and letters must be at least nine pixels high."""
    sizes: list[int] = []
    monkeypatch.setattr(sheet, "font", lambda size, font=sheet.font: sizes.append(size) or font(size))
    sheets = render_masks([torch.rand(1, 1, 96, 128)] * 10, "timeline", steps=20)
    width = sheets.shape[2]
    assert min(sizes) >= 9 * width / 460


def test_a_mask_comes_out_for_reuse():
    masks = records(spot(8, 8, batch=2), torch.zeros(2, 1, 8, 8))
    latent = torch.zeros(2, 4, 8, 8)
    assert not preview.mask_output(masks, latent, "last step").any()
    mean = preview.mask_output(masks, latent, "timeline", torch.zeros(2, 40, 24, 3))
    assert mean.shape == (2, 40, 24)
    assert mean[:, 0, 0].tolist() == [0.5, 0.5]
    assert not mean[:, 20:, 12:].any()
    # Without a picture, in the size of the decoded one.
    assert preview.mask_output(masks, latent).shape == (2, 64, 64)
    assert preview.mask_output(masks, latent, scale=16).shape == (2, 128, 128)
    assert preview.mask_output([], latent).shape == (2, 64, 64)
    # Zeros for a run without detail.
    nothing = preview.mask_output([], latent, image=torch.zeros(2, 40, 24, 3))
    assert nothing.shape == (2, 40, 24)
    assert not nothing.any()


def test_the_plot_has_a_bar_for_each_step_with_detail():
    plot = sheet.to_tensor(sheet.plot_picture([None, (0.2, 0.5), None, (0.1, 0.25)], (400, 100), "strength 0.1"))[0]
    orange = (plot[40:82, :, 0] - plot[40:82, :, 2] > 0.3).float().sum(0)
    none, high, nothing, low = (float(part.max()) for part in orange.split(100))
    assert none == nothing == 0
    assert 0 < low < high


def test_a_caption_fits_under_a_small_picture():
    pictures = sheet.captioned(torch.zeros(1, 32, 60, 3), ["step 12 of 24   sigma 0.0123"])
    assert pictures.shape[2] == 60
    assert pictures[0, 32:].max() > 0.5


@pytest.mark.parametrize("side", [16, 64, 128])
@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("count", [8, 20, 50])
def test_captions_of_any_length_are_of_one_height(side: int, batch: int, count: int):
    run_records = [MaskRecord(i, 14.6 * 0.83**i, 0.1, torch.rand(batch, 1, side, side)) for i in range(count)]
    for show in ("timeline", "every step"):
        assert len(preview.render(run_records, show)) == (batch if show == "timeline" else batch * count)


def test_a_step_of_several_calls_is_shown_once():
    dark, bright = torch.zeros(1, 1, 16, 16), torch.ones(1, 1, 16, 16)
    calls = [MaskRecord(0, 2.0, 0.1, dark), MaskRecord(0, 1.5, 0.1, bright), MaskRecord(1, 1.0, 0.1, dark)]
    pictures = preview.render(calls, "every step")
    assert len(pictures) == 2
    assert pictures[0, :16].min() == 1
