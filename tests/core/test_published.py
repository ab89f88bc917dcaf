"""The published pack's masks, which remember earlier steps."""

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from selective_sigma import Settings
from selective_sigma.published import EMPTY_MEAN, PublishedMask, stretch

from .runs import DTYPES, start


def masks_of(mask, *predictions):
    return [mask.make(value, value) for value in predictions]


def walk(shape=(2, 3, 8, 10), steps=4, dtype=torch.float32):
    return [start(shape, dtype, seed, top=1.0) for seed in range(steps)]


@given(st.floats(0, 1), st.floats(0, 1))
@example(0.5, 0.05)  # Masks that are almost empty.
def test_change_is_the_mean_move_over_channels_remembered(ema, coverage):
    first, *later = masks_of(PublishedMask(Settings(mask_source="change", ema=ema, coverage=coverage)), *walk())
    assert first.max() == 0
    memory = None
    for (previous, prediction), mask in zip(pairwise(walk()), later, strict=True):
        change = stretch((prediction - previous).abs().mean(1, keepdim=True), 0.2)
        memory = change if memory is None else ema * memory + (1 - ema) * change
        # Coverage shifts the mask and not the memory. A mask that is almost empty becomes zeros.
        expected = (memory + 2 * (coverage - 0.5)).clamp(0, 1)
        expected = expected * (expected.mean((1, 2, 3), keepdim=True) >= EMPTY_MEAN)
        torch.testing.assert_close(mask, expected, atol=1e-6, rtol=0)


def test_first_is_the_latent_of_the_first_step_for_good():
    mask, x = PublishedMask(Settings(mask_source="first", coverage=0.6)), walk()
    expected = (stretch(x[0].abs().mean(1, keepdim=True), 0.2) + 0.2).clamp(0, 1)
    for latent in x:
        torch.testing.assert_close(mask.make(x[1], latent), expected)


@pytest.mark.parametrize("clip", [0.0, 0.2, 0.49])
@pytest.mark.parametrize("space", [(40,), (7, 9), (3, 4, 5)])
def test_stretch_is_torch_s_quantile_by_sample(space, clip):
    values = start((3, 1, *space), torch.float32) * torch.tensor([1.0, 50.0, 0.02]).reshape(3, *[1] * (len(space) + 1))
    low, high = torch.quantile(values.flatten(1), torch.tensor([clip, 1 - clip]), dim=1)
    for value, one, a, b in zip(values, stretch(values, clip), low, high, strict=True):
        torch.testing.assert_close(one, ((value - a) / (b - a)).clamp(0, 1), atol=1e-5, rtol=0)
    within = torch.zeros(1, 1, *space)
    within[..., : space[-1] // 2] = 1
    inside = values[..., : space[-1] // 2]
    torch.testing.assert_close(stretch(values, clip, within)[..., : space[-1] // 2], stretch(inside, clip))
    assert stretch(values, clip, within * 0).max() == 0


@pytest.mark.parametrize("source", ["change", "first"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_latents_may_grow_and_another_batch_starts_anew(dtype, source):
    mask = PublishedMask(Settings(mask_source=source))
    masks_of(mask, *walk((2, 3, 8, 8), 2, dtype))
    grown = mask.make(start((2, 3, 12, 16), dtype), start((2, 3, 12, 16), dtype))
    assert grown.shape == (2, 1, 12, 16)
    assert grown.dtype == torch.float32
    fresh = PublishedMask(Settings(mask_source=source))
    for a, b in zip(
        masks_of(mask, *walk((1, 3, 8, 8), 3, dtype)), masks_of(fresh, *walk((1, 3, 8, 8), 3, dtype)), strict=True
    ):
        assert (a is None and b is None) or torch.equal(a, b)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("when", range(4))
def test_what_is_not_finite_leaves_its_sample_s_memory_alone(when, bad):
    hurt, sane = (PublishedMask(Settings(mask_source="change")) for _ in range(2))
    for step, value in enumerate(walk(steps=6)):
        spoiled = value.clone()
        if step == when:
            spoiled[0, 0, 2, 2] = bad
        before = hurt._memory
        (a,), (b,) = masks_of(hurt, spoiled), masks_of(sane, value)
        if a is not None:
            assert a.isfinite().all(), step
            assert torch.equal(a[1], b[1])
        if before is not None and when in (step, step - 1):
            assert torch.equal(hurt._memory[0], before[0])
    assert a[0].max() > 0
