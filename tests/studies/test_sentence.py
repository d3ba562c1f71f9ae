"""The sentence about a difference: one for every case, and never more than the numbers say."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resnets.metrics.paired import paired_difference
from resnets.studies.sentence import sentences


def said(first, second, seeds_for_half=None):
    return " ".join(sentences(paired_difference(first, second), seeds_for_half))


def test_a_difference_that_is_told_has_its_interval_in_brackets():
    text = said([8.0, 8.2, 8.1, 8.4, 8.2], [6.9, 6.8, 7.2, 7.1, 6.8], 4)
    assert text == (
        "B errs 1.2 points less than A (95 % interval 1.0 to 1.5, 5 seeds): a difference of this size is unlikely to be "
        "chance. Were the spread the same, 5 seeds are enough for half of this difference too."
    )
    assert said([6.9, 6.8, 7.2], [8.0, 8.2, 8.1]).startswith("B errs 1.1 points more than A (95 % interval 0.5 to 1.8")


def test_a_difference_that_is_not_told_says_how_far_it_may_go_both_ways():
    text = said([5.0, 6.0, 5.0], [5.5, 5.0, 4.5], 207)
    assert text == (
        "No difference can be told from 3 seeds: B errs 0.33 points less than A, and the 95 % interval goes from 2.23 "
        "less to 1.56 more. Were the spread the same, about 207 seeds would tell half of this difference from 0, four "
        "times in five."
    )
    assert "B errs" not in said([5.0, 6.0], [6.0, 5.0])
    assert "A and B err equally" in said([5.0, 6.0], [6.0, 5.0])


def test_one_seed_gives_no_interval_and_says_so():
    assert said([5.0], [3.8]) == (
        "B errs 1.2 points less than A with one seed: one seed shows no spread, so there is no interval and this may be "
        "chance."
    )


def test_no_spread_gives_no_interval_and_says_so():
    assert said([5.0, 6.0], [5.0, 6.0]) == (
        "A and B err equally with each of 2 seeds: no difference was seen, and without a spread there is no interval."
    )
    assert "more seeds would show whether this is chance" in said([5.0, 6.0], [4.5, 5.5])


def test_a_hopeless_number_of_seeds_is_not_printed():
    assert "more than 10,000 seeds" in said([5.0, 6.0, 5.0], [5.5, 5.0, 4.6], None)


errors = st.floats(0, 100).map(lambda value: round(value, 2))


@given(st.lists(st.tuples(errors, errors), min_size=1, max_size=8))
def test_chance_is_ruled_out_exactly_where_the_interval_leaves_out_zero(pairs):
    difference = paired_difference(*zip(*pairs, strict=True))
    (text, *_) = sentences(difference, 10)
    assert ("unlikely to be chance" in text) == difference.is_told_apart
    direction = re.search(r"B errs [\d.]+ points (less|more) than A", text)
    if difference.mean:
        assert direction is not None
        assert direction[1] == ("less" if difference.mean < 0 else "more")
    # No value is rounded to nothing.
    assert not re.search(r"(?<![\d.])0\.0+(?!\d)", text)


@pytest.mark.parametrize("small", [0.004, 0.0004])
def test_an_end_near_zero_keeps_the_decimals_that_show_it(small):
    text = said([5.0, 5.0, 5.0], [5.0 + small, 5.0 + 1.1 * small, 5.0 + 0.9 * small])
    assert "0.00 " not in text
