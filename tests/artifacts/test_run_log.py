"""Logs as they are found: unfinished, old, damaged."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resnets.artifacts.divergence import Divergence
from resnets.artifacts.run_log import Evaluation, TrainingPoint, number, read_run_log
from resnets.recipes.find import recipe
from resnets.specs.errors import RunError


def write(path, *lines):
    path.write_text("".join(line if isinstance(line, str) else json.dumps(line) + "\n" for line in lines))
    return path


DIVERGED = {"checkpoint_step": 4, "lr": 1e30, "conditions": {"threads": 1}}


def test_a_log_that_ends_in_a_divergence_says_where(tmp_path):
    divergence = Divergence(step=7, checkpoint_step=4, lr=1e30, conditions={"threads": 1})
    assert divergence.values() == {"diverged": DIVERGED}
    point = {"step": 5, "split": "train", "loss": 2.0}
    line = json.dumps({"step": 7, "split": "train", "diverged": DIVERGED})
    log = read_run_log(write(tmp_path / "metrics.jsonl", point, line + "\n"))
    assert (log.diverged, log.ended, log.last_step) == (divergence, False, 5)
    for length in range(len(line)):
        log = read_run_log(write(tmp_path / "metrics.jsonl", point, line[:length]))
        assert (log.diverged, log.last_step) == (None, 5)


@pytest.mark.parametrize(
    "later", [{"step": 8, "split": "train"}, {"step": 9, "split": "test", "top1_error": 5.0, "final": True}]
)
def test_a_run_that_has_gone_on_since_has_not_diverged(tmp_path, later):
    line = {"step": 7, "split": "train", "diverged": DIVERGED}
    assert read_run_log(write(tmp_path / "metrics.jsonl", line, later)).diverged is None


def test_what_cannot_be_in_a_divergence_is_left_out(tmp_path):
    said = {"checkpoint_step": -1, "lr": "high", "conditions": 3}
    log = read_run_log(write(tmp_path / "metrics.jsonl", {"step": 7, "diverged": said}))
    assert log.diverged == Divergence(step=7)
    assert "learning rate was" not in log.diverged.message(recipe("digits.resnet8"))


def test_every_kind_of_line_is_read(tmp_path):
    log = read_run_log(
        write(
            tmp_path / "metrics.jsonl",
            {"step": 2, "split": "train", "epoch": 0.5, "loss": 2.0, "top1_error": 90, "lr": 0.1},
            {"step": 2, "split": "train", "left_out": {"path": "a.png", "reason": "truncated"}},
            {
                "step": 4,
                "split": "test",
                "loss": 1.5,
                "top1_error": 50.0,
                "top5_error": 9.0,
                "images": 10,
                "skipped": [{}],
            },
            {"step": 4, "split": "test", "loss": 1.5, "top1_error": 50.0, "images": 10, "final": True},
        )
    )
    assert log.training == (TrainingPoint(step=2, epoch=0.5, loss=2.0, top1_error=90.0, lr=0.1),)
    first = Evaluation(step=4, split="test", top1_error=50.0, top5_error=9.0, loss=1.5, images=10, skipped=1)
    assert log.evaluations == (first,)
    assert log.final == Evaluation(step=4, split="test", top1_error=50.0, loss=1.5, images=10, skipped=1)
    assert log.ended
    assert log.left_out == (("a.png", "truncated"),)
    assert (log.last_step, log.best, log.unreadable_lines) == (4, first, 0)


@pytest.mark.parametrize("final", [True, False, "yes", 1, None])
def test_a_run_has_ended_with_its_final_line_even_if_that_has_no_error(tmp_path, final):
    log = read_run_log(
        write(tmp_path / "metrics.jsonl", {"step": 4, "split": "test", "top1_error": "?", "final": final})
    )
    assert (log.ended, log.final) == (final is True, None)


@pytest.mark.parametrize(
    ("split", "final", "skipped"),
    [("test", {}, 2), ("validation", {}, 0), ("test", {"skipped": []}, 0), ("test", {"skipped": ["c"]}, 1)],
)
def test_what_the_final_line_does_not_say_of_skipped_images_is_taken_from_its_own_split(
    tmp_path, split, final, skipped
):
    entries = [
        {"step": 4, "split": split, "top1_error": 5, "skipped": ["a", "b"]},
        {"step": 4, "split": "test", "top1_error": 5, "final": True} | final,
    ]
    assert read_run_log(write(tmp_path / "metrics.jsonl", *entries)).final.skipped == skipped


def test_the_best_is_the_first_of_equal_ones(tmp_path):
    entries = [{"step": step, "split": "test", "top1_error": error} for step, error in ((1, 9), (2, 5), (3, 5), (4, 7))]
    assert read_run_log(write(tmp_path / "metrics.jsonl", *entries)).best.step == 2


def test_points_come_in_the_order_of_the_steps_and_the_later_line_of_a_step_counts(tmp_path):
    entries = [{"step": step, "split": "train", "top1_error": error} for step, error in ((4, 1), (2, 2), (4, 3))]
    log = read_run_log(write(tmp_path / "metrics.jsonl", *entries))
    assert [(point.step, point.top1_error) for point in log.training] == [(2, 2.0), (4, 3.0)]


@pytest.mark.parametrize(
    "line",
    [
        '{"step": 3, "spl',
        "[]\n",
        "null\n",
        '{"split": "train"}\n',
        '{"step": -1, "split": "train"}\n',
        "[" * 100_000 + "\n",
    ],
)
def test_what_is_no_entry_is_counted_and_left_out(tmp_path, line):
    log = read_run_log(write(tmp_path / "metrics.jsonl", {"step": 1, "split": "train", "top1_error": 5.0}, line))
    assert (len(log.training), log.unreadable_lines) == (1, 1)


@pytest.mark.parametrize("value", ["5", None, True, -1, 101, math.nan, math.inf, 10**400, [5]])
def test_a_value_that_no_error_can_have_is_left_out(tmp_path, value):
    entries = [{"step": 1, "split": split, "top1_error": value} for split in ("train", "test")]
    log = read_run_log(write(tmp_path / "metrics.jsonl", *entries))
    assert log.training == (TrainingPoint(step=1),)
    assert log.evaluations == ()


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
_names = st.sampled_from(
    ["step", "split", "top1_error", "lr", "images", "skipped", "left_out", "final", "waiting_share"]
)
_entries = st.dictionaries(_names, _json | st.sampled_from(["train", "test", "validation"]), max_size=9)


@given(st.lists(_entries | _json, max_size=8))
def test_any_json_is_read_without_an_error_and_gives_finite_numbers(tmp_path_factory, values):
    path = tmp_path_factory.mktemp("log") / "metrics.jsonl"
    log = read_run_log(write(path, *[json.dumps(value) + "\n" for value in values]))
    found = [entry.top1_error for entry in (*log.training, *log.evaluations)] + [point.lr for point in log.training]
    assert all(value is None or math.isfinite(value) for value in found)
    assert [point.step for point in log.training] == sorted({point.step for point in log.training})


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(RunError, match=r"Is .* a run directory"):
        read_run_log(tmp_path / "metrics.jsonl")


def test_a_number_is_finite_and_no_truth_value():
    assert [number(value) for value in (1, 2.5, "1", False, math.nan, -math.inf, 10**400)] == [1.0, 2.5, *[None] * 5]
