"""The experiments there are: the files of `resnets.paper`, each with an `EXPERIMENT`."""

from __future__ import annotations

import importlib
import pkgutil
import re
from typing import TYPE_CHECKING

import resnets.paper
from resnets.specs.errors import UserError, near_misses

if TYPE_CHECKING:
    from resnets.paper.core.experiment import Experiment


def experiment_names() -> list[str]:
    """Return the names of all experiments: tables and figures by number, then the others by name."""
    names = [module.name for module in pkgutil.iter_modules(resnets.paper.__path__) if not module.ispkg]
    return sorted((name for name in names if not name.startswith("_")), key=_place)


def experiment(name: str) -> Experiment:
    """Return the experiment called `name`; `Table 6` and `depth-sweep` are understood too.

    Raises:
        UserError: there is none.
    """
    return importlib.import_module(f"resnets.paper.{canonical_name(name)}").EXPERIMENT


def canonical_name(name: str) -> str:
    """Return the name of the file that holds an experiment.

    Raises:
        UserError: there is none.
    """
    names = experiment_names()
    wanted = name.lower().replace("-", "_").replace(" ", "")
    wanted = re.sub(r"^fig\.?(\d+)$", r"figure\1", wanted)
    if wanted not in names:
        raise UserError(
            f"There is no experiment {name!r}.{near_misses(wanted, names)} `resnets reproduce` lists them all."
        )
    return wanted


def _place(name: str) -> tuple[int, int, str]:
    for place, kind in enumerate(("table", "figure")):
        match = re.fullmatch(rf"{kind}(\d+)", name)
        if match is not None:
            return place, int(match[1]), name
    return 2, 0, name
