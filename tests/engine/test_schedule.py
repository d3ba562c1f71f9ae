"""Learning rates, against the paper's numbers and by hand."""

import dataclasses
import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resnets.engine.schedule import (
    ScheduleState,
    learning_rate,
    needs_step_errors,
    observe_evaluation,
    observe_step,
)
from resnets.recipes.find import recipe
from resnets.specs.optim import Cosine, LinearWarmup, Plateau
from resnets.specs.run import shorten


@pytest.mark.parametrize(
    ("step", "lr"),
    [(0, 0.1), (400, 0.1), (31_999, 0.1), (32_000, 0.01), (47_999, 0.01), (48_000, 0.001), (63_999, 0.001)],
)
def test_cifar_schedule_is_the_papers(step, lr):
    assert learning_rate(recipe("cifar10.resnet56"), step, ScheduleState()) == pytest.approx(lr)


def test_warm_up_of_resnet110_ends_when_the_training_error_is_below_80_percent():
    spec = recipe("cifar10.resnet110")
    state = ScheduleState()
    for step in range(400):
        assert learning_rate(spec, step, state) == 0.01
        assert not observe_step(spec, state, step, 85.0)
    ended = [step for step in range(400, 500) if observe_step(spec, state, step, 70.0)]
    # 100-step window: the mean of 85 and 70 falls below 80 with the 34th batch at 70.
    assert ended == [433]
    assert not needs_step_errors(spec, state)
    assert learning_rate(spec, 434, state) == pytest.approx(0.1)
    assert learning_rate(spec, 32_000, state) == pytest.approx(0.01)


def test_warm_up_waits_for_a_full_window():
    spec, state = recipe("cifar10.resnet110"), ScheduleState()
    assert not any(observe_step(spec, state, step, 0.0) for step in range(99))
    assert observe_step(spec, state, 99, 0.0)


def test_only_the_deep_nets_warm_up():
    assert not needs_step_errors(recipe("cifar10.resnet56"), ScheduleState())
    assert needs_step_errors(recipe("cifar10.resnet1202"), ScheduleState())


def test_plateau_cuts_after_five_evaluations_without_a_tenth_of_a_point():
    spec = dataclasses.replace(recipe("cifar10.resnet20"), schedule=Plateau())
    state = ScheduleState()
    errors = [50.0, 40.0, 39.95, 39.95, 39.92, 39.91, 39.905, 30.0, 30.0]
    cuts = [observe_evaluation(spec, state, error) for error in errors]
    assert cuts == [False] * 6 + [True, False, False]
    assert learning_rate(spec, 9, state) == pytest.approx(0.01)


def test_linear_warm_up_reaches_the_base_rate_at_its_end():
    spec = dataclasses.replace(recipe("cifar10.resnet20"), warmup=LinearWarmup(steps=10))
    rates = [learning_rate(spec, step, ScheduleState()) for step in range(12)]
    assert rates == pytest.approx([0.01 * (step + 1) for step in range(10)] + [0.1, 0.1])


@given(st.integers(min_value=2, max_value=5000))
def test_cosine_never_rises(steps):
    spec = dataclasses.replace(recipe("cifar10.resnet20"), schedule=Cosine(), steps=steps)
    rates = [learning_rate(spec, step, ScheduleState()) for step in range(0, steps, max(1, steps // 50))]
    assert rates[0] == pytest.approx(0.1)
    assert all(later <= earlier for earlier, later in itertools.pairwise(rates))


@given(st.integers(min_value=4, max_value=200_000))
def test_a_shortened_run_has_the_shape_of_the_full_one(steps):
    full, short = recipe("cifar10.resnet20"), shorten(recipe("cifar10.resnet20"), steps)
    assert (short.steps, short.full_steps) == (steps, 64_000)
    for share in (0.1, 0.49, 0.51, 0.74, 0.76, 0.99):
        away = min(abs(share - edge) * steps for edge in (0.5, 0.75))
        if away > 1:
            rates = [learning_rate(spec, math.floor(share * spec.steps), ScheduleState()) for spec in (full, short)]
            assert rates[0] == pytest.approx(rates[1])


def test_state_survives_its_round_trip():
    state = ScheduleState(recent_errors=[80.0, 79.0], best_error=12.5, stale_evaluations=2, drops=1)
    assert ScheduleState.from_state_dict(state.state_dict()) == state
