"""Recipes by name: `cifar10.resnet56` here, `mypackage.runs:mine` anywhere else."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from resnets.specs.data import Cifar, Digits, ImageFolder
from resnets.specs.errors import SpecError, UserError, near_misses
from resnets.specs.run import TrainSpec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import ModuleType

    from resnets.specs.data import DatasetSpec

MODULES = ("digits", "cifar10", "imagenet", "folder")


def recipe(name: str) -> TrainSpec:
    """Return the spec of the recipe called `name`.

    Args:
        name: MODULE.FUNCTION in `resnets.recipes`, or PACKAGE.MODULE:FUNCTION of the user's own.

    Raises:
        SpecError: there is no such recipe, or the user's function does not return a spec.
    """
    if ":" in name:
        return _outside(name)
    module_name, _, function_name = name.partition(".")
    if module_name in MODULES and function_name and not function_name.startswith("_"):
        module = importlib.import_module(f"resnets.recipes.{module_name}")
        function = _recipe_function(module, function_name)
        if function is not None:
            return function()
    known = [known_name for known_name, _ in list_recipes()]
    raise SpecError(
        f"There is no recipe called {name!r}.{near_misses(name, known)} `resnets train --list` shows them all; "
        "a recipe of your own is named as mypackage.module:function."
    )


def _recipe_function(module: ModuleType, name: str) -> Callable[[], TrainSpec] | None:
    """Return a recipe that the module lists, or makes for a name of one of its families."""
    if name in vars(module) and name not in module.LISTED:
        return None
    return getattr(module, name, None)


def list_recipes() -> Iterator[tuple[str, str]]:
    """Yield the name of each recipe and a line about it."""
    for module_name in MODULES:
        module = importlib.import_module(f"resnets.recipes.{module_name}")
        for function_name, line in module.LISTED.items():
            yield f"{module_name}.{function_name}", line


def check_data(spec: TrainSpec, dataset: DatasetSpec, data: str) -> None:
    """Refuse images of another kind than the run is made for: a folder has images of any size, CIFAR small ones.

    Args:
        spec: the run.
        dataset: what `data` means.
        data: the value of `--data`.

    Raises:
        UserError: naming a recipe for such images.
    """
    if isinstance(dataset, ImageFolder) == isinstance(spec.dataset, ImageFolder):
        return
    match dataset:
        case ImageFolder():
            kind, instead = "a folder of images", "folder.scratch"
        case Digits():
            kind, instead = "the digits", "digits.resnet20"
        case Cifar():
            kind, instead = f"CIFAR-{dataset.num_classes}", "cifar10.resnet20"
    made_for = "a folder of images" if isinstance(spec.dataset, ImageFolder) else "small images of one size"
    raise UserError(
        f"--data {data} is {kind}, and {spec.recipe or 'this run'} trains on {made_for}; choose a recipe for {kind}, "
        f"such as {instead} (`resnets train --list` shows all)."
    )


def _outside(name: str) -> TrainSpec:
    module_name, _, function_name = name.partition(":")
    try:
        if not all(module_name.split(".")):  # what importlib refuses with errors that a module may raise too
            raise ModuleNotFoundError(name=module_name)
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not (module_name == error.name or module_name.startswith(f"{error.name}.")):
            raise
        raise SpecError(
            f"Recipe {name!r}: there is no module {module_name!r} on the import path. Start from the folder that "
            "holds it, or set PYTHONPATH."
        ) from error
    function = getattr(module, function_name, None)
    if not callable(function):
        names = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise SpecError(
            f"Recipe {name!r}: {module_name} has no function {function_name!r}.{near_misses(function_name, names)}"
        )
    spec = function()
    if not isinstance(spec, TrainSpec):
        raise SpecError(f"Recipe {name!r} returned {type(spec).__name__}; a recipe returns a resnets TrainSpec.")
    return spec
