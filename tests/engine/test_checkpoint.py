"""Checkpoints under kills, full disks and hostile files."""

import errno
import os
import pickle
import signal
import subprocess
import sys
import textwrap

import pytest
import torch

from resnets.engine.checkpoint import checkpoints, latest_checkpoint, load_checkpoint, save_checkpoint
from resnets.specs.errors import ModelError, TrainingError


def _values(step):
    return {"schema_version": 2, "step": step, "weights": torch.arange(1000.0) + step}


def test_what_is_saved_is_loaded(tmp_path):
    path = save_checkpoint(tmp_path / "checkpoints", 7, _values(7))
    assert path.name == "step-00000007.pt"
    loaded = load_checkpoint(latest_checkpoint(tmp_path / "checkpoints"))
    assert loaded["step"] == 7
    assert torch.equal(loaded["weights"], _values(7)["weights"])


def test_all_are_kept_unless_told_otherwise(tmp_path):
    for step in (1, 2, 3):
        save_checkpoint(tmp_path, step, _values(step))
    assert len(checkpoints(tmp_path)) == 3
    save_checkpoint(tmp_path, 4, _values(4), keep=2)
    assert [path.name for path in checkpoints(tmp_path)] == ["step-00000003.pt", "step-00000004.pt"]


def test_a_kill_during_a_save_leaves_the_previous_checkpoint(tmp_path):
    script = f"""
        import os, signal, torch
        from pathlib import Path
        from resnets.engine.checkpoint import save_checkpoint
        folder = Path({str(tmp_path)!r})
        save_checkpoint(folder, 1, {{"schema_version": 2, "step": 1}})
        def torn(values, file):
            file.write(b"half of a checkpoint")
            file.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        torch.save = torn
        save_checkpoint(folder, 2, {{"schema_version": 2, "step": 2}})
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)])
    assert done.returncode == -signal.SIGKILL
    assert load_checkpoint(latest_checkpoint(tmp_path))["step"] == 1
    save_checkpoint(tmp_path, 2, _values(2))
    assert load_checkpoint(latest_checkpoint(tmp_path))["step"] == 2


@pytest.mark.parametrize("reported_as", ["OSError", "RuntimeError"])
def test_a_full_disk_is_said_and_nothing_is_lost(tmp_path, monkeypatch, reported_as):
    save_checkpoint(tmp_path, 1, _values(1))

    def full(values, file):
        file.write(b"part")
        if reported_as == "OSError":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        raise RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(TrainingError, match=r"disk is full.*go on from step-00000001.pt"):
        save_checkpoint(tmp_path, 2, _values(2))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["latest", "step-00000001.pt"]
    assert load_checkpoint(latest_checkpoint(tmp_path))["step"] == 1


class _Evil:
    def __reduce__(self):
        return (os.mkdir, ("executed",))


def test_a_pickle_that_would_execute_code_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    bad = tmp_path / "step-00000002.pt"
    torch.save({"schema_version": 2, "step": _Evil()}, bad)
    with pytest.raises(ModelError, match="could execute code"):
        load_checkpoint(bad)
    bad.write_bytes(pickle.dumps(_Evil()))
    with pytest.raises(ModelError):
        load_checkpoint(bad)
    assert not (tmp_path / "executed").exists()


def test_a_damaged_checkpoint_names_the_one_to_go_on_from(tmp_path):
    save_checkpoint(tmp_path, 1, _values(1))
    path = save_checkpoint(tmp_path, 2, _values(2))
    whole = path.read_bytes()
    for damaged in (b"", b"text", whole[: len(whole) // 2], whole[:40] + b"\0" * 40 + whole[80:]):
        path.write_bytes(damaged)
        with pytest.raises(ModelError, match=r"step-00000001.pt, delete step-00000002.pt"):
            load_checkpoint(path)


def test_something_else_is_not_taken_for_a_checkpoint(tmp_path):
    torch.save({"fc.weight": torch.zeros(2)}, tmp_path / "step-00000001.pt")
    with pytest.raises(ModelError, match="not a checkpoint"):
        load_checkpoint(tmp_path / "step-00000001.pt")


def test_latest_falls_back_to_the_highest_step(tmp_path):
    assert latest_checkpoint(tmp_path) is None
    save_checkpoint(tmp_path, 5, _values(5))
    save_checkpoint(tmp_path, 10, _values(10))
    (tmp_path / "latest").write_text("../../etc/passwd")
    assert latest_checkpoint(tmp_path).name == "step-00000010.pt"
    (tmp_path / "latest").unlink()
    assert latest_checkpoint(tmp_path).name == "step-00000010.pt"


def test_a_checkpoint_of_another_form_is_named(tmp_path):
    path = tmp_path / "step-00000001.pt"
    torch.save({"schema_version": 1, "step": 1}, path)
    with pytest.raises(ModelError, match="written in form 1"):
        load_checkpoint(path)
