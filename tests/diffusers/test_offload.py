"""Offloading, compiling and LoRAs work, whether they are switched on before detail is enabled or after."""

from __future__ import annotations

import pytest
import torch
from accelerate import cpu_offload

from selective_sigma.diffusers import detail, disable, enable

from .pipes import flux, sdxl


def lied(run):
    return run.report.lied


def test_model_offload_survives_any_number_of_calls():
    """At the end of every call diffusers removes its hooks and adds them again."""
    tiny = sdxl()
    plain = tiny()
    with detail(tiny.pipe) as run:
        wanted = tiny()
    assert not torch.equal(wanted, plain)
    # The CPU stands for the accelerator: diffusers tells the two by the device index.
    tiny.pipe.enable_model_cpu_offload(device="cpu")
    run = enable(tiny.pipe)
    for _ in range(3):
        assert torch.equal(tiny(), wanted)
        assert lied(run) > 0
    disable(tiny.pipe)
    for _ in range(2):
        assert torch.equal(tiny(), plain)
    assert hasattr(tiny.pipe.unet, "_hf_hook")
    # Switched on while detail is enabled.
    with detail(tiny.pipe) as run:
        tiny.pipe.remove_all_hooks()
        assert torch.equal(tiny(), wanted)
        tiny.pipe.enable_model_cpu_offload(device="cpu")
        assert torch.equal(tiny(), wanted)
    assert torch.equal(tiny(), plain)
    tiny.pipe.remove_all_hooks()
    assert torch.equal(tiny(), plain)


def test_sequential_offload():
    """Weights are on the meta device except during a layer's call."""
    tiny = sdxl()
    plain = tiny()
    with detail(tiny.pipe):
        wanted = tiny()
        cpu_offload(tiny.pipe.unet, execution_device="cpu")
        assert next(tiny.pipe.unet.parameters()).device.type == "meta"
        for _ in range(2):
            assert torch.equal(tiny(), wanted)
    assert torch.equal(tiny(), plain)
    assert next(tiny.pipe.unet.parameters()).device.type == "meta"


def test_group_offload():
    tiny = flux()
    plain = tiny()
    with detail(tiny.pipe) as run:
        wanted = tiny()
        tiny.module.enable_group_offload(
            onload_device=torch.device("cpu"), offload_device=torch.device("cpu"), offload_type="leaf_level"
        )
        for _ in range(2):
            assert torch.equal(tiny(), wanted)
            assert lied(run) > 0
    assert torch.equal(tiny(), plain)


@pytest.mark.parametrize("when", ["before", "within"])
@pytest.mark.parametrize("how", ["method", "function"])
def test_compiled(how, when):
    """One whole graph for each shape and type, compiled before detail is enabled or after."""
    torch.compiler.reset()
    tiny = sdxl()
    plain, seen = tiny(), []

    def backend(graph, _):
        seen.append(graph)
        return graph.forward

    def compiled():
        if how == "method":
            tiny.pipe.unet.compile(backend=backend, fullgraph=True, dynamic=False)
        else:
            tiny.pipe.unet = torch.compile(tiny.pipe.unet, backend=backend, fullgraph=True, dynamic=False)

    if when == "before":
        compiled()
    with detail(tiny.pipe, mask_override="zeros") as run:
        if when == "within":
            compiled()
        torch.testing.assert_close(tiny(), plain, rtol=1e-4, atol=1e-4)
        assert lied(run) > 0
        # The pipeline's timesteps are integers, the lied ones are not: a graph for each type at most.
        graphs = len(seen)
        assert graphs <= 2
        tiny()
    torch.testing.assert_close(tiny(), plain, rtol=1e-4, atol=1e-4)
    with detail(tiny.pipe, mask_override="zeros"):
        tiny()
    assert len(seen) <= graphs + 1


LORA = "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"


def lora(rank=4, width=32):
    """The state dict of a LoRA."""
    torch.manual_seed(1)
    return {f"{LORA}.lora_A.weight": torch.randn(rank, width), f"{LORA}.lora_B.weight": torch.randn(width, rank)}


def test_loras_come_and_go():
    """Layers are replaced in place and put back, before and after the pipe is enabled."""
    pytest.importorskip("peft", reason="LoRAs need peft: pip install peft")
    tiny = sdxl()
    plain = tiny()
    tiny.pipe.load_lora_weights(lora())
    with_lora = tiny()
    with detail(tiny.pipe):
        wanted = tiny()
    tiny.pipe.unload_lora_weights()
    assert torch.equal(tiny(), plain)
    assert not torch.equal(with_lora, plain)
    assert not torch.equal(wanted, with_lora)

    with detail(tiny.pipe) as run:
        without = tiny()
        tiny.pipe.load_lora_weights(lora())
        assert torch.equal(tiny(), wanted)
        assert lied(run) > 0
        tiny.pipe.set_adapters("default_0", 0.5)
        half = tiny()
        assert not torch.equal(half, wanted)
        tiny.pipe.fuse_lora()
        torch.testing.assert_close(tiny(), half, rtol=1e-3, atol=1e-3)
        tiny.pipe.unfuse_lora()
        # Offloading is switched on between two calls.
        tiny.pipe.set_adapters("default_0", 1.0)
        tiny.pipe.enable_model_cpu_offload(device="cpu")
        torch.testing.assert_close(tiny(), wanted, rtol=1e-3, atol=1e-3)
        tiny.pipe.unload_lora_weights()
        for _ in range(2):
            torch.testing.assert_close(tiny(), without, rtol=1e-3, atol=1e-3)
            assert lied(run) > 0
    torch.testing.assert_close(tiny(), plain, rtol=1e-3, atol=1e-3)
