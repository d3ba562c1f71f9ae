"""`resnets report` from the command line: where the file goes, what is printed, which mistakes are explained."""

import json
import shutil

import pytest
from safetensors.torch import load_file, save_file

from resnets.cli.main import main


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "residual"
    arguments = ["train", "digits.resnet8", "--steps", "2", "--run", str(folder), "--device", "cpu", "--quiet"]
    assert main(arguments) == 0
    return folder


def copy_without_weights(run, tmp_path, name):
    folder = tmp_path / name
    folder.mkdir()
    for file in ("config.json", "metrics.jsonl", "env.json"):
        (folder / file).write_bytes((run / file).read_bytes())
    return folder


def test_one_run_gets_its_report_inside_and_stdout_says_where(run, capsys):
    assert main(["report", str(run), "--device", "cpu"]) == 0
    output = capsys.readouterr()
    assert output.out.startswith(f"{run / 'report.html'}    ")
    assert output.err == ""
    assert (run / "report.html").read_text().startswith("<!DOCTYPE html>")


def test_several_runs_get_theirs_in_this_folder(run, tmp_path, capsys):
    other = copy_without_weights(run, tmp_path, "other")
    assert main(["report", str(run), str(other), "--title", "Seeds & nets", "--device", "cpu"]) == 0
    output = capsys.readouterr()
    assert output.out.startswith("report.html    ")
    assert "note: other: " in output.err
    assert "<title>Seeds &amp; nets</title>" in (tmp_path / "report.html").read_text()


def test_a_name_stays_in_its_line(run, tmp_path, capsys):
    other = copy_without_weights(run, tmp_path, "two\nlines")
    assert main(["report", str(other), "--device", "cpu"]) == 0
    output = capsys.readouterr()
    assert "note: two\\nlines: " in output.err
    assert "two\\nlines/report.html    " in output.out
    assert output.out.count("\n") == 1


def test_the_note_about_a_net_that_gives_nan_names_the_run_once(run, tmp_path, capsys):
    shutil.copytree(run, tmp_path / "useless")
    weights = tmp_path / "useless" / "model" / "model.safetensors"
    tensors = load_file(weights)
    for tensor in tensors.values():
        if tensor.is_floating_point():
            tensor.fill_(3e38)  # finite, as what is read has to be, and beyond all numbers once added
    save_file(tensors, weights)
    assert main(["report", "useless", "--device", "cpu"]) == 0
    err = capsys.readouterr().err
    assert err == "note: useless: the net gives NaN for every image of the test split; its weights are of no use.\n"


def test_the_json_document_says_what_was_found_and_what_is_missing(run, tmp_path, capsys):
    other = copy_without_weights(run, tmp_path, "other")
    assert main(["report", str(run), str(other), "--out", "both.html", "--json", "--device", "cpu"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["report"] == "both.html"
    assert document["bytes"] == (tmp_path / "both.html").stat().st_size
    first, second = document["runs"]
    assert (first["net"], first["steps"], first["full_steps"], first["images"]) == ("cifar-resnet8", 2, 500, 360)
    assert first["tested"]["top1_error"] == pytest.approx(first["top1_error"])
    assert first["missing"] is None
    assert second["tested"] is None
    assert "no weights" in second["missing"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ["RUN"]),
        (["missing"], ["There is no run at missing", "runs/"]),
        (["RUN", "RUN"], ["named twice"]),
        (["RUN", "--out", "report.pdf"], ["ends in .html"]),
        (["RUN", "--out", "nowhere/report.html"], ["no folder nowhere"]),
        (["RUN", "--data", "digitz"], ["digitz", "Did you mean digits"]),
        (["RUN", "--device", "tpu"], ["'tpu'"]),
        (["RUN", "--titel", "x"], ["--titel"]),
    ],
)
def test_mistakes_are_explained_and_nothing_is_written(arguments, words, run, tmp_path, capsys):
    (run / "report.html").unlink(missing_ok=True)
    assert main(["report", *(str(run) if word == "RUN" else word for word in arguments)]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.count("\n") == 1
    for word in words:
        assert word in output.err
    assert not list(tmp_path.rglob("*.html"))
    assert not (run / "report.html").exists()


def test_names_of_files_cannot_steer_the_terminal(run, tmp_path, capsys):
    folder = copy_without_weights(run, tmp_path, "red\x1b[31m")
    assert main(["report", str(folder)]) == 0
    output = capsys.readouterr()
    assert "\x1b" not in output.out + output.err


def test_help_names_what_the_page_holds_and_gives_examples(capsys):
    with pytest.raises(SystemExit) as exit_:
        main(["report", "--help"])
    assert exit_.value.code == 0
    text = capsys.readouterr().out
    for word in ("--data-root", "--out", "--title", "confusions", "examples:"):
        assert word in text
