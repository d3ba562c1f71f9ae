import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from resnets.report.curves import (
    Curve,
    curves_from_metrics,
    draw_error_curves,
    line_ends,
    smoothed,
    spread,
    top_of_axis,
)
from resnets.specs.errors import RunError


def curve(label, kind, errors, every=10):
    steps = tuple(every * (index + 1) for index in range(len(errors)))
    return Curve(label=label, kind=kind, steps=steps, errors=tuple(map(float, errors)))


TWO_NETS = [
    curve("plain-32", "train", [90, 80, 70, 60, 50, 40]),
    curve("plain-32", "test", [85, 45], every=30),
    curve("ResNet-32", "train", [90, 50, 20, 10, 5, 1]),
    curve("ResNet-32", "test", [30, 4], every=30),
]


def write_metrics(folder, entries):
    lines = [json.dumps({"epoch": 0.1, "loss": 1.0} | entry) for entry in entries]
    (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n")


def test_curves_are_read_by_split(tmp_path):
    write_metrics(
        tmp_path,
        [
            {"step": 10, "split": "train", "top1_error": 90.0},
            {"step": 10, "split": "test", "top1_error": 88.0},
            {"step": 20, "split": "train", "top1_error": 80.0},
            {"step": 20, "split": "final test", "top1_error": 77.0},
        ],
    )
    assert curves_from_metrics(tmp_path, "net") == [
        Curve(label="net", kind="train", steps=(10, 20), errors=(90.0, 80.0)),
        Curve(label="net", kind="test", steps=(10,), errors=(88.0,)),
    ]


def test_a_half_written_line_and_lines_without_errors_are_left_out(tmp_path):
    write_metrics(tmp_path, [{"step": 10, "split": "train", "top1_error": 90.0}, {"step": 20, "split": "train"}])
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 30, "spl')
    (only,) = curves_from_metrics(tmp_path, "net")
    assert only.steps == (10,)


def test_a_folder_without_a_log_is_refused(tmp_path):
    with pytest.raises(RunError, match=r"metrics\.jsonl cannot be read"):
        curves_from_metrics(tmp_path, "net")


def test_a_log_without_errors_is_refused(tmp_path):
    write_metrics(tmp_path, [])
    with pytest.raises(RunError, match="no errors yet"):
        curves_from_metrics(tmp_path, "net")


@given(st.lists(st.floats(0, 100), min_size=1, max_size=30), st.integers(1, 10))
def test_smoothing_is_the_mean_of_a_trailing_window(errors, points):
    expected = [
        sum(window) / len(window) for i in range(len(errors)) for window in [errors[max(0, i + 1 - points) : i + 1]]
    ]
    assert smoothed(errors, points) == pytest.approx(expected, abs=1e-9)


@given(st.lists(st.floats(0, 100), min_size=1, max_size=6))
def test_spread_labels_keep_their_order_and_distance(heights):
    moved = spread(heights, gap=5.0, top=100.0)
    assert all(-1e-9 <= height <= 100 + 1e-9 for height in moved)
    ordered = sorted(range(len(heights)), key=lambda index: heights[index])
    for below, above in itertools.pairwise(ordered):
        assert moved[above] - moved[below] >= 5.0 - 1e-9


@given(st.lists(st.integers(0, 9).map(lambda tens: 10.0 * tens), unique=True, min_size=1, max_size=6))
def test_labels_with_room_stay_where_they_are(heights):
    assert spread(heights, gap=5.0, top=100.0) == pytest.approx(heights)


def test_the_label_of_a_net_states_its_last_test_error():
    assert line_ends(TWO_NETS) == {"plain-32": 45, "ResNet-32": 4}
    assert line_ends(TWO_NETS[::2]) == {"plain-32": 40, "ResNet-32": 1}


def test_the_axis_leaves_out_the_first_fall_but_no_later_point():
    falling = curve("net", "test", [90.0, 12.0, 9.0, 8.0, 7.0, 7.0, 7.0, 7.0, 7.0, 7.0])
    assert top_of_axis([falling]) == 20
    assert top_of_axis([curve("net", "test", [96.0])]) == 100


@pytest.mark.parametrize("every", [10, 10_000])
def test_the_picture_is_a_png_of_some_size(tmp_path, every):
    curves = [curve("a", "train", [90, 60, 30], every), curve("a", "validation", [80, 50, 20], every)]
    draw_error_curves(curves, tmp_path / "curves.png", title="A title")
    with Image.open(tmp_path / "curves.png") as image:
        assert image.width >= 1000
        assert sum(image.convert("L").histogram()[:100]) > 0


def test_equal_curves_give_equal_svg_files(tmp_path):
    for name in ("first.svg", "second.svg"):
        draw_error_curves(TWO_NETS, tmp_path / name)
    assert (tmp_path / "first.svg").read_bytes() == (tmp_path / "second.svg").read_bytes()


def test_the_picture_states_the_smoothing_window(tmp_path, monkeypatch):
    from matplotlib.figure import Figure

    figures = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_args, **_options: figures.append(figure))
    draw_error_curves(TWO_NETS, tmp_path / "curves.png", smoothing_points=3)
    (axes,) = figures[0].axes
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["training, mean of 30 iterations", "test"]
    assert [text.get_text() for text in axes.texts] == ["plain-32  45.00 %", "ResNet-32  4.00 %"]


def test_of_logs_with_different_intervals_the_picture_states_the_lines(tmp_path, monkeypatch):
    from matplotlib.figure import Figure

    figures = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_args, **_options: figures.append(figure))
    draw_error_curves([TWO_NETS[0], curve("other", "train", [9, 8], every=30)], tmp_path / "curves.png")
    (axes,) = figures[0].axes
    (text,) = axes.get_legend().get_texts()
    assert text.get_text() == "training, mean of 5 lines of the log"


def test_nothing_to_draw_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no curves"):
        draw_error_curves([], tmp_path / "curves.png")
