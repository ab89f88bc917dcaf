import dataclasses
import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selective_sigma import Settings
from selective_sigma.settings import CHOICES, RANGES, SETTING_NAMES, check_sigmas


@pytest.mark.parametrize("name", RANGES)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, "high", None, True])
def test_bad_numbers_name_setting_value_and_range(name, value):
    low, high = RANGES[name]
    with pytest.raises(ValueError, match=rf"^{name} is .*{low:g} to {high:g}$") as error:
        Settings(**{name: value})
    assert repr(value) in str(error.value)


@given(st.sampled_from(sorted(RANGES)), st.floats(1e-3, 1e6), st.booleans())
def test_numbers_outside_the_range_raise(name, beyond, above):
    low, high = RANGES[name]
    with pytest.raises(ValueError, match=name):
        Settings(**{name: high + beyond if above else low - beyond})


@pytest.mark.parametrize("name", CHOICES)
@pytest.mark.parametrize("value", ["nothing of ours", "", None, ["ones"]])
def test_unknown_choices_list_the_known(name, value):
    with pytest.raises(ValueError, match=name) as error:
        Settings(**{name: value})
    assert all(choice in str(error.value) for choice in CHOICES[name])


@pytest.mark.parametrize(("start", "end"), [(0.5, 0.5), (0.9, 0.1), (1.0, 1.0)])
def test_start_must_lie_before_end(start, end):
    with pytest.raises(ValueError, match=f"start is {start} and end is {end}"):
        Settings(start=start, end=end)


@given(st.floats(-1, 1), st.floats(0, 1))
def test_idle_says_when_nothing_is_done(strength, coverage):
    assert Settings(strength=strength, coverage=coverage).idle == (strength == 0 or coverage == 0)
    assert not Settings(strength=strength, coverage=coverage, mask_override="zeros").idle


def test_coverage_and_override_make_constant_masks_and_coverage_alone_one_pass():
    for override, constant in (("ones", 1.0), ("half", 0.5), ("zeros", 0.0)):
        for coverage in (0.0, 0.5, 1.0):
            settings = Settings(coverage=coverage, mask_override=override)
            assert (settings.constant_mask, settings.one_pass) == (constant, False)
    assert (Settings(coverage=1.0).constant_mask, Settings(coverage=1.0).one_pass) == (1.0, True)
    assert (Settings().constant_mask, Settings().one_pass) == (None, False)


def test_every_setting_is_checked_and_frozen():
    assert set(SETTING_NAMES) == set(RANGES) | set(CHOICES)
    with pytest.raises(dataclasses.FrozenInstanceError):
        Settings().strength = 0.2
    assert Settings(strength=Fraction(1, 2), coverage=1).coverage == 1


@pytest.mark.parametrize("value", [0, 9, 1.0, 1.5, Fraction(2), "2"])
def test_every_is_a_whole_number(value):
    with pytest.raises(ValueError, match=r"^every is .*: give a whole number from 1 to 8$"):
        Settings(every=value)
    assert [Settings(every=n).every for n in (1, 8)] == [1, 8]


@pytest.mark.parametrize(
    ("value", "fine"), [(0.0, True), (3.5, True), (-1e-9, False), (math.nan, False), (math.inf, False)]
)
def test_noise_levels_are_finite_and_at_least_zero(value, fine):
    if fine:
        check_sigmas([1.0, value])
        return
    with pytest.raises(ValueError, match=f"^levels holds {value!r}"):
        check_sigmas([1.0, value], "levels")
