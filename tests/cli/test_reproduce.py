"""The command `resnets reproduce`: what it prints, and how it refuses."""

import json

import pytest

from resnets.cli.main import main
from resnets.paper.core.find import experiment_names


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    """Start in an empty folder, and keep what is committed below `results` out of it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("resnets.paper.core.workshop.default_roots", lambda: ())
    monkeypatch.setattr("resnets.paper.core.listing.default_roots", lambda: ())


def printed(capsys, *arguments):
    assert main(["reproduce", *arguments]) == 0
    out, _ = capsys.readouterr()
    return out


def test_without_a_name_the_whole_paper_is_listed(capsys):
    listed = printed(capsys)
    assert all(f" {name} " in listed for name in experiment_names())
    document = json.loads(printed(capsys, "--json"))
    assert [entry["experiment"] for entry in document["experiments"]] == experiment_names()
    assert {entry["state"] for entry in document["experiments"]} <= {"done", "partly", "open"}


def test_table_1_passes_in_every_row_with_option_a_for_18_and_34_layers(capsys):
    document = json.loads(printed(capsys, "table1", "--json"))
    assert document["experiment"] == "table1"
    assert {row["verdict"] for row in document["rows"]} == {"PASS"}
    ours = {row["run"]: row["ours"] for row in document["rows"] if row["meaning"] == "multiply-adds, 1e9"}
    assert ours["ResNet-18 (option A)"] == pytest.approx(1.79480576)
    assert ours["ResNet-34 (option A)"] == pytest.approx(3.644493824)
    assert ours["ResNet-50"] == pytest.approx(3.857973248)


@pytest.mark.parametrize("columns", [80, 120])
def test_a_table_is_laid_out_for_the_terminal(capsys, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    lines = printed(capsys, "table6").splitlines()
    assert max(map(len, lines)) <= columns
    assert any(line.split() == ["run", "ours", "paper", "difference", "verdict"] for line in lines)
    assert any("ResNet-20" in line and "not run" in line and "8.75" in line for line in lines)


def test_several_experiments_are_one_json_document(capsys):
    document = json.loads(printed(capsys, "table1", "schedule", "--json"))
    assert [one["experiment"] for one in document["experiments"]] == ["table1", "schedule"]


def test_nothing_is_written_where_nothing_is_trained(capsys, tmp_path):
    printed(capsys, "table6")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["tabel6"], "Did you mean table6"),
        (["table6", "--budget", "huge"], "invalid choice: 'huge'"),
        (["table6", "--seeds", "one"], "invalid int value: 'one'"),
        (["table6", "--seeds", "-1"], "seed is -1"),
        (["table6", "--run-root", ""], "--run-root is empty"),
        (["--budget", "cpu"], "name one, or all of them"),
        (["--seeds", "1"], "name one, or all of them"),
        (["table6", "--budget", "cpu", "--data-root", "nowhere"], "nowhere"),
        (["table6", "--budget", "cpu", "--checkpoint-every", "0"], "--checkpoint-every is 0"),
    ],
)
def test_wrong_usage_is_one_message_and_exit_code_2(capsys, monkeypatch, arguments, message):
    monkeypatch.setenv("RESNETS_CIFAR_URL", "http://127.0.0.1:9/")
    assert main(["reproduce", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err
    assert "Traceback" not in err


def test_help_shows_the_budgets_and_examples(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["reproduce", "--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert all(word in text for word in ("check ", "cpu ", "gpu ", "full ", "resnets reproduce table6"))
