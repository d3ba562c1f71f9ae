"""The line on stderr that says how many images are done."""

import io
import sys

import pytest

from resnets.cli import image_progress as module
from resnets.cli.image_progress import image_progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(module.time, "perf_counter", lambda: now[0])
    return now


def test_the_line_is_drawn_anew_and_is_gone_at_the_end(monkeypatch, clock):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    show = image_progress()
    for done in (10, 11, 20, 40):
        clock[0] += 0.2
        show(done, 40, "a\x1b[2Jb")
    lines = terminal.getvalue().split("\r\x1b[K")
    assert "\x1b[2J" not in terminal.getvalue()
    # The second comes too soon after the first.
    assert [line.partition(": ")[2].partition(" images,")[0] for line in lines if line] == [
        "10 of 40",
        "20 of 40",
        "40 of 40",
    ]
    assert "33.3 images/s, 1 s left" in lines[2]
    assert lines[-1] == ""


def test_what_is_new_is_shown_at_once_and_timed_from_its_start(monkeypatch, clock):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    show = image_progress()
    clock[0] += 50
    show(1_000, 1_000, "test")
    show(0, 100, "responses")
    clock[0] += 2
    show(10, 100, "responses")
    assert "responses: 0 of 100 images\r" in terminal.getvalue() + "\r"
    assert "responses: 10 of 100 images, 5.0 images/s, 18 s left" in terminal.getvalue()


def test_nothing_is_shown_where_there_is_no_terminal(capsys):
    image_progress()(1, 2, "images")
    assert capsys.readouterr() == ("", "")
