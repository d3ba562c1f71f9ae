"""Calibration, against definitions written out image by image and against scikit-learn."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve
from sklearn.metrics import log_loss

from resnets.metrics.calibration import SMALLEST_PROBABILITY, calibration
from resnets.specs.errors import DataError


def softmax(logits):
    scores = np.exp(logits - logits.max(1, keepdims=True))
    return scores / scores.sum(1, keepdims=True)


def random_scores(images=400, classes=6, sharpness=3.0):
    random = np.random.default_rng(1)
    return softmax(sharpness * random.normal(size=(images, classes))), random.integers(classes, size=images)


def brute_force(probabilities, labels, bins):
    """Return the expected calibration error and the images of each bin, one image at a time."""
    members = [[] for _ in range(bins)]
    for row, label in zip(probabilities.tolist(), labels.tolist(), strict=True):
        predicted = row.index(max(row))
        place = next(index for index in range(bins) if max(row) <= (index + 1) / bins + 1e-15)
        members[place].append((max(row), predicted == label))
    gaps = [
        abs(sum(hit for _, hit in group) / len(group) - sum(confidence for confidence, _ in group) / len(group))
        * len(group)
        for group in members
        if group
    ]
    return 100 * sum(gaps) / len(labels), [len(group) for group in members]


@given(images=st.integers(1, 40), classes=st.integers(2, 5), bins=st.integers(1, 20), seed=st.integers(0, 99))
def test_the_error_is_that_of_the_definition(images, classes, bins, seed):
    random = np.random.default_rng(seed)
    probabilities = softmax(4 * random.normal(size=(images, classes)))
    labels = random.integers(classes, size=images)
    result = calibration(probabilities, labels, bins=bins)
    error, counts = brute_force(probabilities, labels, bins)
    assert result.expected_calibration_error == pytest.approx(error)
    assert [one.images for one in result.bins] == counts
    assert result.maximum_calibration_error >= result.expected_calibration_error - 1e-9


def test_bins_are_those_of_scikit_learn():
    probabilities, labels = random_scores()
    hits = probabilities.argmax(1) == labels
    accuracies, confidences = calibration_curve(hits, probabilities.max(1), n_bins=10)
    full = [one for one in calibration(probabilities, labels, bins=10).bins if one.images]
    assert [one.accuracy for one in full] == pytest.approx(100 * accuracies)
    assert [one.confidence for one in full] == pytest.approx(100 * confidences)


def test_the_likelihood_is_that_of_scikit_learn():
    probabilities, labels = random_scores()
    expected = log_loss(labels, probabilities, labels=range(6))
    assert calibration(probabilities, labels).negative_log_likelihood == pytest.approx(expected)


def test_probabilities_that_come_true_as_often_as_they_say_have_no_error():
    # Of ten images with 0.7, seven are right; of ten with 0.9, nine.
    rows = np.array([[0.7, 0.3]] * 10 + [[0.9, 0.1]] * 10)
    labels = np.array([0] * 7 + [1] * 3 + [0] * 9 + [1])
    result = calibration(rows, labels)
    assert result.expected_calibration_error == pytest.approx(0, abs=1e-12)
    assert result.confidence == pytest.approx(result.accuracy) == pytest.approx(80)


def test_one_bin_is_the_gap_of_the_averages():
    probabilities, labels = random_scores()
    result = calibration(probabilities, labels, bins=1)
    assert result.expected_calibration_error == pytest.approx(abs(result.confidence - result.accuracy))


def test_a_probability_on_an_edge_belongs_to_the_bin_below():
    result = calibration(np.array([[0.5, 0.5], [1.0, 0.0]]), np.array([0, 0]), bins=2)
    assert [one.images for one in result.bins] == [1, 1]
    assert [(one.lower, one.upper) for one in result.bins] == [(0, 50), (50, 100)]


def test_a_label_without_probability_leaves_the_likelihood_finite():
    result = calibration(np.array([[1.0, 0.0]], np.float32), np.array([1]))
    assert result.negative_log_likelihood == pytest.approx(-math.log(SMALLEST_PROBABILITY))


@pytest.mark.parametrize(
    ("probabilities", "labels", "message"),
    [
        (np.zeros((0, 3)), np.zeros(0, np.int64), "no images"),
        (np.array([[0.5, 0.5], [np.nan, np.nan]]), np.array([0, 1]), "Row 1 is no list of probabilities"),
        (np.array([[2.0, -1.0]]), np.array([0]), "Row 0"),
        (np.array([[3.1, 1.2]]), np.array([0]), "not logits"),
        (np.array([[0.5, 0.5]]), np.array([2]), "there are 2 classes"),
        (np.array([[0.5, 0.5]]), np.array([-1]), "Labels go from -1"),
        (np.array([[0.5, 0.5]]), np.array([0, 1]), "whole number for each image"),
        (np.array([[0.5, 0.5]]), np.array([0.0]), "whole number for each image"),
    ],
)
def test_what_are_no_probabilities_and_labels_is_refused(probabilities, labels, message):
    with pytest.raises(DataError, match=message):
        calibration(probabilities, labels)


def test_there_is_at_least_one_bin():
    with pytest.raises(ValueError, match="bins is 0"):
        calibration(np.array([[0.5, 0.5]]), np.array([0]), bins=0)
