"""What is said of several runs: errors over the same images alone are ranked, and seeds are averaged first."""

import dataclasses
import itertools
import json
import statistics

import pytest

import resnets
from resnets.report.comparison import results_table, seeds_table, verdict
from resnets.report.run_record import read_runs
from resnets.report.text import NOTHING

NOT_THE_SAME_IMAGES = "The runs were not tested on the same images, so their errors do not compare."
PERHAPS_NOT = (
    "The runs differ in the images of at least one split: if that is the test split, which cannot be told, their "
    "errors do not compare."
)


@pytest.fixture
def tested(written):
    """Return a function that writes a run with this error."""

    def write(name, error, *, split="test", step=10, final=True, images=50, skipped=(), fingerprint=None, **changes):
        line = {"step": step, "split": split, "top1_error": error, "images": images, "skipped": list(skipped)}
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
@pytest.mark.parametrize(("recipe", "split"), [("folder.scratch", "validation"), ("digits.resnet20", "test")])
def test_images_are_told_apart_by_their_fingerprints(tested, recipe, split, fingerprint, ranked):
    runs = read_runs(
        [
            tested("a", 8.0, recipe=recipe, split=split, fingerprint="one"),
            tested("b", 9.0, recipe=recipe, split=split, fingerprint=fingerprint, label_smoothing=0.05),
        ]
    )
    assert (verdict(runs) == NOT_THE_SAME_IMAGES) is not ranked
    assert (to_the_first(runs)[1] == "+1.00") is ranked
    assert PERHAPS_NOT not in verdict(runs)


@pytest.mark.parametrize(
    ("other", "ranked"),
    [
        ({"images": 50}, True),
        ({"images": 49, "skipped": ["test/a/1.png"]}, True),
        ({"images": None}, True),
        ({"images": 49}, False),
    ],
)
def test_a_change_in_a_folder_leaves_in_doubt_whether_its_test_images_are_the_same(tested, other, ranked):
    """Another share held out gives the folder another fingerprint, and so does another test image."""
    held_out = dataset("folder.scratch", validation_fraction=0.2)
    runs = read_runs(
        [tested("a", 8.0, fingerprint="one"), tested("b", 9.0, fingerprint="another", dataset=held_out, **other)]
    )
    for both in (runs, runs[::-1]):
        assert verdict(both) == (
            "a has the lowest test error, 8.00 %, 1.00 points below b. One run each: a difference between seeds can be "
            f"as large. {PERHAPS_NOT}"
            if ranked
            else NOT_THE_SAME_IMAGES
        )
    assert (to_the_first(runs)[1] == "+1.00") is ranked


def test_seeds_between_which_a_training_image_was_taken_out_are_averaged(tested):
    runs = read_runs(
        [tested("seed0", 8.0, seed=0, fingerprint="all"), tested("seed1", 9.0, seed=1, fingerprint="without one")]
    )
    assert verdict(runs) == (
        "The specs differ in the seed alone: test error 8.50 % on average, 8.00 to 9.00 %, standard deviation 0.71 "
        f"points. {PERHAPS_NOT}"
    )


@pytest.mark.parametrize(("split", "end"), [("validation", NOT_THE_SAME_IMAGES), ("test", PERHAPS_NOT)])
@pytest.mark.parametrize("field", ["seed", "label_smoothing"])
def test_the_order_of_the_runs_does_not_decide_whether_they_are_ranked(tested, split, end, field):
    """A run without a fingerprint agrees with two runs that do not agree with one another."""
    values = (0, 1, 2) if field == "seed" else (0.0, 0.05, 0.1)
    runs = read_runs(
        [
            tested(name, error, split=split, fingerprint=fingerprint, **{field: value})
            for (name, error, fingerprint), value in zip(
                [("a", 7.0, None), ("b", 8.0, "one"), ("c", 9.0, "two")], values, strict=True
            )
        ]
    )
    verdicts = {verdict(order) for order in itertools.permutations(runs)}
    assert len(verdicts) == 1
    assert verdicts.pop().endswith(end)


def test_seeds_over_different_images_are_in_no_mean_together(tested):
    """The first of the group has no fingerprint, so both of the others agree with it."""
    runs = read_runs(
        [
            tested(f"seed{seed}", 8.0 + seed, seed=seed, split="validation", fingerprint=fingerprint)
            for seed, fingerprint in enumerate((None, "one", "two", "one"))
        ]
    )
    assert [row[0] for row in seeds_table(runs).rows] == ["seed0, seed1 and seed3", "seed2"]


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
