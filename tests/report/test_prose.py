"""The sentences on what was trained: every kind of net, schedule, start and length says what it is."""

import dataclasses

import pytest

import resnets
from resnets.report.prose import dataset_name, description, length, sizes
from resnets.report.run_record import read_runs
from resnets.report.text import TIMES, listed, points
from resnets.specs.catalogue import model_spec
from resnets.specs.counts import count_multiply_adds, count_parameters
from resnets.specs.data import Cifar, Digits
from resnets.specs.finetune import GivenWeights
from resnets.specs.optim import Cosine, ErrorWarmup, LinearWarmup, NoWarmup, Plateau, StepDecay


@pytest.fixture
def record(written, lines):
    (run,) = read_runs([written(lines=lines)])
    return run


def changed(record, **fields):
    return dataclasses.replace(record, spec=dataclasses.replace(record.spec, **fields))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"schedule": StepDecay(milestones_steps=(10,), factor=0.1)}, "divided by 10 at step 10;"),
        ({"schedule": StepDecay(milestones_steps=(10, 1500), factor=0.3)}, "multiplied by 0.3 at steps 10 and 1,500;"),
        ({"schedule": StepDecay(milestones_steps=()), "warmup": NoWarmup()}, "learning rate 0.05, constant;"),
        ({"schedule": Cosine()}, "down half a cosine to 0 of it"),
        ({"schedule": Plateau()}, "divided by 10 whenever the error has not fallen for 5 evaluations"),
        ({"warmup": LinearWarmup(steps=500)}, "after 500 steps of warm-up"),
        ({"warmup": ErrorWarmup()}, "after a start at 0.01 until the training error falls below 80 %"),
        ({"init": GivenWeights(source="torchvision:resnet18")}, "trained from the weights of torchvision:resnet18"),
        ({"precision": "bf16", "label_smoothing": 0.0}, "bf16 arithmetic"),
        ({"label_smoothing": 0.1}, "label smoothing 0.1"),
        ({"ema_decay": 0.999}, "averaged weights (decay 0.999)"),
        ({"model": model_spec("plain18")}, "plain18, a plain net of 18 layers with"),
        ({"model": model_spec("cifar-highway20")}, "a highway net of 20 layers with"),
        ({"model": model_spec("vgg16")}, "a VGG net of 16 layers with"),
        ({"model": model_spec("resnet34-a")}, "a residual net of 34 layers, shortcut option A, with"),
    ],
)
def test_every_choice_is_said(record, fields, words):
    assert words in " ".join(description(changed(record, **fields)))


def test_sizes_are_those_of_the_counts_at_the_size_that_the_net_sees(record):
    spec = record.spec
    assert sizes(spec) == (count_parameters(spec.model), count_multiply_adds(spec.model, 128, 128))
    given = dataclasses.replace(spec.dataset, image_px=0, resize_px=0)
    spec = dataclasses.replace(spec, init=GivenWeights(source="x"), dataset=given)
    assert sizes(spec) == (count_parameters(spec.model), None)


@pytest.mark.parametrize(
    ("dataset", "words"),
    [
        (Digits(), f"(1,437 training images of 8 {TIMES} 8 pixels)"),
        (Cifar(), f"CIFAR-10 (50,000 training images of 32 {TIMES} 32 pixels)"),
        (Cifar(num_classes=100, validation_images=5000), "CIFAR-100 (45,000 training images"),
        (Cifar(image_px=8), f"CIFAR-10 (50,000 training images of 8 {TIMES} 8 pixels, means of 4 {TIMES} 4)"),
    ],
)
def test_the_number_of_training_images_is_said_where_it_is_known(dataset, words):
    assert words in dataset_name(dataset)


def test_known_numbers_of_training_images_are_those_of_the_data():
    from resnets.data.open import open_dataset

    assert len(open_dataset(Digits()).splits["train"]) == 1437


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"steps": 20, "full_steps": 20}, "20 steps of 64 images (2.0 epochs), the whole length of the recipe."),
        (
            {"steps": 20, "full_steps": 2000},
            "20 steps of 64 images (2.0 epochs). Shortened: the recipe has 2,000 steps, of which this is 1 %.",
        ),
        ({"steps": 50, "full_steps": 50}, "Ended early: 20 steps of 64 images (2.0 epochs), of at most 50."),
    ],
)
def test_the_length_is_told_with_its_share_of_the_recipe(record, fields, sentence):
    assert length(changed(record, schedule=Cosine(), warmup=NoWarmup(), **fields)) == sentence


def test_lists_and_differences_read_as_in_a_sentence():
    assert [listed(["a"]), listed(["a", "b"]), listed(["a", "b", "c"])] == ["a", "a and b", "a, b and c"]
    assert [points(1.204), points(-0.3), points(-0.001)] == ["+1.20", "\N{MINUS SIGN}0.30", "0.00"]


def test_every_recipe_of_the_package_can_be_told(record):
    for name in ("cifar10.resnet110", "imagenet.resnet50", "imagenet.plain34", "folder.finetune", "digits.highway20"):
        told = " ".join(description(dataclasses.replace(record, spec=resnets.recipe(name))))
        assert "None" not in told
        assert told.count(".") >= 3


def test_multiply_adds_are_those_of_the_images_that_the_net_sees():
    spec = resnets.recipe("cifar10.resnet20")
    small = dataclasses.replace(spec, dataset=Cifar(image_px=8))
    # Every map has a sixteenth of the pixels; the last layer costs the same (64 x 10).
    assert sizes(spec)[1] == 40_551_040
    assert sizes(small)[1] == (40_551_040 - 640) // 16 + 640
