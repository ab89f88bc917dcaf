"""Patches that keep state between calls do not change by the extra calls: zeros stays the bare run, bit for bit."""

from __future__ import annotations

from functools import partial
from typing import Any

import comfy.controlnet
import comfy.hooks
import comfy.patcher_extension
import comfy.samplers
import pytest
import tiny
import torch
from comfy_extras import nodes_apg, nodes_hypertile, nodes_tomesd
from torch import Tensor

from selective_sigma import Settings
from selective_sigma.comfy.run.model_patch import patch
from selective_sigma.comfy.run.sampler import wrap

RECORDED: list[Any] = []
"""At module level, since a lied call's changes to closures are undone."""


euler = partial(tiny.sampler, "euler")


def run(model: Any, settings: Settings | None, **options: Any) -> Tensor:
    return tiny.sample(model, euler(settings), tiny.schedule(model, 10), **options)


@pytest.mark.compat("APG with momentum", "advances once a step")
@tiny.each_kind
@pytest.mark.parametrize("momentum", [0.7, -0.5])
def test_the_momentum_of_apg(kind: str, momentum: float):
    model = nodes_apg.APG.execute(tiny.shared_model(kind), 0.5, 2.0, momentum).result[0]
    bare = run(model, None, cfg=4.0)
    assert torch.equal(run(model, tiny.ZEROS, cfg=4.0), bare)
    # A tiny strength has a tiny effect.
    little = run(model, Settings(strength=0.001, coverage=1.0, mask_override="ones"), cfg=4.0)
    assert tiny.effect(little, bare) < 0.005 * float(bare.norm())


@pytest.mark.compat("LoRA hooks with keyframes", "advance once a step")
@tiny.each_kind
def test_a_lora_hook_with_keyframes(kind: str):
    weights = {"up": torch.full((8, 1), 2.0), "down": torch.ones(1, 8)}
    lora = {f"diffusion_model.context.lora_{part}.weight": value for part, value in weights.items()}

    def hooks(steps: int) -> Any:
        group = comfy.hooks.create_hook_lora(lora, 1.0, 0.0)
        frames = comfy.hooks.HookKeyframeGroup()
        frames.add(comfy.hooks.HookKeyframe(strength=1.0, start_percent=0.01, guarantee_steps=steps))
        frames.add(comfy.hooks.HookKeyframe(strength=0.0, start_percent=0.01, guarantee_steps=1))
        group.set_keyframes_on_hooks(frames)
        return group

    bare = run(tiny.shared_model(kind), None, more={"hooks": hooks(6)})
    assert torch.equal(run(tiny.shared_model(kind), tiny.ZEROS, more={"hooks": hooks(6)}), bare)
    # Advancing twice a step would make a visible difference: the hook would end after three steps.
    assert tiny.effect(run(tiny.shared_model(kind), None, more={"hooks": hooks(3)}), bare) > 0.01 * float(bare.norm())


RANDOM = {
    "ToMe": lambda model: nodes_tomesd.TomePatchModel.execute(model, 0.5).result[0],
    "HyperTile": lambda model: nodes_hypertile.HyperTile.execute(model, 32, 4, 0, False)[0],
}


@pytest.mark.compat("ToMe, HyperTile", "both passes of a step draw the same")
@pytest.mark.parametrize("name", RANDOM)
def test_draws_from_the_global_random_state(name: str):
    model = RANDOM[name](tiny.unet())
    options = {"shape": (1, 4, 16, 16)}
    bare = run(model, None, **options)
    assert not torch.equal(bare, run(tiny.unet(), None, **options))
    assert torch.equal(run(model, tiny.ZEROS, **options), bare)


class AdaptiveGuider(comfy.samplers.CFGGuider):
    """Requests cond alone once a running cosine of cond and uncond is high enough, as Adaptive Guidance does."""

    def __init__(self, model: Any):
        super().__init__(model)
        self.cosine: Tensor | None = None
        self.left = False

    def predict_noise(self, x: Tensor, timestep: Tensor, model_options: Any = {}, seed: Any = None) -> Tensor:  # noqa: ARG002, B006
        conds = [self.conds["negative"], None if self.left else self.conds["positive"]]
        uncond, cond = comfy.samplers.calc_cond_batch(self.inner_model, conds, x, timestep, model_options)
        RECORDED.append(self.left)
        if self.left:
            return uncond
        now = torch.nn.functional.cosine_similarity(cond.flatten(), uncond.flatten(), 0)
        self.cosine = now if self.cosine is None else 0.8 * self.cosine + 0.2 * now
        self.left = bool(self.cosine > LIMITS[float(self.inner_model.model_sampling.sigma_max) > 1])
        return uncond + 3.0 * (cond - uncond)


LIMITS = {True: 0.993, False: 0.6}
"""By whether the model is eps."""


@pytest.mark.compat("Guiders that keep state (Adaptive Guidance)", "advance once a step")
@tiny.each_kind
def test_a_guider_that_counts_its_calls(kind: str):
    """Adaptive Guidance keeps the running cosine on the guider."""

    def adaptive(settings: Settings | None) -> Tensor:
        guider = AdaptiveGuider(tiny.shared_model(kind))
        guider.set_conds(tiny.prompt(1), tiny.prompt(2))
        x = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(7))
        sigmas = tiny.schedule(tiny.shared_model(kind), 10)
        with torch.inference_mode():
            return guider.sample(x, torch.zeros_like(x), euler(settings), sigmas, disable_pbar=True, seed=7)

    RECORDED.clear()
    bare = adaptive(None)
    assert len(set(RECORDED)) == 2  # It changed within the run.
    assert torch.equal(adaptive(tiny.ZEROS), bare)


class RecordingControlNet(comfy.controlnet.ControlBase):
    """Records the noise level of each call, and whether it is in the ControlNet's range."""

    def get_control(self, x_noisy: Tensor, t: Tensor, cond: Any, batched_number: int, options: Any) -> None:  # noqa: ARG002
        RECORDED.append((float(t[0]), self.timestep_range[1] <= float(t[0]) <= self.timestep_range[0]))

    def copy(self) -> RecordingControlNet:
        copied = RecordingControlNet()
        self.copy_to(copied)
        return copied


@pytest.mark.compat("ControlNet ranges", "judged at the true noise level")
@tiny.each_kind
def test_a_controlnet_gets_the_true_level(kind: str):
    model = tiny.shared_model(kind)
    sigmas = tiny.schedule(model, 10)
    control = RecordingControlNet().set_cond_hint(torch.zeros(1, 3, 64, 64), 1.0, (0.0, 0.5))
    options = {"more": {"control": control, "control_apply_to_uncond": True}}
    RECORDED.clear()
    run(model, None, **options)
    bare = set(RECORDED)
    assert {inside for _, inside in bare} == {True, False}
    RECORDED.clear()
    run(model, Settings(every=1, strength=0.5), **options)
    assert set(RECORDED) == bare
    assert {level for level, _ in bare} == {float(sigma) for sigma in sigmas[:-1]}


def record_context(
    executor: Any, x: Tensor, t: Tensor, context: Tensor, control: Any, options: Any, **named: Any
) -> Any:
    RECORDED.append((float(options["sigmas"][0]), float(t[0]), float(context.sum())))
    return executor(x, t, context, control, options, **named)


@pytest.mark.compat("Conditioning ranges", "judged at the true noise level")
@tiny.each_kind
def test_both_passes_see_the_conditioning_of_the_true_level(kind: str):
    """Two prompts, one after the other, which change between the true level of a step and the lied one."""
    model = tiny.shared_model(kind).clone()
    model.add_wrapper_with_key(comfy.patcher_extension.WrappersMP.DIFFUSION_MODEL, "record", record_context)
    sampling = model.get_model_object("model_sampling")
    sigmas = tiny.schedule(model, 10)
    shares = torch.linspace(0, 1, 2001)
    at = next(float(p) for p in shares if sampling.percent_to_sigma(float(p)) < 0.9 * float(sigmas[5]))
    parts = [tiny.prompt(seed, start_percent=low, end_percent=high)[0] for seed, low, high in ((1, 0, at), (3, at, 1))]
    RECORDED.clear()
    x = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(7))
    with torch.inference_mode():
        comfy.sample.sample_custom(
            model, x, 1.0, euler(Settings(every=1, strength=0.5)), sigmas, parts, tiny.prompt(2), torch.zeros_like(x),
            disable_pbar=True, seed=7,
        )  # fmt: skip
    seen: dict[float, set[float]] = {}
    for level, _, prompt in RECORDED:
        seen.setdefault(level, set()).add(prompt)
    assert all(len(prompts) == 1 for prompts in seen.values())
    assert len(set.union(*seen.values())) == 2
    assert len({t for _, t, _ in RECORDED}) > len(sigmas)  # The lie was told.


@pytest.mark.compat("Detail Daemon and other sampler wrappers", "two of ours are found through them")
def test_another_packs_wrapper_does_not_hide_a_second_one_of_ours():
    model = tiny.shared_model("eps")
    tiny.calls(model).clear()
    for patched, sampler in (
        (model, wrap(tiny.detail_daemon(euler(Settings())), Settings())),
        (patch(model, Settings()), tiny.detail_daemon(euler(Settings()))),
    ):
        with pytest.raises(ValueError, match="applied twice"):
            tiny.sample(patched, sampler, tiny.schedule(model))
    assert not tiny.calls(model)


@pytest.mark.compat("Detail Daemon and other sampler wrappers", "both lies are told")
@tiny.each_kind
def test_another_packs_lie_adds_to_ours(kind: str):
    model = tiny.shared_model(kind)
    levels = tiny.schedule(model)
    theirs = tiny.sample(model, tiny.detail_daemon(euler(None)), levels)
    full = Settings(coverage=1.0)
    for sampler in (tiny.detail_daemon(euler(full)), wrap(tiny.detail_daemon(euler(None)), full)):
        ours = tiny.sample(model, sampler, levels)
        alone = tiny.sample(model, euler(full), levels) - tiny.sample(model, euler(None), levels)
        assert 0.7 < tiny.effect(ours, theirs) / float(alone.norm()) < 1.3
