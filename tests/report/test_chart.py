"""Charts: what is drawn lies where the numbers are, and round ticks are round."""

import itertools
import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resnets.report.chart import Axis, Bar, Chart, Line, decades_axis, draw, linear_axis, nice_ticks


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6), st.integers(3, 9))
def test_ticks_are_evenly_spaced_inside_and_not_too_many(low, width, most):
    ticks = nice_ticks(low, low + width, most)
    assert 1 <= len(ticks) <= most
    slack = 1e-6 * width
    assert all(low - slack <= tick <= low + width + slack for tick in ticks)
    gaps = [later - earlier for earlier, later in itertools.pairwise(ticks)]
    assert all(math.isclose(gap, gaps[0], rel_tol=1e-6, abs_tol=1e-9) for gap in gaps)


@given(st.integers(0, 100), st.integers(1, 10_000), st.integers(3, 9))
def test_ticks_between_whole_numbers_can_be_whole(low, width, most):
    ticks = nice_ticks(float(low), float(low + width), most, whole=True)
    assert 1 <= len(ticks) <= most
    assert all(tick == round(tick) and low <= tick <= low + width for tick in ticks)


@given(st.floats(0, 1e6), st.floats(1, 1e6))
def test_the_space_between_ticks_is_one_two_two_and_a_half_or_five_times_a_power_of_ten(low, width):
    ticks = nice_ticks(low, low + width)
    if len(ticks) > 1:
        step = ticks[1] - ticks[0]
        mantissa = step / 10 ** math.floor(math.log10(step) + 1e-6)
        assert min(abs(mantissa - one) for one in (1, 2, 2.5, 5)) < 1e-3


@given(st.floats(1e-9, 10), st.floats(1, 1e5))
def test_a_logarithmic_axis_has_a_tick_every_decade_and_holds_its_values(low, ratio):
    axis = decades_axis("rate", [low, low * ratio])
    assert 0 < axis.share(low) <= axis.share(low * ratio) < 1
    shares = [axis.share(value) for value, _ in axis.ticks]
    gaps = [later - earlier for earlier, later in itertools.pairwise(shares)]
    assert gaps
    assert all(gap == pytest.approx(gaps[0]) for gap in gaps)


def chart(**fields):
    axes = {"x": linear_axis("x", 0.0, 10.0), "y": linear_axis("y", 0.0, 100.0)}
    return Chart(**{"identifier": "one", "title": "Title", "description": "Description"} | axes | fields)


def test_a_line_goes_through_its_points():
    svg = draw(chart(lines=(Line(x=[0, 5, 10], y=[100, 50, 0], color=2),)))
    (path,) = re.findall(r'<path class="line bold c2" d="([^"]+)"', svg)
    assert path == "M0 0L500 500L1000 1000"


def test_steps_stay_constant_until_the_next_point():
    svg = draw(chart(lines=(Line(x=[0, 5, 10], y=[50, 20, 20], color=0, kind="steps"),)))
    assert 'd="M0 500H500V800H1000V800"' in svg


def test_long_lines_are_thinned_and_keep_their_ends():
    values = [index / 1000 for index in range(10_001)]
    svg = draw(chart(lines=(Line(x=values, y=values, color=0),)))
    (path,) = re.findall(r' d="([^"]+)"', svg)
    assert path.startswith("M0 1000L")
    assert path.endswith("L1000 900")
    assert path.count("L") < 1600


def test_a_bar_covers_its_values():
    svg = draw(chart(bars=(Bar(left=2.0, right=4.0, bottom=10.0, top=60.0),)))
    assert '<rect class="bar" x="20%" y="40%" width="20%" height="50%"/>' in svg


def test_a_bar_upside_down_is_the_same_bar():
    assert draw(chart(bars=(Bar(left=2.0, right=4.0, bottom=60.0, top=10.0),))) == draw(
        chart(bars=(Bar(left=2.0, right=4.0, bottom=10.0, top=60.0),))
    )


def test_labels_at_the_ends_of_lines_do_not_overlap():
    lines = tuple(Line(x=[0, 10], y=[0, 50 + 0.1 * index], color=index, end=f"{index}") for index in range(5))
    heights = sorted(
        float(y) for y in re.findall(r'<text class="end c\d" x="100%" y="([\d.]+)%"', draw(chart(lines=lines)))
    )
    assert len(heights) == 5
    assert min(b - a for a, b in itertools.pairwise(heights)) >= 5.9


@pytest.mark.parametrize("lines", [5, 16, 30])
def test_many_labels_get_a_taller_plot_in_which_they_do_not_overlap(lines):
    svg = draw(chart(lines=tuple(Line(x=[0, 10], y=[0, 50], color=index, end="1") for index in range(lines))))
    heights = sorted(float(y) for y in re.findall(r'<text class="end c\d" x="100%" y="([\d.-]+)%"', svg))
    gap = min(b - a for a, b in itertools.pairwise(heights))
    # A tall plot has twice the height.
    assert gap * (2 if "tall" in svg else 1) >= 5.9
    assert heights[0] >= 0
    assert heights[-1] <= 100


def test_a_label_is_moved_away_from_those_beside_it_alone():
    lines = tuple(Line(x=[0, at], y=[0, 50], color=index, end="1: 50.00") for index, at in enumerate((2, 2, 6, 10)))
    svg = draw(chart(lines=lines))
    found = [(x, float(y)) for x, y in re.findall(r'<text class="end c\d" x="(\d+)%" y="([\d.]+)%"', svg)]
    assert [x for x, _ in found] == ["20", "20", "60", "100"]
    assert abs(found[0][1] - found[1][1]) >= 5.9
    assert [y for _, y in found[2:]] == [50, 50]


@pytest.mark.parametrize(("end", "room"), [("", "chart"), ("12", "chart short-ends"), ("45.00", "chart with-ends")])
def test_labels_have_the_room_that_they_need_beside_the_plot(end, room):
    assert f'<svg class="{room}"' in draw(chart(lines=(Line(x=[0, 10], y=[0, 50], color=0, end=end),)))
    assert '<svg class="chart long-ends"' in draw(chart(lines=(Line(x=[0, 10], y=[0, 50], color=0, end="12: 45.00"),)))


def test_lines_of_one_color_have_different_dashes():
    lines = tuple(Line(x=[0, 10], y=[0, 50], color=index) for index in range(21))
    classes = re.findall(r'<path class="line bold ([^"]+)"', draw(chart(lines=lines)))
    assert classes[:2] + classes[7:9] + classes[14:15] == ["c0", "c1", "c0 d1", "c1 d1", "c0 d2"]
    assert len(set(classes)) == 21


def test_text_in_a_chart_is_escaped_and_names_it():
    hostile = '<script>"&'
    svg = draw(chart(title=hostile, description=hostile, lines=(Line(x=[0, 10], y=[0, 1], color=0, end=hostile),)))
    assert "<script" not in svg
    assert svg.count("&lt;script&gt;&#34;&amp;") == 3
    assert 'aria-labelledby="one-title one-desc"' in svg


@given(st.lists(st.floats(-1e300, 1e300), min_size=1, max_size=5))
def test_values_far_outside_stay_near_the_plot(values):
    svg = draw(chart(lines=(Line(x=range(len(values)), y=values, color=0),)))
    (path,) = re.findall(r' d="([^"]+)"', svg)
    numbers = [float(number) for number in re.findall(r"-?\d+(?:\.\d+)?(?:e[-+]\d+)?", path)]
    assert all(-600 <= number <= 1600 for number in numbers)


def test_an_axis_whose_ends_are_equal_has_some_width():
    axis = linear_axis("x", 3.0, 3.0)
    assert axis.share(3.0) == 0
    assert isinstance(axis, Axis)
