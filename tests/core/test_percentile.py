import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from selective_sigma.mask import blur, change
from selective_sigma.percentile import SAMPLES, percentiles, places, stretch

from .runs import start

clips = st.floats(0, 0.49)


@given(clips, st.sampled_from([(3, 1, 1), (2, 1, 57), (1, 1, 30, 41), (2, 1, 3, 9, 16)]))
def test_equal_to_torch_quantile(clip, shape):
    values = start(shape, torch.float32)
    low, high = percentiles(values, clip)
    for bound, q in ((low, clip), (high, 1 - clip)):
        torch.testing.assert_close(bound, torch.quantile(values.flatten(1), q, dim=1), rtol=1e-5, atol=1e-5)


@given(clips)
def test_all_pixels_on_request(clip):
    values = start((2, 1, 100, 101), torch.float32)
    low, _ = percentiles(values, clip, samples=None)
    torch.testing.assert_close(low, torch.quantile(values.flatten(1), clip, dim=1), rtol=1e-5, atol=1e-4)


@given(clips, st.integers(0, 10**6))
def test_among_counts_only_its_pixels(clip, seed):
    values = start((2, 1, 12, 13), torch.float32)
    within = torch.rand((2, 1, 12, 13), generator=torch.Generator().manual_seed(seed))
    low, high = percentiles(values, clip, places(within))
    for i in range(2):
        inside = values[i][within[i] > 0.5]
        for bound, q in ((low, clip), (high, 1 - clip)):
            torch.testing.assert_close(bound[i], torch.quantile(inside, q), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["noise", "smooth", "patches"])
@pytest.mark.parametrize("seed", range(5))
def test_a_stride_moves_a_mask_by_less_than_a_hundredth(kind, seed):
    draw = torch.Generator().manual_seed(seed)

    def prediction():
        noise = torch.randn(1, 4, 128, 128, generator=draw)
        rough = F.interpolate(torch.randn(1, 4, 16, 16, generator=draw), (128, 128), mode="bicubic")
        return {"noise": noise, "smooth": rough, "patches": rough * noise}[kind]

    raw = blur(change(prediction(), prediction()))
    exact = stretch(raw, 0.2, samples=None)
    assert (stretch(raw, 0.2) - exact).abs().mean() < 0.01
    ring = torch.zeros(1, 1, 128, 128)
    ring[..., 20:120, 10:110] = 1
    inside = stretch(raw, 0.2, places(ring)) - stretch(raw, 0.2, places(ring, None))
    assert inside.abs().mean() < 0.01


@pytest.mark.parametrize("space", [(81, 4096), (4096, 5), (100, 73, 73), (21, 195, 81)])
def test_the_stride_visits_every_column(space):
    """Columns of zeros and ones: a stride that shares a factor with the width would see one kind."""
    values = (torch.arange(space[-1]) % 2).float().expand(1, 1, *space)
    low, high = percentiles(values, 0.3)
    assert (low.item(), high.item()) == (0, 1)


def test_places_are_bounded_and_do_not_depend_on_the_batch():
    within = torch.rand(3, 1, 200, 200, generator=torch.Generator().manual_seed(0))
    within[1] = 0
    within[2, :, 5:] = 0
    batch = places(within)
    assert batch.at.shape == (3, SAMPLES)
    assert batch.real[1].sum() == 0
    assert batch.real[2].sum() == (within[2] > 0.5).sum()
    for i in range(3):
        alone = places(within[i : i + 1])
        assert torch.equal(alone.at[0][alone.real[0]], batch.at[i][batch.real[i]])


@given(st.floats(1e-3, 1e3), st.floats(-10, 10), clips)
def test_stretch_is_in_range_and_blind_to_scale_and_offset(scale, offset, clip):
    values = start((2, 1, 9, 9))
    mask = stretch(values, clip)
    assert mask.min() == 0
    assert mask.max() == pytest.approx(1, abs=1e-6)
    torch.testing.assert_close(stretch(values * scale + offset, clip), mask, atol=1e-4, rtol=0)


def test_nothing_to_stretch_is_a_mask_of_zero():
    values = start((2, 1, 8, 8), torch.float32)
    assert stretch(torch.full((2, 1, 8), 3.0), 0.2).sum() == 0
    within = torch.zeros(2, 1, 8, 8)
    within[1, :, :4] = 1
    mask = stretch(values, 0.2, places(within))
    assert mask[0].abs().sum() == 0
    assert mask[1].max() == 1
