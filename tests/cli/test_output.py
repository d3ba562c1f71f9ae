"""Where stdout cannot be written, or a name cannot be that of a file or module: one line on stderr, exit code 2."""

import errno
import subprocess
import sys
from pathlib import Path

import pytest

from resnets.cli import describe
from resnets.cli.main import main

LONG = "n" * 400


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
@pytest.mark.parametrize(
    "arguments",
    [
        ["--version"],
        ["--help"],
        ["train", "--list"],
        ["describe", "resnet50"],
        ["bench", "--help"],
        ["train", "--help"],
    ],
    ids=" ".join,
)
def test_output_that_cannot_be_written_is_an_error_in_one_line(arguments):
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "resnets", *arguments], stdout=full, stderr=subprocess.PIPE, text=True, timeout=300
        )
    assert (done.returncode, done.stderr) == (2, "error: the output cannot be written: No space left on device\n")


def test_a_full_disk_under_another_file_is_not_taken_for_that_of_the_output(monkeypatch):
    elsewhere = OSError(errno.ENOSPC, "No space left on device")

    def write_elsewhere(_arguments):
        raise elsewhere

    monkeypatch.setattr(describe, "main", write_elsewhere)
    stdout = sys.stdout
    with pytest.raises(OSError, match="No space") as caught:
        main(["describe"])
    assert caught.value is elsewhere
    assert sys.stdout is stdout


def test_a_reader_that_goes_away_is_no_error():
    command = [sys.executable, "-m", "resnets", "train", "--list"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ["train", "digits.resnet20", "--run", LONG],
        ["train", "folder.scratch", "--data", LONG],
        ["train", "cifar10.resnet20", "--data-root", LONG],
        ["train", "--from", LONG],
        ["compare", "digits.resnet20", "digits.resnet8", "--run", LONG],
        ["check-data", LONG],
        ["evaluate", LONG, "--data", "digits"],
        ["predict", LONG, "x.jpg"],
        ["report", LONG],
        ["prepare", LONG, "shards"],
        ["describe", LONG],
    ],
    ids=lambda arguments: arguments[0],
)
def test_a_name_that_is_too_long_is_an_error_in_one_line(arguments, tmp_path, capsys):
    assert main(arguments) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert LONG in output.err
    assert "too long" in output.err
    assert output.err.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("module", ["", ".x", "x.", "a..b"])
def test_a_name_that_no_module_can_have_is_told_as_one_that_is_not_there(module, capsys):
    assert main(["train", f"{module}:mine"]) == 2
    assert f"there is no module {module!r} on the import path" in capsys.readouterr().err
    assert main(["compare", "digits.resnet20", f"{module}:mine"]) == 2
    assert f"there is no module {module!r} on the import path" in capsys.readouterr().err
    assert main(["report", "run", "--import", module]) == 2
    assert f"No module named {module!r}. Start from the folder that holds it." in capsys.readouterr().err
