"""The network that redraws photographs, the photographs, and where detail belongs in them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from PIL import Image

from selective_sigma.demo import DEFAULT, NAMES, photos, truth
from selective_sigma.demo.measure import detail
from selective_sigma.demo.network import MULTIPLE, WEIGHTS, facts, load

if TYPE_CHECKING:
    from pathlib import Path


def test_weights_are_small_and_say_how_they_were_made():
    assert WEIGHTS.stat().st_size < 10e6
    assert facts().keys() >= {"steps", "batch", "hours", "loss", "held_out_loss", "photographs"}


@pytest.mark.parametrize("name", NAMES)
def test_named_photographs_come_in_the_size_asked_for(name: str):
    picture = photos.photograph(name, (100, 140))
    assert picture.shape == (1, 3, 96, 136)
    assert picture.abs().max() <= 1
    assert picture.std() > 0.1
    height, width = photos.shape_of(name, 100_000)
    assert height % MULTIPLE == width % MULTIPLE == 0
    assert 0.8e5 < height * width < 1.2e5


def test_one_photograph_comes_with_the_package(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(photos, "find_spec", lambda _: None)
    assert photos.photograph(DEFAULT, 64).shape == (1, 3, 64, 64)
    with pytest.raises(ValueError, match="'chelsea' is part of scikit-image: pip install"):
        photos.photograph("chelsea")


def test_a_file_of_any_shape(tmp_path: Path):
    # 107 / (32 / 107) is more than 107 by rounding.
    Image.new("RGB", (107, 114), "red").save(tmp_path / "red.png")
    assert photos.photograph(tmp_path / "red.png", 32).shape == (1, 3, 32, 32)


def test_a_file_of_ones_own(tmp_path: Path):
    photos.open_photo("chelsea").save(tmp_path / "cat.png")
    ours = photos.photograph(tmp_path / "cat.png", (300, 448))
    assert (ours - photos.photograph("chelsea", (300, 448))).abs().mean() < 0.05
    (tmp_path / "words.txt").write_text("no picture")
    with pytest.raises(ValueError, match="is no picture: give"):
        photos.photograph(tmp_path / "words.txt")
    with pytest.raises(ValueError, match="one of wren"):
        photos.photograph("dog")


@pytest.mark.parametrize(
    ("mode", "size", "message"),
    [
        ("I;16", (64, 64), "more than 8 bits"),
        ("F", (64, 64), "more than 8 bits"),
        ("RGB", (600, 30), "600 by 30: give one of at least 32 a side"),
        ("RGB", (1000, 100), "at most 4 to 1"),
    ],
)
def test_photographs_that_cannot_be_drawn(mode: str, size: tuple[int, int], message: str, tmp_path: Path):
    Image.new(mode, size).save(tmp_path / "odd.tiff")
    with pytest.raises(ValueError, match=message):
        photos.photograph(tmp_path / "odd.tiff")


def test_the_narrowest_that_is_taken(tmp_path: Path):
    Image.new("RGB", (399, 100)).save(tmp_path / "wide.png")
    assert min(photos.photograph(tmp_path / "wide.png", photos.shape_of(tmp_path / "wide.png")).shape[2:]) > 100


def test_a_bomb_is_no_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    Image.new("RGB", (64, 64)).save(tmp_path / "large.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(ValueError, match="is no picture"):
        photos.photograph(tmp_path / "large.png")


@pytest.mark.parametrize("name", [n for n in NAMES if n != "hubble"])
def test_both_truths_tell_busy_from_smooth(name: str):
    picture = photos.photograph(name, 256)
    for regions in (truth.measured(picture), truth.by_hand(name, 256)):
        assert regions.inside.shape == regions.outside.shape == (1, 1, 256, 256)
        assert not (regions.inside * regions.outside).any()
        fine = detail(picture, *regions)
        assert fine.inside > 1.5 * fine.outside
    with pytest.raises(ValueError, match=r"truth\.measured"):
        truth.by_hand("hubble")


def test_the_thumbnail_knows_no_more_than_its_cells():
    picture = photos.photograph("coffee", 64)
    small = photos.thumbnail(picture, 4)
    assert small.shape == picture.shape
    cells = torch.nn.functional.avg_pool2d
    shuffled = picture.reshape(1, 3, 16, 4, 16, 4).flip(3, 5).reshape(1, 3, 64, 64)
    torch.testing.assert_close(photos.thumbnail(shuffled, 4), small)
    torch.testing.assert_close(cells(small, 4), cells(picture, 4), atol=0.4, rtol=0)


def test_a_defocused_photograph_has_no_fine_detail():
    picture = photos.photograph("chelsea", 128)
    everywhere = torch.ones(1, 1, 128, 128)
    soft = photos.defocused(picture)
    assert detail(soft, everywhere, everywhere).inside < 0.05 * detail(picture, everywhere, everywhere).inside
    assert (soft.mean() - picture.mean()).abs() < 0.02


@pytest.mark.parametrize("sigma", [0.05, 0.3, 1.0, 4.0])
def test_it_denoises_and_the_thumbnail_helps(sigma: float):
    network = load()
    picture = photos.photograph("chelsea", (96, 128))
    x = picture + sigma * torch.randn(picture.shape, generator=torch.Generator().manual_seed(0))
    error = (network.denoise(x, sigma, photos.thumbnail(picture, 4)) - picture).square().mean().sqrt()
    alone = (network.denoise(x, sigma) - picture).square().mean().sqrt()
    thumbnail_error = (photos.thumbnail(picture, 4) - picture).square().mean().sqrt()
    assert error < min(0.8 * sigma, thumbnail_error)
    assert error < alone


def test_it_sees_a_large_picture_as_it_sees_its_parts():
    network = load()
    picture = photos.photograph("coffee", 256)
    small = photos.thumbnail(picture, 4)
    x = picture + 0.5 * torch.randn(picture.shape, generator=torch.Generator().manual_seed(0))
    whole = network.denoise(x, 0.5, small)[:, :, 96:160, 96:160]
    part = network.denoise(x[:, :, 32:224, 32:224], 0.5, small[:, :, 32:224, 32:224])[:, :, 64:128, 64:128]
    torch.testing.assert_close(whole, part, atol=0.02, rtol=0)


def test_one_noise_level_per_picture_of_a_batch():
    network = load()
    x = torch.randn((2, 3, 32, 32), generator=torch.Generator().manual_seed(0))
    both = network.denoise(x, torch.tensor([0.2, 2.0]), photos.thumbnail(x, 4))
    for i, sigma in enumerate((0.2, 2.0)):
        alone = network.denoise(x[i : i + 1], sigma, photos.thumbnail(x[i : i + 1], 4))
        torch.testing.assert_close(both[i : i + 1], alone, atol=1e-4, rtol=1e-4)
