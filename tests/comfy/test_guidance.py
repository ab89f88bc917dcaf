"""CFG++ samplers, and guidance patches in the same hooks."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import comfy.model_patcher
import comfy.samplers
import comfy.sd
import pytest
import tiny
import torch
from comfy_extras import nodes_cfg, nodes_eps, nodes_mahiro, nodes_pag, nodes_sag, nodes_slg
from torch import Tensor

from selective_sigma import Settings
from selective_sigma.comfy.run.sampler import wrap

if TYPE_CHECKING:
    from pathlib import Path

CFG_PP = [name for name in comfy.samplers.SAMPLER_NAMES if "cfg_pp" in name]
seven = pytest.mark.parametrize("name", CFG_PP)


def constant(share: float) -> Tensor:
    """A limit of one value, which makes the mask of full coverage constant."""
    return torch.full((1, 64, 64), share)


@seven
@tiny.each_kind
def test_effect_is_linear_in_the_mask(name: str, kind: str):
    # The strength is small enough for the samplers to be nearly linear. Halving it halves the deviation.
    # dpmpp_2s_ancestral_cfg_pp treats flow models as eps models and amplifies every change.
    curved = name == "dpmpp_2s_ancestral_cfg_pp" and kind == "flow"
    model, settings = tiny.shared_model(kind), Settings(strength=0.01, coverage=1.0)
    sigmas = tiny.schedule(model, 20)
    bare = tiny.sample(model, tiny.sampler(name), sigmas)
    effects = {
        share: tiny.sample(model, wrap(tiny.sampler(name), settings, limit=constant(share)), sigmas) - bare
        for share in (0.25, 0.5, 0.75, 1.0)
    }
    for share in (0.25, 0.5, 0.75):
        expected = share * effects[1.0]
        assert tiny.effect(effects[share], expected) <= (0.05 if curved else 0.01) * float(expected.norm())
    one_pass = tiny.sample(model, wrap(tiny.sampler(name), settings), sigmas)
    assert torch.equal(effects[1.0], one_pass - bare)


@pytest.mark.parametrize(
    ("name", "kind", "cfg"),
    # Only these samplers support flow models. The others treat them as eps models.
    [*((name, "eps", 2.0) for name in CFG_PP), *((name, "flow", 1.0) for name in CFG_PP if name.startswith("euler"))],
)
def test_effect_does_not_depend_on_the_step_count(name: str, kind: str, cfg: float):
    # Under a constant mask. The response mask of a texture that fills the picture, as here, is dark above some noise
    # level, and how much of a short run is below it depends on where its steps are.
    model, sizes = tiny.shared_model(kind), []
    for steps in (10, 20, 40):
        sigmas = tiny.schedule(model, steps)
        bare = tiny.sample(model, tiny.sampler(name), sigmas, shape=(2, 4, 16, 16), cfg=cfg)
        wrapped = wrap(tiny.sampler(name), Settings(coverage=1.0), limit=constant(0.5))
        ours = tiny.sample(model, wrapped, sigmas, shape=(2, 4, 16, 16), cfg=cfg)
        sizes.append(tiny.effect(ours, bare) / float(bare.norm()))
    assert max(sizes) <= 1.5 * min(sizes)


STD = torch.full((1, 1, 32, 32), 0.1)
STD[..., 16:] = 0.5


@cache
def gaussian_model() -> Any:
    """A MODEL that is exact for Gaussian pictures of deviation ``STD``, a little less for the negative conditioning."""
    model = tiny.model(tiny.EPS)
    model.model.latent_format.scale_factor = 1.0

    def denoised(x: Tensor, sigma: Tensor, *more: Any, **_: Any) -> Tensor:
        # concatenated latent, context, control, transformer_options
        positions, level = more[3]["cond_or_uncond"], float(sigma[0])
        parts: list[Tensor] = []
        for position, part in zip(positions, x.chunk(len(positions)), strict=True):
            variance = (STD if position == 0 else 0.9 * STD).square()
            parts.append(part * variance / (variance + level**2))
        return torch.cat(parts)

    model.model._apply_model = denoised
    return model


def detail_gain(name: str, cfg: float, steps: int) -> float:
    """Gain of fine-detail energy in the half with most detail, relative to the bare sampler."""
    model, shape, energies = gaussian_model(), (4, 4, 32, 32), []
    for sampler in (tiny.sampler(name), wrap(tiny.sampler(name), Settings())):
        picture = tiny.sample(model, sampler, tiny.schedule(model, steps, "karras"), shape=shape, cfg=cfg)
        fine = picture - torch.nn.functional.avg_pool2d(picture, 3, 1, 1)
        energies.append(float(fine[..., 1:-1, 17:-1].square().mean()))
    return energies[1] / energies[0] - 1


@pytest.mark.parametrize("cfg", [1.5, 4.0])
@pytest.mark.parametrize("name", ["euler", "euler_ancestral"])
def test_cfg_pp_gains_as_much_as_without(name: str, cfg: float):
    ratios = [detail_gain(f"{name}_cfg_pp", cfg, steps) / detail_gain(name, cfg, steps) for steps in (8, 20, 50)]
    assert min(ratios) > 0.7
    assert max(ratios) < 1.3


@pytest.mark.compat("CFG++ samplers", "zeros and ones hold, beside other hooks too")
@seven
@tiny.each_kind
@pytest.mark.parametrize("cfg", [1.0, 3.0])
def test_ends_are_exact_beside_other_hooks(name: str, kind: str, cfg: float):
    # At cfg 1 ComfyUI leaves out uncond, unless the sampler's hook asks for it, as CFG++ samplers do.
    model = nodes_eps.EpsilonScaling.execute(tiny.shared_model(kind), 1.01).result[0]
    sigmas = tiny.schedule(model, 8)

    def run(settings: Settings | None) -> Tensor:
        sampler = tiny.sampler(name)
        return tiny.sample(model, sampler if settings is None else wrap(sampler, settings), sigmas, cfg=cfg)

    assert torch.equal(run(Settings(mask_override="zeros")), run(None))
    assert torch.equal(run(Settings(mask_override="ones")), run(Settings(coverage=1.0)))
    assert not torch.equal(run(Settings(mask_override="half")), run(None))


PATCHES = {
    "PAG": lambda model: nodes_pag.PerturbedAttentionGuidance.execute(model, 3.0),
    "SAG": lambda model: nodes_sag.SelfAttentionGuidance.execute(model, 0.5, 2.0),
    "CFGNorm": lambda model: nodes_cfg.CFGNorm.execute(model, 1.0),
    "CFGZeroStar": nodes_cfg.CFGZeroStar.execute,
    "Mahiro": nodes_mahiro.Mahiro.execute,
    "Epsilon Scaling": lambda model: nodes_eps.EpsilonScaling.execute(model, 1.005),
}


@cache
def euler_effect(patch: str | None) -> tuple[float, Tensor]:
    """Size of the effect relative to the bare picture, which is returned too; under a constant mask.

    A patch changes the picture, and with it a mask that is computed from it.
    """
    model = tiny.unet() if patch is None else PATCHES[patch](tiny.unet()).result[0]
    sigmas = tiny.schedule(model, 12)
    bare = tiny.sample(model, tiny.sampler("euler"), sigmas, shape=(1, 4, 16, 16))
    wrapped = wrap(tiny.sampler("euler"), Settings(coverage=1.0), limit=constant(0.5))
    ours = tiny.sample(model, wrapped, sigmas, shape=(1, 4, 16, 16))
    return tiny.effect(ours, bare) / float(bare.norm()), bare


@pytest.mark.compat("PAG, SAG, CFGNorm, CFGZeroStar, Mahiro, Epsilon Scaling", "run once a step; the effect stays")
@pytest.mark.parametrize("patch", PATCHES)
def test_guidance_patches_do_not_weaken_euler(patch: str):
    with_patch, patched = euler_effect(patch)
    without, plain = euler_effect(None)
    assert not torch.equal(patched, plain)
    # SAG compares the prediction with detail, blurred, with the plain prediction of another latent.
    assert 0.8 <= with_patch / without <= (1.4 if patch == "SAG" else 1.2)


@pytest.mark.compat("Skip Layer Guidance (SD3)", "runs once a step; the effect stays")
def test_slg_does_not_weaken_euler(files: dict[str, Path]):
    model = comfy.sd.load_diffusion_model(str(files["tiny_sd3.safetensors"]))
    patched = tiny.node(nodes_slg.SkipLayerGuidanceDiT, model, 1.0, 0.01, 0.3, "0", "")

    def run(model: Any, settings: Settings | None) -> Tensor:
        sampler = tiny.sampler("euler")
        sampler = sampler if settings is None else wrap(sampler, settings)
        pooled = {"pooled_output": torch.ones(1, 2048)}
        return tiny.sample(model, sampler, tiny.schedule(model, 12), shape=(1, 16, 16, 16), width=4096, more=pooled)

    plain, slg, settings = run(model, None), run(patched, None), Settings()
    assert not torch.equal(plain, slg)
    ratio = tiny.effect(run(patched, settings), slg) / tiny.effect(run(model, settings), plain)
    assert 0.8 <= ratio <= 1.2


SEEN: dict[Any, list[Any]] = {}


class HookedSampler:
    """Euler with a post-CFG hook of its own, which records its arguments and scales the prediction by ``factor``."""

    def __init__(self, factor: float = 1.0):
        self.factor = factor
        # Not an attribute, to which the changes of a lied call are undone.
        SEEN[self] = []
        self.returned: list[Tensor] = []

    @property
    def seen(self) -> list[dict[str, Any]]:
        return SEEN[self]

    def __call__(self, model: Any, x: Tensor, sigmas: Tensor, extra_args: Any, **_: Any) -> Tensor:
        def hook(args: dict[str, Any]) -> Tensor:
            self.seen.append(args)
            return args["denoised"] if self.factor == 1.0 else args["denoised"] * self.factor

        options = extra_args["model_options"].copy()
        add = comfy.model_patcher.set_model_options_post_cfg_function
        extra_args = {**extra_args, "model_options": add(options, hook, disable_cfg1_optimization=True)}
        self.options = extra_args["model_options"]
        for i in range(len(sigmas) - 1):
            denoised = model(x, sigmas[i : i + 1], **extra_args)
            self.returned.append(denoised)
            x = denoised + (x - denoised) * (sigmas[i + 1] / sigmas[i])
        return x


def sample_hooked(sampler_function: HookedSampler, settings: Settings | None, **options: Any) -> Tensor:
    model, sampler = tiny.shared_model("eps"), comfy.samplers.KSAMPLER(sampler_function)
    return tiny.sample(
        model, sampler if settings is None else wrap(sampler, settings), tiny.schedule(model, 8), **options
    )


def test_own_hook_is_called_once_a_step_on_what_was_blended():
    bare, half, full = HookedSampler(), HookedSampler(), HookedSampler()
    sample_hooked(bare, None)
    sample_hooked(half, Settings(mask_override="half"))
    sample_hooked(full, Settings(coverage=1.0))
    for hooked in (bare, half, full):
        assert len(hooked.seen) == 8
        for args, returned in zip(hooked.seen, hooked.returned, strict=True):
            assert args["denoised"] is returned
            assert args["model_options"] is hooked.options
    first = next(
        i for i in range(8) if not torch.equal(half.seen[i]["uncond_denoised"], bare.seen[i]["uncond_denoised"])
    )
    for key in ("denoised", "uncond_denoised", "cond_denoised"):
        middle = 0.5 * (bare.seen[first][key] + full.seen[first][key])
        assert torch.allclose(half.seen[first][key], middle, atol=1e-6)
    for key in ("sigma", "input"):  # A hook gets the true noise level.
        assert torch.equal(full.seen[first][key], bare.seen[first][key])


@pytest.mark.parametrize("masked", [False, True])
def test_own_hook_may_change_what_it_sees(masked: bool):
    mask = None if not masked else (torch.arange(64).reshape(1, 1, 8, 8) % 8 < 4).float()
    bare = sample_hooked(HookedSampler(0.9), None, mask=mask)
    zeros = sample_hooked(HookedSampler(0.9), Settings(mask_override="zeros"), mask=mask)
    assert torch.allclose(zeros, bare, rtol=1e-5, atol=1e-6)
    assert masked or torch.equal(zeros, bare)
    assert not torch.allclose(sample_hooked(HookedSampler(1.0), None, mask=mask), bare, rtol=1e-2)
    ones = sample_hooked(HookedSampler(0.9), Settings(mask_override="ones"), mask=mask)
    full = sample_hooked(HookedSampler(0.9), Settings(coverage=1.0), mask=mask)
    assert torch.allclose(ones, full, rtol=1e-5, atol=1e-6)


def test_hooks_run_once_a_step():
    model, seen = tiny.shared_model("eps").clone(), []

    def other(args: dict[str, Any]) -> Tensor:
        seen.append(float(args["sigma"][0]))
        return args["denoised"]

    model.set_model_sampler_post_cfg_function(other)
    tiny.sample(model, wrap(tiny.sampler("euler_cfg_pp"), Settings()), tiny.schedule(model, 8))
    assert seen == [float(sigma) for sigma in tiny.schedule(model, 8)[:-1]]
