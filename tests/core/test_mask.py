import math
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from selective_sigma import Settings
from selective_sigma.mask import Mask, blur, change, check_map, resample, structure
from selective_sigma.percentile import stretch
from selective_sigma.settings import CHOICES

from .runs import start

SOURCES = CHOICES["mask_source"]
SPACES = [(33,), (9, 10), (3, 5, 6)]
pools = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}


def made(mask: Mask, denoised, x=None, decay=0.0):
    x = denoised if x is None else x
    return mask.make(denoised, x, torch.full((len(denoised),), decay))


@pytest.mark.parametrize("space", [*SPACES, (1,), (1, 7), (1, 1, 3)])
def test_blur_is_the_mean_of_neighbours(space):
    values = start((2, 1, *space))
    before = values.clone()
    repeated = F.pad(values, [1, 1] * len(space), mode="replicate")
    torch.testing.assert_close(blur(values), pools[len(space)](repeated, 3, 1))
    assert torch.equal(values, before)


def test_change_is_the_mean_move_over_channels():
    a, b = start((2, 3, 4, 5)), start((2, 3, 4, 5), seed=2)
    torch.testing.assert_close(change(a, b), (a - b).abs().mean(1, keepdim=True).float())
    assert change(a.half(), b.half()).dtype == torch.float32


@pytest.mark.parametrize("axis", [2, 3])
def test_structure_lights_edges_only(axis):
    picture = torch.zeros(1, 2, 8, 8)
    picture.narrow(axis, 4, 4).fill_(1)
    lit = structure(picture)
    assert lit.shape == (1, 1, 8, 8)
    assert (lit.narrow(axis, 3, 2) == 1).all()
    assert lit.sum() == 16
    torch.testing.assert_close(structure(picture * 3 + 5), lit * 9)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("coverage", [0.2, 0.5, 0.8])
def test_masks_are_in_range(dtype, space, source, coverage):
    mask = Mask(Settings(mask_source=source, coverage=coverage))
    mask.observe(start((2, 3, *space), dtype))
    for seed in range(3):
        m = made(mask, start((2, 3, *space), dtype, seed), decay=0.5 if seed > 1 else 0.0)
        if seed == 0 and source == "change_published":
            assert m is None
            continue
        assert m.shape == (2, 1, *space)
        assert m.dtype == torch.float32
        assert m.min() >= 0
        assert m.max() <= 1
        assert m.min() < m.max()


@pytest.mark.parametrize("source", SOURCES)
def test_samples_do_not_see_each_other(source):
    whole, alone = Mask(Settings(mask_source=source)), Mask(Settings(mask_source=source))
    for seed in range(3):
        d = start((3, 2, 8, 8), torch.float32, seed) * torch.tensor([1.0, 50.0, 0.02]).reshape(3, 1, 1, 1)
        a, b = made(whole, d, decay=0.3), made(alone, d[2:], decay=0.3)
    assert torch.equal(a[2:], b)


@given(st.floats(0, 1))
def test_coverage_shifts_and_does_not_feed_back(coverage):
    shifted, middle = (Mask(Settings(mask_source="structure", coverage=c)) for c in (coverage, 0.5))
    for seed in range(3):
        d = start((1, 2, 8, 8), torch.float32, seed)
        a, b = made(shifted, d, decay=0.7), made(middle, d, decay=0.7)
        torch.testing.assert_close(a, (b + 2 * (coverage - 0.5)).clamp(0, 1), atol=1e-6, rtol=0)


@given(st.floats(0, 1))
def test_memory_is_an_average_with_the_given_decay(decay):
    mask = Mask(Settings(mask_source="change"))
    d = [start((1, 2, 8, 8), torch.float32, seed) for seed in range(3)]
    fresh = [stretch(blur(change(b, a)), 0.2) for a, b in pairwise(d)]
    mask.observe(d[0])
    assert torch.equal(made(mask, d[1]), fresh[0])
    torch.testing.assert_close(
        made(mask, d[2], decay=decay), decay * fresh[0] + (1 - decay) * fresh[1], atol=1e-6, rtol=0
    )


def test_decay_counts_e_folds_and_not_steps():
    mask = Mask(Settings(memory=0.7))
    assert mask.decay(0.0) == 1
    assert mask.decay(0.7) == pytest.approx(math.exp(-1))
    assert mask.decay(0.2) * mask.decay(0.3) == pytest.approx(mask.decay(0.5))
    assert Mask(Settings(memory=0.0)).decay(0.0) == 0
    assert Mask(Settings(mask_source="change_published", ema=0.8)).decay(3.0) == 0.8


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_leaves_its_sample_s_memory_alone(source, bad):
    hurt, sane = (Mask(Settings(mask_source=source)) for _ in range(2))
    for seed in range(5):
        d = start((2, 2, 8, 8), torch.float32, seed)
        h = d.clone()
        if seed == 3:
            h[0, 0, 2, 2] = bad
        last = hurt._memory
        a, b = made(hurt, h, decay=0.5), made(sane, d, decay=0.5)
        if a is not None:
            assert a.isfinite().all()
            assert torch.equal(a[1], b[1])
        # structure has no memory to spoil, and first never looks again.
        if seed == 3 and source not in ("structure", "first"):
            assert torch.equal(hurt._memory[0], last[0])


def test_structure_keeps_a_smooth_picture_dark_and_not_a_busy_one():
    """A percentile stretch alone would light a fifth of anything."""
    ramp = torch.linspace(-1, 1, 64).expand(1, 3, 64, 64) + 0.02 * start((1, 3, 64, 64), torch.float32, top=1.0)
    busy = start((1, 3, 64, 64), torch.float32, top=1.0)
    smooth, lit = (made(Mask(Settings(mask_source="structure")), d) for d in (ramp, busy))
    assert smooth.max() < 0.05
    assert lit.max() == 1
    assert lit.mean() > 0.2
    # Whatever the latent's own scale.
    torch.testing.assert_close(made(Mask(Settings(mask_source="structure")), busy * 100), lit)


@pytest.mark.parametrize("source", ["change", "structure"])
def test_latents_may_grow(source):
    mask = Mask(Settings(mask_source=source))
    mask.observe(start((1, 2, 8, 8), torch.float16))
    for dtype in (torch.float32, torch.float16):
        for size in (8, 16, 12):
            for _ in range(2):
                m = made(mask, start((1, 2, size, size), dtype), decay=0.5)
                assert m.shape == (1, 1, size, size)
                assert m.isfinite().all()


def test_within_alone_sets_the_scale():
    """What inpainting keeps may be wild: the mask inside is as if it were not there."""
    d = start((1, 2, 16, 16), torch.float32)
    wild = d.clone()
    wild[..., 8:] *= 1000
    within = torch.zeros(1, 1, 16, 16)
    within[..., :6] = 1
    calm, loud = (made(Mask(Settings(mask_source="structure"), within=within), v) for v in (d, wild))
    torch.testing.assert_close(calm[..., :6], loud[..., :6])
    without = made(Mask(Settings(mask_source="structure")), wild)
    assert (without[..., :6] - loud[..., :6]).abs().max() > 0.5


def test_limit_multiplies_and_is_resized():
    d = start((2, 2, 8, 8), torch.float32)
    limit = torch.rand(1, 1, 4, 4)
    free, bound = (made(Mask(Settings(mask_source="structure"), limit=v), d) for v in (None, limit))
    assert torch.equal(bound, free * resample(limit, (8, 8)))


@pytest.mark.parametrize(("override", "value"), [("ones", 1.0), ("half", 0.5), ("zeros", 0.0)])
def test_override_is_constant_from_the_first_call(override, value):
    m = made(Mask(Settings(mask_override=override, coverage=0.1)), start((2, 3, 4, 5), torch.float16))
    assert m.dtype == torch.float32
    assert torch.equal(m, torch.full((2, 1, 4, 5), value))


def test_lights():
    yes = torch.ones(2, dtype=torch.bool)
    dim = torch.zeros(2, 1, 8, 8)
    dim[1, 0, 3, 3] = 0.05
    assert Mask(Settings()).lights([dim], yes).tolist() == [False, True]
    assert Mask(Settings()).lights([dim], ~yes).tolist() == [False, False]
    assert Mask(Settings(mask_source="change_published")).lights([dim], yes).tolist() == [False, False]
    assert Mask(Settings()).lights([dim * 0, dim], yes).tolist() == [False, True]
    assert Mask(Settings(mask_override="zeros")).lights([dim], yes).tolist() == [True, True]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (torch.zeros(4, 4), "shape"),
        (torch.zeros(1, 2, 4, 4), "shape"),
        (torch.full((1, 1, 4), math.nan), "nan"),
        (torch.full((1, 1, 4), 1.5), "1.5"),
        (torch.full((1, 1, 4), -0.5), "-0.5"),
    ],
)
def test_bad_maps_raise(values, said):
    with pytest.raises(ValueError, match=f"limit .*{said}"):
        check_map("limit", values)
    check_map("limit", torch.ones(1, 1, 4, dtype=torch.bool))
