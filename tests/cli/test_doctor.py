"""`resnets doctor`: one JSON document, or a screen that fits a terminal; wrong usage in a line."""

import dataclasses
import io
import json

import pytest
from rich.console import Console

from resnets.cli.doctor_screen import print_examination
from resnets.cli.main import main
from resnets.specs.errors import ResnetsError, UserError
from resnets.studies import doctor


def test_the_machine_alone_is_one_json_document(capsys):
    assert main(["doctor", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["diagnosis"] is None
    assert document["machine"]["cores"] >= 1
    assert {finding["state"] for finding in document["findings"]} <= {"ok", "note", "warning"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--data", "photos"], "Name the recipe first"),
        (["digits.resnet8", "--epochs", "3"], "--steps"),
        (["digits.resnet8", "--seconds", "0"], "between 1 and 3600"),
        (["digits.resnet8", "--data", "/nowhere"], "/nowhere"),
        (["digits.resnet99"], "6n+2"),
        (["cifar10.resnet20", "--data-root", "/nowhere"], "the doctor downloads nothing"),
    ],
)
def test_wrong_usage_is_a_line_and_exit_code_2(capsys, arguments, words):
    assert main(["doctor", *arguments]) == 2
    output = capsys.readouterr()
    assert words in output.err
    assert output.out == ""


def test_a_trial_that_fails_leaves_what_is_known_of_the_machine(capsys, monkeypatch):
    def fail(*_, **__):
        raise ResnetsError("a process that reads images died")

    monkeypatch.setattr(doctor, "_diagnose", fail)
    assert main(["doctor", "digits.resnet8", "--quiet"]) == 1
    output = capsys.readouterr()
    assert "processor" in output.out
    assert output.err.strip() == "error: a process that reads images died"


@pytest.fixture(scope="module")
def examination():
    import resnets

    machine = resnets.Machine(device="cpu", threads=1)
    return resnets.doctor("digits.resnet8", machine=machine, seconds=1.0)


@pytest.mark.parametrize("width", [72, 80, 120])
def test_the_screen_fits_its_terminal_but_for_commands(examination, width):
    output = io.StringIO()
    print_examination(examination, Console(file=output, width=width, soft_wrap=True, highlight=False))
    lines = output.getvalue().splitlines()
    long = [line for line in lines if len(line) > width and "resnets train" not in line]
    assert not long
    assert any("limits" in line for line in lines)


def test_hostile_names_cannot_steer_the_terminal(examination):
    finding = dataclasses.replace(examination.findings[0], text="a\x1b[31mb\nc", fix="d\x1b[2Je")
    changed = dataclasses.replace(examination, findings=(finding,), diagnosis=None)
    output = io.StringIO()
    print_examination(changed, Console(file=output, width=80, highlight=False))
    assert "\x1b" not in output.getvalue()


def test_a_recipe_that_needs_data_says_so():
    import resnets

    with pytest.raises(UserError, match="--data"):
        resnets.doctor("folder.scratch", seconds=1.0)
