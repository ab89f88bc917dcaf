"""The exact denoisers, compared with the distributions that they are derived from."""

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
    # By Tweedie's formula, D = x + sigma^2 d log p(x) / dx.
    model = make([0], size=16)
    tiles, sigma = model.denoise.__self__, 0.4
    x = torch.randn(model.shape, generator=torch.Generator().manual_seed(2)).requires_grad_()
    coefficients = tiles._coefficients(x)
    log_densities = []
    for variance, log_odds in ((tiles.smooth, -tiles.prior), (tiles.textured, tiles.prior)):
        noisy_variance = variance + sigma**2
        gaussian = -0.5 * (coefficients.square() / noisy_variance + noisy_variance.log()).sum((-1, -2))
        log_densities.append(gaussian + torch.nn.functional.logsigmoid(log_odds))
    (gradient,) = torch.autograd.grad(torch.logsumexp(torch.stack(log_densities), 0).sum(), x)
    with torch.no_grad():
        assert torch.allclose(model.denoise(x, sigma), x + sigma**2 * gradient, atol=1e-4)


def test_the_shaded_mixture_has_the_variances_it_states():
    tiles = mixture4([0]).denoise.__self__
    assert float((tiles.smooth - 1e-4).sum() / 16) == pytest.approx(0.75, rel=1e-4)
    # At the highest frequency, f = 3/4, there is no shading, and texture has the variance 0.35 / (1 + (0.75 / 0.35)^2).
    assert float(tiles.textured[-1]) == pytest.approx(0.35 / (1 + (0.75 / 0.35) ** 2), rel=1e-4)


def test_guidance_leads_away_from_what_does_not_know_the_halves():
    x = 0.6 * torch.randn(1, 1, 64, 64, generator=torch.Generator().manual_seed(1))
    unguided, guided = (mixture8([0], guidance=scale).predict(x, 0.5) for scale in (1.0, 2.0))
    assert unguided.others == {}
    assert unguided.guided is None
    cond, uncond = guided.denoised, guided.others["uncond"]
    assert torch.equal(cond, unguided.denoised)
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
    shading = torch.randn(1, model.shape[1], 64 // tile, 64 // tile)
    shading = shading.repeat_interleave(tile, 2).repeat_interleave(tile, 3)
    assert float(model.fine(shading).abs().max()) < 1e-5
    checker = 1.0 - 2.0 * ((torch.arange(64)[:, None] + torch.arange(64)) % 2)
    assert float(model.fine(checker.expand(model.shape)).square().mean()) > 0.3


def test_every_photograph_has_a_part_to_be_left_alone():
    """The rule by which the windows were chosen."""
    picture = windows()
    fine = high_pass(picture).square()
    inside, outside = ((fine * region).sum((1, 2, 3)) / region.sum((1, 2, 3)) for region in truth.measured(picture))
    assert (outside / inside).max() < 1 / 50
