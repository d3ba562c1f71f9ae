"""The learning rate of the CIFAR-10 runs, and the warm-up of the 110-layer net (Sec. 4.2)."""

from __future__ import annotations

from resnets.paper.core.experiment import Computed, Experiment, Row
from resnets.paper.core.verdict import Within
from resnets.recipes.find import recipe

PUBLISHED = {0: 0.1, 400: 0.1, 31_999: 0.1, 32_000: 0.01, 47_999: 0.01, 48_000: 0.001, 63_999: 0.001}
"""Learning rate of the update after so many iterations."""
EXACT = Within(tolerance=1e-12, why="the schedule is stated")


def learning_rate_at(name: str, step: int) -> float:
    """Return the learning rate of a recipe after `step` updates, before any warm-up has ended."""
    from resnets.engine.schedule import ScheduleState, learning_rate

    return learning_rate(recipe(name), step, ScheduleState())


def warmup_end(errors: list[float]) -> int | None:
    """Return the iteration in which the warm-up of ResNet-110 ends, with these training errors of its batches."""
    from resnets.engine.schedule import ScheduleState, observe_step

    spec, state = recipe("cifar10.resnet110"), ScheduleState()
    return next((step for step, error in enumerate(errors, start=1) if observe_step(spec, state, step, error)), None)


def _rate(step: int) -> Row:
    return Row(
        run=f"iteration {step:,}",
        meaning="learning rate, 20 to 56 layers",
        ours=Computed(value=lambda: learning_rate_at("cifar10.resnet56", step)),
        rule=EXACT,
        paper=PUBLISHED[step],
        source="Sec. 4.2",
        decimals=3,
    )


def _first_rate_above(error: float) -> float:
    """Return the learning rate of ResNet-110 after 1,000 batches with a training error (percent) that stays as given."""
    from resnets.engine.schedule import ScheduleState, learning_rate, observe_step

    spec, state = recipe("cifar10.resnet110"), ScheduleState()
    for step in range(1, 1_001):
        observe_step(spec, state, step, error)
    return learning_rate(spec, 1_000, state)


def _late_rate(step: int) -> float:
    """Return the learning rate of ResNet-110 at `step` where the warm-up ended at 400."""
    from resnets.engine.schedule import ScheduleState, learning_rate

    return learning_rate(recipe("cifar10.resnet110"), step, ScheduleState(warmup_ended_step=400))


EXPERIMENT = Experiment(
    title="Sec. 4.2. Learning rate and warm-up on CIFAR-10",
    claim=(
        "The learning rate is 0.1, divided by 10 at 32k and 48k of 64k iterations. 0.1 is slightly too large for 110 "
        "layers to start with: they train at 0.01 until the training error is below 80 %, then as the others."
    ),
    rows=(
        *map(_rate, PUBLISHED),
        Row(
            run="the whole run",
            meaning="iterations",
            ours=Computed(value=lambda: recipe("cifar10.resnet56").steps),
            rule=Within(tolerance=0, why="the length is stated"),
            paper=64_000,
            source="Sec. 4.2",
            decimals=0,
        ),
        *(
            Row(
                run=f"while the training error is {error:g} %",
                meaning="learning rate of ResNet-110 after 1,000 iterations",
                ours=Computed(value=lambda error=error: _first_rate_above(error)),
                rule=EXACT,
                paper=rate,
                source="Sec. 4.2",
                decimals=3,
            )
            for error, rate in ((90.0, 0.01), (80.0, 0.01), (79.9, 0.1))
        ),
        *(
            Row(
                run=f"iteration {step:,}",
                meaning="learning rate of ResNet-110 after a warm-up of 400",
                ours=Computed(value=lambda step=step: _late_rate(step)),
                rule=EXACT,
                paper=rate,
                source="Sec. 4.2",
                decimals=3,
            )
            for step, rate in ((400, 0.1), (32_000, 0.01), (48_000, 0.001))
        ),
    ),
    notes=(
        "The paper does not say over what the training error is measured; here it is the mean of the last 100 batches. "
        "Iterations of the warm-up count towards 32k, 48k and 64k.",
    ),
)
