"""The page: what it says is what the run's files say, it needs nothing else, and no text in it becomes markup."""

import base64
import dataclasses
import hashlib
import itertools
import json
import math
import re
import shutil
import statistics
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import resnets
from resnets.analysis import mistakes as analysis
from resnets.analysis.layers import Layer
from resnets.analysis.responses import LayerResponse
from resnets.metrics.calibration import calibration
from resnets.metrics.classification import ClassificationResult, distinct
from resnets.report import build
from resnets.report import page as page_module
from resnets.report.build import write_report
from resnets.report.examination import Examination, overlap
from resnets.report.mistake_pictures import MistakePicture
from resnets.report.page import render
from resnets.report.part import Missing, RunPart
from resnets.report.run_figures import error_figure
from resnets.report.run_record import read_runs
from resnets.report.text import printable
from resnets.report.views import page_view
from resnets.specs.errors import DataError, RunError, UserError
from resnets.specs.run import Machine

CPU = Machine(device="cpu")


@pytest.fixture(scope="module")
def single(trained, tmp_path_factory):
    return write_report([trained / "residual"], out=tmp_path_factory.mktemp("report") / "report.html", machine=CPU)


@pytest.fixture(scope="module")
def double(trained, tmp_path_factory):
    out = tmp_path_factory.mktemp("report") / "report.html"
    return write_report([trained / "plain", trained / "residual"], out=out, machine=CPU)


def log_of(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def cells(html, caption):
    """Return the rows of the table with this caption."""
    table = html[html.index(f"<caption><span>{caption}") :].split("</table>")[0]
    rows = re.findall(r"<tr>(.*?)</tr>", table.split("<tbody>")[1], re.DOTALL)
    return [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.DOTALL) for row in rows]


def test_the_errors_are_those_of_the_log(single, trained, page):
    log = log_of(trained / "residual")
    evaluations = [entry for entry in log if entry["split"] == "test" and "final" not in entry]
    training = [entry for entry in log if entry["split"] == "train"]
    html = single.path.read_text()
    expected = []
    for entry in evaluations:
        before = [point for point in training if point["step"] <= entry["step"]][-1]
        errors = (before["top1_error"], entry["top1_error"], entry["top5_error"])
        expected.append([f"{entry['step']:,}", *(f"{error:.2f}" for error in errors)])
    assert cells(html, "Errors at each evaluation") == expected
    (final,) = (entry for entry in log if "final" in entry)
    assert final["skipped"] == []
    assert f"test error {final['top1_error']:.2f} % final weights, 360 images, 0 skipped" in page(html).text


def test_the_course_of_the_training_is_that_of_the_log(single, trained):
    html, training = single.path.read_text(), [entry for entry in log_of(trained / "residual") if "lr" in entry]
    assert cells(html, "Learning rate") == [[str(entry["step"]), f"{entry['lr']:.6g}"] for entry in training]
    # The first line is written before any rate was measured.
    training = [entry for entry in training if entry["images_per_second"]]
    speeds = [[str(entry["step"]), f"{entry['images_per_second']:,.1f}"] for entry in training]
    assert cells(html, "Throughput") == speeds
    waiting = [[str(entry["step"]), f"{100 * entry['waiting_share']:.1f}"] for entry in training]
    assert cells(html, "Waiting for images") == waiting


def test_a_line_before_any_rate_was_measured_counts_for_none(written, lines):
    unmeasured = lines[0] | {"step": 1, "images_per_second": 0.0, "waiting_share": 0.0}
    html = write_report([written(lines=[unmeasured, *lines])], machine=CPU).path.read_text()
    assert "Median 200 images a second over 2 lines of the log." in html
    assert cells(html, "Throughput") == [["10", "100.0"], ["20", "300.0"]]
    assert "Median 12.5" in html
    assert cells(html, "Waiting for images") == [["10", "25.0"], ["20", "0.0"]]
    html = write_report([written("short", lines=[unmeasured])], machine=CPU).path.read_text()
    assert "images a second" not in html
    assert "Throughput" not in html


def test_the_confusions_are_those_of_an_evaluation(single, trained):
    report = resnets.evaluate([trained / "residual"], data="digits", machine=CPU)
    rows = cells(single.path.read_text(), "Images of the test split by class")
    shown = [[0 if cell == "·" else int(cell) for cell in row[1:]] for row in rows]
    assert shown == report["confusion"]
    assert [row[0] for row in rows] == report["classes"]
    errors = {row[0]: row[2] for row in cells(single.path.read_text(), "Error of each class")}
    assert errors == {name: f"{error:.2f}" for name, error in report["per_class_errors"].items()}


def test_a_sentence_says_what_was_trained_and_how_much_of_the_recipe(single, page):
    text = page(single.path.read_text()).text.replace("\N{NO-BREAK SPACE}", " ")
    net = resnets.build("cifar-resnet8", num_classes=10, in_channels=1)
    parameters = sum(parameter.numel() for parameter in net.parameters())
    assert f"cifar-resnet8, a residual net of 8 layers, shortcut option A, with {parameters:,} parameters" in text
    assert "8 steps of 128 images" in text
    assert "Shortened: the recipe has 500 steps, of which this is 1.6 %." in text
    assert "divided by 10 at steps 4 and 6; fp32 arithmetic; seed 0." in text


def test_mistakes_come_with_their_pictures_and_maps(single, page):
    parsed = page(single.path.read_text())
    pictures = [attributes for tag, attributes in parsed.elements if tag == "img"]
    assert len(pictures) == 3 * len(single.parts[0].examination.pictures) > 0
    for attributes in pictures:
        kind, _, content = attributes["src"].partition(";base64,")
        start = {"data:image/png": b"\x89PNG", "data:image/webp": b"RIFF"}[kind]
        assert base64.b64decode(content).startswith(start)
    assert all("taken for" in attributes["alt"] for attributes in pictures[::3])


def test_responses_are_a_value_a_layer(single):
    (examination,) = (part.examination for part in single.parts)
    assert [one.layer.kernel for one in examination.responses] == [3] * 7
    rows = cells(single.path.read_text(), "Standard deviation of each layer")
    assert [row[2] for row in rows] == [f"{one.std:.4f}" for one in examination.responses]


@pytest.mark.parametrize("which", ["single", "double"])
def test_the_page_is_whole_and_needs_nothing_else(which, request, page):
    html = request.getfixturevalue(which).path.read_text()
    parsed = page(html)
    tags = [tag for tag, _ in parsed.elements]
    assert [tags.count(tag) for tag in ("html", "h1", "main")] == [1, 1, 1]
    assert not {"script", "iframe", "object", "embed", "form", "base", "video"} & set(tags)
    for tag, attributes in parsed.elements:
        assert not [name for name in attributes if name.startswith("on") or name == "style"]
        for name in ("src", "href"):
            if name in attributes:
                assert attributes[name].startswith(("data:", "#")), (tag, attributes[name][:50])
    assert not re.search(r"https?://|url\(|@import", html)
    assert len(html.encode()) < 500_000


@pytest.mark.parametrize("which", ["single", "double"])
def test_ids_are_unique_and_every_reference_resolves(which, request, page):
    parsed = page(request.getfixturevalue(which).path.read_text())
    ids = parsed.values("id")
    assert len(set(ids)) == len(ids)
    references = [link[1:] for link in parsed.values("href") if link.startswith("#")]
    for name in ("aria-labelledby", "aria-describedby"):
        references += [word for value in parsed.values(name) for word in value.split()]
    assert len(references) > 20
    assert set(references) <= set(ids)


def test_headings_step_down_one_level_at_a_time(double, page):
    levels = [int(tag[1]) for tag, _ in page(double.path.read_text()).elements if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert all(later <= earlier + 1 for earlier, later in itertools.pairwise(levels))


def test_whatever_scrolls_is_reached_by_keyboard_and_named(double, page):
    regions = [
        attributes
        for _, attributes in page(double.path.read_text()).elements
        if "scroll" in (attributes.get("class") or "")
    ]
    assert regions
    assert all(one["tabindex"] == "0" and one["role"] == "region" and one["aria-label"] for one in regions)


def test_every_chart_has_a_title_and_a_description(double, page):
    parsed = page(double.path.read_text())
    charts = [attributes for tag, attributes in parsed.elements if tag == "svg" and attributes.get("role") == "img"]
    described = [text for where, text in parsed.texts if where == "desc"]
    assert len(charts) == len(described) > 5
    assert all(len(text) > 20 for text in described)


def test_every_chart_has_its_numbers_in_a_table(double):
    figures = [figure for figure in double.path.read_text().split("<figure")[1:] if 'class="chart' in figure]
    assert len(figures) > 5
    assert all("<summary>The numbers:" in figure.split("</figure>")[0] for figure in figures)


def test_the_policy_allows_the_one_style_sheet_and_no_script(single, page):
    html = single.path.read_text()
    (policy,) = (attributes["content"] for _, attributes in page(html).elements if "http-equiv" in attributes)
    style = html.split("<style>")[1].split("</style>")[0]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert policy == (
        f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    )


def test_the_same_run_gives_the_same_bytes(single, trained, tmp_path):
    again = write_report([trained / "residual"], out=tmp_path / "again.html", machine=CPU)
    assert again.path.read_bytes() == single.path.read_bytes()


def test_a_comparison_names_the_fields_that_differ_and_the_differences_of_the_errors(double, trained, page):
    html = double.path.read_text()
    assert cells(html, "Fields that differ") == [
        ["model.shortcut", "none", "A"],
        ["recipe", "digits.plain8", "digits.resnet8"],
    ]
    plain, residual = (
        next(entry for entry in log_of(trained / name) if "final" in entry) for name in ("plain", "residual")
    )
    gap = residual["top1_error"] - plain["top1_error"]
    rows = cells(html, "Errors of the runs")
    assert [row[5] for row in rows] == [f"{one['top1_error']:.2f}" for one in (plain, residual)]
    assert rows[1][6] == f"{gap:+.2f}".replace("-", "\N{MINUS SIGN}").replace("+0.00", "0.00")


def test_of_seeds_mean_and_spread_are_told(written, lines, tmp_path, page):
    runs = []
    for seed, error in enumerate((40.0, 41.0, 45.0)):
        entries = [*lines[:2], *({**entry, "top1_error": error} for entry in lines[2:])]
        runs.append(written(f"seed{seed}", entries, seed=seed))
    report = write_report(runs, out=tmp_path / "seeds.html")
    text = page(report.path.read_text()).text.replace("\N{NO-BREAK SPACE}", " ")
    assert "differ in the seed alone: validation error 42.00 % on average, 40.00 to 45.00 %, standard deviation" in text
    assert f"standard deviation {statistics.stdev((40.0, 41.0, 45.0)):.2f} points" in text


def test_images_right_and_wrong_of_two_runs_add_up(double):
    examinations = [part.examination for part in double.parts]
    ((both, first, second, neither),) = overlap(examinations)
    assert both + first + second + neither == 360
    errors = [one.result.top1_error for one in examinations]
    assert [100 * (second + neither) / 360, 100 * (first + neither) / 360] == pytest.approx(errors)


def test_a_run_without_weights_is_reported_and_the_report_says_what_it_lacks(written, lines, page):
    report = write_report([written(lines=lines)])
    text = page(report.path.read_text()).text.replace("\N{NO-BREAK SPACE}", " ")
    assert report.path.name == "report.html"
    assert "validation error 44.00 % final weights, 50 images, 0 skipped" in text
    assert "holds no weights, neither a model nor a checkpoint." in text
    assert "env.json is missing" in text
    assert report.parts[0].examination is None


def test_an_unfinished_run_says_so(written, lines, page):
    report = write_report([written(lines=lines[:2])])
    text = page(report.path.read_text()).text
    assert "The run is not finished: these are its numbers so far." in text
    assert "Not finished: 20 of 4,000 steps of 64 images (2.0 epochs)." in text


def test_a_run_that_diverged_says_so(written, lines, page):
    diverged = {"step": 24, "split": "train", "diverged": {"checkpoint_step": 10, "lr": 1.0}}
    runs = [
        written("far", lines=[*lines[:2], diverged]),
        written("none", lines=[diverged]),
        written("end", lines=lines),
    ]
    report = write_report(runs[:1])
    text = page(report.path.read_text()).text
    assert "The run diverged at step 24: the loss or a weight was not a finite number." in text
    assert "Diverged at step 24: 20 of 4,000 steps of 64 images (2.0 epochs)." in text
    assert "ot finished" not in text
    assert (report.as_json()["runs"][0]["finished"], report.as_json()["runs"][0]["diverged_at_step"]) == (False, 24)
    report = write_report(runs, out=runs[0] / "three.html")
    assert [row[3] for row in cells(report.path.read_text(), "Errors of the runs")][:2] == [
        "20 of 4,000, diverged",
        "0 of 4,000, diverged",
    ]
    assert [run["diverged_at_step"] for run in report.as_json()["runs"]] == [24, 24, None]


@pytest.mark.parametrize(
    ("last", "how"),
    [
        ('{"step": 9, "sp', "is not finished"),
        ('{"step": 9, "split": "train", "diverged": {"checkpoint_step": 8}}', "diverged at step 9"),
    ],
)
def test_an_interrupted_run_is_tested_with_its_checkpoint(trained, tmp_path, page, last, how):
    run = tmp_path / "run"
    shutil.copytree(trained / "residual", run)
    shutil.rmtree(run / "model")
    entries = [line for line in (run / "metrics.jsonl").read_text().splitlines() if '"final"' not in line]
    (run / "metrics.jsonl").write_text("\n".join([*entries, last]))
    report = write_report([run], machine=CPU)
    assert "The last error of the log, at step 8, is " in page(report.path.read_text()).text
    assert f"The weights are those of the checkpoint of step 8; the run {how}." in page(report.path.read_text()).text


def test_training_images_that_were_left_out_are_listed(written, lines, page):
    lines.insert(0, {"step": 3, "split": "train", "left_out": {"path": "cat/<b>.png", "reason": "truncated"}})
    report = write_report([written(lines=lines)])
    html = report.path.read_text()
    assert "1 training image could not be read" in page(html).text
    assert cells(html, "Training images that could not be read") == [["cat/&lt;b&gt;.png", "truncated"]]


def test_damaged_lines_and_a_damaged_environment_are_named(written, lines, page):
    run = written(lines=lines)
    with (run / "metrics.jsonl").open("a") as file:
        file.write("garbage\n{}\n")
    (run / "env.json").write_text("[1, 2")
    text = page(write_report([run]).path.read_text()).text
    assert "2 lines of metrics.jsonl cannot be read and are left out." in text
    assert "env.json is damaged" in text


def test_images_that_are_not_here_are_asked_for(trained, tmp_path, monkeypatch):
    run = tmp_path / "run"
    shutil.copytree(trained / "residual", run)
    config = json.loads((run / "config.json").read_text())
    config["dataset"] = {"kind": "Cifar", "num_classes": 10, "validation_images": 0}
    (run / "config.json").write_text(json.dumps(config))
    monkeypatch.setattr("resnets.report.examination.default_data_root", lambda: tmp_path / "nowhere")
    (part,) = write_report([run], machine=CPU).parts
    assert "CIFAR-10 is not in" in part.missing.reason
    assert part.missing.command == f"resnets report {run} --device cpu --data-root DIR"
    with pytest.raises(DataError, match="CIFAR-10 is not in"):
        write_report([run], data_root=tmp_path, machine=CPU)


def without_images(written, lines, *names, **changes):
    """Return runs whose nets could be tested if their images were named."""
    runs = [written(name, lines, **changes) for name in names]
    for run in runs:
        (run / "checkpoints").mkdir()
        (run / "checkpoints" / "step-00000020.pt").write_bytes(b"")
    return runs


def test_the_command_writes_the_same_page_with_what_it_lacks(written, lines, tmp_path, page):
    runs = without_images(written, lines, "a", "b c")
    out = tmp_path / "both.html"
    report = write_report(runs, out=out, data_root="some where", title="Two nets")
    command = (
        f"resnets report {runs[0]} '{runs[1]}' --out {out} --title 'Two nets' --data-root 'some where' --data FOLDER"
    )
    assert [part.missing.command for part in report.parts] == [command, command]
    text = page(out.read_text()).text
    assert text.count(command) == 1
    assert text.count("was trained on a folder of images, which is not named") == 2


def test_no_command_is_given_that_is_wrong_for_one_of_the_runs(written, lines, tmp_path, monkeypatch):
    monkeypatch.setattr("resnets.report.examination.default_data_root", lambda: tmp_path / "nowhere")
    runs = without_images(written, lines, "folder") + without_images(written, lines, "cifar", recipe="cifar10.resnet20")
    folder, cifar = write_report(runs, out=tmp_path / "both.html").parts
    assert folder.missing.command == ""
    assert cifar.missing.command == f"resnets report {runs[0]} {runs[1]} --out {tmp_path / 'both.html'} --data-root DIR"


def test_a_checkpoint_is_found_without_the_file_that_names_it(written, lines):
    (run,) = read_runs(without_images(written, lines, "run"))
    assert run.has_weights


def test_what_was_skipped_is_told_of_the_split_that_the_error_is_of(written, lines, page):
    lines[2]["skipped"] = ["a.png", "b.png"]
    del lines[3]["skipped"]  # as in logs of older versions
    assert "50 images, 2 skipped" in page(write_report([written("old", lines)]).path.read_text()).text
    lines[3]["split"] = "test"
    assert "50 images, 0 skipped" in page(write_report([written("other", lines)]).path.read_text()).text
    lines[3]["skipped"] = ["c.png"]
    assert "50 images, 1 skipped" in page(write_report([written("new", lines)]).path.read_text()).text


def test_a_damaged_model_is_named_and_the_rest_reported(trained, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(trained / "residual", run)
    (run / "model" / "model.safetensors").write_bytes(b"nothing")
    (part,) = write_report([run], machine=CPU).parts
    assert "damaged" in part.missing.reason
    with pytest.raises(UserError, match="damaged"):
        write_report([run], data="digits", machine=CPU)


def test_what_is_no_run_is_refused_with_what_may_be_meant(written, lines, trained, tmp_path):
    run = written(lines=lines)
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    for path, words in (
        (tmp_path / "missing", "There is no run at"),
        (tmp_path / "file", "is a file"),
        (tmp_path / "empty", "no config.json"),
        (trained, "Runs lie in it"),
        (trained / "residual" / "model", "model folder"),
        (written("unstarted"), "nothing to report yet"),
    ):
        with pytest.raises(RunError, match=words):
            write_report([path])
    with pytest.raises(RunError, match="named twice"):
        write_report([run, run / ".." / run.name])
    (run / "config.json").write_text("{")
    with pytest.raises(RunError, match="not valid JSON"):
        write_report([run])


def test_runs_of_one_name_are_told_apart_by_their_folders(written, lines):
    runs = [written("first/run", lines), written("second/run", lines)]
    assert [run.name for run in read_runs(runs)] == ["first/run", "second/run"]


@pytest.mark.parametrize("name", ["report.txt", "missing/report.html", "folder.html"])
def test_a_place_that_cannot_be_written_is_refused_first(name, written, lines, tmp_path, monkeypatch):
    (tmp_path / "folder.html").mkdir()
    monkeypatch.setattr(build, "render", lambda *_: pytest.fail("something was made"))
    with pytest.raises(RunError, match="--out"):
        write_report([written(lines=lines)], out=tmp_path / name)


def test_a_folder_that_may_not_be_written_into_is_refused_first(written, lines, tmp_path, monkeypatch):
    monkeypatch.setattr(build, "_part", lambda *_: pytest.fail("something was tested"))
    run, other = written(lines=lines), tmp_path / "other"
    other.mkdir()
    monkeypatch.setattr(build.os, "access", lambda path, mode: path not in (run, other))
    for arguments in ({}, {"out": other / "report.html"}):
        with pytest.raises(RunError, match=r"you may not write into .* --out"):
            write_report([run], **arguments)
    with pytest.raises(RunError, match="cannot be written: File name too long"):
        write_report([run], out=tmp_path / f"{'x' * 300}.html")


def test_a_failure_leaves_the_older_report_and_no_rest(written, lines, monkeypatch):
    run = written(lines=lines)
    report = write_report([run])
    before = report.path.read_bytes()

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(page_module.os, "fsync", full)
    with pytest.raises(RunError, match="No space left"):
        write_report([run], title="another")
    assert report.path.read_bytes() == before
    assert sorted(path.name for path in run.iterdir()) == ["config.json", "metrics.jsonl", "report.html"]


def examination(classes, seed=0, images=60):
    """Return a made-up examination of images of classes with these names."""
    random = np.random.default_rng(seed)
    scores = random.random((images, len(classes))).astype(np.float64) ** 4
    scores /= scores.sum(axis=1, keepdims=True)
    labels = random.integers(0, len(classes), images)
    wrong = scores.argmax(axis=1) != labels
    names = tuple(distinct(classes))
    confusion = analysis.confusion_matrix(scores, labels)
    pixel = "data:image/png;base64,AAAA"
    return Examination(
        split="test",
        dataset=classes[0],
        fingerprint="",
        trained_on="",
        result=ClassificationResult(
            images=images,
            loss=1.0,
            top1_error=100 * float(wrong.mean()),
            top5_error=None,
            per_class_errors={},
            confusion=(),
            without_prediction=0,
        ),
        skipped=(),
        notes=(classes[-1],),
        classes=names,
        confusion=confusion,
        class_errors=tuple(analysis.errors_by_class(scores, labels)),
        pairs=tuple(analysis.most_confused_pairs(scores, labels)),
        calibration=calibration(scores, labels),
        pictures=tuple(
            MistakePicture(
                mistake=one, name=classes[0], image=pixel, pixelated=True, predicted_map=pixel, label_map=pixel
            )
            for one in analysis.most_confident_mistakes(scores, labels, most=3)
        ),
        responses=(),
        response_images=0,
        response_split="",
        without_responses=classes[0],
        readable=np.ones(images, bool),
        wrong=wrong,
    )


def test_images_that_one_net_could_not_read_are_in_no_column():
    first, second = examination(("a", "b"), seed=1), examination(("a", "b"), seed=2)
    for found, unreadable in ((first, [0, 1, 2]), (second, [2, 5])):
        found.readable[unreadable] = False
        found.wrong[unreadable] = True
    both = np.delete(np.arange(60), [0, 1, 2, 5])
    ((right, only_first, only_second, neither),) = overlap([first, second])
    assert right + only_first + only_second + neither == len(both)
    assert neither == (first.wrong & second.wrong)[both].sum()
    assert only_first == (~first.wrong & second.wrong)[both].sum()


def with_responses(found, *values):
    """Return the examination with layers of these responses."""
    layers = [
        LayerResponse(
            layer=Layer(convolution=f"conv{number}", norm=f"bn{number}", kernel=3),
            ends_block=False,
            mean=0.0,
            std=value,
            closed_form=value,
        )
        for number, value in enumerate(values)
    ]
    return dataclasses.replace(found, responses=tuple(layers), response_images=9, response_split="train")


def test_a_run_has_one_color_and_one_number_in_all_charts(written, lines):
    """The first run has no curves; its colour and its number are not the second one's."""
    empty, full = read_runs([*without_images(written, [], "empty"), written("full", lines)])
    found = with_responses(examination(("a", "b")), 1.0, 3.0, 2.0)
    parts = [RunPart(record=empty, missing=Missing(reason="no")), RunPart(record=full, examination=found)]
    html = render(page_view(parts, None, "resnets"))
    for identifier, kinds in (("errors", "(?:bold|thin)"), ("responses", "bold"), ("responses-sorted", "bold")):
        figure = html[html.index(f'id="figure-{identifier}"') :].split("</figure>")[0]
        assert set(re.findall(rf'<path class="line {kinds} ([^"]+)"', figure)) == {"c1"}
        assert re.findall(r'<text class="end c1"[^>]*>(\d)', figure)[0] == "2"
        assert "<bdi>2: full</bdi>" in figure
    assert [row[2:] for row in cells(html, "Standard deviations by magnitude")] == [
        ["3.0000", "3.0000"],
        ["2.0000", "2.0000"],
        ["1.0000", "1.0000"],
    ]


def test_a_page_of_one_run_has_no_numbers_beside_its_lines(record):
    html = render(page_view([RunPart(record=record, missing=Missing(reason="no"))], None, "resnets"))
    assert re.findall(r'<text class="end c0"[^>]*>([^<]+)', html) == ["44.00"]
    assert "<bdi>run</bdi>" in html


def test_of_logs_with_different_intervals_the_key_states_the_lines(written, lines):
    other = [entry | {"step": 3 * entry["step"]} for entry in lines]
    records = read_runs([written("a", lines), written("b", other)])
    colors = {"a": 0, "b": 1}
    assert error_figure(records[:1], colors).key[-1].text == "training error, mean of 50 iterations"
    assert error_figure(records, colors).key[-1].text == "training error, mean of 5 lines of the log"


def test_why_there_are_no_responses_is_told(record, page):
    found = dataclasses.replace(examination(("a", "b")), without_responses="VGG has no 3x3 convolution.")
    html = render(page_view([RunPart(record=record, examination=found)], None, "resnets"))
    text = page(html).text
    assert "Not in this report No layer responses. VGG has no 3x3 convolution." in text
    assert "come from testing the net again" not in text
    text = page(render(page_view([RunPart(record=record, examination=with_responses(found, 1.0))], None, "x"))).text
    assert "Not in this report" not in text


def test_a_net_without_batch_norm_is_examined_without_responses(trained, tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise UserError("There is no BatchNorm.")

    monkeypatch.setattr("resnets.report.examination.responses_on", refuse)
    (part,) = write_report([trained / "plain"], out=tmp_path / "report.html", machine=CPU).parts
    assert (part.examination.responses, part.examination.without_responses) == ((), "There is no BatchNorm.")
    assert part.examination.readable.all()


def filled(record, text):
    """Return the page of a run with this text wherever text of files or people goes."""
    record = dataclasses.replace(
        record,
        name=printable(text, 60),
        problems=(text,),
        spec=dataclasses.replace(record.spec, recipe=text),
        environment={
            "command": text,
            "python": text,
            "versions": {text: text},
            "commit": {"sha": text, "modified": True},
            "starts": [{"step": text, "device": text}],
            "gpu": text,
        },
        log=dataclasses.replace(record.log, left_out=((text, text),)),
    )
    first = RunPart(record=record, examination=examination((text, "b" + text, "c")))
    other = dataclasses.replace(record, name="other", spec=dataclasses.replace(record.spec, seed=1))
    second = RunPart(record=other, missing=Missing(reason=text, command=text))
    return render(page_view([first, second], text, "resnets"))


def harmless_text(text):
    """Return letters; as few as the text has if it has few, since short names are set otherwise."""
    return "h" * min(len(printable(text, 40)), 8)


HOSTILE = [
    "<script>alert(1)</script>",
    "'\"><img src=x onerror=alert(1)>",
    "</style></title></svg><b>",
    "{{ 7 * 7 }}{% raw %}",
    "\u202egnp.exe\u2066\u200f",
    "\x00\x1b[31m\r\n\ud800",
    "&amp;&lt;",
    "x" * 10_000,
    "<!--",
    "]]>",
]


@pytest.fixture
def record(written, lines):
    (run,) = read_runs([written(lines=lines)])
    return run


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_stays_text(record, text, page):
    html = filled(record, text)
    parsed, harmless = page(html), page(filled(record, harmless_text(text)))
    assert parsed.structure == harmless.structure
    assert len(html) < 400_000
    html.encode()
    assert not re.search("[\u202a-\u202e\u2066-\u2069\x00-\x08\x0b-\x1f]", html)


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(st.characters() | st.sampled_from("<>&\"'{}%"), min_size=1, max_size=80))
def test_any_text_leaves_the_structure_of_the_page_as_it_is(record, page, text):
    assert page(filled(record, text)).structure == page(filled(record, harmless_text(text))).structure


@given(st.text(), st.integers(2, 200))
def test_printable_text_is_short_printable_and_itself_where_it_can_be(text, most):
    shown = printable(text, most)
    assert len(shown) <= most
    assert shown.isprintable()
    if text.isprintable() and len(text) <= most:
        assert shown == text


def test_of_many_classes_the_worst_are_shown_and_no_matrix(record, page):
    found = examination(tuple(f"class {index}" for index in range(300)), images=3000)
    html = render(page_view([RunPart(record=record, examination=found)], None, "resnets"))
    errors = cells(html, "Error of the 20 classes with the highest error, of 300")
    assert len(errors) == 20
    worst = sorted((one.error for one in found.class_errors if one.error is not None), reverse=True)
    assert [row[2] for row in errors] == [f"{error:.2f}" for error in worst[:20]]
    assert "Images of the test split by class" not in html
    assert len(cells(html, "Most confused pairs")) == 10


def test_a_net_without_a_mistake_is_reported(record):
    found = examination(("a", "b"))
    perfect = np.eye(2)[np.arange(60) % 2]
    labels = np.arange(60) % 2
    found = dataclasses.replace(
        found,
        confusion=analysis.confusion_matrix(perfect, labels),
        class_errors=tuple(analysis.errors_by_class(perfect, labels)),
        pairs=(),
        pictures=(),
        calibration=calibration(perfect, labels),
    )
    html = render(page_view([RunPart(record=record, examination=found)], None, "resnets"))
    assert "Every image is right." in html
    assert "Most confident mistakes" not in html


def luminance(color):
    parts = [int(color[index : index + 2], 16) / 255 for index in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(first, second):
    low, high = sorted(map(luminance, (first, second)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", [0, 1, 2], ids=["light", "dark", "print"])
def test_text_stands_out_and_so_do_lines(theme):
    style = (Path(page_module.__file__).parent / "templates" / "report.css").read_text()
    blocks = re.findall(r":root \{(.*?)\}", style, re.DOTALL)
    assert len(blocks) == 3
    colors = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", blocks[0]))
    colors |= dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", blocks[theme]))
    text = [(name, "paper") for name in ("ink", "soft", "link", *(f"t{index}" for index in range(7)))]
    text += [("ink", "panel"), ("ink", "mark-paper"), ("ink", "right"), ("soft", "panel")]
    text += [("h-ink", f"h{index}") for index in range(1, 6)]
    text += [("h-strong", "h6"), ("h-top", "h7"), ("h-top", "h8")]
    for front, back in text:
        assert contrast(colors[front], colors[back]) >= 4.5, (front, back)
    for line in ("focus", *(f"c{index}" for index in range(7))):
        assert contrast(colors[line], colors["paper"]) >= 3, line


def mutated(value, random):
    """Return a JSON value with one place in it changed to something that may not belong there."""
    if isinstance(value, dict | list) and value and random.random() < 0.8:
        changed = dict(value) if isinstance(value, dict) else list(value)
        place = random.choice(list(changed)) if isinstance(changed, dict) else random.randrange(len(changed))
        changed[place] = mutated(changed[place], random)
        return changed
    return random.choice([None, True, -1, 0, 1e308, math.nan, 10**30, "x" * 5000, "\ud800", [], {}, [[]], 1e-320])


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.randoms(use_true_random=False), st.sampled_from(["config.json", "env.json", "metrics.jsonl"]))
def test_changed_files_give_a_page_or_a_message(written, lines, tmp_path, page, random, name):
    shutil.rmtree(tmp_path / "run", ignore_errors=True)
    run = written(lines=lines, environment={"versions": {"torch": "2"}, "starts": [{"step": 0}], "commit": None})
    values = [json.loads(line) for line in (run / name).read_text().splitlines()] if name.endswith("l") else None
    if values is None:
        (run / name).write_text(json.dumps(mutated(json.loads((run / name).read_text()), random)))
    else:
        (run / name).write_text("\n".join(json.dumps(mutated(value, random)) for value in values))
    try:
        html = write_report([run]).path.read_text()
    except RunError as error:
        html = f"<p>{error}</p>" if str(run) in str(error) else ""
    assert html
    page(html if html.startswith("<!DOCTYPE") else "<p></p>")
