"""How the time is found among a model's arguments, by value, and moved."""

from __future__ import annotations

import pytest
import torch

from selective_sigma.diffusers.slots import parts_of
from selective_sigma.diffusers.times import find_times, index_of, next_step, telling

TIMES = [900.0, 700.0, 500.0, 300.0]


def call(**arguments):
    """The parts of the arguments of a call."""
    return parts_of(((), arguments))


def learned(**arguments):
    """The arguments that tell the first time, of a scheduler whose time at full noise is 1000."""
    return find_times(call(**arguments), TIMES[0], 1000.0, 0.0)


def names(times):
    return [argument.path[-1] for argument in times]


@pytest.mark.parametrize("value", [900, 900.0, 0.9, 0.1, 100.0, 899.0, torch.tensor([900]), torch.full((2, 5), 0.9)])
def test_the_time_is_found_in_each_unit(value):
    times = learned(t=value, size=64, text="900", flag=True)
    assert names(times) == ["t"]


def test_a_call_belongs_to_the_first_step_to_come_whose_time_it_tells():
    times = learned(t=0.9)
    assert next_step(TIMES, times, call(t=0.7), 0) == 1
    assert next_step(TIMES, times, call(t=0.3), 0) == 3
    # A preview with the time of the latest step, a time between the steps, and no time.
    for later in ({"t": 0.9}, {"t": 0.6}, {"t": None}, {}):
        assert next_step(TIMES, times, call(**later), 0) is None


def test_of_equal_times_the_later_step_follows():
    """PNDM and Heun have the same time twice."""
    times = [900.0, 700.0, 700.0, 500.0]
    assert [index_of(times, 700.0, after) for after in (-1, 0, 1, 2)] == [1, 1, 2, 1]
    assert next_step(times, learned(t=900), call(t=700), 1) == 2


def test_an_argument_that_is_equal_by_chance_is_dropped():
    times = learned(t=900, height=900)
    assert names(times) == ["t", "height"]
    later = call(t=700, height=900)
    assert next_step(TIMES, times, later, 0) == 1
    assert names(telling(times, later, 700.0)) == ["t"]


@pytest.mark.parametrize("later", [{}, {"early": None}])
def test_an_argument_that_is_absent_later_is_dropped(later):
    times = learned(t=900, early=900)
    assert next_step(TIMES, times, call(t=700, **later), 0) == 1
    assert names(telling(times, call(t=700, **later), 700.0)) == ["t"]


def test_units_that_disagree_are_dropped():
    """0.5 of the range is both the share of the time and the share that is left."""
    times = find_times(call(t=0.5), 500.0, 1000.0, 0.0)
    assert len(times[0].units) == 2
    assert next_step([500.0, 300.0], times, call(t=0.7), 0) == 1
    (left,) = telling(times, call(t=0.7), 300.0)
    assert float(left.moved(0.7, 300.0, -100.0)) == pytest.approx(0.8)


def test_only_what_tells_the_time_is_moved():
    """Tokens of a given frame have a time of 0, and keep it."""
    value = torch.tensor([[0, 900, 900]])
    (argument,) = learned(t=value)
    assert argument.moved(value, 900.0, -0.25).tolist() == [[0.0, 899.75, 899.75]]
    assert argument.noisy_tokens(value, 900.0, 3).tolist() == [[[False], [True], [True]]]
