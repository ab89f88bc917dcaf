"""What must hold bit for bit, in every type, rank and family; and the published method."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from selective_sigma import Detailer, Prediction, Settings
from selective_sigma.settings import CHOICES
from tests.published import SETTINGS, Published

from .runs import DTYPES, IMAGE, SHAPES, Denoiser, bare, detailed, euler, karras, levels_of, short_steps, start

SOURCES = CHOICES["mask_source"]


def heun(step, x, levels):
    """Calls twice at each level but the first and the last, the second time on what came of the first."""
    for sigma, next_sigma in pairwise(levels):
        slope = (x - step(x, sigma)) / sigma
        guess = x + slope * (next_sigma - sigma)
        if next_sigma > 0:
            slope = (slope + (guess - step(guess, next_sigma)) / next_sigma) / 2
        x = x + slope * (next_sigma - sigma)
    return x


def midpoint(step, x, levels):
    """Calls between two levels as well, as DPM-2 does."""
    for sigma, next_sigma in pairwise(levels):
        middle = (sigma * next_sigma).sqrt() if next_sigma > 0 else sigma / 2
        slope = (x - step(x, sigma)) / sigma
        guess = x + slope * (middle - sigma)
        x = x + (guess - step(guess, middle)) / middle * (next_sigma - sigma)
    return x


def restart(step, x, levels):
    """Goes up again in the middle, and probes above and between the run's own levels."""
    for sigma, next_sigma in zip([*levels[:8], *levels[3:-1]], [*levels[1:8], levels[3], *levels[4:]], strict=True):
        denoised = step(x, sigma)
        step(x, sigma * 1.0001)
        step(x, (sigma + next_sigma) / 2)
        x = denoised + (x - denoised) * (next_sigma / sigma).to(x.dtype)
    return x


SAMPLERS = [euler, heun, midpoint, restart]


@pytest.mark.parametrize("every", [1, 2])
@pytest.mark.parametrize("family", ["ve", "flow"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_identities_bit_for_bit(dtype, shape, family, every):
    levels = levels_of(family, 10)
    x, model = start(shape, dtype, top=float(levels[0])), Denoiser(shape, dtype, family)
    expected = bare(model, x, levels)
    zeros, run = detailed(model, x, levels, Settings(mask_override="zeros", every=every))
    assert torch.equal(zeros, expected)
    # The check is on the blend itself: both passes at every step that is due.
    due = [step.index for step in run._schedule.steps if run._schedule.dose(step)]
    assert [call.index for call in model.seen if call.kind == "lied"] == due
    assert len(due) >= 4
    zeros, _ = detailed(model, x, levels, Settings(mask_override="zeros", coverage=1.0, every=every))
    assert torch.equal(zeros, expected)
    ones, _ = detailed(model, x, levels, Settings(mask_override="ones", every=every))
    model.seen.clear()
    full, run = detailed(model, x, levels, Settings(coverage=1.0, every=every))
    assert torch.equal(ones, full)
    assert not torch.equal(full, expected)
    assert [call.kind for call in model.seen] == ["lied" if i in due else "plain" for i in range(10)]
    for idle in (Settings(strength=0.0), Settings(coverage=0.0)):
        result, run = detailed(model, x, levels, idle)
        assert torch.equal(result, expected)
        assert run.report.skipped == {"idle": 10}
        assert run.report.calls == 10


@pytest.mark.parametrize("every", [1, 2, 3])
@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_identities_on_samplers_that_call_twice_probe_or_go_up(sampler, source, every):
    levels, model, x = karras(14).double(), Denoiser(IMAGE), start(IMAGE)
    expected = bare(model, x, levels, sampler)
    results = {}
    for name, chosen in {
        "zeros": {"mask_override": "zeros"},
        "ones": {"mask_override": "ones"},
        "full": {"coverage": 1.0},
        "masked": {},
    }.items():
        settings = Settings(strength=0.3, every=every, mask_source=source, **chosen)
        results[name], run = detailed(model, x, levels, settings, sampler)
        assert run.report.lied >= 2, name
    assert torch.equal(results["zeros"], expected)
    assert torch.equal(results["ones"], results["full"])
    distances = {name: float((result - expected).norm()) for name, result in results.items()}
    assert 0 < distances["masked"] < distances["full"]


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("coverage", [0.5, 1.0])
def test_limits_of_ones_and_zeros_are_everywhere_and_nowhere(coverage, source):
    levels, model, x = karras(12), Denoiser(IMAGE), start(IMAGE)
    chosen = Settings(coverage=coverage, mask_source=source)
    expected, unlimited = bare(model, x, levels), detailed(model, x, levels, chosen)[0]
    assert torch.equal(detailed(model, x, levels, chosen, limit=torch.ones(1, 1, 12, 12))[0], unlimited)
    assert torch.equal(detailed(model, x, levels, chosen, limit=torch.zeros(1, 1, 6, 6))[0], expected)
    half = torch.zeros(1, 1, 12, 12)
    half[..., :6] = 1
    part = detailed(model, x, levels, chosen, limit=half)[0]
    # This denoiser works pixel by pixel, so what may not change does not.
    assert torch.equal(part[..., 6:], expected[..., 6:])
    assert not torch.equal(part[..., :6], expected[..., :6])


def test_a_plain_step_returns_the_very_tensors():
    levels, calls, x = karras(10), [], start(IMAGE)

    def model(call):
        calls.append((call, Prediction(call.x * 0.5, {"uncond": call.x * 2})))
        return calls[-1][1]

    for chosen, step in ((Settings(), 0), (Settings(strength=0.0), 6), (Settings(coverage=0.0), 6)):
        out = Detailer(chosen, levels).step(model, x, levels[step])
        call, prediction = calls[-1]
        assert call.x is x
        assert call.sigma is call.true_sigma
        assert (call.kind, call.index) == ("plain", step)
        assert out.denoised is prediction.denoised
        assert out.others["uncond"] is prediction.others["uncond"]
        assert (out.kind, out.index, out.mask) == ("plain", step, None)
    assert len(calls) == 3


@pytest.mark.parametrize("coverage", [0.5, 1.0])
@pytest.mark.parametrize("family", ["ve", "flow"])
def test_a_schedule_cut_at_even_places_gives_the_unsplit_run_bit_for_bit(family, coverage):
    """20 steps as 10 runs of 2, as 2 and 18 and so on; chains of samplers do so, and models of two experts."""
    levels = short_steps(20, family)
    model, x = Denoiser(IMAGE, torch.float32, family), start(IMAGE, torch.float32, top=float(levels[0]))
    chosen, window = Settings(coverage=coverage), (float(levels[4]), 0.0)

    def run(cuts):
        latent, lied = x, []
        for first, last in pairwise([0, *cuts, 20]):
            model.seen.clear()
            latent, _ = detailed(model, latent, levels[first : last + 1], chosen, window=window)
            lied += [call for call in model.seen if call.kind == "lied"]
        return latent, [(float(call.sigma), float(call.true_sigma)) for call in lied]

    unsplit, expected_calls = run([])
    assert len(expected_calls) > 7
    for cuts in ([2], [10], [4, 8, 18], range(2, 20, 2)):
        result, parts = run(cuts)
        assert torch.equal(result, unsplit)
        assert parts == expected_calls
    # Runs of one step cannot carry each other's doses: there each step is told its own.
    each_step, _ = detailed(model, x, levels, Settings(coverage=coverage, every=1), window=window)
    assert torch.equal(run(range(1, 20))[0], each_step)
    # Elsewhere as nearly as two runs of another `every` agree.
    uneven, _ = run([7, 13])
    assert not torch.equal(uneven, unsplit)
    assert (uneven - unsplit).norm() < 0.5 * (unsplit - bare(model, x, levels)).norm()


@pytest.mark.parametrize("sampler", [euler, heun, midpoint])
@pytest.mark.parametrize("coverage", [0.4, 0.5, 0.7])
@pytest.mark.parametrize("strength", [0.1, 0.5, -0.3])
@pytest.mark.parametrize("steps", [6, 20])
def test_equal_to_the_published_method(steps, strength, coverage, sampler):
    shape, levels = (2, 4, 40, 36), karras(steps).double()
    model, x = Denoiser(shape), start(shape)
    result, run = detailed(model, x, levels, Settings(strength=strength, coverage=coverage, **SETTINGS), sampler)
    reference = Published(levels, strength, coverage)
    expected = sampler(lambda x, sigma: reference.step(model.denoise, x, sigma), x, levels)
    assert (result - expected).norm() < 1e-3 * (expected - bare(model, x, levels, sampler)).norm()
    assert (result - expected).norm() < 1e-5 * expected.norm()
    assert run.report.steps == reference.steps
    assert run.report.calls + run.report.skipped["first"] == reference.calls
