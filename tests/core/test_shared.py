"""THE STEP where it is made of several calls or several latents: one mask shared, streams."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from selective_sigma import Detailer, Prediction, Settings
from selective_sigma.mask import response
from selective_sigma.settings import CHOICES

from .runs import IMAGE, Denoiser, detailed, karras, short_steps, start

SOURCES = CHOICES["mask_source"]
ALL = {"every": 1, "start": 0.0}


@pytest.mark.parametrize(
    "chosen", [{}, {"mask_source": "change"}, {"mask_override": "half"}, {"coverage": 1.0}], ids=str
)
def test_a_further_call_of_a_step_gets_the_first_one_s_effect_or_its_mask(chosen):
    """As hosts need it that call their model for cond and then for uncond."""
    levels, cond, uncond = karras(12), Denoiser(IMAGE), Denoiser(IMAGE, seed=3)
    settings = Settings(**ALL, **chosen)
    detailer, kinds = Detailer(settings, levels), []
    x, expected = start(IMAGE), detailed(cond, start(IMAGE), levels, settings)[0]
    for i, sigma in enumerate(levels[:-1]):
        first = detailer.step(cond, x, sigma)
        uncond.seen.clear()
        second = detailer.again(uncond, x, sigma, first)
        seen = {call.kind: uncond.denoise(call.x, call.sigma) for call in uncond.seen}
        kinds.append(first.kind)
        assert (second.kind, second.index) == (first.kind, first.index)
        if first.kind == "plain":
            assert torch.equal(second.denoised, seen["plain"])
        elif first.kind == "lied":
            assert torch.equal(second.denoised, seen["lied"])
            assert list(seen) == ["lied"]
        elif first.effect is not None:
            # One effect for all predictions, and no second call.
            assert list(seen) == ["plain"]
            torch.testing.assert_close(second.denoised - seen["plain"], first.denoised - plain_of(cond, x, sigma))
        else:
            mask = first.mask.double()
            torch.testing.assert_close(second.denoised, seen["plain"] * (1 - mask) + seen["lied"] * mask)
        x = first.denoised + (x - first.denoised) * (levels[i + 1] / sigma)
    assert torch.equal(x, expected)
    assert kinds.count("plain") == (4 if "mask_source" in chosen else 0)


def plain_of(model, x, sigma):
    return model.denoise(x, sigma)


def test_one_effect_is_added_to_every_prediction_of_a_step():
    """The lie is told about denoised alone; the mask compares its effect with what the guided picture holds."""
    levels, x, calls = karras(12), start(IMAGE), []
    cond, uncond = Denoiser(IMAGE), Denoiser(IMAGE, seed=3)

    def model(call):
        calls.append((call.kind, call.conds))
        c = cond.denoise(call.x, call.sigma)
        if call.kind == "lied":
            return Prediction(c)
        u = uncond.denoise(call.x, call.sigma)
        return Prediction(c, {"uncond": u}, guided=u + 4 * (c - u))

    sigma = levels[6]
    detailer = Detailer(Settings(**ALL), levels)
    out = detailer.step(model, x, sigma)
    assert calls == [("lied", "positive"), ("plain", "all")]
    c, u = cond.denoise(x, sigma), uncond.denoise(x, sigma)
    told = cond.denoise(x, sigma * 0.9)
    mask = response(c, told, 0.5, -math.log(0.9), guided=u + 4 * (c - u))
    assert not torch.allclose(mask, response(c, told, 0.5, -math.log(0.9)), atol=1e-3)
    torch.testing.assert_close(out.mask, mask)
    torch.testing.assert_close(out.effect, (told - c) * mask)
    torch.testing.assert_close(out.denoised, c + out.effect)
    torch.testing.assert_close(out.others["uncond"], u + out.effect)
    torch.testing.assert_close(out.guided, u + 4 * (c - u) + out.effect)
    assert (out.effect.abs() > 1e-3).any()


def test_what_the_lied_call_predicts_too_is_blended_with_its_own():
    levels, x, model = karras(12), start(IMAGE), Denoiser(IMAGE)
    out = Detailer(Settings(**ALL), levels).step(model, x, levels[6])
    lied, plain = (model.denoise(call.x, call.sigma) * 0.5 for call in model.seen)
    torch.testing.assert_close(out.others["half"], plain + (lied - plain) * out.mask.double())


@pytest.mark.parametrize("chosen", [{"mask_override": "ones"}, {"mask_override": "zeros"}, {"coverage": 1.0}], ids=str)
def test_a_constant_mask_tells_the_lie_to_every_conditioning(chosen):
    calls = []

    def model(call):
        calls.append((call.kind, call.conds, call.is_first_of_two))
        return Prediction(call.x * 0.5)

    Detailer(Settings(**ALL, **chosen), karras(12)).step(model, start(IMAGE), karras(12)[6])
    assert calls == {
        "ones": [("plain", "all", True), ("lied", "all", False)],  # The lied call leaves its trace, as in one pass.
        "zeros": [("lied", "all", True), ("plain", "all", False)],
    }.get(chosen.get("mask_override"), [("lied", "all", False)])


@pytest.mark.parametrize("coverage", [0.5, 1.0])
def test_where_a_cache_answers_the_step_stays_plain_and_its_dose_is_told_later(coverage):
    levels, x, model = short_steps(12), start(IMAGE), Denoiser(IMAGE)
    settings, window = Settings(coverage=coverage, every=2), (float(levels[2]), 0.0)
    full = Detailer(settings, levels, window=window)
    detailer = Detailer(settings, levels, window=window)

    def cache(call):
        answer = model(call)
        return replace(answer, cached=True) if call.index in (2, 6, 7) else answer

    for sigma in levels[:-1]:
        full.step(model, x, sigma)
        out = detailer.step(cache, x, sigma)
        if out.index in (2, 6, 7):
            assert out.kind == "plain"
            assert torch.equal(out.denoised, model.denoise(x, sigma)) or coverage == 1
    assert detailer.report.skipped["cached"] == 3
    assert detailer.report.e_folds == pytest.approx(full.report.e_folds)
    assert detailer.report.steps == detailer.report.lied + sum(detailer.report.skipped.values())


@pytest.mark.parametrize("name", ["limit", "within"])
def test_a_black_map_makes_the_run_plain_and_says_so(name):
    levels, x, model = karras(12), start(IMAGE), Denoiser(IMAGE)
    detailer = Detailer(Settings(), levels, **{name: torch.zeros(1, 1, 6, 6)})
    for sigma in levels[:-1]:
        assert detailer.step(model, x, sigma).kind == "plain"
    assert detailer.report.skipped == {"empty": 12}
    assert detailer.report.calls == 12
    streams = Detailer(Settings(**ALL), levels, **{name: torch.zeros(1, 1, 6, 6)})
    two = streams.step(lambda call: Prediction([value * 0.5 for value in call.x]), [x, x], levels[6])
    assert two.kind == "blended"  # A map concerns the first stream alone.
    zeros = Detailer(Settings(mask_override="half", **ALL), levels, **{name: torch.zeros(1, 1, 6, 6)})
    assert zeros.step(model, x, levels[6]).kind == "blended"  # The override checks the blend itself.


@pytest.mark.parametrize("source", SOURCES)
def test_streams_are_stepped_as_if_alone_and_blended_alike(source):
    shapes = [(2, 4, 8, 8), (2, 3, 20)]
    models, levels = [Denoiser(shape, seed=i) for i, shape in enumerate(shapes)], karras(12)
    x = [start(shape, seed=i) for i, shape in enumerate(shapes)]
    chosen = Settings(mask_source=source, strength=0.3)
    alone = [detailed(model, value, levels, chosen)[0] for model, value in zip(models, x, strict=True)]

    def model(call):
        denoised = [m.denoise(value, call.sigma) for m, value in zip(models, call.x, strict=True)]
        return Prediction(denoised, {"half": [value * 0.5 for value in denoised]})

    detailer = Detailer(chosen, levels)
    for i, sigma in enumerate(levels[:-1]):
        out = detailer.step(model, x, sigma)
        for value, half in zip(out.denoised, out.others["half"], strict=True):
            torch.testing.assert_close(half, value * 0.5)
        x = [d + (value - d) * (levels[i + 1] / sigma) for d, value in zip(out.denoised, x, strict=True)]
    assert [tuple(m.shape) for m in detailer.mask] == [(2, 1, 8, 8), (2, 1, 20)]
    for together, single in zip(x, alone, strict=True):
        torch.testing.assert_close(together, single, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("coverage", [0.5, 1.0])
def test_a_fractional_limit_lets_its_share_through(coverage):
    levels, x, model = karras(12), start(IMAGE), Denoiser(IMAGE)
    free = Detailer(Settings(coverage=coverage, **ALL), levels, limit=torch.ones(1, 1, 12, 12))
    half = Detailer(Settings(coverage=coverage, **ALL), levels, limit=torch.full((1, 1, 12, 12), 0.3))
    plain = model.denoise(x, levels[6])
    whole, part = (detailer.step(model, x, levels[6]) for detailer in (free, half))
    torch.testing.assert_close(part.mask, 0.3 * whole.mask)
    torch.testing.assert_close(part.denoised - plain, 0.3 * (whole.denoised - plain), rtol=1e-5, atol=1e-6)


def test_beside_a_cache_ones_is_coverage_one():
    """Under ones the lied call comes last, as the only one of coverage 1, and what a cache answers to it is kept."""
    levels, x, results = short_steps(12), start(IMAGE), []
    for chosen in ({"mask_override": "ones"}, {"coverage": 1.0}):
        model, detailer = Denoiser(IMAGE), Detailer(Settings(**ALL, **chosen), levels)

        def cache(call, model=model):
            answer = model(call)
            if call.kind == "lied" and call.index % 3 == 0:
                return Prediction(answer.denoised * 1.01, answer.others, cached=True)
            return answer

        results.append([detailer.step(cache, x, sigma).denoised for sigma in levels[:-1]])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_limit_and_within_concern_the_first_stream():
    levels, x = karras(12), [start((1, 4, 8, 8)), start((1, 4, 8, 8), seed=2)]

    def model(call):
        return Prediction([Denoiser((1, 4, 8, 8)).denoise(value, call.sigma) for value in call.x])

    left = torch.zeros(1, 1, 8, 8)
    left[..., :4] = 1
    free, bound = Detailer(Settings(**ALL), levels), Detailer(Settings(**ALL), levels, limit=left)
    free.step(model, x, levels[6])
    bound.step(model, x, levels[6])
    assert torch.equal(bound.mask[0], free.mask[0] * left)
    assert torch.equal(bound.mask[1], free.mask[1])
    assert free.mask[1].max() > 0
    part = torch.zeros(1, 1, 8, 8)
    part[..., :3] = 1
    for source in ("response", "change"):
        settings = Settings(mask_source=source, every=1, start=0.1)
        free, inside = Detailer(settings, levels), Detailer(settings, levels, within=part)
        for sigma in levels[2:5]:
            free.step(model, x, sigma)
            inside.step(model, x, sigma)
        assert not torch.equal(inside.mask[0], free.mask[0])
        assert torch.equal(inside.mask[1], free.mask[1])
