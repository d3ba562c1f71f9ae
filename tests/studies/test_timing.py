"""Work in turns, with a clock that only the work moves: what is called when, and what is made of the times."""

import collections
import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from resnets.studies.timing import LostError, interleaved, paired_ratio, percentile, rates, spread

seconds = st.floats(min_value=1e-3, max_value=1e3)


class Machine:
    """A clock, and work that moves it; `slowdown` is what the machine does meanwhile."""

    def __init__(self):
        self.now = 0.0
        self.slowdown = 1.0
        self.calls = []

    def clock(self):
        return self.now

    def work(self, name, cost):
        def run(number):
            self.calls.append((name, number))
            self.now += cost * self.slowdown

        return run


@given(st.lists(seconds, min_size=1, max_size=20), st.floats(min_value=0.0, max_value=100.0))
def test_a_percentile_is_numpys(values, percent):
    assert percentile(values, percent) == pytest.approx(np.percentile(values, percent))


@given(st.lists(seconds, min_size=1, max_size=20))
def test_a_spread_is_in_order_and_its_middle_is_the_median(values):
    found = spread(values)
    assert found.median == pytest.approx(np.median(values))
    middle = [found.low, found.median, found.high]
    assert [found.smallest, *middle, found.largest] == sorted([min(values), *middle, max(values)])


def orders(names, rounds):
    """Return in which order the turns of each round were."""
    machine = Machine()
    interleaved({name: machine.work(name, 1.0) for name in names}, rounds=rounds, warm_up=0, clock=machine.clock)
    called = "".join(name for name, _ in machine.calls)
    return [called[first : first + len(names)] for first in range(0, len(called), len(names))]


def test_every_round_has_each_once():
    machine = Machine()
    runs = {name: machine.work(name, 1.0) for name in "abc"}
    measured = interleaved(runs, rounds=3, warm_up=1, clock=machine.clock)
    names = [name for name, _ in machine.calls]
    assert [sorted(names[first : first + 3]) for first in range(0, 12, 3)] == [["a", "b", "c"]] * 4
    assert [number for name, number in machine.calls if name == "b"] == [0, 1, 2, 3]
    assert measured == {name: [(1.0,)] * 3 for name in "abc"}


def test_each_comes_after_each_other_about_as_often_and_at_every_place():
    found = orders("abcd", 600)
    assert found == orders("abcd", 600)
    pairs = collections.Counter(pair for order in found for pair in itertools.pairwise(order))
    assert len(pairs) == 12
    assert all(110 <= count <= 190 for count in pairs.values())  # 150, where the places are random
    places = collections.Counter((place, name) for order in found for place, name in enumerate(order))
    assert len(places) == 16
    assert all(110 <= count <= 190 for count in places.values())


def test_the_warm_up_is_one_call_a_round_and_counts_for_nothing():
    machine = Machine()
    costs = iter([100.0, 50.0, 1.0, 1.0, 1.0, 1.0])

    def run(number):
        machine.now += next(costs)

    assert interleaved({"a": run}, rounds=2, warm_up=2, calls=2, clock=machine.clock) == {"a": [(1.0, 1.0)] * 2}


def test_a_turn_goes_on_until_it_has_calls_and_seconds_enough():
    machine = Machine()
    runs = {"fast": machine.work("fast", 0.25), "slow": machine.work("slow", 5.0)}
    measured = interleaved(runs, rounds=1, calls=2, seconds=1.0, clock=machine.clock)
    assert measured == {"fast": [(0.25,) * 4], "slow": [(5.0,) * 2]}


def test_work_that_measures_itself_is_believed():
    machine = Machine()

    def run(number):
        machine.now += 10.0
        return 2.0

    assert interleaved({"a": run}, rounds=2, clock=machine.clock) == {"a": [(2.0,), (2.0,)]}


def test_what_else_work_returns_is_ignored():
    machine = Machine()

    def run(number):
        machine.now += 3.0
        return [1.0, 2.0]

    assert interleaved({"a": run}, rounds=1, clock=machine.clock) == {"a": [(3.0,)]}


def test_between_turns_there_is_a_rest_that_is_not_measured():
    machine = Machine()

    def rest():
        machine.calls.append(("rest", 0))
        machine.now += 7.0

    runs = {name: machine.work(name, 1.0) for name in "ab"}
    measured = interleaved(runs, rounds=1, warm_up=0, rest=rest, clock=machine.clock)
    names = [name for name, _ in machine.calls]
    assert (names[::2], sorted(names[1::2])) == (["rest", "rest"], ["a", "b"])
    assert measured == {"a": [(1.0,)], "b": [(1.0,)]}


def test_what_is_lost_is_left_out_and_the_others_go_on():
    machine = Machine()
    lost = {}

    def breaks(number):
        if number == 2:
            raise LostError("out of memory")
        machine.now += 1.0

    runs = {"a": machine.work("a", 1.0), "b": breaks, "c": machine.work("c", 2.0)}
    measured = interleaved(
        runs, rounds=4, clock=machine.clock, on_lost=lambda name, error: lost.update({name: str(error)})
    )
    assert measured == {"a": [(1.0,)] * 4, "c": [(2.0,)] * 4}
    assert lost == {"b": "out of memory"}
    with pytest.raises(LostError):
        interleaved(runs | {"b": breaks}, rounds=4, clock=machine.clock)


def test_a_machine_that_slows_down_changes_rates_and_no_ratio():
    machine = Machine()
    runs = {"reference": machine.work("reference", 2.0), "ours": machine.work("ours", 1.0)}

    def slow_down(number):
        machine.slowdown = 1.0 + max(0, number)

    measured = interleaved(runs, rounds=5, clock=machine.clock, on_round=slow_down)
    ours, reference = (rates(measured[name], 8) for name in ("ours", "reference"))
    assert ours == [8.0, 4.0, 8 / 3, 2.0, 1.6]
    ratio = paired_ratio(ours, reference)
    assert (ratio.smallest, ratio.median, ratio.largest) == pytest.approx((2.0, 2.0, 2.0))


def test_a_rate_counts_all_calls_of_a_round():
    assert rates([(1.0, 3.0), (2.0, 2.0, 2.0)], 10) == [5.0, 5.0]


def test_ratios_are_of_the_same_rounds():
    assert paired_ratio([2.0, 9.0, 4.0], [1.0, 3.0, 4.0]).median == 2.0
    with pytest.raises(ValueError, match="shorter"):
        paired_ratio([1.0, 2.0], [1.0])


def test_calls_at_the_beginning_of_a_turn_may_not_count():
    machine = Machine()
    costs = iter([50.0, 9.0, 1.0, 1.0, 9.0, 1.0, 1.0])

    def run(number):
        machine.now += next(costs)

    measured = interleaved({"a": run}, rounds=2, calls=2, unmeasured=1, clock=machine.clock)
    assert measured == {"a": [(1.0, 1.0), (1.0, 1.0)]}
