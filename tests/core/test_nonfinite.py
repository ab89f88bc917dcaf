"""NaN and inf: passed through, counted, never spread."""

import math

import pytest
import torch

from selective_sigma import Detailer, Prediction, Settings
from selective_sigma.prediction import finite_samples
from selective_sigma.settings import CHOICES

from .runs import IMAGE, Denoiser, karras, start

NONFINITE = [math.nan, math.inf, -math.inf]


def run(source, poison):
    """12 steps from fresh latents; ``poison(kind, index, prediction)`` may spoil a call."""
    denoiser, levels, predictions = Denoiser(IMAGE), karras(12), {}
    detailer = Detailer(Settings(mask_source=source, every=1, start=0.1, strength=0.3), levels, record=True)

    def model(call):
        predictions[call.kind, call.index] = poison(call.kind, call.index, denoiser(call))
        return predictions[call.kind, call.index]

    outs = [detailer.step(model, start(IMAGE, seed=i), sigma) for i, sigma in enumerate(levels[:-1])]
    return outs, predictions, detailer


@pytest.mark.parametrize("bad", NONFINITE)
def test_without_a_mask_it_is_passed_through_and_counted(bad):
    levels, denoiser = karras(12), Denoiser(IMAGE)
    detailer = Detailer(Settings(coverage=1.0), levels)

    def model(call):
        prediction = denoiser(call)
        prediction.denoised[0, 0, 0, 0] = bad if call.kind == "lied" else 0.0
        return prediction

    lied = [detailer.step(model, start(IMAGE), sigma).kind for sigma in levels[:-1]].count("lied")
    assert detailer.report.nonfinite == lied > 0


@pytest.mark.parametrize("kind", ["plain", "lied"])
@pytest.mark.parametrize("bad", NONFINITE)
def test_constant_masks_return_what_their_own_pass_predicts_bit_for_bit(bad, kind):
    """NaN included: ones is coverage 1, zeros is the bare run."""
    levels, denoiser = karras(12), Denoiser(IMAGE)

    def run(**chosen):
        detailer = Detailer(Settings(every=1, **chosen), levels)

        def model(call):
            prediction = denoiser(call)
            if call.kind == kind:
                prediction.denoised[0, 0, 0, 0] = bad
            return prediction

        return [detailer.step(model, start(IMAGE), sigma).denoised for sigma in levels[:-1]], detailer.report

    (ones, report), (full, one_pass) = run(mask_override="ones"), run(coverage=1.0)
    zeros, bare = run(mask_override="zeros")[0], run(strength=0.0)[0]
    for a, b in ((ones, full), (zeros, bare)):
        for left, right in zip(a, b, strict=True):
            assert torch.equal(left.nan_to_num(7.0), right.nan_to_num(7.0))
    assert report.nonfinite == report.lied
    assert one_pass.nonfinite == (one_pass.lied if kind == "lied" else 0)


@pytest.mark.parametrize("source", CHOICES["mask_source"])
@pytest.mark.parametrize("bad", NONFINITE)
@pytest.mark.parametrize("name", ["denoised", "half"])
@pytest.mark.parametrize("kind", ["plain", "lied"])
@pytest.mark.parametrize("when", [2, 6])
def test_a_spoiled_sample_is_the_plain_prediction_and_its_neighbour_is_unchanged(when, kind, name, bad, source):
    def poison(call_kind, index, prediction):
        if (call_kind, index) != (kind, when):
            return prediction
        tensors = {"denoised": prediction.denoised.clone(), "half": prediction.others["half"].clone()}
        tensors[name][0, 1, 3, 3] = bad
        return Prediction(tensors["denoised"], {"half": tensors["half"]})

    spoiled, predictions, with_bad = run(source, poison)
    clean, _, without = run(source, lambda _kind, _index, prediction: prediction)
    assert without.report.nonfinite == 0
    assert with_bad.report.nonfinite == 1
    plain = predictions["plain", when]
    assert spoiled[when].kind == "blended"
    # The mask of the output is the one that was used.
    assert spoiled[when].mask[0].abs().max() == 0
    assert all(record.mask.isfinite().all() for record in with_bad.masks)
    torch.testing.assert_close(spoiled[when].denoised[0], plain.denoised[0], rtol=0, atol=0, equal_nan=True)
    torch.testing.assert_close(spoiled[when].others["half"][0], plain.others["half"][0], rtol=0, atol=0, equal_nan=True)
    for i, (a, b) in enumerate(zip(spoiled, clean, strict=True)):
        assert torch.equal(a.denoised[1], b.denoised[1])
        assert torch.equal(a.others["half"][1], b.others["half"][1])
        assert i == when or a.denoised.isfinite().all(), i
    # The response mask has no memory, so that the steps after are unchanged.
    if source == "response":
        assert all(
            torch.equal(a.denoised, b.denoised)
            for i, (a, b) in enumerate(zip(spoiled, clean, strict=True))
            if i != when
        )
    assert "1 samples with NaN or inf" in str(with_bad.report)


@pytest.mark.parametrize("bad", NONFINITE)
def test_one_stream_s_bad_sample_leaves_its_other_streams_plain_too(bad):
    """The streams are one prediction, so a sample is plain in all of them or in none."""
    levels, x = karras(12), [start((2, 4, 8, 8)), start((2, 3, 20))]

    def model(call):
        denoised = [Denoiser(value.shape).denoise(value, call.sigma) for value in call.x]
        if call.kind == "lied":
            denoised[1][0, 0, 4] = bad
        return Prediction(denoised)

    out = Detailer(Settings(every=1), levels).step(model, x, levels[6])
    plain = [Denoiser(value.shape).denoise(value, levels[6]) for value in x]
    for blended, before in zip(out.denoised, plain, strict=True):
        assert torch.equal(blended[0], before[0])
        assert not torch.equal(blended[1], before[1])


def test_sums_in_half_precision_do_not_overflow():
    large_values = torch.full((2, 4, 64, 64), 6e4, dtype=torch.float16)
    assert finite_samples(Prediction(large_values)).all()
    assert finite_samples(Prediction(large_values, {"other": large_values * 2})).tolist() == [False, False]
    # Opposite infinities do not cancel.
    large_values[1, 0, 0, :2] = torch.tensor([math.inf, -math.inf])
    assert finite_samples(Prediction(large_values)).tolist() == [True, False]
