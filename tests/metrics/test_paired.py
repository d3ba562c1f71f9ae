import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from resnets.metrics.paired import paired_difference, pairs_to_detect

percentages = st.floats(0, 100).map(lambda value: round(value, 2))
pairs_of_values = st.lists(st.tuples(percentages, percentages), min_size=2, max_size=12)


@given(pairs_of_values, st.sampled_from([0.5, 0.9, 0.95, 0.99]))
def test_the_interval_is_scipys_paired_t_interval(pairs, confidence):
    first, second = zip(*pairs, strict=True)
    result = paired_difference(first, second, confidence=confidence)
    differences = np.subtract(second, first)
    assert result.mean == pytest.approx(differences.mean(), abs=1e-9)
    if np.ptp(differences) < 1e-6:
        assert (result.spread, result.interval) == (0.0, None)
        return
    assert result.spread == pytest.approx(differences.std(ddof=1))
    expected = scipy.stats.ttest_rel(second, first).confidence_interval(confidence)
    assert result.interval == pytest.approx((expected.low, expected.high), abs=1e-9)
    if abs(result.mean) > 1e-6:
        p_value = scipy.stats.ttest_rel(second, first).pvalue
        assert result.is_told_apart == (p_value < 1 - confidence)


@given(pairs_of_values)
def test_exchanging_the_sides_mirrors_the_result(pairs):
    first, second = zip(*pairs, strict=True)
    there, back = paired_difference(first, second), paired_difference(second, first)
    assert back.mean == pytest.approx(-there.mean, abs=1e-9)
    assert there.is_told_apart == back.is_told_apart
    if there.interval is not None:
        assert back.interval == pytest.approx((-there.interval[1], -there.interval[0]), abs=1e-9)


def test_one_pair_has_a_difference_and_no_interval():
    result = paired_difference([4.0], [2.5])
    assert (result.mean, result.spread, result.interval, result.is_told_apart) == (-1.5, None, None, False)


def test_equal_differences_have_a_spread_of_exactly_zero_and_no_interval():
    # Errors of 360 images: 100 * (360 - hits) / 360 rounds differently from one count to the next.
    errors = [100 * (360 - hits) / 360 for hits in (347, 351, 340, 7, 181)]
    worse = [100 * (360 - hits + 1) / 360 for hits in (347, 351, 340, 7, 181)]
    assert len({after - before for before, after in zip(errors, worse, strict=True)}) > 1
    result = paired_difference(errors, worse)
    assert (result.spread, result.interval, result.is_told_apart) == (0.0, None, False)
    assert result.mean == pytest.approx(100 / 360)
    same = paired_difference(errors, errors)
    assert (same.mean, same.spread, same.interval) == (0.0, 0.0, None)


@pytest.mark.parametrize(("first", "second"), [([], []), ([1.0], []), ([1.0], [math.nan]), ([math.inf], [1.0])])
def test_what_makes_no_pairs_is_refused(first, second):
    with pytest.raises(ValueError, match=r"pairs|finite"):
        paired_difference(first, second)


def test_ninety_five_of_a_hundred_intervals_hold_the_true_difference():
    rng = np.random.default_rng(0)
    studies, pairs, difference = 4_000, 5, -0.7
    seeds = rng.normal(8.0, 2.0, (studies, pairs, 1))  # what both sides of a pair share
    values = seeds + rng.normal([0.0, difference], [0.3, 0.5], (studies, pairs, 2))
    held = 0
    for first, second in zip(values[:, :, 0].tolist(), values[:, :, 1].tolist(), strict=True):
        low, high = paired_difference(first, second).interval
        held += low <= difference <= high
    # Four standard errors of a share of 0.95 over 4,000 studies.
    assert held / studies == pytest.approx(0.95, abs=4 * math.sqrt(0.95 * 0.05 / studies))


def test_equal_sides_are_told_apart_in_five_of_a_hundred_studies():
    rng = np.random.default_rng(1)
    values = rng.normal(0.0, 1.0, (4_000, 3, 2))
    told = sum(
        paired_difference(first, second).is_told_apart
        for first, second in zip(values[:, :, 0].tolist(), values[:, :, 1].tolist(), strict=True)
    )
    assert told / 4_000 == pytest.approx(0.05, abs=4 * math.sqrt(0.05 * 0.95 / 4_000))


@pytest.mark.parametrize(("difference", "spread"), [(0.5, 1.0), (1.0, 1.0), (-0.2, 0.9), (2.0, 1.0), (0.3, 2.0)])
def test_the_pairs_it_takes_are_those_of_the_noncentral_t_distribution(difference, spread):
    def power(pairs):
        shift, edge = abs(difference) / spread * math.sqrt(pairs), scipy.stats.t.ppf(0.975, pairs - 1)
        return scipy.stats.nct.sf(edge, pairs - 1, shift) + scipy.stats.nct.cdf(-edge, pairs - 1, shift)

    pairs = pairs_to_detect(difference, spread)
    assert power(pairs) >= 0.8 - 1e-4
    assert power(pairs - 1) < 0.8 + 1e-4


def test_as_many_pairs_tell_the_difference_in_four_studies_of_five():
    rng = np.random.default_rng(2)
    pairs = pairs_to_detect(0.8, 1.0)
    values = rng.normal(0.8, 1.0, (4_000, pairs))
    told = sum(paired_difference([0.0] * pairs, study).is_told_apart for study in values.tolist())
    # One pair fewer has less than 0.8; this many has up to what one pair adds.
    assert 0.78 <= told / 4_000 <= 0.87


def test_no_number_of_pairs_is_given_where_none_can_be():
    assert pairs_to_detect(0.0, 1.0) is None
    assert pairs_to_detect(1.0, 0.0) is None
    assert pairs_to_detect(0.001, 1.0) is None
    assert pairs_to_detect(1e6, 1.0) == 2
