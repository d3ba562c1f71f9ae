"""`resnets check-data` as it is typed: what is printed, exit codes, JSON alone on stdout, Ctrl-C."""

import contextlib
import json
import os
import pty
import re
import signal
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import resnets
from resnets.cli.check_progress import CheckProgress, _duration
from resnets.cli.check_screen import _bar, _ratio, _size
from resnets.cli.main import main


def fill(root, counts):
    for number, (folder, count) in enumerate(counts.items()):
        (root / folder).mkdir(parents=True)
        for image in range(count):
            pixels = np.random.default_rng([number, image]).integers(0, 256, (6, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).resize((64, 48), Image.Resampling.BICUBIC).save(root / folder / f"{image}.png")


@pytest.fixture
def photos(tmp_path):
    fill(tmp_path / "photos", {"train/cat": 6, "train/dog": 5, "val/cat": 2, "val/dog": 2})
    return tmp_path / "photos"


def run(capsys, *arguments):
    code = main(["check-data", *map(str, arguments), "--workers", "0"])
    return code, capsys.readouterr().out


def test_a_clean_folder_exits_with_0_and_says_so(photos, capsys):
    code, out = run(capsys, photos)
    assert code == 0
    assert out.rstrip().endswith("nothing is wrong")
    for words in ("15 images", "2 classes", "train", "validation", "32 - 63", "width : height"):
        assert words in out


def test_errors_exit_with_1_and_the_next_step_is_named(photos, capsys):
    (photos / "train/cat/bad.jpg").write_bytes(b"")
    code, out = run(capsys, photos)
    assert code == 1
    assert re.search(r"^1  empty files +empty$", out, re.MULTILINE)
    assert re.search(r"^   train/cat/bad.jpg  it is empty", out, re.MULTILINE)
    assert f"resnets check-data {photos} --quarantine" in out
    code, out = run(capsys, photos, "--quarantine")
    assert code == 1
    assert f"{photos}/quarantine.json lists 1 image to leave out" in out
    code, out = run(capsys, photos)
    assert code == 0
    assert "1 more are about images that quarantine.json already leaves out" in out


def test_warnings_and_notes_exit_with_0(photos, capsys):
    Image.new("RGB", (64, 48), "red").save(photos / "train/cat/red.png")
    (photos / "train/cat/notes.txt").write_text("a note")
    code, out = run(capsys, photos)
    assert code == 0
    assert "1 WARNING" in out
    assert "1 NOTE" in out


def test_json_is_all_there_is_on_stdout(photos, capsys):
    (photos / "train/dog/bad.png").write_bytes(bytes(100))
    code, out = run(capsys, photos, "--json")
    document = json.loads(out)
    assert code == 1
    assert (document["images"], document["errors"], document["splits"]) == (16, 1, {"train": 12, "validation": 4})
    (finding,) = document["findings"]
    assert (finding["kind"], finding["paths"], finding["severity"]) == ("zeros", ["train/dog/bad.png"], "error")
    assert document["imbalance"]["train"] == 1.0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere"], "nowhere does not exist"),
        ([], "FOLDER"),
        (["photos", "--quarantine-kinds", "leaks"], "add --quarantine"),
        (["photos", "--quarantine", "--quarantine-kinds", "leek"], "Did you mean leaks"),
        (["https://host/shards"], "https://host/shards is an address"),
        (["photos", "--max-aspect", "0"], "--max-aspect is 0.0"),
        (["photos", "--min-px", "many"], "invalid int value"),
    ],
)
def test_bad_input_exits_with_2_and_one_line(photos, monkeypatch, capsys, arguments, words):
    monkeypatch.chdir(photos.parent)
    assert main(["check-data", *arguments]) == 2
    err = capsys.readouterr().err
    assert words in err
    assert err.count("\n") == 1


def test_names_cannot_steer_the_terminal(photos, capsys):
    (photos / "train/cat/\x1b[31mred\nline.jpg").write_bytes(b"")
    (photos / "train/\x1b]0;title\x07").mkdir()
    code, out = run(capsys, photos)
    assert code == 1
    assert "\x1b" not in out
    assert r"train/cat/\x1b[31mred\nline.jpg" in out


@pytest.mark.parametrize("columns", [40, 80, 120])
def test_lines_fit_the_terminal(photos, capsys, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    for name in ("a.jpg", "b.jpg"):
        (photos / "train/cat" / name).write_bytes(b"<html>")
    (photos / "train/cat/1.jpg").write_bytes((photos / "train/cat/1.png").read_bytes())
    _, out = run(capsys, photos)
    titles = ("files that are no images", "extensions that")  # a title is not broken
    rest = [line for line in out.splitlines() if str(photos) not in line and not any(t in line for t in titles)]
    assert max(map(len, rest)) <= max(columns, 62)


def test_only_a_few_findings_of_a_kind_are_shown_unless_all_are_asked_for(photos, capsys):
    for number in range(9):
        (photos / f"train/cat/bad{number}.jpg").write_bytes(b"")
    _, out = run(capsys, photos)
    assert "… and 4 more (--all)" in out
    _, out = run(capsys, photos, "--all")
    assert "bad8.jpg" in out
    assert "--all" not in out


def test_many_classes_are_the_largest_and_the_smallest(tmp_path, capsys):
    fill(tmp_path / "photos", {f"c{number:02}": 2 + number % 3 for number in range(30)})
    _, out = run(capsys, tmp_path / "photos")
    assert "30 classes" in out
    assert "… 18 classes between …" in out


def test_from_python_without_torch():
    code = "import resnets, sys; resnets.check_data; resnets.CheckLimits(min_px=8); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
    from resnets import api

    assert api.check_data is resnets.check_data


@pytest.mark.dist
def test_ctrl_c_ends_at_once_with_one_line_and_130(photos):
    os.mkfifo(photos / "train/cat/pipe.png")  # is no file, and must not be waited for either
    for number in range(400):
        (photos / f"train/dog/{number}.png").write_bytes((photos / "train/dog/0.png").read_bytes())
    main_end, terminal = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW, "check-data", str(photos), "--workers", "2"],
        stdout=subprocess.PIPE, stderr=terminal, start_new_session=True,
    )  # fmt: skip
    os.close(terminal)
    seen = b""
    while b"/s" not in seen:  # a rate: a batch has come back, and the processes are at the next ones
        seen += os.read(main_end, 1000)
    os.killpg(process.pid, signal.SIGINT)
    out, _ = process.communicate(timeout=300)
    with contextlib.suppress(OSError):  # the end of what a terminal has shown
        while more := os.read(main_end, 1000):
            seen += more
    os.close(main_end)
    assert (process.returncode, out) == (130, b"")
    assert b"checking" in seen
    assert seen.rstrip().endswith(b"Stopped.")
    assert b"Traceback" not in seen


SLOW = """
import sys, time
from resnets.cli.main import main
from resnets.data import check, image_probe
batches = []
def slow(batch):
    batches.append(batch)
    time.sleep(0.3 if len(batches) == 1 else 3600)  # what a process does first, and what is not waited for
    return image_probe.probe_batch(batch)
check.probe_batch = slow
sys.exit(main(sys.argv[1:]))
"""


def test_progress_without_a_terminal_is_a_line_now_and_then(capsys, monkeypatch):
    now = 0.0
    monkeypatch.setattr("resnets.cli.check_progress.time.monotonic", lambda: now)
    with CheckProgress() as progress:
        for done in range(0, 1001, 100):
            progress.show("checking", done, 10_000)
            now += 4.0
    err = capsys.readouterr().err.splitlines()
    assert len(err) == 3
    assert err[0] == "checking  300 of 10,000 images  25/s  6 min left"


def test_figures_are_short():
    assert [_duration(seconds) for seconds in (42.0, 125.0, 7300.0)] == ["42 s", "2 min", "2 h 2 min"]
    assert [_ratio(value) for value in (0.75, 2.0, 1 / 3)] == ["3:4", "2:1", "1:3"]
    assert [_size(value) for value in (900, 11_522_946, 3 * 10**12)] == ["900 bytes", "11.5 MB", "3000 GB"]
    assert [_bar(share, 10) for share in (0.0, 1e-9, 0.5, 1.0)] == ["", "▏", "█████", "██████████"]


@pytest.mark.parametrize("form", [[], ["--raw", "--resize", "40"]])
def test_shards_are_checked_as_the_folder_that_they_were_made_from(photos, tmp_path, capsys, form):
    (photos / "train/cat/again.png").write_bytes((photos / "train/cat/3.png").read_bytes())
    assert main(["prepare", str(photos), str(tmp_path / "shards"), *form]) == 0
    capsys.readouterr()
    code, out = run(capsys, tmp_path / "shards", "--json")
    document = json.loads(out)
    assert [(finding["kind"], finding["paths"]) for finding in document["findings"]] == [
        ("duplicate", ["train/cat/3.png", "train/cat/again.png"])
    ]
    assert (code, document["images"]) == (0, 16)
