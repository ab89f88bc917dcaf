"""The measures on inputs whose answer is known."""

import math

import pytest
import torch
from scipy.stats import mannwhitneyu

from benchmarks.exact import FINE, PATCH, Mixture, dct_basis
from benchmarks.figures import auc, compare, spread
from benchmarks.study import Pictures, leak_energy, leak_rms


def halves(size=32):
    region = torch.zeros(1, 1, size, size)
    region[..., size // 2 :] = 1
    return region


def checker(size=32):
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    return (1.0 - 2.0 * ((x + y) % 2))[None, None].expand(1, 3, size, size)


def test_auc_known_values():
    truth = torch.tensor([0.0, 0, 1, 1])
    assert auc(torch.tensor([1.0, 2, 3, 4]), truth) == 1
    assert auc(torch.tensor([4.0, 3, 2, 1]), truth) == 0
    assert auc(torch.ones(4), truth) == 0.5
    assert math.isnan(auc(torch.ones(4), torch.zeros(4)))


def test_auc_is_the_rank_statistic():
    generator = torch.Generator().manual_seed(1)
    score, truth = torch.rand(500, generator=generator).round(decimals=1), torch.rand(500, generator=generator) > 0.7
    u = mannwhitneyu(score[truth].numpy(), score[~truth].numpy()).statistic
    assert auc(score, truth.float()) == pytest.approx(u / (truth.sum() * (~truth).sum()).item())


def test_leak_of_known_detail():
    region, pictures = halves(), Pictures(seeds=1, kinds=("landscape",))
    plain = torch.full((1, 3, 32, 32), 0.5)
    detail = checker() * torch.where(region > 0.5, 0.1, 0.03)
    figures = compare(plain + detail, plain, region, 5, 4)
    # A checkerboard loses nothing to the high pass; only its border pixels differ.
    assert figures.inside[0] == pytest.approx(0.1, rel=0.05)
    assert leak_rms(pictures, figures)[0][0] == pytest.approx(0.3, rel=0.05)
    assert leak_energy(pictures, figures)[0] == pytest.approx(0.09, rel=0.1)
    assert figures.cost == 1.25
    assert abs(figures.mean[0]) < 1e-6


def test_side_effects_of_known_changes():
    plain = torch.linspace(0, 1, 32).expand(1, 3, 32, 32).contiguous()
    tint = torch.tensor([0.1, 0.0, -0.1]).view(1, 3, 1, 1)
    figures = compare((plain - 0.5) * 1.2 + 0.5 + 0.05 + tint, plain, halves(), 1, 1)
    assert figures.mean[0] == pytest.approx(0.05, abs=1e-5)
    assert figures.colour[0] == pytest.approx((0.02 / 3) ** 0.5, rel=1e-3)
    grey = compare((plain - 0.5) * 1.2 + 0.5, plain, halves(), 1, 1)
    assert grey.contrast[0] == pytest.approx(0.2, rel=1e-4)


def test_spread_leaves_out_nan():
    assert spread([1.0, 3.0, float("nan")]) == {"mean": 2.0, "std": pytest.approx(2**0.5)}
    assert math.isnan(spread([])["mean"])


def test_pictures_go_by_seed_and_kind():
    pictures = Pictures(seeds=2, kinds=("landscape", "smooth"), count=2)
    assert pictures.by_seed([float(i) for i in range(8)]) == [[[0, 1], [2, 3]], [[4, 5], [6, 7]]]
    assert len({scene.seed for scene in pictures.scenes}) == 8
    assert set(Pictures(seeds=2, kinds=("landscape", "smooth")).scenes) < set(pictures.scenes)


def test_dct_basis_is_orthonormal():
    basis = dct_basis(PATCH)
    assert torch.allclose(basis @ basis.T, torch.eye(PATCH**2), atol=1e-5)


def test_mixture_denoiser_is_the_posterior_mean():
    # Gradient of the log density: D = x + sigma^2 d log p(x) / dx (Tweedie).
    model = Mixture([0], size=PATCH * 2)
    sigma = torch.tensor([0.4])
    x = torch.randn(model.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float32).requires_grad_()
    c = model._cut(x) @ model._basis
    logs = []
    for variance, weight in ((model._smooth, -model._logit), (model._textured, model._logit)):
        total = variance + sigma**2
        logs.append(-0.5 * (c.square() / total + total.log()).sum(-1) + torch.nn.functional.logsigmoid(weight))
    (slope,) = torch.autograd.grad(torch.logsumexp(torch.stack(logs), 0).sum(), x)
    with torch.no_grad():
        assert torch.allclose(model.guided(x, sigma)[0], x + sigma**2 * slope, atol=1e-4)


def test_made_up_texture_is_counted():
    model = Mixture([0, 1], size=PATCH * 4)
    picture = torch.zeros(model.shape)
    assert model.made_up(picture).tolist() == [0, 0]
    picture[1, ..., :PATCH, :PATCH] = FINE * checker(PATCH)[0, 0] * 1.5
    assert model.made_up(picture).tolist() == [0, 1 / 8]
