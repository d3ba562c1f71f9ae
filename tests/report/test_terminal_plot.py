import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resnets.report.curves import Curve
from resnets.report.terminal_plot import plot_in_terminal


def curve(label, kind, errors, every=10):
    steps = tuple(every * (index + 1) for index in range(len(errors)))
    return Curve(label=label, kind=kind, steps=steps, errors=tuple(map(float, errors)))


TWO_NETS = [
    curve("plain-32", "train", [90, 80, 70, 60, 50, 40]),
    curve("plain-32", "test", [85, 45], every=30),
    curve("ResNet-32", "train", [90, 50, 20, 10, 5, 1]),
    curve("ResNet-32", "test", [30, 4], every=30),
]


@given(st.integers(48, 140), st.integers(8, 40), st.booleans())
def test_the_plot_has_the_size_that_was_asked_for(width, height, unicode):
    lines = plot_in_terminal(TWO_NETS, width, height, color=False, unicode=unicode).split("\n")
    assert len(lines) == height
    assert max(map(len, lines[:-2])) <= width


def test_ascii_plot_is_ascii():
    text = plot_in_terminal(TWO_NETS, color=False, unicode=False)
    assert text.isascii()
    assert "A/a plain-32   B/b ResNet-32" in text


def test_colour_adds_nothing_but_escape_sequences():
    plain = plot_in_terminal(TWO_NETS, color=False, unicode=True)
    colored = plot_in_terminal(TWO_NETS, color=True, unicode=True)
    assert "\x1b" not in plain
    assert re.sub(r"\x1b\[[0-9;]*m", "", colored) == plain
    assert colored != plain


def test_each_net_is_named_at_the_height_where_its_line_ends():
    lines = plot_in_terminal(TWO_NETS, color=False, unicode=False, height=19).split("\n")
    (plain,) = (row for row, line in enumerate(lines) if line.endswith("plain-32 45.00 %"))
    (residual,) = (row for row, line in enumerate(lines) if line.endswith("ResNet-32 4.00 %"))
    assert "A plain" in lines[plain]
    assert "B ResNet" in lines[residual]
    assert plain < residual


def test_a_solid_line_has_no_gap_in_any_column():
    lines = plot_in_terminal([curve("net", "test", [90, 5, 80, 10, 60])], 60, 20, color=False, unicode=False).split(
        "\n"
    )
    canvas = [line[6:45] for line in lines[:-3]]
    columns = ["".join(rows) for rows in zip(*canvas, strict=True)]
    first = next(index for index, column in enumerate(columns) if "A" in column)
    for left, right in zip(columns[first:], columns[first + 1 :], strict=False):
        marked = (
            [row for row, mark in enumerate(left) if mark == "A"],
            [row for row, mark in enumerate(right) if mark == "A"],
        )
        assert min(marked[1]) - 1 <= max(marked[0])
        assert min(marked[0]) - 1 <= max(marked[1])


def test_the_axes_carry_numbers():
    text = plot_in_terminal(TWO_NETS, color=False, unicode=True)
    assert re.search(r"^ +0 ┤", text, re.MULTILINE)
    assert re.search(r"^ +0 +15 +30 +45 +60  iterations$", text, re.MULTILINE)


def test_an_encoding_without_braille_gets_ascii(monkeypatch):
    class Stdout:
        encoding = "latin-1"

        def isatty(self):
            return False

    monkeypatch.setattr("sys.stdout", Stdout())
    assert plot_in_terminal(TWO_NETS).isascii()


def test_training_alone_can_be_plotted():
    text = plot_in_terminal([curve("net", "train", [50, 40, 30])], color=False, unicode=True)
    assert "net 30.00 %" in text
    assert "test" not in text


def test_too_small_a_plot_is_refused():
    with pytest.raises(ValueError, match="at least 40 x 8"):
        plot_in_terminal(TWO_NETS, 30, 10)
