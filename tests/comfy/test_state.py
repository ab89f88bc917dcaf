"""Every place where a hook may keep what it has seen is taken down and put back."""

from __future__ import annotations

import functools
import random
import threading
from collections import deque
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tiny
import torch

from selective_sigma import Settings
from selective_sigma.comfy.sampler import wrap
from selective_sigma.comfy.state import States

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor


class Slotted:
    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count = 0.0


class Counter:
    def __init__(self) -> None:
        self.count = 0.0

    def __call__(self) -> float:
        self.count += 1
        return self.count

    def method(self) -> float:
        return self()


def in_a_closure() -> Callable[[], float]:
    count = 0.0

    def draw() -> float:
        nonlocal count
        count += 1
        return count

    return draw


def in_a_container(made: Any, add: Callable[[Any], object]) -> Callable[[], float]:
    def draw() -> float:
        add(made)
        return float(len(made))

    return draw


def in_place() -> Callable[[], float]:
    with torch.inference_mode():
        running = torch.zeros(3)

    def draw() -> float:
        with torch.inference_mode():
            return float(running.add_(1).sum())

    return draw


def in_place_of_a_tensor_made_before() -> Callable[[], float]:
    running = torch.zeros(3)
    return lambda: float(running.add_(1).sum())


def in_a_default(kept: list[float] = [0.0]) -> float:  # noqa: B006
    kept[0] += 1
    return kept[0]


def in_slots() -> Callable[[], float]:
    holder = Slotted()

    def draw() -> float:
        holder.count += 1
        return holder.count

    return draw


def on_the_function() -> Callable[[], float]:
    def draw() -> float:
        draw.count += 1  # type: ignore[attr-defined]
        return draw.count  # type: ignore[attr-defined]

    draw.count = 0.0  # type: ignore[attr-defined]
    return draw


def of_a_generator(made: Any, draw: Callable[[Any], Any]) -> Callable[[], float]:
    return lambda: float(draw(made))


PLACES: dict[str, Callable[[], Callable[[], float]]] = {
    "closure": in_a_closure,
    "object": Counter,
    "bound method": lambda: Counter().method,
    "partial": lambda: functools.partial(Counter.__call__, Counter()),
    "slots": in_slots,
    "function": on_the_function,
    "default": lambda: in_a_default,
    "list": lambda: in_a_container([], lambda made: made.append(1)),
    "deque": lambda: in_a_container(deque([1]), lambda made: made.append(1)),
    "set": lambda: in_a_container(set(), lambda made: made.add(len(made))),
    "dict in a dict": lambda: in_a_container({}, lambda made: made.update({len(made): {}})),
    "tensor in place": in_place,
    "older tensor in place": in_place_of_a_tensor_made_before,
    "torch": lambda: lambda: float(torch.rand(())),
    "random": lambda: random.random,
    "numpy": lambda: np.random.rand,
    "a generator of torch": lambda: of_a_generator(torch.Generator(), lambda g: torch.rand((), generator=g)),
    "a generator of random": lambda: of_a_generator(random.Random(1), lambda g: g.random()),
    "a generator of numpy": lambda: of_a_generator(np.random.default_rng(1), lambda g: g.random()),
    "an old generator of numpy": lambda: of_a_generator(np.random.RandomState(1), lambda g: g.rand()),
}


@pytest.mark.parametrize("place", PLACES)
def test_what_a_hook_keeps_is_put_back(place: str):
    draw = PLACES[place]()
    options = {"sampler_pre_cfg_function": [draw], "transformer_options": {"patches": {"attn1_patch": [draw]}}}
    draw()
    with torch.inference_mode():  # As ComfyUI samples.
        state = States(options, None, torch.device("cpu"))
        first, second = draw(), draw()
        assert first != second
        state.put_back()
    assert (draw(), draw()) == (first, second)
    state.put_back()
    assert draw() == first


def test_what_other_threads_share_is_left_alone():
    """A server that a hook holds goes on in the meantime."""

    class Server(Counter):
        def __init__(self) -> None:
            super().__init__()
            self.lock = threading.Lock()

    server = Server()
    state = States({"hook": server.method}, None, torch.device("cpu"))
    server()
    state.put_back()
    assert server.count == 1


def test_the_layers_of_the_network_are_left_alone_and_its_own_attributes_are_not():
    """Where TeaCache and its kin keep what they compare with."""
    model = tiny.model()
    model.model.diffusion_model.seen = []
    bare = tiny.sample(model, tiny.sampler("euler"), tiny.schedule(model))
    network = model.model.diffusion_model

    def patched(apply: Any, args: dict[str, Any]) -> Tensor:
        network.seen = [*network.seen, 1]
        return apply(args["input"], args["timestep"], **args["c"]) * (1 + 0.01 * len(network.seen))

    model.set_model_unet_function_wrapper(patched)
    counted = tiny.sample(model, tiny.sampler("euler"), tiny.schedule(model))
    assert not torch.equal(counted, bare)
    network.seen = []
    zeros = wrap(tiny.sampler("euler"), Settings(mask_override="zeros", every=1))
    assert torch.equal(tiny.sample(model, zeros, tiny.schedule(model)), counted)
