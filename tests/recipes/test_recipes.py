"""The recipes against the paper's Section 4.2, and as functions."""

import pytest
import torch

from resnets.models.build import build
from resnets.recipes.find import list_recipes, recipe
from resnets.specs.data import Cifar, PadCrop
from resnets.specs.errors import SpecError
from resnets.specs.optim import SGD, ErrorWarmup, NoWarmup, StepDecay


@pytest.mark.parametrize("name", [name for name, _ in list_recipes()])
def test_every_listed_recipe_builds(name):
    with torch.device("meta"):
        build(recipe(name).model)


def test_cifar_recipe_is_the_papers():
    spec = recipe("cifar10.resnet56")
    assert spec.dataset == Cifar(num_classes=10, validation_images=0)
    assert spec.augment == PadCrop(pad_px=4, flip=True)
    assert spec.optimizer == SGD(base_lr=0.1, momentum=0.9, weight_decay=1e-4, decay_scope="weights", nesterov=False)
    assert spec.schedule == StepDecay(milestones_steps=(32_000, 48_000), factor=0.1)
    assert (spec.steps, spec.global_batch, spec.precision, spec.label_smoothing) == (64_000, 128, "fp32", 0.0)
    assert spec.warmup == NoWarmup()
    assert recipe("cifar10.resnet110").warmup == ErrorWarmup(lr=0.01, until_error=80.0)


def test_any_depth_of_the_family_resolves():
    assert recipe("cifar10.plain26").model.depth == 26
    assert recipe("digits.highway14").model.depth == 14


def test_plain_and_residual_differ_by_the_shortcut_alone():
    plain, residual = recipe("cifar10.plain20").model, recipe("cifar10.resnet20").model
    differing = [name for name in plain.__slots__ if getattr(plain, name) != getattr(residual, name)]
    assert differing == ["shortcut"]


@pytest.mark.parametrize("name", ["", "cifar10", "cifar10.", "cifar10.paper_run", "digits.LISTED", "folder.model_spec"])
def test_what_is_no_recipe_is_refused(name):
    with pytest.raises(SpecError, match="no recipe"):
        recipe(name)
