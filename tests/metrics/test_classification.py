import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import confusion_matrix, log_loss, top_k_accuracy_score

from resnets.metrics.classification import ClassificationMeter, distinct, top_k_hits
from resnets.specs.errors import DataError


@st.composite
def scored_images(draw, min_classes=2, max_classes=8):
    """Logits from few values, so that ties are common, and labels."""
    classes = draw(st.integers(min_classes, max_classes))
    images = draw(st.integers(1, 12))
    values = st.sampled_from([-1.5, 0.0, 0.25, 3.0, float("nan")])
    rows = st.lists(st.lists(values, min_size=classes, max_size=classes), min_size=images, max_size=images)
    labels = st.lists(st.integers(0, classes - 1), min_size=images, max_size=images)
    return torch.tensor(draw(rows)), torch.tensor(draw(labels))


def ranking(row):
    """Class indices from the highest score to the lowest, ties by index; nothing when a score is NaN."""
    return [] if any(np.isnan(row)) else sorted(range(len(row)), key=lambda index: (-row[index], index))


def names(count):
    return [f"class {index}" for index in range(count)]


@given(scored_images(), st.integers(1, 6))
def test_top_k_hits_equal_a_sort_of_every_row(scored, k):
    logits, labels = scored
    expected = [label in ranking(row)[:k] for row, label in zip(logits.tolist(), labels.tolist(), strict=True)]
    assert top_k_hits(logits, labels, k).tolist() == expected


@given(scored_images(max_classes=5))
def test_with_as_many_places_as_classes_only_nan_is_an_error(scored):
    logits, labels = scored
    assert torch.equal(top_k_hits(logits, labels, logits.shape[1]), ~logits.isnan().any(1))


@given(scored_images(), st.integers(0, 12))
def test_batches_and_states_add_up_to_one_update(scored, cut):
    logits, labels = scored
    classes = names(logits.shape[1])
    whole, first, second = (ClassificationMeter(classes) for _ in range(3))
    whole.update(logits, labels)
    first.update(logits[:cut], labels[:cut])
    second.update(logits[cut:], labels[cut:])
    merged = ClassificationMeter.from_state(classes, first.state() + second.state())
    torch.testing.assert_close(merged.state(), whole.state(), equal_nan=True)
    first.update(logits[cut:], labels[cut:])
    torch.testing.assert_close(first.state(), whole.state(), equal_nan=True)


@given(scored_images())
def test_confusion_holds_every_image_that_has_a_prediction(scored):
    logits, labels = scored
    meter = ClassificationMeter(names(logits.shape[1]))
    meter.update(logits, labels)
    result = meter.result()
    confusion = np.zeros((logits.shape[1],) * 2, int)
    for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
        if order := ranking(row):
            confusion[label, order[0]] += 1
    assert np.array_equal(result.confusion, confusion)
    assert confusion.sum() + result.without_prediction == result.images == len(labels)
    assert result.top1_error == pytest.approx(100 - 100 * np.trace(confusion) / len(labels))


def test_results_equal_those_of_scikit_learn():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(500, 10, generator=generator)
    labels = torch.randint(10, (500,), generator=generator)
    meter = ClassificationMeter(names(10))
    for part in torch.arange(500).split(96):
        meter.update(logits[part], labels[part])
    result = meter.result()
    probabilities = logits.double().softmax(1).numpy()
    assert result.loss == pytest.approx(log_loss(labels, probabilities, labels=range(10)))
    assert result.top1_error == pytest.approx(100 - 100 * top_k_accuracy_score(labels, probabilities, k=1))
    assert result.top5_error == pytest.approx(100 - 100 * top_k_accuracy_score(labels, probabilities, k=5))
    confusion = confusion_matrix(labels, probabilities.argmax(1))
    assert np.array_equal(result.confusion, confusion)
    expected = 100 - 100 * np.diag(confusion) / confusion.sum(1)
    assert list(result.per_class_errors.values()) == pytest.approx(expected.tolist())


def test_error_of_a_class_without_images_is_unknown():
    meter = ClassificationMeter(["cat", "dog", "fox"])
    meter.update(torch.eye(3)[[0, 0]], torch.tensor([0, 1]))
    assert meter.result().per_class_errors == {"cat": 0.0, "dog": 100.0, "fox": None}


@pytest.mark.parametrize(("classes", "known"), [(5, False), (6, True)])
def test_top5_error_exists_from_six_classes_on(classes, known):
    meter = ClassificationMeter(names(classes))
    meter.update(torch.zeros(1, classes), torch.tensor([0]))
    assert (meter.result().top5_error is not None) == known


def test_a_net_that_scores_all_classes_alike_is_right_only_for_the_first():
    meter = ClassificationMeter(names(10))
    meter.update(torch.zeros(10, 10), torch.arange(10))
    assert meter.result().top1_error == pytest.approx(90.0)
    assert meter.result().top5_error == pytest.approx(50.0)


def test_half_precision_logits_lose_nothing_but_their_own_precision():
    logits = torch.linspace(-2, 2, 60).reshape(10, 6).bfloat16()
    labels = torch.arange(10) % 6
    half, single = ClassificationMeter(names(6)), ClassificationMeter(names(6))
    half.update(logits, labels)
    single.update(logits.float(), labels)
    assert half.result() == single.result()


def test_a_meter_without_images_has_no_result():
    with pytest.raises(DataError, match="No image was scored"):
        ClassificationMeter(["cat", "dog"]).result()


def test_logits_of_another_number_of_classes_are_refused():
    with pytest.raises(ValueError, match="3 columns; there are 2 classes"):
        ClassificationMeter(["cat", "dog"]).update(torch.zeros(1, 3), torch.tensor([0]))


def test_a_state_of_another_number_of_classes_is_refused():
    with pytest.raises(ValueError, match="14 entries"):
        ClassificationMeter.from_state(["cat", "dog"], ClassificationMeter(names(3)).state())


def test_classes_of_the_same_name_keep_their_own_errors():
    meter = ClassificationMeter(("crane", "rose", "crane"))
    meter.update(torch.eye(3)[[0, 1, 1]], torch.tensor([0, 1, 2]))
    assert meter.result().per_class_errors == {"crane": 0.0, "rose": 0.0, "crane (2)": 100.0}


@given(st.lists(st.sampled_from(["a", "a (2)", "a (3)", "a (2) (2)", "b"]), max_size=8))
def test_distinct_names_are_distinct_and_keep_the_first_of_each(names):
    results = distinct(names)
    assert len(set(results)) == len(results) == len(names)
    for place, (name, result) in enumerate(zip(names, results, strict=True)):
        assert (result == name) == (name not in names[:place])


def test_images_without_a_prediction_count_in_their_class():
    meter = ClassificationMeter(["cat", "dog", "fox"])
    nan = float("nan")
    meter.update(torch.tensor([[nan, 0.0, 0.0], [0.0, 1.0, 0.0], [nan, nan, nan]]), torch.tensor([0, 1, 1]))
    result = meter.result()
    assert result.per_class_images == {"cat": 1, "dog": 2, "fox": 0}
    assert result.per_class_errors == {"cat": 100.0, "dog": 50.0, "fox": None}
    assert result.without_prediction == 2
