"""What class counts say: classes empty, alone, unknown, missing, unbalanced, or numbered out of order."""

import pytest

from resnets.data.class_findings import class_findings


def found(counts, limit=10.0):
    return [(finding.kind, finding.paths[0]) for finding in class_findings(counts, max_imbalance=limit)]


def test_classes_alike_have_no_findings():
    assert found({"train": {"a": 9, "b": 9}, "validation": {"a": 1, "b": 1}, "test": {}}) == []
    assert found({"test": {"a": 1}}) == []  # a folder to test on


def test_classes_that_training_trips_over_are_named():
    counts = {"train": {"a": 0, "b": 1, "cat": 8}, "validation": {"b": 2, "cats": 3, "d": 0}}
    assert found(counts) == [
        ("empty-class", "a"),
        ("single-image-class", "b"),
        ("unknown-class", "cats"),
        ("missing-class", "cat"),
    ]
    details = [finding.detail for finding in class_findings(counts, max_imbalance=10.0)]
    assert details[2] == "3 validation images of a class that is not trained. Did you mean cat?"
    assert found({"train": {"a": 5, "b": 0}}) == [("empty-class", "b"), ("single-class", "a")]


@pytest.mark.parametrize(("small", "named"), [(10, False), (9, True)])
def test_imbalance_is_named_above_its_limit(small, named):
    assert found({"train": {"a": 100, "b": small}}) == ([("imbalance", "a")] if named else [])


def test_numbers_whose_order_is_not_that_of_the_names_are_named():
    assert found({"train": dict.fromkeys(map(str, range(10)), 5)}) == []
    assert found({"train": dict.fromkeys((f"{n:02}" for n in range(20)), 5)}) == []
    (finding,) = class_findings({"train": dict.fromkeys(map(str, range(1, 13)), 5)}, max_imbalance=10.0)
    assert (finding.kind, finding.paths[0]) == ("numbered-classes", "10")
    assert finding.detail == "labels 0, 1, 2, … are the classes 1, 10, 11, 12, 2, …"


def test_imagenets_ids_are_named_even_where_padded_and_wnids_are_fine():
    padded = {"train": dict.fromkeys((f"{n:04}" for n in range(1, 1001)), 5)}
    (finding,) = class_findings(padded, max_imbalance=10.0)
    assert "ILSVRC ids" in finding.detail
    assert "labels 0" not in finding.detail
    (finding,) = class_findings({"train": dict.fromkeys(map(str, range(1, 1001)), 5)}, max_imbalance=10.0)
    assert "labels 0, 1, 2, … are the classes 1, 10, 100, 1000, 101" in finding.detail
    assert "ILSVRC ids" in finding.detail
    assert found({"train": dict.fromkeys((f"n{n:08}" for n in range(1, 1001)), 5)}) == []
