"""The hidden pass of a step leaves no trace below guidance, and puts nothing back that mirrors weights."""

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
from selective_sigma.comfy.run.sampler import wrap
from selective_sigma.comfy.run.state import untouched

if TYPE_CHECKING:
    from collections.abc import Callable

KINDS = {"eps": tiny.EPS, "flow": tiny.FLOW}
both = pytest.mark.parametrize("kind", KINDS)
ZEROS, ONES = Settings(mask_override="zeros", every=1), Settings(mask_override="ones", every=1)


@cache
def base(kind: str = "eps") -> Any:
    return tiny.model(KINDS[kind])


def run(model: Any, settings: Settings | None = None, name: str = "euler", **given: Any) -> Tensor:
    sampler = tiny.sampler(name)
    sampler = sampler if settings is None else wrap(sampler, settings)
    return tiny.sample(model, sampler, tiny.schedule(model), **given)


class Context:
    """As WaveSpeed's: an object of a pack, whose buffers change and whose attributes are not ours to write."""

    def __init__(self) -> None:
        self.buffers: dict[str, float] = {"count": 0.0}


def in_a_cell() -> Callable[[], float]:
    count = 0.0

    def draw() -> float:
        nonlocal count
        count += 1
        return count

    return draw


def in_a_container(held: Any, add: Callable[[Any], object]) -> Callable[[], float]:
    def draw() -> float:
        add(held)
        return float(len(held))

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
    """As most TeaCache ports keep it."""
    state: dict[int, dict[str, float]] = {0: {"count": 0.0}, 1: {"count": 0.0}}

    def draw() -> float:
        state[0]["count"] += 1
        return state[0]["count"]

    return draw


def in_place() -> Callable[[], float]:
    """As a distance that is accumulated by ``+=``."""
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
    "list": lambda: in_a_container([], lambda held: held.append(1)),
    "deque": lambda: in_a_container(deque([1]), lambda held: held.append(1)),
    "set": lambda: in_a_container(set(), lambda held: held.add(len(held))),
    "dict": lambda: in_a_container({}, lambda held: held.update({len(held): {}})),
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
def test_what_a_function_around_the_network_keeps_is_put_back(place: str, where: str):
    """As DeepCache, WaveSpeed and ToMe do: zeros is the bare run, ones is coverage 1."""

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
    assert torch.equal(run(patched(), ZEROS), bare)
    assert torch.equal(run(patched(), ONES), run(patched(), Settings(coverage=1.0, every=1)))
    assert not torch.equal(bare, run(base()))


def test_what_the_network_keeps_is_put_back_and_its_layers_are_left_alone():
    """Where TeaCache and its kin keep what they compare with."""
    model = base().clone()
    network = model.model.diffusion_model

    def patched(apply: Any, args: dict[str, Any]) -> Tensor:
        network.seen = [*getattr(network, "seen", []), 1]
        return apply(args["input"], args["timestep"], **args["c"]) * (1 + 0.01 * len(network.seen))

    model.set_model_unet_function_wrapper(patched)
    results = []
    for settings in (None, ZEROS):
        network.seen = []
        results.append(run(model, settings))
    del network.seen
    assert torch.equal(*results)
    assert not torch.equal(results[0], run(base()))
    options = {"model_function_wrapper": patched}
    with untouched(options, network, torch.device("cpu")):
        network.fresh = 1
    assert not hasattr(network, "fresh")
    # Where weights moved, what is kept may mirror them.
    with untouched(options, network, torch.device("cpu")):
        network.fresh = 1
        network.read.weight.data.add_(1)
    assert network.fresh == 1
    del network.fresh
    network.read.weight.data.sub_(1)


def moved_by_the_step(model: Any, reach: str = "cell") -> Any:
    """A patch that moves a weight by the step and remembers what it moved; ``reach``: how it comes by the weight."""
    model = model.clone()
    network, belief = model.model.diffusion_model, 0.0
    held = {"cell": network.context.weight, "data": network.context.weight.data, "list": [network.context]}.get(reach)

    def weight_of(held: Any, apply: Any) -> Tensor:
        if reach == "apply":
            return apply.__self__.diffusion_model.context.weight
        return held[0].weight if reach == "list" else held

    def patched(apply: Any, args: dict[str, Any], held: Any = held) -> Tensor:
        nonlocal belief
        wanted = 0.02 * float(args["timestep"][0])
        weight_of(held, apply).data.add_(wanted - belief)
        belief = wanted
        return apply(args["input"], args["timestep"], **args["c"])

    model.set_model_unet_function_wrapper(patched)
    return model, lambda: network.context.weight.data.sub_(belief)


@both
@pytest.mark.parametrize("reach", ["cell", "data", "list", "apply"])
def test_a_belief_about_weights_stays_with_the_weights(kind: str, reach: str):
    weight = base(kind).model.diffusion_model.context.weight
    before, results, after = weight.clone(), [], []
    for settings in (None, ZEROS, Settings(every=1)):
        model, undo = moved_by_the_step(base(kind), reach)
        results.append(run(model, settings))
        after.append(weight.clone())
        undo()
        torch.testing.assert_close(weight, before, atol=1e-6, rtol=0)
        weight.data.copy_(before)
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])
    for moved in after:
        torch.testing.assert_close(moved, after[0], atol=1e-6, rtol=0)


@both
def test_a_hook_that_is_exchanged_at_every_step_is_there_once(kind: str):
    network, results = base(kind).model.diffusion_model, []
    for settings in (None, ZEROS):
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


class OwnPatcher(comfy.model_patcher.ModelPatcher):
    """A ModelPatcher of a pack's own class (as GGUF loaders have) that keeps which weights are in."""

    level: float | None = None

    def prepare_state(self, timestep: Tensor, *more: Any) -> Any:
        weight = self.model.diffusion_model.context.weight
        if self.level is not None:
            weight.data.sub_(self.level)
        self.level = 0.02 * float(timestep[0])
        weight.data.add_(self.level)
        return super().prepare_state(timestep, *more)


@both
def test_a_patcher_of_a_packs_own_class_keeps_its_weights(kind: str):
    """Both passes run under the weights of their step: the effect is that of the same moves made by a function."""
    weight = base(kind).model.diffusion_model.context.weight
    before, results = weight.clone(), {}
    for settings in (None, ZEROS, Settings(every=1)):
        device = torch.device("cpu")
        own = OwnPatcher(base(kind).model, load_device=device, offload_device=device)
        results["own", settings] = run(own, settings)
        weight.data.copy_(before)
        results["function", settings] = run(moved_by_the_step(base(kind))[0], settings)
        weight.data.copy_(before)
    assert torch.equal(results["own", ZEROS], results["own", None])
    for settings in (None, Settings(every=1)):
        torch.testing.assert_close(results["own", settings], results["function", settings], rtol=1e-4, atol=1e-4)
