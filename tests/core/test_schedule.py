"""WHEN: which step a call belongs to, and how much each step is told."""

import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from selective_sigma import Reason, Settings
from selective_sigma.lie import SMALLEST
from selective_sigma.published import TAPER, PublishedSchedule, strength_shares
from selective_sigma.schedule import LAST, LONG, OUTSIDE, SLACK, Schedule, Step, levels_at
from selective_sigma.settings import RANGES

from .runs import karras, levels_of, short_steps

EVERY = (1, 2, 3, 8)
ALL = Settings(start=0.0, every=1)
levels_above_zero = (
    st.lists(st.floats(0.01, 100), min_size=2, max_size=30, unique=True)
    .map(lambda values: sorted(values, reverse=True))
    # Nearer than that, two levels are one to the lookup.
    .filter(lambda levels: all(high > low * SLACK**2 for high, low in pairwise(levels)))
)


def efolds(schedule: Schedule) -> list[float]:
    """What each step is told, in e-folds of the noise-to-signal ratio, in a run that asks at every step."""
    return [told(schedule, step) for step in schedule.steps]


def told(schedule: Schedule, step: Step) -> float:
    """What a call at ``step`` tells anew, as the detailer asks it."""
    schedule.enter(step)
    return schedule.mark_told(step)


def strengths(schedule: Schedule) -> list[float]:
    return [-math.expm1(-dose) for dose in efolds(schedule)]


@given(levels_above_zero, st.booleans(), st.floats(1e-6, 1))
def test_lookup_is_by_value_and_a_step_holds_the_levels_down_to_the_next(levels, to_zero, share):
    levels = [*levels, 0.0] if to_zero else levels
    schedule = Schedule(levels, ALL)
    for i, (high, low) in reversed([*enumerate(pairwise(levels))]):
        assert schedule.at(high).index == i
        between = low + share * (high - low)
        if low * SLACK < between <= high and high > low * SLACK:
            assert schedule.at(between).index == i
    assert schedule.at(0.0) == schedule.at(levels[0] * 1.5) == OUTSIDE
    assert schedule.dose(OUTSIDE) == schedule.mark_told(OUTSIDE) == 0


def test_the_first_step_holds_its_churned_sigma_hat():
    """As k-diffusion makes it, in single precision, with the most noise that Karras et al. allow."""
    for sigma in torch.linspace(0.3, 90, 200):
        schedule = Schedule([float(sigma), float(sigma) / 2, 0.0], ALL)
        assert schedule.at(float(sigma * (min(40 / 2, 2**0.5 - 1) + 1))).index == 0


def test_a_part_run_s_last_look_belongs_to_its_last_step():
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
    assert [step.index for step in schedule.steps if step.e_folds] == [*range(first, last + 1)]
    assert all((step.reason is None) == (step.e_folds != 0) for step in schedule.steps)
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
        given_one = Schedule(levels, settings, window=levels_at(levels, start, end))
        assert Schedule(levels, settings).steps == given_one.steps


@given(levels_above_zero, st.booleans(), st.floats(-1, 0.9), st.integers(1, 8), st.integers(0, 29))
def test_whatever_every_and_however_the_run_is_cut_the_same_is_told(levels, to_zero, strength, every, cut):
    """Doses add in e-folds: what a due step carries is what the steps it stands for would have been told."""
    levels = [*levels, 0.0] if to_zero else levels
    window = (levels[min(1, len(levels) - 2)], levels[-1])
    settings = Settings(strength=strength or 0.1, every=every)
    single = Schedule(levels, Settings(strength=strength or 0.1, every=1), window=window)
    whole = Schedule(levels, settings, window=window)
    cut = min(cut, len(levels) - 1)
    parts = [Schedule(part, settings, window=window) for part in (levels[: cut + 1], levels[cut:])]
    doses = efolds(single)
    assert sum(efolds(whole)) == pytest.approx(sum(doses), rel=1e-6)
    assert sum(sum(efolds(part)) for part in parts) == pytest.approx(sum(doses), rel=1e-6)
    assert [step.reason is None for step in whole.steps] == [dose != 0 for dose in doses]


@pytest.mark.parametrize("every", EVERY)
def test_the_first_of_a_group_carries_the_dose_and_the_step_to_zero_its_own(every):
    levels = short_steps(20).tolist()
    single = efolds(Schedule(levels, Settings(every=1), window=(levels[4], 0.0)))
    doses = efolds(Schedule(levels, Settings(every=every), window=(levels[4], 0.0)))
    assert [i for i, dose in enumerate(doses) if dose] == [*range(4, 19, every), 19]
    assert doses[19] == single[19]
    for i in range(4, 19, every):
        assert doses[i] == pytest.approx(sum(single[i : min(i + every, 19)]), rel=1e-9)


@pytest.mark.parametrize("every", EVERY)
def test_runs_of_one_step_are_told_what_every_step_is(every):
    levels = karras(20).tolist()
    single = Schedule(levels, Settings(every=1), window=(levels[4], 0.0))
    for i, pair in enumerate(pairwise(levels)):
        alone = Schedule(pair, Settings(every=every), window=(levels[4], 0.0))
        assert told(alone, alone.at(pair[0])) == told(single, single.steps[i])


@given(levels_above_zero, st.booleans(), st.sampled_from(["ve", "flow"]), st.floats(-1, 0.99))
def test_every_active_step_is_told_the_strength_and_the_step_to_zero_its_share(levels, to_zero, family, strength):
    levels = [level / 101 for level in levels] + [0.0] * to_zero
    schedule = Schedule(levels, Settings(strength=strength, every=1), family, window=(1.0, 0.0))
    told = strengths(schedule)
    last = [strength * LAST] if to_zero else [strength]
    assert told == pytest.approx([strength] * (len(told) - 1) + last, abs=1e-9)


@pytest.mark.parametrize("family", ["ve", "flow"])
@pytest.mark.parametrize("strength", [1.0, 0.999, 0.6, -1.0])
def test_doses_add_up_as_e_folds_and_never_hide_all_of_the_noise(strength, family):
    levels = short_steps(9, family).tolist()
    schedule = Schedule(levels, Settings(strength=strength, every=8), family, window=(levels[0], 0.0))
    assert strengths(schedule)[0] == pytest.approx(1 - max(1 - strength, SMALLEST) ** 8)


@pytest.mark.parametrize("every", [2, 8])
def test_long_steps_carry_their_own_dose_and_lend_none(every):
    ratios = [10.0]
    for length in (0.5, 0.5, 0.5, 0.5, 1.1, 1.1, 0.5, 0.5):
        ratios.append(ratios[-1] * math.exp(-length * LONG))
    schedule = Schedule([*ratios, 0.0], Settings(every=every), window=(10.0, 0.0))
    one = -math.log1p(-Settings().strength)
    doses = [round(dose / one, 6) for dose in efolds(schedule)]
    # Nor do steps before a long one wait for others to carry theirs.
    assert doses[3:6] == [1, 1, 1]
    assert doses[:3] == ([2, 0, 1] if every == 2 else [3, 0, 0])
    assert doses[6:8] == [2, 0]


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
    made = strength_shares(101, 0.1, 0.9)
    fade = round((0.9 - TAPER) * 100)
    assert made[9] == 0
    assert made[10:fade] == [1.0] * (fade - 10)
    assert made[fade:91] == pytest.approx([1 - i / (90 - fade) for i in range(91 - fade)])
    assert made[90:] == [0.0] * 11


@given(st.integers(0, 60), st.floats(0, 1), st.floats(0, 1))
def test_published_shares_are_clean_at_both_ends(steps, start, end):
    made = strength_shares(steps, start, end)
    assert len(made) == steps
    assert all(0 <= w <= 1 for w in made)
    assert not steps or made[0] == made[-1] == 0


@pytest.mark.parametrize("every", EVERY)
@pytest.mark.parametrize("repeated", [0, 3, 7, 9])
def test_a_repeated_level_takes_no_dose_and_gives_none(every, repeated):
    levels = [float(v) for v in karras(9)]
    runs = levels, [*levels[: repeated + 1], *levels[repeated:]]
    plain, twice = (Schedule(run, Settings(every=every), window=(20.0, 0.0)) for run in runs)
    once, doubled = efolds(plain), efolds(twice)
    assert sum(doubled) == pytest.approx(sum(once))
    assert doubled[repeated] == 0
    assert doubled[-1 if repeated < 9 else -2] == pytest.approx(once[-1])


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


@given(st.sets(st.integers(1, 18)), st.sampled_from(EVERY), st.sampled_from([0.05, -0.3]))
def test_where_a_cache_answers_the_next_call_is_told_what_was_missed(cached, every, strength):
    """Whatever was answered in place of the model before the last step, the doses of the run add up."""
    levels = short_steps(20).tolist()
    settings = Settings(strength=strength, every=every)
    schedule, full = (Schedule(levels, settings, window=(levels[4], 0.0)) for _ in range(2))
    doses = []
    for step in schedule.steps:
        assert schedule.enter(step) == 0
        if step.index not in cached:
            doses.append(schedule.mark_told(step))
            assert schedule.dose(step) == doses[-1]  # A second call in the step.
    most = RANGES["every"][1] * abs(math.log1p(-strength))
    total = sum(efolds(full))
    assert all(abs(dose) <= most + 1e-12 for dose in doses)
    assert sum(doses) == pytest.approx(total) or max(map(abs, doses)) == pytest.approx(most)
    assert abs(sum(doses)) <= abs(total) + 1e-9


@given(st.integers(2, 5), st.sampled_from([1, 2, 3]))
def test_an_answer_that_is_held_counts_for_every_step_that_it_stands_for(stride, every):
    """A sampler that asks at every k-th step goes on with the effect in its latest answer: it is not told it again."""
    levels = short_steps(60).tolist()
    schedule, full = (Schedule(levels, Settings(every=every), window=(levels[0], 0.0)) for _ in range(2))
    sum_of_doses = 0.0
    for step in schedule.steps[::stride]:
        sum_of_doses += schedule.enter(step) + schedule.mark_told(step)
    one = -math.log1p(-Settings().strength)
    assert sum_of_doses == pytest.approx(sum(efolds(full)), abs=stride * (every + 1) * one)


def test_a_group_is_told_at_the_first_of_its_steps_that_is_asked():
    levels = short_steps(12).tolist()
    one = -math.log1p(-Settings().strength)

    def run(asked):
        schedule = Schedule(levels, Settings(every=3), window=(levels[0], 0.0))
        doses = []
        for step in schedule.steps:
            if step.index >= min(asked):
                schedule.enter(step)
            doses.append(round(schedule.mark_told(step) / one, 6) if step.index in asked else None)
        return doses

    last = round(math.log1p(-0.05) / math.log1p(-0.1), 6)
    assert run(range(12)) == [3, 0, 0, 3, 0, 0, 3, 0, 0, 2, 0, last]
    assert run({1, 2, 3, 6, 9, 11}) == [None, 3, 0, 3, None, None, 3, None, None, 2, None, last]
    assert run({0, 8, 11})[8] == 6  # Two groups: its own and the one that was missed.
    assert run({0, 11})[11] == 8  # No more than the largest group may carry.
    assert run({8, 9, 10, 11})[8] == 3  # What lies before the first call is not missed.


def test_what_one_dose_cannot_carry_is_told_by_the_next():
    levels = short_steps(30).tolist()
    one = -math.log1p(-Settings().strength)
    schedule = Schedule(levels, Settings(every=2), window=(levels[0], 0.0))
    doses = {}
    for step in schedule.steps[:19]:
        schedule.enter(step)
        if step.index in (0, 14, 16, 18):
            doses[step.index] = schedule.mark_told(step) / one
    # Six groups were missed: 14 tells 8 of 14, 16 the rest with its own, 18 its own.
    assert doses == pytest.approx({0: 2, 14: 8, 16: 8, 18: 2})
