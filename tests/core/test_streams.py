import pytest
import torch

from selective_sigma import Detailer, Settings
from selective_sigma.streams import Streams

from .runs import Denoiser, detailed, sigmas, start

SHAPES = [(2, 3, 4, 5, 6), (2, 8, 20)]
TOTAL = 3 * 4 * 5 * 6 + 8 * 20


def test_split_and_join():
    streams = Streams(SHAPES)
    packed = start((2, 1, TOTAL))
    video, audio = streams.split(packed)
    assert video.shape == (2, 3, 4, 5, 6)
    assert audio.shape == (2, 8, 20)
    assert torch.equal(torch.cat([video.flatten(1), audio.flatten(1)], 1).unsqueeze(1), packed)
    masks = [torch.rand(2, 1, 4, 5, 6), torch.rand(2, 1, 20)]
    back = streams.split(streams.join(masks))
    assert torch.equal(back[0], masks[0].expand(2, 3, 4, 5, 6))
    assert torch.equal(back[1], masks[1].expand(2, 8, 20))


def test_one_shape_is_no_pack():
    x = start((2, 3, 4, 5))
    for shapes in (None, [(2, 3, 4, 5)]):
        assert Streams(shapes).split(x)[0] is x
        assert len(Streams(shapes)) == 1


@pytest.mark.parametrize("shape", [(2, 1, TOTAL + 1), (2, 2, TOTAL), (2, 1, TOTAL, 1)])
def test_a_pack_that_does_not_fit_raises_before_the_model(shape):
    model, levels = Denoiser(shape), sigmas(10)
    with pytest.raises(ValueError, match="shapes hold"):
        Detailer(Settings(), levels, shapes=SHAPES).step(model, torch.zeros(shape), levels[0])
    assert model.calls == 0


@pytest.mark.parametrize("passes", ["two", "economy"])
def test_each_stream_has_the_mask_it_would_have_alone(passes):
    """A pack run as one equals its streams run alone: the mask of one never sees the other."""
    levels = sigmas(12)
    shape = (1, 1, TOTAL)
    whole, x = Denoiser(shape), start(shape)
    chosen = Settings(passes=passes, refresh=0.0)
    result, packed = detailed(whole, x, levels, chosen, shapes=SHAPES)
    for i in (0, 1):
        model, one = Denoiser(shape), Streams(SHAPES)
        model.mean, model.variance = (one.split(t[None])[i][0] for t in (whole.mean, whole.variance))
        expected, _ = detailed(model, one.split(x)[i], levels, chosen)
        torch.testing.assert_close(one.split(result)[i], expected, rtol=1e-6, atol=1e-6)
    assert packed.mask.shape == (1, 1, TOTAL)
