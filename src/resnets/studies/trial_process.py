"""The whole, measured in a process of its own: an environment that decides how threads wait is read at its start."""

from __future__ import annotations

import dataclasses
import json
import os
import pickle
import subprocess
import sys
import warnings
from typing import TYPE_CHECKING

import torch

from resnets.engine.device import deterministic, set_up
from resnets.specs.errors import ResnetsError
from resnets.studies.trial import Rate, Trainee, first_batch, step_rate, training_rate

if TYPE_CHECKING:
    from collections.abc import Mapping

    from resnets.tasks.classify.prepare import Parts

_START_SECONDS = 60


def rate_in_process(
    parts: Parts, seconds: float, *, first_step: int, threads: int, environment: Mapping[str, str]
) -> Rate:
    """Return the rate of the whole in a new process.

    Args:
        parts: the run; where it starts from given weights, new ones stand in.
        seconds: of the measurement, without its start.
        first_step: the step whose images come first.
        threads: of the arithmetic.
        environment: variables to set.

    Raises:
        ResnetsError: the process failed.
    """
    splits = {"train": parts.dataset.splits["train"]}
    alone = dataclasses.replace(parts, given=None, dataset=dataclasses.replace(parts.dataset, splits=splits))
    work = pickle.dumps((alone, seconds, first_step, threads))
    # Recipes and nets of the user's own are found where this process finds them.
    variables = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)} | dict(environment)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "resnets.studies.trial_process"],
            input=work,
            env=variables,
            capture_output=True,
            timeout=_START_SECONDS + 10 * seconds,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ResnetsError(f"a process for it did not end ({type(error).__name__})") from error
    if done.returncode:
        last = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        raise ResnetsError(f"a process for it failed ({last})")
    return Rate(**json.loads(done.stdout))


def main() -> None:
    """Measure what stdin describes, and print the rate as JSON."""
    parts, seconds, first_step, threads = pickle.load(sys.stdin.buffer)
    warnings.simplefilter("ignore")
    torch.set_num_threads(threads)
    set_up(parts.ranks.device, dataclasses.replace(parts.machine, threads=threads))
    with deterministic(parts.ranks.device, parts.machine):
        trainee = Trainee(parts)
        step_rate(parts, trainee, first_batch(parts), 0.0)
        print(json.dumps(dataclasses.asdict(training_rate(parts, trainee, seconds, first_step))))


if __name__ == "__main__":
    main()
