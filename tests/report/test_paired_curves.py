import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from resnets.metrics.paired import paired_difference
from resnets.report.curves import Curve
from resnets.report.paired_curves import draw_paired_curves, mean_curve


def curve(kind, errors, every=10, label="net"):
    steps = tuple(every * (index + 1) for index in range(len(errors)))
    return Curve(label=label, kind=kind, steps=steps, errors=tuple(map(float, errors)))


@given(st.lists(st.lists(st.floats(0, 100), min_size=4, max_size=4), min_size=1, max_size=5))
def test_the_mean_curve_is_the_mean_at_every_step(runs):
    mean = mean_curve([curve("test", errors) for errors in runs])
    for index, error in enumerate(mean.errors):
        assert error == pytest.approx(sum(run[index] for run in runs) / len(runs), abs=1e-9)


def test_runs_of_different_length_meet_at_the_steps_they_share():
    mean = mean_curve([curve("test", [9, 8, 7]), curve("test", [7, 6])])
    assert (mean.steps, mean.errors) == ((10, 20), (8, 7))
    with pytest.raises(ValueError, match="no step in common"):
        mean_curve([curve("test", [9], every=3), curve("test", [7], every=4)])
    with pytest.raises(ValueError, match="no curves"):
        mean_curve([])


@pytest.mark.parametrize("seeds", [1, 2, 7])
@pytest.mark.parametrize("every", [10, 9_000])
def test_the_picture_is_a_png_for_any_number_of_seeds(tmp_path, seeds, every):
    runs = {
        side: [
            [curve("train", [90, 60 - seed, 30], every), curve("test", [80, 50 + seed, 20 + seed * at], every)]
            for seed in range(seeds)
        ]
        for at, side in enumerate("AB")
    }
    difference = paired_difference([20.0] * seeds, [20.0 + seed for seed in range(seeds)])
    names = {"A": "a_$\\frac{1}{2}$_<name>", "B": "x" * 200}
    draw_paired_curves(runs, names, difference, tmp_path / "compare.png")
    with Image.open(tmp_path / "compare.png") as image:
        assert image.width >= 1200
    assert [path.name for path in tmp_path.iterdir()] == ["compare.png"]


def test_runs_that_were_never_tested_on_the_way_are_drawn_by_their_training(tmp_path):
    runs = {side: [[curve("train", [90, 60, 30])]] for side in "AB"}
    draw_paired_curves(runs, {"A": "a", "B": "b"}, paired_difference([1.0], [1.0]), tmp_path / "c.svg")
    assert (tmp_path / "c.svg").read_text().startswith("<?xml")
