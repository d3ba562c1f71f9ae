"""Deep residual learning (He, Zhang, Ren and Sun, 2015): train, test, study and ship the paper's networks.

The names below load on first use, so that `import resnets` is immediate and does not import torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from resnets.api import Classifier, Prediction, TrainedRun, build, convert, evaluate, load, prepare, recipe, train
    from resnets.data.check import CheckLimits, check_data
    from resnets.models.interop.foreign import Hints
    from resnets.specs.errors import ResnetsError, UserError
    from resnets.specs.run import Machine, shorten
    from resnets.studies.compare import compare
    from resnets.studies.doctor import doctor

__version__ = "0.1.0"

_HOMES = {
    "CheckLimits": "resnets.data.check",
    "Classifier": "resnets.api",
    "Hints": "resnets.models.interop.foreign",
    "Machine": "resnets.specs.run",
    "Prediction": "resnets.api",
    "ResnetsError": "resnets.specs.errors",
    "TrainedRun": "resnets.api",
    "UserError": "resnets.specs.errors",
    "build": "resnets.api",
    "check_data": "resnets.data.check",
    "compare": "resnets.studies.compare",
    "convert": "resnets.api",
    "doctor": "resnets.studies.doctor",
    "evaluate": "resnets.api",
    "load": "resnets.api",
    "prepare": "resnets.api",
    "recipe": "resnets.recipes.find",
    "shorten": "resnets.specs.run",
    "train": "resnets.api",
}

__all__ = [
    "CheckLimits",
    "Classifier",
    "Hints",
    "Machine",
    "Prediction",
    "ResnetsError",
    "TrainedRun",
    "UserError",
    "__version__",
    "build",
    "check_data",
    "compare",
    "convert",
    "doctor",
    "evaluate",
    "load",
    "prepare",
    "recipe",
    "shorten",
    "train",
]


def __getattr__(name: str) -> Any:
    """Import a public name where it lives."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
