"""WHEN: how much each step is told, also where the model is not called in every step."""

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selective_sigma import Settings
from selective_sigma.lie import SMALLEST_KEEP
from selective_sigma.schedule import LAST_STEP_SHARE, LONG_STEP, Schedule, Step
from selective_sigma.settings import RANGES

from .runs import karras, levels_above_zero, short_steps

EVERY = (1, 2, 3, 8)
ALL = Settings(start=0.0, every=1)


def doses_of(schedule: Schedule) -> list[float]:
    """What each step is told, in e-folds, in a run that calls the model in every step."""
    return [new_dose(schedule, step) for step in schedule.steps]


def new_dose(schedule: Schedule, step: Step) -> float:
    """What a call in ``step`` is told, as the detailer does it."""
    schedule.enter(step)
    return schedule.mark_told(step)


def strengths(schedule: Schedule) -> list[float]:
    return [-math.expm1(-dose) for dose in doses_of(schedule)]


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
    doses = doses_of(single)
    assert sum(doses_of(whole)) == pytest.approx(sum(doses), rel=1e-6)
    assert sum(sum(doses_of(part)) for part in parts) == pytest.approx(sum(doses), rel=1e-6)
    assert [step.reason is None for step in whole.steps] == [dose != 0 for dose in doses]


@pytest.mark.parametrize("every", EVERY)
def test_the_first_of_a_group_carries_the_dose_and_the_step_to_zero_its_own(every):
    levels = short_steps(20).tolist()
    single = doses_of(Schedule(levels, Settings(every=1), window=(levels[4], 0.0)))
    doses = doses_of(Schedule(levels, Settings(every=every), window=(levels[4], 0.0)))
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
        assert new_dose(alone, alone.at(pair[0])) == new_dose(single, single.steps[i])


@given(levels_above_zero, st.booleans(), st.sampled_from(["ve", "flow"]), st.floats(-1, 0.99))
def test_every_active_step_is_told_the_strength_and_the_step_to_zero_its_share(levels, to_zero, family, strength):
    levels = [level / 101 for level in levels] + [0.0] * to_zero
    schedule = Schedule(levels, Settings(strength=strength, every=1), family, window=(1.0, 0.0))
    peaks = strengths(schedule)
    last = [strength * LAST_STEP_SHARE] if to_zero else [strength]
    assert peaks == pytest.approx([strength] * (len(peaks) - 1) + last, abs=1e-9)


@pytest.mark.parametrize("family", ["ve", "flow"])
@pytest.mark.parametrize("strength", [1.0, 0.999, 0.6, -1.0])
def test_doses_add_up_as_e_folds_and_never_hide_all_of_the_noise(strength, family):
    levels = short_steps(9, family).tolist()
    schedule = Schedule(levels, Settings(strength=strength, every=8), family, window=(levels[0], 0.0))
    assert strengths(schedule)[0] == pytest.approx(1 - max(1 - strength, SMALLEST_KEEP) ** 8)


@pytest.mark.parametrize("every", [2, 8])
def test_a_long_step_is_a_group_of_its_own(every):
    ratios = [10.0]
    for length in (0.5, 0.5, 0.5, 0.5, 1.1, 1.1, 0.5, 0.5):
        ratios.append(ratios[-1] * math.exp(-length * LONG_STEP))
    schedule = Schedule([*ratios, 0.0], Settings(every=every), window=(10.0, 0.0))
    one = -math.log1p(-Settings().strength)
    doses = [round(dose / one, 6) for dose in doses_of(schedule)]
    # The step before a long one is a group of its own too.
    assert doses[3:6] == [1, 1, 1]
    assert doses[:3] == ([2, 0, 1] if every == 2 else [3, 0, 0])
    assert doses[6:8] == [2, 0]


@pytest.mark.parametrize("every", EVERY)
@pytest.mark.parametrize("repeated", [0, 3, 7, 9])
def test_a_step_of_no_length_has_no_dose(every, repeated):
    levels = [float(v) for v in karras(9)]
    runs = levels, [*levels[: repeated + 1], *levels[repeated:]]
    plain, twice = (Schedule(run, Settings(every=every), window=(20.0, 0.0)) for run in runs)
    once, doubled = doses_of(plain), doses_of(twice)
    assert sum(doubled) == pytest.approx(sum(once))
    assert doubled[repeated] == 0
    assert doubled[-1 if repeated < 9 else -2] == pytest.approx(once[-1])


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
    total = sum(doses_of(full))
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
    assert sum_of_doses == pytest.approx(sum(doses_of(full)), abs=stride * (every + 1) * one)


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
