"""`resnets bench` as it is typed: what a person sees, what a program gets, what is refused."""

import contextlib
import json

import numpy as np
import pytest
from PIL import Image

from resnets.cli.bench_screen import fact, milliseconds, print_benchmarks
from resnets.cli.main import main
from resnets.studies.bench import Need, Work, benchmark
from resnets.studies.timing import spread


@pytest.mark.parametrize("arguments", [["--help"], ["data", "--help"], ["train", "--help"], ["predict", "--help"]])
def test_help_teaches_with_examples_on_80_columns(arguments, capsys):
    with contextlib.suppress(SystemExit):  # how argparse leaves
        assert main(["bench", *arguments]) == 0
    shown = capsys.readouterr().out
    assert "examples:" in shown
    assert shown.count("resnets bench ") >= 4
    assert max(map(len, shown.splitlines())) <= 120


def test_without_a_kind_the_help_is_shown_and_nothing_is_measured(capsys):
    assert main(["bench"]) == 2
    assert "resnets bench data FOLDER" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["dat"], ["no benchmark 'dat'", "Did you mean data?"]),
        (["data"], ["FOLDER"]),
        (["data", "nowhere"], ["nowhere is no folder"]),
        (["data", ".", "--rounds", "0"], ["--rounds is 0"]),
        (["data", ".", "--workers", "0"], ["--workers is 0"]),
        (["data", ".", "--large", "-3"], ["--large is -3"]),
        (["data", ".", "--large", "nan"], ["--large is nan"]),
        (["train", "digits.resnt8"], ["no recipe", "digits.resnet8"]),
        (["train", "digits.resnet8", "--precision", "fp8"], ["--precision fp8", "bf16"]),
        (["train", "digits.resnet8", "--data", "nowhere"], ["--data nowhere"]),
        (["train", "digits.resnet8", "--only", "nobody"], ["--only nobody", "resnets, fp32"]),
        (["train", "cifar10.resnet8", "--data", "."], ["folder"]),
        (["predict", "resnet51"], ["resnet50", "run directory"]),
        (["predict", "resnet18", "--batch", "-1"], ["--batch is -1"]),
    ],
)
def test_wrong_arguments_are_explained(arguments, words, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["bench", *arguments]) == 2
    output = capsys.readouterr()
    assert (output.out, "Traceback" in output.err) == ("", False)
    for word in words:
        assert word in output.err


@pytest.fixture
def photos(tmp_path):
    generator = np.random.default_rng(0)
    for number in range(3):
        Image.fromarray(generator.integers(0, 256, (60, 80, 3), np.uint8)).save(tmp_path / f"{number}.jpg")
    return tmp_path


def test_the_document_is_all_that_is_on_stdout_and_progress_is_on_stderr(photos, capsys):
    line = ["bench", "data", str(photos), "--rounds", "1", "--batch", "2", "--size", "32", "--only", "draft", "--json"]
    assert main(line) == 0
    output = capsys.readouterr()
    document = json.loads(output.out)
    assert [row["system"] for row in document["rows"]] == ["Pillow + torchvision", "Pillow draft"]
    for row in document["rows"]:
        assert {"images_per_second", "ratio", "spread", "psnr_db"} <= set(row)
    assert {"hardware", "versions"} <= set(document)
    assert "round 1 of 1" in output.err
    assert main([*line[:-1], "--quiet"]) == 0
    output = capsys.readouterr()
    assert output.err == ""
    assert "Pillow draft" in output.out


def found(what="work"):
    now = [0.0]

    def system(name, seconds, **fields):
        def run(number):
            now[0] += seconds

        return Work(name=name, images=1000, start=lambda: run, **fields)

    systems = [
        system("usual, fp32", 1.0),
        system("ours, fp32", 0.5, note="is ours"),
        system("a system with a long name, NHWC", 0.25, note="has a long name"),
        system("loader", 1.0, against="loader"),
        system("absent", 1.0, needs=(Need("no_such_module_at_all", "no-such-package"),)),
    ]
    return benchmark(systems, what=what, rounds=3, clock=lambda: now[0], quiet=True)


def test_the_screen_fits_80_columns_and_tells_all(capsys):
    print_benchmarks([found()], [("ms", milliseconds(0)), ("fact", fact("nothing"))])
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= 80
    assert "2,000" in shown
    assert "4.00" in shown
    assert "[2] has a long name" in shown
    assert "absent: not installed; pip install no-such-package" in shown
    assert "3 rounds" in shown


def test_names_of_folders_cannot_steer_the_terminal(capsys):
    print_benchmarks([found("photographs of \x1b[31mred[bold]")])
    shown = capsys.readouterr().out
    assert "\\x1b[31mred[bold]" in shown
    assert "\x1b[31m" not in shown


def test_a_fact_is_shown_where_there_is_one():
    row = found().rows[0]
    for value, expected in ((3.14, "3.1"), (None, "exact")):
        row.facts["psnr_db"] = value
        assert fact("psnr_db", "{:.1f}", empty="exact")(row) == expected
    assert fact("of_linear")(row) == ""
    assert spread([1.0]).low == spread([1.0]).high == 1.0
