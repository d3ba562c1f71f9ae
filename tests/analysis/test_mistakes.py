"""Mistakes, against loops over the images and scikit-learn."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import confusion_matrix as reference_matrix
from sklearn.metrics import recall_score

from resnets.analysis.mistakes import (
    ConfusedPair,
    confusion_matrix,
    errors_by_class,
    most_confident_mistakes,
    most_confused_pairs,
)
from resnets.specs.errors import DataError


@st.composite
def scored(draw):
    """Probabilities from few values, so that ties are common, and labels."""
    classes = draw(st.integers(2, 5))
    images = draw(st.integers(1, 25))
    weights = st.lists(st.integers(0, 3), min_size=classes, max_size=classes).filter(any)
    rows = np.array(draw(st.lists(weights, min_size=images, max_size=images)), np.float64)
    labels = draw(st.lists(st.integers(0, classes - 1), min_size=images, max_size=images))
    return rows / rows.sum(1, keepdims=True), np.array(labels)


@given(scored())
def test_the_confusion_matrix_is_that_of_scikit_learn(case):
    probabilities, labels = case
    expected = reference_matrix(labels, probabilities.argmax(1), labels=range(probabilities.shape[1]))
    assert np.array_equal(confusion_matrix(probabilities, labels), expected)


@given(scored(), st.integers(0, 30))
def test_mistakes_are_the_wrong_images_from_sure_to_unsure(case, most):
    probabilities, labels = case
    wrong = []
    for index, (row, label) in enumerate(zip(probabilities.tolist(), labels.tolist(), strict=True)):
        ranked = sorted(range(len(row)), key=lambda column: (-row[column], column))
        if ranked[0] != label:
            wrong.append((-max(row), index, label, ranked[0], row[label], ranked.index(label) + 1))
    found = [
        (-one.probability, one.index, one.label, one.predicted, one.label_probability, one.label_rank)
        for one in most_confident_mistakes(probabilities, labels, most=most)
    ]
    assert found == sorted(wrong)[:most]


@given(scored())
def test_errors_of_classes_are_counted_image_by_image(case):
    probabilities, labels = case
    predicted = probabilities.argmax(1)
    classes = probabilities.shape[1]
    results = errors_by_class(probabilities, labels)
    assert [one.label for one in results] == list(range(classes))
    for one in results:
        own = labels == one.label
        assert one.images == own.sum()
        assert one.errors == (own & (predicted != one.label)).sum()
        assert one.false_alarms == (~own & (predicted == one.label)).sum()
        assert (one.error is None) == (one.images == 0)
        taken_for = [int(((predicted == other) & own).sum()) if other != one.label else -1 for other in range(classes)]
        expected = taken_for.index(max(taken_for)) if one.errors else None
        assert one.most_often_taken_for == expected
    assert sum(one.errors for one in results) == sum(one.false_alarms for one in results)


def test_the_error_of_a_class_is_what_its_recall_lacks():
    random = np.random.default_rng(0)
    probabilities, labels = random.dirichlet(np.ones(7), 500), random.integers(7, size=500)
    recall = recall_score(labels, probabilities.argmax(1), average=None)
    assert [one.error for one in errors_by_class(probabilities, labels)] == pytest.approx(100 - 100 * recall)


@given(scored())
def test_pairs_count_both_directions_and_hold_every_mistake(case):
    probabilities, labels = case
    predicted = probabilities.argmax(1)
    pairs = most_confused_pairs(probabilities, labels, most=1000)
    for pair in pairs:
        assert pair.first < pair.second
        assert pair.first_as_second == ((labels == pair.first) & (predicted == pair.second)).sum()
        assert pair.second_as_first == ((labels == pair.second) & (predicted == pair.first)).sum()
        assert pair.images == ((labels == pair.first) | (labels == pair.second)).sum()
    assert sum(pair.mistakes for pair in pairs) == (predicted != labels).sum()
    order = [(-pair.mistakes, pair.first, pair.second) for pair in pairs]
    assert order == sorted(order)


def test_the_worst_pair_of_a_small_example():
    probabilities = np.eye(3)[[1, 0, 1, 2, 2, 0]]
    labels = np.array([0, 1, 1, 2, 1, 0])
    first, second = most_confused_pairs(probabilities, labels)
    assert first == ConfusedPair(first=0, second=1, first_as_second=1, second_as_first=1, images=5)
    assert (second.first, second.second, second.first_as_second, second.second_as_first) == (1, 2, 1, 0)
    assert len(most_confused_pairs(probabilities, labels, most=1)) == 1


def test_a_perfect_classifier_has_no_mistakes():
    labels = np.arange(4)
    assert most_confident_mistakes(np.eye(4), labels) == []
    assert most_confused_pairs(np.eye(4), labels) == []
    assert {one.error for one in errors_by_class(np.eye(4), labels)} == {0.0}


def test_images_that_could_not_be_read_are_refused():
    probabilities = np.array([[0.5, 0.5], [np.nan, np.nan]])
    for function in (confusion_matrix, most_confident_mistakes, errors_by_class, most_confused_pairs):
        with pytest.raises(DataError, match="Leave out images that could not be read"):
            function(probabilities, np.array([0, 1]))
