import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selective_sigma.schedule import TAPER, Schedule, cosine, flat

spans = st.tuples(st.floats(0, 1), st.floats(0, 1)).filter(lambda pair: pair[0] < pair[1])


@given(st.integers(0, 80), spans)
def test_flat_is_clean_at_both_ends(steps, span):
    weights = flat(steps, *span)
    assert len(weights) == steps
    assert all(0 <= w <= 1 for w in weights)
    if steps:
        assert weights[0] == weights[-1] == 0


def test_flat_is_flat_then_a_line_to_zero():
    weights = flat(101, 0.1, 0.9)
    assert weights[9] == 0
    assert weights[10:76] == [1.0] * 66
    assert weights[75:91] == pytest.approx([1 - i / 15 for i in range(16)])
    assert weights[90:] == [0.0] * 11
    assert TAPER == 0.15


@pytest.mark.parametrize("steps", range(3, 12))
def test_short_runs_still_get_detail(steps):
    assert max(flat(steps)) == 1
    assert max(flat(2)) == 0


def descending(levels):
    return [*sorted(levels, reverse=True), 0.0]


levels = st.lists(st.floats(0.01, 100), min_size=2, max_size=30, unique=True).map(descending)


@given(levels)
def test_lookup_is_by_value(sigmas):
    weights = [math.sin(i) for i in range(len(sigmas) - 1)]
    schedule = Schedule(sigmas, weights)
    assert [schedule.at(s) for s in sigmas[:-1]] == weights
    assert [schedule.at(s) for s in reversed(sigmas[:-1])] == weights[::-1]
    assert schedule.at(0.0) == 0
    assert schedule.at(sigmas[0] * 1.01) == 0


@given(levels, st.integers(0, 28), st.floats(0, 1))
def test_lookup_between_steps_is_linear_in_sigma(sigmas, i, share):
    i %= len(sigmas) - 2
    weights = [float(i % 2) for i in range(len(sigmas) - 1)]
    sigma = sigmas[i + 1] + share * (sigmas[i] - sigmas[i + 1])
    expected = weights[i + 1] + share * (weights[i] - weights[i + 1])
    assert Schedule(sigmas, weights).at(sigma) == pytest.approx(
        expected, abs=1e-6 + 1e-13 / (sigmas[i] - sigmas[i + 1])
    )


def test_a_part_of_a_run_ends_above_zero_and_does_not_hold_its_end():
    schedule = Schedule([4, 3, 2, 1], [1, 1, 1])
    assert (schedule.at(1), schedule.at(2), schedule.at(0.5), schedule.at(4)) == (0, 1, 0, 1)
    assert schedule.at(1.5) == 1


def test_ascending_runs_hold_nothing():
    schedule = Schedule([0.0, 1.0, 2.0], [1.0, 1.0])
    assert schedule.at(1.0) == 0
    assert not schedule.covers(1.0)
    assert Schedule([], []).at(1.0) == 0


def test_repeated_levels_are_no_division_by_zero():
    assert Schedule([3, 2, 2, 1, 0], [0, 1, 1, 0]).at(2) == 1


@pytest.mark.parametrize("bad", [[1.0], [1.0, math.nan], [math.inf, 1.0]])
def test_bad_weights_raise(bad):
    with pytest.raises(ValueError, match="weights"):
        Schedule([2, 1, 0], bad)


def test_cosine_curve_of_detail_daemon():
    weights = cosine(11, 0.0, 1.0)
    assert weights[0] == weights[10] == 0
    assert weights[5] == 1
    assert weights[2] == pytest.approx(0.5 - 0.5 * math.cos(math.pi * 0.4))
    assert cosine(11, 0.0, 1.0, smooth=False)[2] == pytest.approx(0.4)
    assert cosine(11, 0.2, 0.8, start_offset=0.3, end_offset=-0.1)[0] == 0.3
    assert cosine(11, 0.2, 0.8, start_offset=0.3, end_offset=-0.1)[10] == -0.1
    assert cosine(11, fade=0.5) == pytest.approx([w / 2 for w in cosine(11)])
    assert cosine(11, 0.0, 1.0, exponent=2.0)[2] == pytest.approx(weights[2] ** 2)
    assert max(range(11), key=cosine(11, 0.0, 1.0, bias=0.8).__getitem__) == 8
