"""WHERE: the response mask, and the pieces that it is made of."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from selective_sigma import mask
from selective_sigma.mask import (
    FLOOR,
    HALF_LIT,
    HELD_POWER,
    MEAN_FLOOR,
    POWER,
    blur,
    checked_map,
    detail_energy,
    mean,
    odds,
    resample,
    response,
)

from .runs import DTYPES, start

SPACES = [(33,), (9, 10), (3, 5, 6)]
pools = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}

LIE = 1.0
"""E-folds of a lie whose effect is as `pair` and `halves` make it: large, so that the floor is far away."""


def pair(shape=(2, 4, 12, 16), dtype=torch.float32, lie=0.05):
    """A plain prediction and one under a lie, without more to them."""
    plain = start(shape, dtype, 0, top=1.0)
    return plain, (plain + lie * start(shape, dtype, 1, top=1.0)).to(dtype)


def halves(texture=1.0, grain=0.05, smooth=0.01, size=32):
    """Left flat but for a little of everything, right textured; the lie adds as much grain to both."""
    plain = start((1, 4, size, size), torch.float32, 0, top=1.0)
    plain[..., : size // 2] *= smooth
    plain[..., size // 2 :] *= texture
    return plain, plain + grain * start(plain.shape, torch.float32, 1, top=1.0)


@pytest.mark.parametrize("space", [*SPACES, (1,), (1, 7), (1, 1, 3)])
def test_blur_is_the_mean_of_neighbours(space):
    values = start((2, 3, *space))
    before = values.clone()
    repeated = F.pad(values, [1, 1] * len(space), mode="replicate")
    torch.testing.assert_close(blur(values), pools[len(space)](repeated, 3, 1))
    assert torch.equal(values, before)


@pytest.mark.parametrize("space", SPACES)
def test_detail_is_the_energy_of_what_blur_takes_away(space):
    values = start((2, 3, *space))
    assert detail_energy(values).shape == (2, 1, *space)
    # Blurring moves energy about and adds none (up to what a border repeats); it grows as the square.
    inside = torch.zeros(1, 1, 41, dtype=torch.float64)
    inside[..., 20] = 1
    taken = ((inside - blur(inside)) ** 2).sum()
    assert float(detail_energy(inside).sum()) == pytest.approx(float(taken), rel=1e-6)
    assert (detail_energy(inside) > 0).sum() > 3
    torch.testing.assert_close(detail_energy(values * 3 + 5), detail_energy(values) * 9, rtol=1e-4, atol=1e-6)
    assert detail_energy(torch.full((1, 2, *space), 7.0, dtype=torch.float64)).max() < 1e-25


def test_detail_of_a_difference_and_in_chunks_is_the_same(monkeypatch):
    values, beside = start((2, 5, 3, 6, 7)), start((2, 5, 3, 6, 7), seed=1)
    whole = detail_energy(values - beside)
    torch.testing.assert_close(detail_energy(values, beside), whole)
    for size in (1, 2 * 3 * 6 * 7 * 2, 10**9):
        monkeypatch.setattr(mask, "CHUNK_VALUES", size)
        torch.testing.assert_close(detail_energy(values, beside), whole)
    half = values.half()
    assert detail_energy(half).dtype == torch.float32
    torch.testing.assert_close(detail_energy(half), detail_energy(half.float()))


def test_mean_is_by_sample_and_over_within():
    values = start((2, 1, 4, 6))
    assert mean(values).flatten().tolist() == pytest.approx([float(v.mean()) for v in values])
    within = torch.zeros(1, 1, 4, 6)
    within[..., 2:] = 1
    assert mean(values, within).flatten().tolist() == pytest.approx([float(v[..., 2:].mean()) for v in values])
    # Resized to the map, and a share counts as a share.
    assert torch.equal(mean(values, within[..., ::2, ::2] * 0 + 0.5), mean(values, torch.ones(1, 1, 4, 6)))
    # Of a part that is lost on the way the whole is taken.
    assert torch.equal(mean(values, within * 0), mean(values, torch.ones(1, 1, 4, 6)))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("space", SPACES)
def test_shape_type_and_range(space, dtype):
    plain, lied = pair((2, 3, *space), dtype, lie=0.3)
    kept = plain.clone(), lied.clone()
    m = response(plain, lied, 0.5, LIE)
    assert m.shape == (2, 1, *space)
    assert m.dtype == torch.float32
    assert 0 <= m.min() < m.max() <= 1
    assert torch.equal(plain, kept[0])
    assert torch.equal(lied, kept[1])


def test_dark_on_the_flat_half_and_bright_on_the_textured_one():
    m = response(*halves(), 0.5, LIE)
    assert m[..., :12].max() < 0.1
    assert m[..., 20:].mean() > 0.6


def test_a_picture_that_holds_little_beside_what_the_lie_adds_stays_dark():
    """Compared with itself alone it would be half lit, however small the lie that added so much."""
    plain, lied = pair()
    ratio = detail_energy(plain).std((1, 2, 3), keepdim=True) / mean(detail_energy(lied - plain))
    for share, lowest, highest in ((10.0, 0.3, 1.0), (0.1, 0.0, 0.01)):
        # V = ratio dose^2 is this many times the floor.
        m = response(plain, lied, 0.5, float((share * FLOOR / ratio.max()).sqrt()))
        assert lowest <= m.mean() <= highest


def test_dark_where_nothing_fine_is_held_though_the_lie_adds_nothing_fine_either():
    """As for flat colour, which a lie may shift."""
    plain, lied = halves(smooth=0.0)
    lied[..., :16] = plain[..., :16] + 0.1
    assert response(plain, lied, 0.5, LIE)[..., :10].max() < 1e-6
    flat = torch.full((1, 4, 8, 8), 0.3)
    assert response(flat, flat + 0.1, 0.5, 0.1).max() < 0.01


def test_the_formula():
    """method.md, section 2, above both floors and below them."""
    plain, lied = (value.double() for value in halves(texture=2.0, smooth=0.3))
    held, added = detail_energy(plain), detail_energy(lied - plain)
    below = float((0.8 * MEAN_FLOOR * added.mean() / held.mean()).sqrt())
    for lie in (LIE, below, 0.01):
        variation = lie**2 * held.std(correction=0) / added.mean()
        q = (held / held.mean()) ** HELD_POWER * (held / added) / (held.mean() / added.mean())
        q = q * (variation / FLOOR).clamp(max=1.0)
        q = q * (lie**2 * held.mean() / added.mean() / MEAN_FLOOR).clamp(max=1.0)
        expected = 1 / (1 + (odds(0.4) / q) ** POWER)
        torch.testing.assert_close(response(plain, lied, 0.4, lie), expected.float(), rtol=1e-4, atol=1e-6)


def test_dark_where_the_lie_adds_much_beside_what_is_held():
    plain, lied = halves(smooth=1.0)
    much = plain + (lied - plain) * torch.where(torch.arange(32) < 16, 20.0, 1.0)
    m = response(plain, much, 0.5, LIE)
    assert m[..., :12].mean() < 0.2
    assert m[..., 20:].mean() > 0.9


def test_odds_are_the_formula_of_the_method():
    """method.md section 2: HALF_LIT (2 (1 - c))^2 / (2 c)^0.5."""
    assert odds(0.25) == pytest.approx(HALF_LIT * 1.5**2 / 0.5**0.5)
    assert odds(0.75) == pytest.approx(HALF_LIT * 0.5**2 / 1.5**0.5)
    assert odds(0.5) == HALF_LIT


@given(st.floats(1e-3, 1e3))
def test_the_scale_of_the_latent_and_of_the_lie_do_not_matter(scale):
    plain, lied = (value.double() for value in halves())
    m = response(plain, lied, 0.5, LIE)
    torch.testing.assert_close(response(plain * scale, lied * scale, 0.5, LIE), m, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(
        response(plain, plain + (lied - plain) * scale, 0.5, LIE * scale), m, rtol=1e-3, atol=1e-4
    )
    torch.testing.assert_close(response(plain, plain - (lied - plain), 0.5, -LIE), m, rtol=1e-3, atol=1e-4)


def test_a_mask_for_each_sample_and_one_scale_for_a_whole_clip():
    plain, lied = pair((3, 2, 8, 8))
    scale = torch.tensor([1.0, 50.0, 0.02]).reshape(3, 1, 1, 1)
    whole = response(plain * scale, lied * scale, 0.5, LIE)
    for j in range(3):
        alone = response(plain[j : j + 1] * scale[j], lied[j : j + 1] * scale[j], 0.5, LIE)
        torch.testing.assert_close(whole[j : j + 1], alone, rtol=1e-5, atol=1e-6)
    # A calm frame beside busy ones stays dark: stretched by itself it would flicker.
    busy, lied = pair((1, 2, 8, 8, 8))
    busy[:, :, :4] *= 0.01
    lied[:, :, :4] = busy[:, :, :4] + 0.05 * start((1, 2, 4, 8, 8), torch.float32, 3, top=1.0)
    m = response(busy, lied, 0.5, LIE)
    assert m[:, :, 0].mean() < 0.05
    assert m[:, :, 6:].mean() > 0.3


def test_coverage_is_exact_at_its_ends_and_the_mask_grows_with_it():
    assert odds(0.0) == math.inf
    assert odds(1.0) == 0
    plain, lied = pair()
    assert torch.equal(response(plain, lied, 0.0, LIE), torch.zeros(2, 1, 12, 16))
    assert torch.equal(response(plain, lied, 1.0, LIE), torch.ones(2, 1, 12, 16))
    masks = torch.stack([response(plain, lied, i / 20, LIE) for i in range(21)])
    assert (masks.diff(dim=0) >= 0).all()
    means = masks.mean((1, 2, 3, 4))
    # In single precision the outermost twentieths may be the ends themselves.
    assert (means[3:17].diff() > 0).all()
    # Even here, where one texture fills the picture and one coverage would do for all of it.
    assert means.diff().max() < 0.25


@given(st.floats(0, 1), st.floats(0, 1))
def test_odds_fall_as_coverage_grows(a, b):
    low, high = sorted((a, b))
    assert odds(low) >= odds(high) >= 0


@pytest.mark.parametrize("size", [24, 8])
def test_within_alone_sets_the_scale(size):
    """What inpainting keeps may be wild: the mask inside is as if it were not there, 7 places away from it."""
    plain, lied = pair((1, 2, 24, 24))
    wild, wild_lied = plain.clone(), lied.clone()
    wild[..., 18:] *= 1000
    wild_lied[..., 18:] += 30 * start((1, 2, 24, 6), torch.float32, 5, top=1.0)
    within = torch.zeros(1, 1, size, size)
    within[..., : size * 3 // 8] = 1
    calm, loud = (response(a, b, 0.5, LIE, within)[..., :9] for a, b in ((plain, lied), (wild, wild_lied)))
    torch.testing.assert_close(calm, loud)
    assert (response(wild, wild_lied, 0.5, LIE)[..., :9] - loud).abs().max() > 0.2


def test_a_subject_is_lit_where_an_even_picture_as_rich_stays_dark():
    """Both hold as much fine detail, and the lie adds as much to both; only the subject's varies over the picture."""
    subject, lied = halves(texture=math.sqrt(2.0), smooth=0.05)
    even = start(subject.shape, torch.float32, 0, top=1.0)
    even *= (mean(detail_energy(subject)) / mean(detail_energy(even))).sqrt()
    grain = lied - subject
    variation = detail_energy(subject).std() / mean(detail_energy(grain))
    dose = float((FLOOR / variation).sqrt())
    assert response(subject, lied, 0.5, dose)[..., 20:].mean() > 0.9
    assert response(even, even + grain, 0.5, dose).mean() < 0.25


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("where", [0, 1])
def test_what_is_not_finite_stays_in_its_sample(where, bad):
    sane = response(*pair(), 0.5, LIE)
    hurt = [value.clone() for value in pair()]
    hurt[where][0, 0, 2, 2] = bad
    assert torch.equal(response(*hurt, 0.5, LIE)[1], sane[1])


def test_resample_is_linear_and_leaves_what_fits():
    values = torch.arange(4.0).reshape(1, 1, 4)
    assert resample(values, (4,)) is values
    assert resample(values, (8,)).flatten().tolist() == [0, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3]
    for space in SPACES:
        assert resample(torch.ones(1, 1, *space, dtype=torch.float16), [n + 3 for n in space]).min() == 1


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (torch.zeros(4, 4), "shape"),
        (torch.zeros(1, 1, 0, 4), "shape"),
        (torch.zeros(1, 2, 4, 4), "shape"),
        (torch.full((1, 1, 4), math.nan), "NaN"),
    ],
)
def test_bad_maps_raise(values, message):
    with pytest.raises(ValueError, match=f"limit .*{message}"):
        checked_map("limit", values)


@pytest.mark.parametrize("values", [torch.ones(1, 1, 4).numpy(), "white", 1.0, [[1.0]]])
def test_a_map_is_a_tensor(values):
    with pytest.raises(TypeError, match=r"limit is a .*: give a torch tensor"):
        checked_map("limit", values)


def test_what_rounding_took_past_the_ends_is_clamped():
    """As resizing and blurring do: a mask of ones from 64x64 to 48x76 comes out at up to 1 + 1e-7 and more."""
    values = torch.tensor([[[-0.5, -1e-7, 0.25, 1 + 1e-7, 1.5, math.inf]]])
    assert checked_map("limit", values).flatten().tolist() == [0, 0, 0.25, 1, 1, 1]
    assert checked_map("limit", torch.tensor([[[True, False]]])).flatten().tolist() == [1, 0]
    assert checked_map("limit", None) is None
