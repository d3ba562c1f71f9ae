"""The recipes against the paper's Section 4.2, and as functions."""

import dataclasses

import pytest
import torch

from resnets.models.build import build
from resnets.recipes.find import list_recipes, recipe
from resnets.specs.catalogue import model_spec
from resnets.specs.data import Cifar, Color, Mix, NoPolicy, PadCrop, ScaleCrop
from resnets.specs.errors import SpecError
from resnets.specs.finetune import Finetune, GivenWeights, RandomWeights
from resnets.specs.optim import SGD, ErrorWarmup, NoWarmup, Plateau, StepDecay
from resnets.specs.run import shorten


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


IMAGENET = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "resnet34_a", "plain18", "plain34")


@pytest.mark.parametrize("name", [*IMAGENET, "resnet50_v1_5"])
def test_imagenet_recipe_is_the_papers(name):
    spec = recipe(f"imagenet.{name}")
    assert spec.model == model_spec(name.replace("_v1_5", "-v1.5").replace("_a", "-a"))
    assert (spec.dataset.image_px, spec.dataset.resize_px) == (224, 256)
    assert spec.dataset.mean_image
    assert spec.dataset.std == (1.0, 1.0, 1.0)
    assert spec.augment == ScaleCrop(min_resize_px=256, max_resize_px=480, flip=True)
    assert spec.color == Color(pca_std=0.1, pca_axes="published")
    assert spec.optimizer == SGD(base_lr=0.1, momentum=0.9, weight_decay=1e-4, decay_scope="weights", nesterov=False)
    assert spec.schedule == Plateau(factor=0.1, patience=5, min_improvement=0.1)
    assert (spec.steps, spec.global_batch, spec.precision) == (600_000, 256, "fp32")
    # 119.9 epochs of 1,281,167 images.
    assert spec.steps * spec.global_batch / 1_281_167 == pytest.approx(119.9, abs=0.05)
    assert spec.evaluate_every_steps == 1_281_167 // 256


@pytest.mark.parametrize("name", [f"imagenet.{name}" for name in (*IMAGENET, "vgg16")] + ["cifar10.resnet20"])
def test_what_the_paper_does_not_do_is_off_in_its_recipes(name):
    spec = recipe(name)
    assert spec.policy == NoPolicy()
    assert spec.mix == Mix()
    assert (spec.erase_probability, spec.label_smoothing, spec.ema_decay) == (0.0, 0.0, 0.0)
    assert (spec.color.brightness, spec.color.contrast, spec.color.saturation, spec.color.hue) == (0.0, 0.0, 0.0, 0.0)
    assert spec.init == RandomWeights()
    assert spec.finetune == Finetune()


def test_the_finetuning_recipe_has_no_weights_of_its_own():
    assert recipe("folder.finetune").init == GivenWeights(source="", model="adopt")


def test_a_shortened_finetuning_run_keeps_its_shape():
    spec = shorten(recipe("folder.finetune"), 200)
    assert spec.finetune.head_steps == 20
    assert shorten(recipe("folder.finetune"), 1).finetune.head_steps == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"augment": PadCrop()}, "different sizes"),
        ({"augment": ScaleCrop(min_resize_px=100, max_resize_px=200)}, "would not fit"),
        ({"erase_probability": 1.5}, "between 0 and 1"),
        ({"ema_decay": 1.0}, "below 1"),
        ({"finetune": Finetune(head_steps=10)}, "--init-from"),
        ({"finetune": Finetune(head_steps=600_000), "init": GivenWeights(source="x")}, "below the 600000 steps"),
    ],
)
def test_an_imagenet_run_that_cannot_be_is_refused(change, message):
    with pytest.raises(SpecError, match=message):
        dataclasses.replace(recipe("imagenet.resnet18"), **change)


def test_the_fixed_schedule_is_the_other_choice_of_the_same_run():
    fixed, plateau = recipe("imagenet.resnet50_fixed_steps"), recipe("imagenet.resnet50")
    assert fixed.schedule == StepDecay(milestones_steps=(150_000, 300_000), factor=0.1)
    assert fixed.steps == fixed.full_steps == 450_000
    same = {"recipe": plateau.recipe, "schedule": plateau.schedule, "steps": 600_000, "full_steps": 600_000}
    assert dataclasses.replace(fixed, **same) == plateau
