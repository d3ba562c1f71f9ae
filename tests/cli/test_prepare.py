import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from resnets import api
from resnets.cli.main import main
from resnets.data import shard_writer
from resnets.specs.errors import DataError


@pytest.fixture(autouse=True)
def _photos(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(40):
            image = Image.fromarray(random.integers(0, 256, (12, 9, 3), dtype=np.uint8))
            image.save(tmp_path / "photos" / name / f"{number}.png")


def test_shards_are_made_and_said_to_be(capsys):
    Path("photos/dog/7.png").write_bytes(b"")
    assert main(["prepare", "photos", "shards", "--resize", "8", "--raw", "--workers", "0"]) == 0
    output = capsys.readouterr().out
    assert "shards: 79 images in 1 shard" in output
    assert "left out: dog/7.png: it is empty (0 bytes)" in output
    assert "--data shards" in output


def test_the_place_to_train_from_is_quoted_for_the_shell(capsys):
    assert main(["prepare", "photos", "my shards", "--workers", "0"]) == 0
    assert "train on it with --data 'my shards'\n" in capsys.readouterr().out


def test_a_finished_set_is_said_to_be_left_as_it_is(capsys):
    arguments = ["prepare", "photos", "shards", "--workers", "0"]
    assert main(arguments) == 0
    assert "finished before" not in capsys.readouterr().out
    assert main(arguments) == 0
    assert "shards was finished before, and is left as it is" in capsys.readouterr().out


def test_json_is_one_document_and_a_second_time_changes_nothing(capsys):
    arguments = ["prepare", "photos", "shards", "--workers", "0", "--json"]
    assert main(arguments) == 0
    first = json.loads(capsys.readouterr().out)
    assert first["images"] == 80
    assert first["splits"] == {"train": 80}
    before = Path("shards/shards.json").stat().st_mtime_ns
    assert main(arguments) == 0
    assert json.loads(capsys.readouterr().out) == first
    assert Path("shards/shards.json").stat().st_mtime_ns == before


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
def test_a_signal_keeps_what_is_finished_and_the_same_command_goes_on(monkeypatch, capsys, number, code):
    finish = shard_writer._Writer.finish

    def finish_and_signal(self, state):
        finish(self, state)
        os.kill(os.getpid(), number)

    monkeypatch.setattr(shard_writer._Writer, "finish", finish_and_signal)
    arguments = ["prepare", "photos", "shards", "--workers", "0"]
    monkeypatch.setattr(shard_writer, "prepare", _with_small_shards(shard_writer.prepare))
    assert main(arguments) == code
    assert "are in finished shards in shards. Run the same command again" in capsys.readouterr().err
    assert len(list(Path("shards/.prepare").glob("*.tar.npz"))) == 1
    monkeypatch.setattr(shard_writer._Writer, "finish", finish)
    assert main(arguments) == 0
    assert not Path("shards/.prepare").exists()


def _with_small_shards(prepare):
    return lambda *given, **named: prepare(*given, **named | {"shard_bytes": 20_000})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere", "shards"], "nowhere does not exist"),
        (["photos", "photos/shards"], "photos/shards lies in photos"),
        (["photos", "shards", "--resize", "-1"], "--resize is -1"),
        (["photos", "shards", "--resize", "0"], "--resize is 0"),
        (["photos", "shards", "--resize", "0", "--raw"], "--resize is 0"),
        (["photos", "shards", "--resize", "8", "--quality", "101"], "--quality is 101"),
        (["photos", "shards", "--quality", "90"], "--quality is of JPEG"),
        (["photos", "shards", "--resize", "8", "--raw", "--quality", "90"], "--quality is of JPEG"),
        (["photos", "shards", "--shard-mb", "0"], "--shard-mb is 0"),
        (["photos", "shards", "--workers", "-2"], "workers"),
        (["photos", ""], "DST is empty"),
        (["photos", "x" * 300], "cannot be written: File name too long"),
        (["http://[::1", "shards"], "http://[::1/shards.json is no address"),
        (["photos", "https://host/shards"], "https://host/shards is an address"),
        (["photos/cat", "shards"], "holds 40 images but no class folders"),
        (["photos", "photos/cat/0.png/x"], "lies in photos"),
    ],
)
def test_what_cannot_be_is_said_in_a_line(arguments, message, capsys):
    assert main(["prepare", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert not Path("shards/shards.json").exists()


@pytest.mark.parametrize(("given", "used"), [("-1", 12), ("3", 3)])
def test_a_process_a_core_decodes_however_many_there_are(monkeypatch, given, used):
    monkeypatch.setattr(api, "usable_cores", lambda: 12)
    seen = []

    def only_seen(*_, workers, **__):
        seen.append(workers)
        raise DataError("seen")

    monkeypatch.setattr(shard_writer, "prepare", only_seen)
    assert main(["prepare", "photos", "shards", "--workers", given]) == 2
    assert seen == [used]
