"""What is said of several runs: errors over the same images alone are ranked, and seeds are averaged first."""

import dataclasses
import json
import statistics

import pytest

import resnets
from resnets.report.comparison import results_table, seeds_table, verdict
from resnets.report.run_record import read_runs
from resnets.report.text import NOTHING

NOT_THE_SAME_IMAGES = "The runs were not tested on the same images, so their errors do not compare."


@pytest.fixture
def tested(written):
    """Return a function that writes a run with this error."""

    def write(name, error, *, split="test", step=10, final=True, fingerprint=None, **changes):
        line = {"step": step, "split": split, "top1_error": error, "images": 50, "skipped": []}
        folder = written(name, [line, *([line | {"final": True}] if final else [])], **changes)
        if fingerprint is not None:
            (folder / "model").mkdir()
            (folder / "model" / "config.json").write_text(json.dumps({"dataset_fingerprint": fingerprint}))
        return folder

    return write


def to_the_first(runs):
    return [row[6] for row in results_table(runs).rows]


def dataset(recipe, **changes):
    return dataclasses.replace(resnets.recipe(recipe).dataset, **changes)


def test_errors_on_different_datasets_are_not_ranked(tested):
    runs = read_runs([tested("cifar", 8.0, recipe="cifar10.resnet20"), tested("digits", 3.0, recipe="digits.resnet20")])
    assert verdict(runs) == NOT_THE_SAME_IMAGES
    assert to_the_first(runs) == [NOTHING, NOTHING]


@pytest.mark.parametrize(("split", "ranked"), [("test", True), ("validation", False)])
def test_images_held_out_decide_what_is_validated_and_not_what_is_tested(tested, split, ranked):
    recipe = "cifar10.resnet20"
    runs = read_runs(
        [
            tested("all", 8.0, split=split, recipe=recipe),
            tested("some", 9.0, split=split, recipe=recipe, dataset=dataset(recipe, validation_images=5000)),
        ]
    )
    assert (to_the_first(runs)[1] == "+1.00") is ranked
    assert (verdict(runs) == NOT_THE_SAME_IMAGES) is not ranked


@pytest.mark.parametrize(("fingerprint", "ranked"), [("one", True), ("another", False), (None, True), ("", True)])
def test_two_folders_are_told_apart_by_their_fingerprints(tested, fingerprint, ranked):
    runs = read_runs(
        [tested("a", 8.0, fingerprint="one"), tested("b", 9.0, fingerprint=fingerprint, label_smoothing=0.05)]
    )
    assert (verdict(runs) != NOT_THE_SAME_IMAGES) is ranked
    assert (to_the_first(runs)[1] == "+1.00") is ranked


def test_the_size_at_which_images_are_seen_does_not_matter(tested):
    smaller = dataset("folder.scratch", image_px=64, resize_px=73)
    runs = read_runs([tested("large", 8.0), tested("small", 9.0, dataset=smaller)])
    assert verdict(runs).startswith("large has the lowest test error, 8.00 %, 1.00 points below small. One run each:")


def test_errors_on_different_splits_are_not_ranked(tested):
    runs = read_runs([tested("a", 8.0), tested("b", 9.0, split="validation", label_smoothing=0.05)])
    assert verdict(runs) == "The runs were not tested on the same split, so their errors do not compare."


def test_seeds_of_two_nets_are_averaged_before_they_are_ranked(tested):
    """The single best run is of the net that is worse on average."""
    errors = {"a": (3.0, 9.0, 9.0), "b": (5.0, 6.0, 7.0)}
    runs = read_runs(
        [
            tested(f"{side}-seed{seed}", error, seed=seed, label_smoothing=0.05 if side == "a" else 0.0)
            for side, of_side in errors.items()
            for seed, error in enumerate(of_side)
        ]
    )
    assert verdict(runs) == (
        "b-seed0 and 2 other seeds have the lowest test error, 6.00 % on average (standard deviation 1.00 points), 1.00 "
        f"points below a-seed0 and 2 other seeds with 7.00 % on average (standard deviation "
        f"{statistics.stdev(errors['a']):.2f} points)."
    )
    assert seeds_table(runs).rows == (
        ("a-seed0, a-seed1 and a-seed2", "test", "3", "7.00", "3.46", "3.00", "9.00"),
        ("b-seed0, b-seed1 and b-seed2", "test", "3", "6.00", "1.00", "5.00", "7.00"),
    )


def test_a_single_run_beside_seeds_has_no_spread(tested):
    runs = read_runs(
        [*(tested(f"seed{seed}", 8.0 + seed, seed=seed) for seed in (0, 2)), tested("one", 7.0, label_smoothing=0.05)]
    )
    assert verdict(runs) == (
        "one has the lowest test error, 7.00 %, 2.00 points below seed0 and 1 other seed with 9.00 % on average (standard "
        "deviation 1.41 points). One run has no spread: a difference between seeds can be as large."
    )


def test_a_repetition_of_a_seed_says_nothing_about_seeds(tested):
    runs = read_runs([tested("here", 8.0), tested("there", 8.5)])
    assert "One run each" in verdict(runs)
    assert seeds_table(runs) is None


def test_a_run_that_goes_on_is_not_averaged_with_those_that_are_finished(tested):
    runs = read_runs(
        [tested(f"seed{seed}", 8.0, seed=seed) for seed in (0, 1)]
        + [tested("seed2", 40.0, seed=2, step=5, final=False)]
    )
    assert verdict(runs) == (
        "seed0 and 1 other seed have the lowest test error, 8.00 % on average (standard deviation 0.00 points), 32.00 "
        "points below seed2 with 40.00 %. One run has no spread: a difference between seeds can be as large. Not "
        "finished: seed2."
    )


def test_too_few_errors_are_told_from_errors_that_do_not_compare(tested, written):
    waiting = written("waiting", [{"step": 1, "split": "train", "top1_error": 90.0}])
    runs = read_runs([tested("tested", 8.0), waiting])
    assert verdict(runs) == "Only tested has an error so far, 8.00 % (test): nothing to compare it with."
    assert verdict(runs[1:] * 2) == "No run has an error yet, so there is nothing to compare."
    other = tested("other", 9.0, label_smoothing=0.05)
    assert verdict(read_runs([runs[0].path, waiting, other])).endswith(" Without an error so far: waiting.")


def test_equal_errors_are_said_to_be_equal(tested):
    runs = read_runs([tested("a", 8.0), tested("b", 8.0, label_smoothing=0.05)])
    assert verdict(runs) == "a and b have the same test error, 8.00 %."
