"""Masks as pictures."""

from __future__ import annotations

import pytest
import torch

from selective_sigma.comfy import preview


def spot(*space: int, batch: int = 1) -> torch.Tensor:
    """White in the first cell of every axis."""
    mask = torch.zeros(batch, 1, *space)
    mask[(slice(None), 0, *[0] * len(space))] = 1
    return mask


@pytest.mark.parametrize(
    ("space", "frames", "size"),
    [((256,), 1, (32, 512)), ((16, 24), 1, (160, 240)), ((3, 16, 24), 3, (160, 240)), ((128, 96), 1, (1024, 768))],
    ids=str,
)
def test_one_to_three_axes_become_pictures(space: tuple[int, ...], frames: int, size: tuple[int, int]):
    mask = spot(*space, batch=2)
    picture = preview.render([mask])
    assert picture.shape == (2 * frames, *size, 3)
    assert picture.dtype == torch.float32
    # Each cell is whole: as much light as the mask has.
    assert float(picture.mean()) == pytest.approx(float(mask.mean()))
    assert picture[0, 0, 0].tolist() == [1, 1, 1]
    assert picture[0, -1, -1].tolist() == [0, 0, 0]


def test_every_step_comes_in_run_order_and_its_batch_within():
    steps = [torch.stack([torch.full((1, 32, 32), (2 * i + b) / 10) for b in range(2)]) for i in range(3)]
    shown = preview.render(steps, "every step")
    torch.testing.assert_close(shown.mean((1, 2, 3)), torch.arange(6) / 10)
    torch.testing.assert_close(preview.render(steps, "last step"), shown[4:])
    torch.testing.assert_close(preview.render(steps, "average"), shown[2:4])


@pytest.mark.parametrize("space", [(64,), (32, 32), (2, 32, 32)], ids=str)
def test_the_timeline_holds_every_step_row_by_row(space: tuple[int, ...]):
    steps = [torch.full((1, 1, *space), i / 4) for i in range(5)]
    sheets = preview.render(steps, "timeline")
    assert len(sheets) == (2 if len(space) == 3 else 1)
    _, height, width, _ = preview.render(steps).shape
    columns, rows = (1, 5) if len(space) == 1 else (2, 3)
    found = [
        float(sheets[0, int(height * (r + 0.5)), int(width * (c + 0.5)), 0])
        for r in range(rows)
        for c in range(columns)
    ]
    assert found[:5] == [0, 0.25, 0.5, 0.75, 1]


def test_a_latent_that_grows_has_pictures_of_one_size():
    assert preview.render([spot(8, 8), spot(16, 16)], "every step").shape == (2, 256, 256, 3)


def test_laid_over_the_picture_glows_where_detail_went():
    picture = torch.rand(1, 64, 48, 3, generator=torch.Generator().manual_seed(1))
    shown = preview.render([spot(8, 6)], image=picture)
    assert shown.shape == picture.shape
    red, green, blue = shown[0, :8, :8].mean((0, 1))
    assert red > green > blue
    dark = shown[0, 8:, 8:]
    torch.testing.assert_close(dark, 0.5 * picture[0, 8:, 8:].mean(-1, keepdim=True).expand_as(dark))


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
    shown = preview.render([spot(*space, batch=batch)], image=torch.full((pictures, 32, 40, 3), 0.5))
    assert shown.shape == (count, 32, 40, 3)
    lit = [bool((one[..., 0] > one[..., 2] + 0.1).any()) for one in shown]
    # The first latent frame of three is the first third of each clip's pictures.
    third = count // batch // 3
    clip = [True] * third + [False] * 2 * third
    assert lit == (clip * batch if len(space) == 3 else [True] * count)


def test_long_videos_are_rendered_small_enough():
    masks = [torch.zeros(1, 1, 21, 90, 160)] * 20
    assert preview.render(masks, "every step").numel() <= 3 * preview.PIXELS


@pytest.mark.parametrize(
    ("show", "image", "says"),
    [("all", None, "choose one of last step"), ("average", torch.zeros(8, 8, 3), "connect an IMAGE")],
    ids=["show", "image"],
)
def test_what_cannot_be_shown_is_refused(show: str, image: torch.Tensor | None, says: str):
    with pytest.raises(ValueError, match=says):
        preview.render([spot(8, 8)], show, image)


def test_a_message_is_a_picture_that_differs_with_its_words():
    one, other = preview.message("no mask"), preview.message("no mask: bypassed")
    assert one.shape == other.shape == (1, 256, 512, 3)
    assert 0 == one.min() < one.mean() < other.mean() < one.max() <= 1
    # A long one is broken into lines, and all of it is inside.
    long = preview.message("word " * 40)
    assert long.mean() > 3 * one.mean()
    assert not long[:, :, -8:].any()
    assert not long[:, -8:].any()
