"""The numbers of Tables 2 to 5 and 7 to 14, typed a second time cell by cell, and what the text says about them.

A typing mistake in `paper/` would otherwise become the paper's number.
"""

import json
import statistics

import numpy as np
import pytest
from PIL import Image

from resnets.paper import (
    table2,
    table3,
    table4,
    table5,
    table7,
    table8,
    table9,
    table10,
    table11,
    table12,
    table13,
    table14,
)
from resnets.paper.core import protocols
from resnets.paper.core.execute import fill
from resnets.paper.core.experiment import Computed, FromRuns, NotRun, Unavailable
from resnets.paper.core.find import experiment, experiment_names
from resnets.paper.core.published import ARITHMETIC, out_of_order
from resnets.paper.core.verdict import Above, judge
from resnets.paper.core.workshop import Settings
from resnets.specs.protocol import Dense, TenCrop

NUMBERED = [f"table{number}" for number in (2, 3, 4, 5, 7, 8, 9, 10, 11, 12, 13, 14)]


def rows(name):
    return experiment(name).rows


def published(name):
    """Return the paper's numbers of rows that wait for runs, or stay empty: (run, meaning) to number."""
    found = [row for row in rows(name) if not isinstance(row.ours, Computed)]
    cells = {(row.run, row.meaning): row.paper for row in found}
    assert len(cells) == len(found), "every row has a name of its own"
    return cells


def column(name, meaning):
    """Return the paper's numbers of one kind by the first word of the row."""
    return {run.partition(" (imagenet")[0]: paper for (run, what), paper in published(name).items() if what == meaning}


def test_table_2():
    assert column("table2", "top-1 error, %, ten-crop") == {
        "plain-18": 27.94, "plain-34": 28.54, "ResNet-18": 27.88, "ResNet-34": 25.03,
    }  # fmt: skip


def test_table_3():
    assert column("table3", "top-1 error, %, ten-crop") == {
        "VGG-16 (tested by the authors)": 28.07, "PReLU-net": 24.27,
        "plain-34": 28.54, "ResNet-34 A": 25.03, "ResNet-34 B": 24.52, "ResNet-34 C": 24.19,
        "ResNet-50": 22.85, "ResNet-101": 21.75, "ResNet-152": 21.43,
    }  # fmt: skip
    assert column("table3", "top-5 error, %, ten-crop") == {
        "VGG-16 (tested by the authors)": 9.33, "GoogLeNet": 9.15, "PReLU-net": 7.38,
        "plain-34": 10.02, "ResNet-34 A": 7.76, "ResNet-34 B": 7.46, "ResNet-34 C": 7.40,
        "ResNet-50": 6.71, "ResNet-101": 6.05, "ResNet-152": 5.71,
    }  # fmt: skip


def test_table_4():
    assert column("table4", "top-1 error, %, dense") == {
        "VGG (v5)": 24.4, "PReLU-net": 21.59, "BN-inception": 21.99,
        "ResNet-34 B": 21.84, "ResNet-34 C": 21.53, "ResNet-50": 20.74, "ResNet-101": 19.87, "ResNet-152": 19.38,
    }  # fmt: skip
    assert column("table4", "top-5 error, %, dense") == {
        "VGG (ILSVRC'14)": 8.43, "GoogLeNet (ILSVRC'14)": 7.89, "VGG (v5)": 7.1, "PReLU-net": 5.71,
        "BN-inception": 5.81, "ResNet-34 B": 5.71, "ResNet-34 C": 5.60, "ResNet-50": 5.25, "ResNet-101": 4.60,
        "ResNet-152": 4.49,
    }  # fmt: skip


def test_table_5():
    assert list(published("table5").values()) == [7.32, 6.66, 6.8, 4.94, 4.82, 3.57]


def test_tables_7_and_8():
    assert list(published("table7").values()) == [73.2, 76.4, 70.4, 73.8]
    assert list(published("table8").values()) == [41.5, 48.4, 21.2, 27.2]


def test_table_9():
    assert [paper for (_, what), paper in published("table9").items() if what.startswith("mAP at IoU 0.5, ")] == [
        41.5, 48.4, 49.9, 51.1, 53.8, 53.3, 55.7, 59.0,
    ]  # fmt: skip
    assert [paper for (_, what), paper in published("table9").items() if "0.95" in what] == [
        21.2, 27.2, 29.9, 30.0, 32.5, 32.2, 34.9, 37.4,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("table", "system", "cells"),
    [
        (
            table10,
            "VGG-16 baseline (07+12)",
            {"aeroplane": 76.5, "bottle": 52.1, "pottedplant": 38.8, "tvmonitor": 72.6},
        ),
        (table10, "ResNet-101 baseline (07+12)", {"bicycle": 80.7, "cat": 89.8, "cow": 87.8, "tvmonitor": 72.0}),
        (table10, "ResNet-101 baseline+++ (COCO+07+12)", {"bird": 87.8, "chair": 75.5, "horse": 90.3, "sofa": 85.6}),
        (table11, "VGG-16 baseline (07++12)", {"aeroplane": 84.9, "chair": 45.6, "diningtable": 55.3, "train": 81.2}),
        (table11, "ResNet-101 baseline (07++12)", {"boat": 58.0, "dog": 92.1, "person": 80.7, "tvmonitor": 65.6}),
        (
            table11,
            "ResNet-101 baseline+++ (COCO+07++12)",
            {"bus": 86.3, "car": 87.8, "pottedplant": 67.9, "sheep": 88.2},
        ),
    ],
)
def test_classes_of_tables_10_and_11(table, system, cells):
    found = column(table.__name__.rpartition(".")[2], f"average precision, %: {system}")
    assert len(found) == 20
    assert {name: found[name] for name in cells} == cells
    assert statistics.fmean(found.values()) == pytest.approx(table.PUBLISHED[system][0], abs=0.1)


def test_means_of_tables_10_and_11_are_those_of_table_7():
    for table, test in ((table10, "VOC 2007 test, trained on 07+12"), (table11, "VOC 2012 test, trained on 07++12")):
        means = [mean for mean, _ in table.PUBLISHED.values()]
        assert means[:2] == list(table7.PUBLISHED[test].values())
    assert [table10.PUBLISHED["ResNet-101 baseline+++ (COCO+07+12)"][0]] == [85.6]
    assert [table11.PUBLISHED["ResNet-101 baseline+++ (COCO+07++12)"][0]] == [83.8]


def test_tables_12_to_14():
    assert list(published("table12").values()) == [60.5, 63.6, 43.9, 58.8, 62.1]
    assert list(published("table13").values()) == [33.1, 13.3, 11.7, 14.4, 10.6, 8.9]
    assert list(published("table14").values()) == [30.0, 26.9, 8.9, 29.9, 26.7, 25.3, 9.0]


def test_numbers_that_stand_in_several_tables_are_the_same():
    assert table2.PUBLISHED["plain-34"] == table3.PUBLISHED["plain-34"][0]
    assert table2.PUBLISHED["ResNet-34"] == table3.PUBLISHED["ResNet-34 A"][0]
    assert table4.PUBLISHED["ResNet-152"][1] == table5.SINGLE_RESNET_152
    coco = [values for metric, values in table8.PUBLISHED.items()]
    assert table9.PUBLISHED_VAL["VGG-16 baseline"] == tuple(values["VGG-16"] for values in coco)
    assert table9.PUBLISHED_VAL["ResNet-101 baseline"] == tuple(values["ResNet-101"] for values in coco)


def test_depth_and_every_improvement_help():
    for errors in (table3.PUBLISHED, table4.PUBLISHED):
        for place in (0, 1):
            values = [one[place] for one in errors.values()]
            assert values == sorted(values, reverse=True)
    for place in (0, 1):
        values = [one[place] for one in table9.PUBLISHED_VAL.values()]
        assert values == sorted(values)
        assert sorted(one[place] for one in table9.PUBLISHED_TEST_DEV.values())[-1] == (59.0, 37.4)[place]


@pytest.mark.parametrize(
    ("difference", "text"),
    [
        (table2.difference("plain-34", "ResNet-34"), 3.5),
        (table4.printed_gain("ResNet-34 B"), 2.68),
        (table4.printed_gain("ResNet-50"), 2.11),
        (table4.printed_gain("ResNet-101"), 1.88),
        (table4.printed_gain("ResNet-152"), 2.05),
        (table8.gain(table8.AT_50), 6.9),
        (table8.gain(table8.AT_ALL), 6.0),
        (100 * (25.3 - table14.PUBLISHED[table14.TEST]) / 25.3, 64.4),
        (table12.PUBLISHED["ensemble of 3 (ILSVRC'15)"][table12.TEST] - 58.8, 3.3),
        (table13.PUBLISHED_VGG - table13.PUBLISHED_GIVEN["RPN (ResNet-101, 1-crop)"], 19.8),
    ],
)
def test_differences_are_those_of_the_text(difference, text):
    assert difference == pytest.approx(text, abs=0.05)


@pytest.mark.parametrize("name", NUMBERED)
def test_every_computed_row_passes_and_says_whether_it_is_about_the_paper_or_ours(name):
    computed = [row for row in rows(name) if isinstance(row.ours, Computed)]
    assert computed
    for row in computed:
        ours = "our " in row.run or "our nets" in row.run or "--" in row.run
        assert row.meaning.startswith(ARITHMETIC) != ours, "a number of the paper must not look like ours"
        assert judge(row.rule, row.ours.value(), row.paper) == "PASS", row.run


@pytest.mark.parametrize("name", NUMBERED)
def test_rows_fit_their_columns_and_say_where_they_come_from(name):
    for row in rows(name):
        assert 0 < len(row.run) <= 40, row.run
        assert row.source
        assert isinstance(row.ours, Computed) == (row.budget == "check")


@pytest.mark.parametrize("name", NUMBERED)
def test_json_of_an_empty_table_has_null_and_a_reason_in_every_row_that_is_not_computed(name, tmp_path):
    outcome = fill(name, experiment(name), Settings(run_root=tmp_path, roots=()))
    document = json.loads(json.dumps(outcome.to_json(), allow_nan=False))
    assert document["experiment"] == name
    assert len(document["rows"]) == len(rows(name))
    for row in document["rows"]:
        if row["budget"] == "check":
            assert row["ours"] is not None
        else:
            assert row["ours"] is None
            assert row["delta"] is None
            assert len(row["reason"]) > 20
            assert row["paper"] is not None
    assert not list(tmp_path.iterdir())


def test_detection_and_localisation_say_what_is_missing_and_what_would_fill_them():
    for name in NUMBERED[4:]:
        reasons = {row.ours.reason for row in rows(name) if isinstance(row.ours, NotRun)}
        own = [reason for reason in reasons if "another group" not in reason]
        assert len(own) == 1
        assert "this package has no" in own[0]
        assert "you supply" in own[0]
        assert f"resnets reproduce {name} --budget full" in own[0]


def test_rows_of_imagenet_name_their_recipes():
    recipes = {plan.spec.recipe for name in NUMBERED for row in rows(name) if isinstance(row.ours, FromRuns) for plan in row.ours.runs}  # fmt: skip
    assert recipes == {
        f"imagenet.{net}"
        for net in ("plain18", "plain34", "resnet18_a", "resnet34_a", "resnet34", "resnet34_c", "resnet50", "resnet101",
                    "resnet152")
    }  # fmt: skip


def test_all_tables_of_the_paper_are_there():
    assert {f"table{number}" for number in range(1, 15)} <= set(experiment_names())


@pytest.mark.parametrize("name", ["table2", "table3", "table4", "table5"])
def test_tables_of_imagenet_check_this_package_s_code_too(name):
    assert any(isinstance(row.ours, Computed) and row.meaning.startswith("largest difference") for row in rows(name))


@pytest.mark.parametrize("protocol", [TenCrop(), Dense(), Dense(form="global")])
def test_an_average_of_logits_would_fail_the_check_of_a_test_mode(protocol):
    assert protocols.seen_under(protocol).difference < 1e-5
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 11, 3), dtype=np.uint8)).resize((341, 256))
    softmax, logits = (
        protocols.scores_by_hand(image, protocol, protocols.MEAN_COLOURS, of_logits=wrong) for wrong in (False, True)
    )
    assert abs(softmax - logits).max() > 1e-4


@pytest.mark.parametrize(
    ("other", "views"), [(TenCrop(corners="square"), 10), (Dense(flips=False), 5), (Dense(scales_px=(224,)), 2)]
)
def test_another_form_of_a_test_mode_fails_its_check(other, views):
    seen = protocols.seen_under(other)
    assert seen.views == views
    assert seen.difference > 1e-4


@pytest.mark.parametrize("counts", [(9, 11), (11, 9), (10, 11), (9, 10)])
def test_views_are_counted_for_each_image(monkeypatch, counts):
    def as_many(protocol, split, inputs):
        for seen, count in zip(inputs, counts, strict=True):
            seen.update({bytes([number]): 256 for number in range(count)})
        return np.zeros((2, 3))

    monkeypatch.setattr(protocols, "_our_scores", as_many)
    assert protocols.seen_under.__wrapped__(TenCrop()).views in set(counts) - {10}


def test_without_a_folder_for_temporary_files_the_checks_of_the_test_modes_stay_empty(monkeypatch):
    def nowhere():
        raise FileNotFoundError(2, "No usable temporary directory found in ['/tmp']")

    monkeypatch.setattr(protocols.tempfile, "TemporaryDirectory", nowhere)
    with pytest.raises(Unavailable, match="temporary files: No usable temporary directory found"):
        protocols.seen_under.__wrapped__(TenCrop())


@pytest.mark.parametrize(("table", "limit", "printed"), [("table7", 3, "> 3"), ("table9", 2, "over 2")])
def test_more_than_a_number_is_no_number_of_the_paper(table, limit, printed):
    found = [row for row in rows(table) if isinstance(row.rule, Above)]
    assert found
    assert {(row.rule.limit, row.paper, row.printed) for row in found} == {(limit, limit, printed)}


def test_order_is_counted_pair_by_pair():
    assert out_of_order([3, 2, 1]) == 0
    assert out_of_order([1, 1, 2]) == 2
    assert out_of_order([1]) == 0
