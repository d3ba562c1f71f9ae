"""Overrides, listings and help of `resnets train`."""

import json
import os
import re

import pytest

from resnets.cli.main import main
from resnets.cli.overrides import override
from resnets.cli.train import _parser
from resnets.cli.usual_names import TRAIN
from resnets.recipes.find import list_recipes, recipe
from resnets.specs import io
from resnets.specs.errors import UserError
from resnets.specs.optim import Cosine, LinearWarmup, StepDecay
from resnets.specs.run import TrainSpec, shorten


def resolved(arguments, capsys):
    assert main(["train", *arguments, "--print-config"]) == 0
    return io.from_json(TrainSpec, json.loads(capsys.readouterr().out))


def test_without_overrides_the_recipe_is_printed_as_it_is(capsys):
    assert resolved(["cifar10.resnet56"], capsys) == recipe("cifar10.resnet56")


def test_any_field_is_changed_by_its_path(capsys):
    spec = resolved(["cifar10.resnet20", "--optimizer.base-lr", "0.05", "--dataset.validation-images", "5000"], capsys)
    assert (spec.optimizer.base_lr, spec.dataset.validation_images) == (0.05, 5000)
    assert spec.model == recipe("cifar10.resnet20").model


def test_a_union_is_chosen_by_name_and_fields_may_follow(capsys):
    spec = resolved(["cifar10.resnet20", "schedule:cosine", "--schedule.final-share", "0.1"], capsys)
    assert io.to_json(spec.schedule) == {"kind": "Cosine", "final_share": 0.1}
    assert spec.optimizer == recipe("cifar10.resnet20").optimizer


def test_common_flags_mix_with_fields_in_any_order(capsys):
    spec = resolved(["--seed", "3", "cifar10.resnet20", "--precision", "bf16", "--steps", "640"], capsys)
    assert (spec.seed, spec.precision, spec.steps, spec.full_steps) == (3, "bf16", 640, 64_000)
    assert spec.schedule.milestones_steps == (320, 480)


def test_a_shortened_run_takes_steps_that_are_typed_as_they_are(capsys):
    line = ["cifar10.resnet20", "--steps", "640", "--evaluate-every-steps", "77"]
    spec = resolved([*line, "--schedule.milestones-steps", "100", "200"], capsys)
    assert (spec.steps, spec.full_steps, spec.evaluate_every_steps) == (640, 64_000, 77)
    assert spec.schedule.milestones_steps == (100, 200)
    spec = resolved([*line, "warmup:linear-warmup", "--warmup.steps", "50"], capsys)
    assert spec.warmup == LinearWarmup(steps=50)
    assert spec.schedule.milestones_steps == (320, 480)


def test_a_shortened_run_scales_the_steps_that_a_chosen_schedule_brings_along(capsys):
    line = ["cifar10.resnet20", "--steps", "6400"]
    spec = resolved([*line, "schedule:step-decay", "--schedule.factor", "0.2", "warmup:linear-warmup"], capsys)
    assert spec.schedule == StepDecay(milestones_steps=(3200, 4800), factor=0.2)
    assert spec.warmup == LinearWarmup(steps=50)
    steps = recipe("imagenet.resnet18").steps // 1000
    spec = resolved(["imagenet.resnet18", "--steps", str(steps), "schedule:step-decay"], capsys)
    assert spec.schedule == StepDecay(milestones_steps=(32, 48))
    spec = resolved([*line, "schedule:cosine", "--schedule.final-share", "0.1"], capsys)
    assert spec.schedule == Cosine(final_share=0.1)


def test_a_printed_config_replays(tmp_path, capsys):
    main(["train", "digits.plain20", "--steps", "100", "--print-config"])
    (tmp_path / "config.json").write_text(capsys.readouterr().out)
    assert resolved(["--from", str(tmp_path / "config.json")], capsys) == shorten(recipe("digits.plain20"), 100)


def test_the_list_names_every_recipe_and_each_resolves(capsys):
    assert main(["train", "--list", "--json"]) == 0
    listed = [entry["recipe"] for entry in json.loads(capsys.readouterr().out)]
    assert listed == [name for name, _ in list_recipes()]
    for name in listed:
        spec = recipe(name)
        assert spec.recipe == name
        assert io.from_json(TrainSpec, json.loads(json.dumps(io.to_json(spec)))) == spec


@pytest.mark.parametrize("command", ["train", "evaluate", "predict", "describe", "demo"])
def test_help_shows_examples(command, capsys):
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0
    output = capsys.readouterr().out
    assert f"resnets {command}" in output
    assert "examples:" in output


def test_fields_lists_what_can_be_changed(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["train", "digits.resnet20", "--fields"])
    assert stop.value.code == 0
    assert "--optimizer.base-lr" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "answer"),
    [
        (["--batch-size", "64"], "There is no flag --batch-size here: it is --global-batch, images an optimiser step."),
        (["--lr=0.05"], "There is no flag --lr here: it is --optimizer.base-lr."),
        (["--epochs", "10"], "There is no flag --epochs here: the length is --steps;"),
        (["--momentum", "0.9"], "it is --optimizer.momentum."),
        (["--weight_decay", "1e-4"], "There is no flag --weight_decay here: it is --optimizer.weight-decay."),
        (["--num-classes", "5"], "the number of classes is that of the data (--data)."),
        (["-j", "4"], "There is no flag -j here: it is --workers."),
    ],
)
def test_a_flag_of_another_program_is_answered_by_the_field_that_does_it_here(arguments, answer, capsys):
    for command in (["cifar10.resnet20", *arguments], [*arguments, "cifar10.resnet20"]):
        assert main(["train", *command]) == 2
        error = capsys.readouterr().err
        assert answer in error
        assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["imagenet.resnet18", "--dataset.mean", "1,000", "2", "3"], "for arguments: ['1,000', '2', '3']"),
        (["cifar10.resnet20", "--global-batch", "1,000" * 30], f"base 10: '{'1,000' * 30}'"),
        (["cifar10.resnet20", "--global-batch", "12--------3"], "base 10: '12--------3'"),
    ],
)
def test_a_value_stands_in_its_error_as_it_was_typed(arguments, words, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["train", *arguments]) == 2
    assert words in capsys.readouterr().err
    assert os.environ["COLUMNS"] == "80"


def test_every_answer_names_what_there_is_and_no_field_is_called_as_the_flags_of_others():
    flags = set(_parser()._option_string_actions)
    folder, small = recipe("imagenet.resnet18"), recipe("cifar10.resnet20")
    for answer in set(TRAIN.values()):
        for flag in re.findall(r"--[a-z][\w.-]*[a-z]", answer):
            if flag not in flags and flag != "--optimizer":
                assert any(_is_field(spec, flag) for spec in (folder, small)), answer
    for name in TRAIN:
        assert f"--{name}" not in flags
        assert f"-{name}" not in flags
        assert not hasattr(small, name.replace("-", "_"))


def _is_field(spec, flag):
    try:
        override(spec, [flag, "\0"])
    except UserError as error:
        return "There is no" not in str(error)
    return True
