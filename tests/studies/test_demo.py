"""The demonstration, shortened: its contract, not its claim, which takes 500 steps."""

import json

import pytest

from resnets.cli.main import main
from resnets.studies import demo


@pytest.fixture(autouse=True)
def _shallow(monkeypatch):
    monkeypatch.setattr(demo, "DEPTH", 8)


def test_the_json_document_has_both_nets_and_nothing_else_is_on_stdout(tmp_path, capsys):
    assert main(["demo", "--steps", "20", "--run", str(tmp_path / "demo"), "--json", "--device", "cpu"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert set(document) == {"plain", "residual", "seconds"}
    for kind in ("plain", "residual"):
        assert set(document[kind]) == {"train_error", "test_error"}
        assert 0 <= document[kind]["train_error"] <= 100


def test_a_person_sees_curves_predictions_and_where_things_are(tmp_path, capsys):
    assert main(["demo", "--steps", "20", "--run", str(tmp_path / "demo"), "--device", "cpu"]) == 0
    output = capsys.readouterr().out
    assert "the residual net reads" in output
    assert "plain-8" in output
    assert str(tmp_path / "demo" / "curves.png") in output
    assert (tmp_path / "demo" / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert len(list((tmp_path / "demo" / "images").glob("*.png"))) == demo.SHOWN_IMAGES
