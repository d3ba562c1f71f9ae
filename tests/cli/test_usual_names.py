"""Flags of other programs, given to `resnets evaluate` and `resnets predict`, are answered by what does the same here."""

import re

import pytest

from resnets.cli import evaluate, predict
from resnets.cli.main import main
from resnets.cli.usual_names import EVALUATE, PREDICT


@pytest.mark.parametrize(
    ("arguments", "answer"),
    [
        (["--num-workers", "4"], "There is no flag --num-workers here: it is --workers. `resnets evaluate --help`"),
        (["-j4"], "-j4"),
        (["-j", "4"], "There is no flag -j here: it is --workers."),
        (["--batch-size", "64"], "the size of a batch is chosen here"),
        (["--Batch_Size=64"], "There is no flag --Batch_Size here: the size of a batch is chosen here"),
        (["--checkpoint", "model.pt"], "models are named first, without a flag"),
        (["--fp16"], "it is --precision fp32, bf16 or fp16"),
        (["--unknown"], "Unrecognized arguments: --unknown"),
    ],
)
def test_evaluate_answers_in_a_line(arguments, answer, capsys):
    for command in (["runs/a", *arguments, "--data", "digits"], [*arguments, "runs/a", "--data", "digits"]):
        assert main(["evaluate", *command]) == 2
        error = capsys.readouterr().err
        assert answer in error
        assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "answer"),
    [
        (["--num-workers", "4"], "There is no flag --num-workers here: images are read by this process"),
        (["--batch-size", "64"], "the size of a batch is chosen here"),
        (["--topk", "3"], "it is --top-k. `resnets predict --help` lists the flags."),
        (["--data", "photos/"], "named after the model, without a flag"),
    ],
)
def test_predict_answers_in_a_line(arguments, answer, capsys):
    for command in (["runs/a", "cat.jpg", *arguments], [*arguments, "runs/a", "cat.jpg"]):
        assert main(["predict", *command]) == 2
        error = capsys.readouterr().err
        assert answer in error
        assert error.count("\n") == 1


def test_a_file_may_be_called_like_a_flag(capsys):
    assert main(["predict", "nowhere", "--", "--data"]) == 2
    assert "There is no flag" not in capsys.readouterr().err


@pytest.mark.parametrize(("command", "answers"), [(evaluate, EVALUATE), (predict, PREDICT)])
def test_every_answer_names_flags_that_there_are_and_none_is_given_for_one_of_them(command, answers):
    flags = set(command._parser()._option_string_actions)
    for answer in answers.values():
        assert set(re.findall(r"--[a-z][a-z-]*[a-z]", answer)) <= flags, answer
    assert not {dashes + name for name in answers for dashes in ("-", "--")} & flags
