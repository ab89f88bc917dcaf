"""First Block Cache works; caches and accelerators that count calls are refused by name."""

from __future__ import annotations

import functools

import pytest
import torch
from diffusers import FirstBlockCacheConfig, PyramidAttentionBroadcastConfig

from selective_sigma.diffusers import detail, enable

from .pipes import build, flux, sdxl


# Thresholds at which some calls are answered from the cache and some are not.
@pytest.mark.parametrize(("pipe", "threshold"), [("flux", 0.5), ("flux_true_cfg", 0.3), ("wan", 0.1)])
def test_first_block_cache_keeps_the_passes_apart(pipe, threshold):
    tiny = build(pipe)
    tiny.module.enable_cache(FirstBlockCacheConfig(threshold=threshold))
    plain = tiny()
    with detail(tiny.pipe, mask_override="zeros") as run:
        assert torch.equal(tiny(), plain)
        assert run.report.lied > 0
    with detail(tiny.pipe):
        assert tiny().isfinite().all()
    assert torch.equal(tiny(), plain)
    tiny.module.disable_cache()
    assert not torch.equal(tiny(), plain)


def test_a_counting_cache_is_refused():
    tiny = flux()
    config = PyramidAttentionBroadcastConfig(
        spatial_attention_block_skip_range=2,
        spatial_attention_timestep_skip_range=(0, 1000),
        spatial_attention_block_identifiers=("transformer_blocks",),
        current_timestep_callback=lambda: tiny.pipe._current_timestep,
    )
    tiny.module.enable_cache(config)
    with pytest.raises(
        ValueError, match=r"PyramidAttentionBroadcastHook keeps state between model calls.*disable_cache"
    ):
        enable(tiny.pipe)
    tiny.module.disable_cache()
    with detail(tiny.pipe):
        tiny()
        tiny.module.enable_cache(config)
        with pytest.raises(ValueError, match="keeps state between model calls"):
            tiny()


@pytest.mark.parametrize(
    ("package", "name"),
    [
        ("DeepCache.extensions.deepcache", "DeepCache"),
        ("tgate.tgate", "T-GATE"),
        ("cache_dit.caching.cache_adapters", "cache-dit"),
    ],
)
@pytest.mark.parametrize("where", ["forward", "processor", "class"])
def test_an_accelerator_is_refused_by_its_name(package, name, where):
    """They count calls, or look up a call's time among the scheduler's timesteps."""
    tiny = sdxl()
    part = tiny.pipe.unet.mid_block.attentions[0].transformer_blocks[0].attn1
    if where == "forward":
        plain_forward = tiny.pipe.unet.forward

        def forward(*args, **kwargs):
            list(tiny.pipe.scheduler.timesteps).index(args[1])
            return plain_forward(*args, **kwargs)

        forward.__module__ = package
        tiny.pipe.unet.forward = forward
    elif where == "processor":
        part.processor = type("Processor", (type(part.processor),), {"__module__": package})()
    else:
        part.__class__ = type("Cached", (type(part),), {"__module__": package})
    calls = []
    message = f"^{name} on UNet2DConditionModel counts model calls or looks up their time.*take it off first"
    with pytest.raises(ValueError, match=message) as caught, detail(tiny.pipe):
        tiny(callback_on_step_end=lambda *_: calls.append(1) or {})
    assert "\n" not in str(caught.value)
    assert not calls
    with detail(tiny.pipe, strength=0):
        tiny()


def test_an_accelerator_that_comes_with_the_call_is_refused_before_the_first_detailed_step():
    """T-GATE exchanges the forwards of layers after the call of its pipeline has begun."""
    tiny = sdxl()
    part = tiny.pipe.unet.mid_block.attentions[0].transformer_blocks[0].attn1
    steps = []

    def come(_, step, __, kwargs):
        steps.append(step)
        plain_forward = type(part).forward.__get__(part)
        part.forward = functools.partial(plain_forward)
        part.forward.__module__ = "tgate.tgate_utils"
        return kwargs

    with pytest.raises(ValueError, match=r"^T-GATE on UNet2DConditionModel counts"), detail(tiny.pipe):
        tiny(callback_on_step_end=come)
    assert steps == [0]
