"""Verdicts follow their rule and nothing else."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resnets.paper.core.verdict import Above, AtLeast, AtMost, Below, Report, Within, judge, rule_text

values = st.floats(-1e3, 1e3)


@given(values, values, st.floats(0.01, 10))
def test_within_passes_exactly_inside_the_tolerance(ours, paper, tolerance):
    distance = abs(ours - paper)
    if abs(distance - tolerance) > 1e-6:
        assert judge(Within(tolerance=tolerance, why=""), ours, paper) == ("PASS" if distance < tolerance else "FAIL")


@given(values, values)
def test_limits_are_one_sided_and_opposite(ours, limit):
    low, high = judge(AtLeast(limit=limit, why=""), ours, None), judge(AtMost(limit=limit, why=""), ours, None)
    if abs(ours - limit) > 1e-6:
        assert {low, high} == {"PASS", "FAIL"}
        assert (low == "PASS") == (ours > limit)


@given(values, values)
def test_above_and_below_are_what_at_most_and_at_least_are_not(ours, limit):
    for strict, other in ((Above, AtMost), (Below, AtLeast)):
        assert {judge(strict(limit=limit, why=""), ours, None), judge(other(limit=limit, why=""), ours, None)} == {
            "PASS",
            "FAIL",
        }


def test_what_is_equal_is_neither_above_nor_below():
    assert judge(Above(limit=0.3, why=""), 0.1 + 0.2, None) == "FAIL"
    assert judge(Below(limit=0.1 + 0.2, why=""), 0.3, None) == "FAIL"


def test_what_decimals_lose_in_binary_is_no_failure():
    assert 0.1 + 0.2 > 0.3
    assert judge(AtMost(limit=0.3, why=""), 0.1 + 0.2, None) == "PASS"
    assert judge(Within(tolerance=0.06, why=""), 3.86, 3.8) == "PASS"


@pytest.mark.parametrize(
    "rule", [Within(tolerance=1, why=""), *(kind(limit=0, why="") for kind in (AtLeast, AtMost, Above, Below))]
)
def test_a_value_that_is_no_number_never_passes(rule):
    assert judge(rule, math.nan, 1.0) == "FAIL"


def test_a_report_is_never_judged():
    assert judge(Report(why=""), 1e9, 0.0) == "REPORT"


def test_a_tolerance_needs_a_number_of_the_paper():
    with pytest.raises(ValueError, match="has none"):
        judge(Within(tolerance=1, why=""), 1.0, None)


def test_every_rule_says_its_reason():
    for rule in (
        Within(tolerance=0, why="w"),
        Within(tolerance=1, why="w"),
        AtLeast(limit=1, why="w"),
        Above(limit=1, why="w"),
        Report(why="w"),
    ):
        assert rule_text(rule).endswith(": w")
