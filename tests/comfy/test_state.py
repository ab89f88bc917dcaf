"""State is restored after the lied pass, except where it describes weights that changed."""

from __future__ import annotations

import functools
import random
from collections import deque
from functools import cache
from typing import TYPE_CHECKING, Any

import comfy.model_patcher
import comfy.patcher_extension
import numpy as np
import pytest
import tiny
import torch
from torch import Tensor

from selective_sigma import Settings
from selective_sigma.comfy.run.state import restoring_state

if TYPE_CHECKING:
    from collections.abc import Callable


@cache
def base(kind: str = "eps") -> Any:
    return tiny.model(tiny.KINDS[kind])


def run(model: Any, settings: Settings | None = None, name: str = "euler", **options: Any) -> Tensor:
    return tiny.sample(model, tiny.sampler(name, settings), tiny.schedule(model), **options)


class Context:
    """An object of another pack with buffers that change, as WaveSpeed's. Its attributes must not be written to."""

    def __init__(self) -> None:
        self.buffers: dict[str, float] = {"count": 0.0}


def in_a_cell() -> Callable[[], float]:
    count = 0.0

    def draw() -> float:
        nonlocal count
        count += 1
        return count

    return draw


def in_a_container(container: Any, add: Callable[[Any], object]) -> Callable[[], float]:
    def draw() -> float:
        add(container)
        return float(len(container))

    return draw


def in_an_object() -> Callable[[], float]:
    context = Context()

    def draw() -> float:
        context.buffers["count"] += 1
        return context.buffers["count"]

    return draw


def in_a_tensor() -> Callable[[], float]:
    kept = None

    def draw() -> float:
        nonlocal kept
        kept = torch.ones(()) if kept is None else kept + 1
        return float(kept)

    return draw


def in_nested_dicts() -> Callable[[], float]:
    """As in most ports of TeaCache."""
    state: dict[int, dict[str, float]] = {0: {"count": 0.0}, 1: {"count": 0.0}}

    def draw() -> float:
        state[0]["count"] += 1
        return state[0]["count"]

    return draw


def in_place() -> Callable[[], float]:
    """As a distance accumulated by ``+=``."""
    with torch.inference_mode():
        distance = torch.zeros(())

    def draw() -> float:
        nonlocal distance
        distance += 1
        return float(distance)

    return draw


class Counter:
    def __init__(self) -> None:
        self.state = {"count": 0.0}

    def draw(self) -> float:
        self.state["count"] += 1
        return self.state["count"]


PLACES: dict[str, Callable[[], Callable[[], float]]] = {
    "cell": in_a_cell,
    "tensor": in_a_tensor,
    "list": lambda: in_a_container([], lambda items: items.append(1)),
    "deque": lambda: in_a_container(deque([1]), lambda items: items.append(1)),
    "set": lambda: in_a_container(set(), lambda items: items.add(len(items))),
    "dict": lambda: in_a_container({}, lambda items: items.update({len(items): {}})),
    "object's dict": in_an_object,
    "nested dicts": in_nested_dicts,
    "tensor in place": in_place,
    "bound method": lambda: Counter().draw,
    "partial": lambda: functools.partial(Counter.draw, Counter()),
    "torch": lambda: lambda: float(torch.rand(())),
    "random": lambda: random.random,
    "numpy": lambda: lambda: float(np.random.rand()),
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("where", ["model_function_wrapper", "APPLY_MODEL", "DIFFUSION_MODEL"])
def test_state_of_a_function_around_the_network_is_restored(place: str, where: str):
    """As of DeepCache, WaveSpeed and ToMe: zeros is the bare run, ones is coverage 1."""

    def patched() -> Any:
        torch.manual_seed(0), random.seed(0), np.random.seed(0)
        draw, model = PLACES[place](), base().clone()

        def by_call(executor: Any, *args: Any, **named: Any) -> Any:
            return executor(*args, **named) * (1 + 0.01 * draw())

        def by_function(apply: Any, args: dict[str, Any]) -> Tensor:
            return apply(args["input"], args["timestep"], **args["c"]) * (1 + 0.01 * draw())

        if where == "model_function_wrapper":
            model.set_model_unet_function_wrapper(by_function)
        else:
            kind = getattr(comfy.patcher_extension.WrappersMP, where)
            model.add_wrapper_with_key(kind, "another", by_call)
        return model

    bare = run(patched())
    assert torch.equal(run(patched(), tiny.ZEROS), bare)
    assert torch.equal(run(patched(), tiny.ONES), run(patched(), Settings(coverage=1.0, every=1)))
    assert not torch.equal(bare, run(base()))


def test_state_on_the_network_is_restored_unless_weights_changed():
    """TeaCache and others keep state in attributes of the network."""
    model = base().clone()
    network = model.model.diffusion_model

    def patched(apply: Any, args: dict[str, Any]) -> Tensor:
        network.seen = [*getattr(network, "seen", []), 1]
        return apply(args["input"], args["timestep"], **args["c"]) * (1 + 0.01 * len(network.seen))

    model.set_model_unet_function_wrapper(patched)
    results = []
    for settings in (None, tiny.ZEROS):
        network.seen = []
        results.append(run(model, settings))
    del network.seen
    assert torch.equal(*results)
    assert not torch.equal(results[0], run(base()))
    options = {"model_function_wrapper": patched}
    with restoring_state(options, network, torch.device("cpu")):
        network.fresh = 1
    assert not hasattr(network, "fresh")
    # Where weights changed, state may describe them, and stays.
    with restoring_state(options, network, torch.device("cpu")):
        network.fresh = 1
        network.read.weight.data.add_(1)
    assert network.fresh == 1
    del network.fresh
    network.read.weight.data.sub_(1)


def shifted_by_level(model: Any, reach: str = "cell") -> Any:
    """A patch that shifts a weight by an amount for each noise level and remembers the amount.

    Args:
        reach: how the patch accesses the weight.
    """
    model = model.clone()
    network, shift = model.model.diffusion_model, 0.0
    handle = {"cell": network.context.weight, "data": network.context.weight.data, "list": [network.context]}.get(reach)

    def weight_of(handle: Any, apply: Any) -> Tensor:
        if reach == "apply":
            return apply.__self__.diffusion_model.context.weight
        return handle[0].weight if reach == "list" else handle

    def patched(apply: Any, args: dict[str, Any], handle: Any = handle) -> Tensor:
        nonlocal shift
        wanted = 0.02 * float(args["timestep"][0])
        weight_of(handle, apply).data.add_(wanted - shift)
        shift = wanted
        return apply(args["input"], args["timestep"], **args["c"])

    model.set_model_unet_function_wrapper(patched)
    return model, lambda: network.context.weight.data.sub_(shift)


@tiny.each_kind
@pytest.mark.parametrize("reach", ["cell", "data", "list", "apply"])
def test_a_record_of_shifted_weights_stays_with_the_weights(kind: str, reach: str):
    weight = base(kind).model.diffusion_model.context.weight
    before, results, after = weight.clone(), [], []
    for settings in (None, tiny.ZEROS, Settings(every=1)):
        model, undo = shifted_by_level(base(kind), reach)
        results.append(run(model, settings))
        after.append(weight.clone())
        undo()
        torch.testing.assert_close(weight, before, atol=1e-6, rtol=0)
        weight.data.copy_(before)
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])
    for moved in after:
        torch.testing.assert_close(moved, after[0], atol=1e-6, rtol=0)


@tiny.each_kind
def test_a_hook_that_is_exchanged_at_every_step_is_there_once(kind: str):
    network, results = base(kind).model.diffusion_model, []
    for settings in (None, tiny.ZEROS):
        model, handle, level = base(kind).clone(), None, None

        def patched(apply: Any, args: dict[str, Any]) -> Tensor:
            nonlocal handle, level
            if level != float(args["timestep"][0]):
                level = float(args["timestep"][0])
                if handle is not None:
                    handle.remove()
                handle = network.context.register_forward_hook(lambda _m, _i, out: out * 1.1)
            return apply(args["input"], args["timestep"], **args["c"])

        model.set_model_unet_function_wrapper(patched)
        results.append(run(model, settings))
        assert len(network.context._forward_hooks) == 1
        handle.remove()
    assert torch.equal(*results)
    assert not torch.equal(results[0], run(base(kind)))


class ShiftingPatcher(comfy.model_patcher.ModelPatcher):
    """A subclass of ModelPatcher, as GGUF loaders have, that shifts a weight and remembers the shift."""

    level: float | None = None

    def prepare_state(self, timestep: Tensor, *more: Any) -> Any:
        weight = self.model.diffusion_model.context.weight
        if self.level is not None:
            weight.data.sub_(self.level)
        self.level = 0.02 * float(timestep[0])
        weight.data.add_(self.level)
        return super().prepare_state(timestep, *more)


@tiny.each_kind
def test_a_subclass_of_modelpatcher_keeps_its_weights(kind: str):
    """Both passes of a step run with the weights of the step: the effect is that of the same shifts by a function."""
    weight = base(kind).model.diffusion_model.context.weight
    before, results = weight.clone(), {}
    for settings in (None, tiny.ZEROS, Settings(every=1)):
        device = torch.device("cpu")
        patcher = ShiftingPatcher(base(kind).model, load_device=device, offload_device=device)
        results["patcher", settings] = run(patcher, settings)
        weight.data.copy_(before)
        results["function", settings] = run(shifted_by_level(base(kind))[0], settings)
        weight.data.copy_(before)
    assert torch.equal(results["patcher", tiny.ZEROS], results["patcher", None])
    for settings in (None, Settings(every=1)):
        torch.testing.assert_close(results["patcher", settings], results["function", settings], rtol=1e-4, atol=1e-4)
