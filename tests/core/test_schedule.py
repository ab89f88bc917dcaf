"""WHEN: which step a call belongs to, and which steps a lie is told in."""

import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from selective_sigma import Reason, Settings
from selective_sigma.published import TAPER, PublishedSchedule, strength_shares
from selective_sigma.schedule import LEVEL_TOLERANCE, OUTSIDE, Schedule, levels_at

from .runs import karras, levels_above_zero, levels_of

EVERY = (1, 2, 3, 8)
ALL = Settings(start=0.0, every=1)


@given(levels_above_zero, st.booleans(), st.floats(1e-6, 1))
def test_lookup_is_by_value_and_a_step_holds_the_levels_down_to_the_next(levels, to_zero, share):
    levels = [*levels, 0.0] if to_zero else levels
    schedule = Schedule(levels, ALL)
    for i, (high, low) in reversed([*enumerate(pairwise(levels))]):
        assert schedule.at(high).index == i
        between = low + share * (high - low)
        if low * LEVEL_TOLERANCE < between <= high and high > low * LEVEL_TOLERANCE:
            assert schedule.at(between).index == i
    assert schedule.at(0.0) == schedule.at(levels[0] * 1.5) == OUTSIDE
    assert schedule.dose(OUTSIDE) == schedule.mark_told(OUTSIDE) == 0


def test_the_first_step_holds_its_churned_sigma_hat():
    """As k-diffusion makes it, in single precision, with the most noise that Karras et al. allow."""
    for sigma in torch.linspace(0.3, 90, 200):
        schedule = Schedule([float(sigma), float(sigma) / 2, 0.0], ALL)
        assert schedule.at(float(sigma * (min(40 / 2, 2**0.5 - 1) + 1))).index == 0


def test_a_call_at_the_lowest_level_of_a_part_run_belongs_to_its_last_step():
    """As Heun's second call; below it, and at the end of a whole run, there is nothing."""
    part = Schedule([4.0, 3.0, 2.0, 1.0], ALL)
    assert [part.at(s).index for s in (4, 3, 2, 1, 0.99)] == [0, 1, 2, 2, -1]


def test_leading_zeros_are_padding():
    levels = [1.0, 0.8, 0.5, 0.0]
    published = Settings(mask_source="change", every=1, start=0.1, end=0.9)
    for kind, settings in ((Schedule, Settings()), (Schedule, ALL), (PublishedSchedule, published)):
        plain, padded = kind(levels, settings, "flow"), kind([0.0, *levels], settings, "flow")
        assert padded.steps == [replace(step, index=step.index + 1) for step in plain.steps]
        assert padded.at(0.7) == replace(plain.at(0.7), index=2)
        assert padded.at(0.3) == replace(plain.at(0.3), index=3)


@pytest.mark.parametrize("levels", [[], [1.0], [0.0], [0.0, 0.0], [0.0, 1.0], [0.0, 1.0, 2.0], [0.5, 1.0]])
def test_runs_that_go_up_or_nowhere_are_left_plain(levels):
    schedule = Schedule(levels, ALL)
    above = [level for level in levels if level > 0]
    reason = Reason.ASCENDING if len(above) > 1 else Reason.OUTSIDE
    assert all(schedule.at(s) == replace(OUTSIDE, reason=reason) for s in (0.0, 0.5, 1.0, 2.0))


def test_a_schedule_that_touches_zero_on_its_way_still_has_its_steps():
    """As made by joining two schedules."""
    schedule = Schedule([1.0, 0.5, 0.0, 0.8, 0.4, 0.0], ALL, "flow")
    assert [schedule.at(s).index for s in (1.0, 0.5, 0.3)] == [0, 1, 1]


@pytest.mark.parametrize("family", ["ve", "flow"])
@pytest.mark.parametrize(("first", "last"), [(0, 11), (3, 6), (5, 5)])
def test_the_window_is_inclusive_at_both_ends(family, first, last):
    levels = levels_of(family, 12).tolist()
    schedule = Schedule(levels, Settings(every=1), family, window=(levels[first], levels[last]))
    assert [step.index for step in schedule.steps if step.scheduled_dose] == [*range(first, last + 1)]
    assert all((step.reason is None) == (step.scheduled_dose != 0) for step in schedule.steps)
    assert {step.reason for step in schedule.steps} <= {None, Reason.WINDOW}
    # A host's noise range may differ in the last digit.
    nudged = (levels[first] * (1 - 1e-7), levels[last] * (1 + 1e-7))
    assert Schedule(levels, Settings(every=1), family, window=nudged).steps == schedule.steps


def test_without_a_window_start_and_end_are_shares_of_the_run():
    levels = [8.0, 6.0, 4.0, 2.0, 0.0]
    assert levels_at(levels, 0.25, 0.625) == (6.0, 3.0)
    assert levels_at(levels, 0.0, 1.0) == (8.0, 0.0)
    for start, end in ((0.25, 0.625), (0.0, 0.3), (0.6, 1.0)):
        settings = Settings(start=start, end=end)
        explicit = Schedule(levels, settings, window=levels_at(levels, start, end))
        assert Schedule(levels, settings).steps == explicit.steps


def test_between_two_levels_the_published_strength_is_linear_unless_a_step_stands_for_others():
    chosen = {"mask_source": "change", "start": 0.1, "end": 0.9, "strength": 0.2}
    levels = karras(20).tolist()
    linear, steps = (PublishedSchedule(levels, Settings(every=every, **chosen)) for every in (1, 2))
    for i, (high, low) in enumerate(pairwise(levels[:-1])):
        between = 0.75 * high + 0.25 * low
        a, b, c = (-math.expm1(-linear.mark_told(linear.at(level))) for level in (high, low, between))
        assert c == pytest.approx(0.75 * a + 0.25 * b)
        assert steps.at(between) is steps.steps[i]
    assert {step.reason for step in steps.steps} == {None, Reason.WINDOW}
    for sigma in (levels[0] * 1.01, levels[-2] / 2, levels[-2], 0.0, levels[0] * 2):
        assert linear.at(sigma) == Schedule.at(linear, sigma)


def test_published_shares_are_flat_then_a_line_to_zero():
    shares = strength_shares(101, 0.1, 0.9)
    fade = round((0.9 - TAPER) * 100)
    assert shares[9] == 0
    assert shares[10:fade] == [1.0] * (fade - 10)
    assert shares[fade:91] == pytest.approx([1 - i / (90 - fade) for i in range(91 - fade)])
    assert shares[90:] == [0.0] * 11


@given(st.integers(0, 60), st.floats(0, 1), st.floats(0, 1))
def test_published_shares_are_clean_at_both_ends(steps, start, end):
    shares = strength_shares(steps, start, end)
    assert len(shares) == steps
    assert all(0 <= w <= 1 for w in shares)
    assert not steps or shares[0] == shares[-1] == 0


@given(st.integers(4, 60), st.floats(-1e-7, 1e-7))
def test_a_level_rounded_by_the_host_is_still_its_own_step(steps, off):
    """Hosts hand levels back in single precision."""
    levels = [10 * (1 - i / steps) ** 2 for i in range(steps + 1)]
    schedule = Schedule(levels, Settings(start=0.0))
    assert [schedule.at(level * (1 + off)).index for level in levels[:-1]] == list(range(steps))


def test_a_step_that_rises_is_plain_and_says_so():
    """As a schedule of restarts has them; the step after it is looked up as ever."""
    schedule = Schedule([8.0, 4.0, 2.0, 6.0, 3.0, 0.0], ALL)
    assert [step.reason for step in schedule.steps] == [None, None, Reason.ASCENDING, None, None]
    assert [schedule.at(level).index for level in (8.0, 4.0, 2.0)] == [0, 1, 2]


def test_strength_zero_is_idle_and_nothing_else():
    assert {step.reason for step in Schedule([3.0, 2.0, 0.0], Settings(strength=0.0, start=0.0)).steps} == {Reason.IDLE}
