"""How the time is found among a model's arguments, by value, and moved."""

from __future__ import annotations

import pytest
import torch

from selective_sigma.diffusers.times import find_times, step_of

TIMES = [900.0, 700.0, 500.0, 300.0]


def call(**arguments):
    """(args, kwargs) of a call."""
    return (), arguments


def learned(**arguments):
    """The arguments that tell the first time, of a scheduler whose time at full noise is 1000."""
    return find_times(call(**arguments), TIMES[0], 1000.0, 0.0)


def names(times):
    return [argument.path[-1] for argument in times]


@pytest.mark.parametrize("value", [900, 900.0, 0.9, 0.1, 100.0, 899.0, torch.tensor([900]), torch.full((2, 5), 0.9)])
def test_the_time_is_found_in_each_unit(value):
    times = learned(t=value, size=64, text="900", flag=True)
    assert names(times) == ["t"]


def test_a_step_begins_once_the_time_was_right_twice():
    times = learned(t=0.9)
    assert step_of(TIMES, [times], call(t=0.7), 1) == 1
    times = learned(t=0.9)
    assert step_of(TIMES, [times], call(t=0.9), 1) is None


def test_an_argument_that_is_equal_by_chance_is_dropped():
    times = learned(t=900, height=900)
    assert names(times) == ["t", "height"]
    assert step_of(TIMES, [times], call(t=700, height=900), 1) == 1
    assert names(times) == ["t"]


@pytest.mark.parametrize("later", [{}, {"early": None}])
def test_an_argument_that_is_absent_later_is_dropped(later):
    times = learned(t=900, early=900)
    assert step_of(TIMES, [times], call(t=700, **later), 1) == 1
    assert names(times) == ["t"]


def test_units_that_disagree_are_dropped():
    """0.5 of the range is both the share of the time and the share that is left."""
    times = find_times(call(t=0.5), 500.0, 1000.0, 0.0)
    assert len(times[0].units) == 2
    assert step_of([500.0, 300.0], [times], call(t=0.7), 1) == 1
    assert float(times[0].moved(0.7, 300.0, -100.0)) == pytest.approx(0.8)


def test_only_what_tells_the_time_is_moved():
    """Tokens of a given frame have a time of 0, and keep it."""
    value = torch.tensor([[0, 900, 900]])
    (argument,) = learned(t=value)
    assert argument.moved(value, 900.0, -0.25).tolist() == [[0.0, 899.75, 899.75]]
    assert argument.noisy(value, 900.0, (3, 8)).tolist() == [[[False], [True], [True]]]
