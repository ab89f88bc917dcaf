"""The denoisers that are known exactly, against what they are known from."""

import pytest
import torch

from benchmarks.models import dct_basis, high_pass, mixture4, mixture8, windows
from selective_sigma.demo import truth


@pytest.mark.parametrize("size", [4, 8])
def test_dct_basis_is_orthonormal(size):
    basis = dct_basis(size)
    assert torch.allclose(basis @ basis.T, torch.eye(size**2), atol=1e-5)


@pytest.mark.parametrize("make", [mixture8, mixture4])
def test_mixture_denoiser_is_the_posterior_mean(make):
    # Gradient of the log density: D = x + sigma^2 d log p(x) / dx (Tweedie).
    model = make([0], size=16)
    tiles, sigma = model.denoise.__self__, 0.4
    x = torch.randn(model.shape, generator=torch.Generator().manual_seed(2)).requires_grad_()
    c = tiles._coefficients(x)
    logs = []
    for variance, weight in ((tiles.smooth, -tiles.prior), (tiles.textured, tiles.prior)):
        total = variance + sigma**2
        logs.append(-0.5 * (c.square() / total + total.log()).sum((-1, -2)) + torch.nn.functional.logsigmoid(weight))
    (slope,) = torch.autograd.grad(torch.logsumexp(torch.stack(logs), 0).sum(), x)
    with torch.no_grad():
        assert torch.allclose(model.denoise(x, sigma), x + sigma**2 * slope, atol=1e-4)


def test_the_shaded_mixture_has_the_variances_it_states():
    tiles = mixture4([0]).denoise.__self__
    assert float((tiles.smooth - 1e-4).sum() / 16) == pytest.approx(0.75, rel=1e-4)
    # The highest frequency: f = 3/4, where shading is nothing and texture 0.35 / (1 + (0.75 / 0.35)^2).
    assert float(tiles.textured[-1]) == pytest.approx(0.35 / (1 + (0.75 / 0.35) ** 2), rel=1e-4)


def test_guidance_leads_away_from_what_does_not_know_the_halves():
    x = 0.6 * torch.randn(1, 1, 64, 64, generator=torch.Generator().manual_seed(1))
    alone, guided = (mixture8([0], guidance=g).predict(x, 0.5) for g in (1.0, 2.0))
    assert alone.others == {}
    assert alone.guided is None
    cond, uncond = guided.denoised, guided.others["uncond"]
    assert torch.equal(cond, alone.denoised)
    assert torch.allclose(guided.guided, 2 * cond - uncond, atol=1e-5)
    assert not torch.allclose(cond, uncond, atol=1e-3)
    positive = mixture8([0], guidance=2.0).predict(x, 0.5, "positive")
    assert torch.equal(positive.denoised, cond)
    assert positive.others == {}
    assert positive.guided is None


@pytest.mark.parametrize("make", [mixture8, mixture4])
def test_shading_is_no_fine_detail_on_a_mixture(make):
    model = make([0])
    tile = 8 if model.shape[1] == 1 else 4
    shade = torch.randn(1, model.shape[1], 64 // tile, 64 // tile).repeat_interleave(tile, 2).repeat_interleave(tile, 3)
    assert float(model.fine(shade).abs().max()) < 1e-5
    checker = 1.0 - 2.0 * ((torch.arange(64)[:, None] + torch.arange(64)) % 2)
    assert float(model.fine(checker.expand(model.shape)).square().mean()) > 0.3


def test_every_photograph_has_a_part_to_be_left_alone():
    """The rule that the windows are chosen by."""
    picture = windows()
    fine = high_pass(picture).square()
    inside, outside = ((fine * r).sum((1, 2, 3)) / r.sum((1, 2, 3)) for r in truth.measured(picture))
    assert (outside / inside).max() < 1 / 50
