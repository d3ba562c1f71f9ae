"""Preparing shards: the same bytes however often it was interrupted, and nothing lost or overwritten."""

import hashlib
import multiprocessing
import os
import shutil
import signal

import numpy as np
import pytest
from PIL import Image

from resnets.data import read_ahead, shard_forms, shard_writer
from resnets.data.folder import list_folder
from resnets.data.open import open_folder, open_test_folder
from resnets.data.shard_index import DESCRIPTION, Form
from resnets.data.shard_writer import prepare
from resnets.data.shards import list_shards
from resnets.specs.data import ImageFolder
from resnets.specs.errors import DataError, ResnetsError

RAW = Form(kind="raw", resize_px=20)

pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("photos")
    random = np.random.default_rng(0)
    for split, count in (("train", 20), ("val", 3)):
        for name in ("cat", "dog"):
            (root / split / name).mkdir(parents=True)
            for number in range(count):
                image = Image.fromarray(random.integers(0, 256, (25, 30, 3), dtype=np.uint8))
                image.save(root / split / name / f"{number}.{'jpg' if number % 2 else 'png'}")
    (root / "train/cat/7.jpg").write_bytes(b"no image")
    (root / "val/dog/0.png").write_bytes(b"")
    return root


def digests(root):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in root.iterdir()}


@pytest.mark.parametrize("form", [Form(), RAW, Form(kind="jpeg", resize_px=20, quality=90)])
@pytest.mark.parametrize("workers", [0, 2])
def test_an_interrupted_preparation_ends_with_the_same_bytes(folder, tmp_path, form, workers):
    whole = prepare(list_folder(folder), tmp_path / "whole", form, shard_bytes=9_000)
    assert whole.index is not None
    stops = 0
    while True:
        asked = iter(range(10**6))
        done = prepare(
            list_folder(folder),
            tmp_path / "parts",
            form,
            shard_bytes=9_000,
            workers=workers,
            should_stop=lambda asked=asked: next(asked) == 13,
        )
        if done.index is not None:
            break
        stops += 1
        assert not (tmp_path / "parts" / DESCRIPTION).exists()
        assert not list((tmp_path / "parts").glob("*.part"))
    assert stops >= 2
    assert digests(tmp_path / "parts") == digests(tmp_path / "whole")


@pytest.mark.parametrize("classes", [".", "train"])
def test_a_class_without_images_to_train_on_is_refused_before_anything_is_written(folder, tmp_path, classes):
    source = tmp_path / "photos"
    shutil.copytree(folder / "train", source / classes)
    (source / classes / "empty").mkdir()
    (source / classes / "text").mkdir()
    (source / classes / "text" / "notes.txt").write_text("no image")
    with pytest.raises(DataError, match=r"photos: no image files for 2 classes \(empty, text\) to train on"):
        prepare(list_folder(source), tmp_path / "shards", Form())
    assert not (tmp_path / "shards").exists()


def test_a_class_may_be_empty_where_it_is_only_tested(folder, tmp_path):
    source = tmp_path / "photos"
    shutil.copytree(folder, source)
    for path in (source / "val/dog").iterdir():
        path.unlink()
    assert prepare(list_folder(source), tmp_path / "shards", Form()).index is not None


def test_a_crash_in_the_middle_loses_the_unfinished_shard_only(folder, tmp_path):
    prepare(list_folder(folder), tmp_path / "whole", RAW, shard_bytes=9_000)
    seen = []

    def crash(done, _):
        seen.append(done)
        if len(seen) == 25:
            raise MemoryError

    with pytest.raises(MemoryError):
        prepare(list_folder(folder), tmp_path / "parts", RAW, shard_bytes=9_000, on_images=crash)
    finished = sorted((tmp_path / "parts").glob("*.tar"))
    assert finished
    times = [path.stat().st_mtime_ns for path in finished]
    finished[-1].write_bytes(b"cut off")
    prepare(list_folder(folder), tmp_path / "parts", RAW, shard_bytes=9_000)
    assert digests(tmp_path / "parts") == digests(tmp_path / "whole")
    assert [path.stat().st_mtime_ns for path in finished[:-1]] == times[:-1]


def test_images_that_cannot_be_read_are_named_and_every_other_is_there(folder, tmp_path):
    index = prepare(list_folder(folder), tmp_path / "shards", RAW).index
    assert index is not None
    assert set(index.left_out) == {"train/cat/7.jpg", "val/dog/0.png"}
    assert "text file" in index.left_out["train/cat/7.jpg"]
    assert index.images == 44
    assert index.splits == {"train": {"cat": 19, "dog": 20}, "validation": {"cat": 3, "dog": 2}}
    dataset = open_folder(ImageFolder(), tmp_path / "shards")
    assert {name: len(split) for name, split in dataset.splits.items()} == {"train": 39, "validation": 5}
    assert any("2 images could not be read when these shards were made" in note for note in dataset.notes)


@pytest.mark.parametrize("form", [Form(), RAW])
@pytest.mark.parametrize(("after", "workers"), [(0, 0), (10, 0), (10, 2), (36, 0), (44, 0)])
def test_no_image_of_data_that_goes_away_is_noted(folder, tmp_path, monkeypatch, form, after, workers):
    monkeypatch.setattr(shard_forms, "_SMALL_IMAGES_A_CHUNK", 4)
    photos, away = tmp_path / "photos", tmp_path / "away"
    shutil.copytree(folder, photos)
    prepare(list_folder(photos), tmp_path / "whole", form, shard_bytes=9_000)

    def on_images(done, _):
        if done == after and photos.exists():
            photos.rename(away)

    listing = list_folder(photos)
    for _ in range(2):
        with pytest.raises(
            DataError, match=r"(not be read|no longer).* there is no such file\. .*run the same command again"
        ):
            prepare(listing, tmp_path / "shards", form, shard_bytes=9_000, workers=workers, on_images=on_images)
        assert away.exists()
        assert not (tmp_path / "shards" / DESCRIPTION).exists()
    away.rename(photos)
    index = prepare(listing, tmp_path / "shards", form, shard_bytes=9_000).index
    assert index is not None
    assert all("no such file" not in reason for reason in index.left_out.values())
    assert digests(tmp_path / "shards") == digests(tmp_path / "whole")


def test_no_image_is_noted_where_others_behind_it_were_read_before_the_data_went_away(folder, tmp_path, monkeypatch):
    photos, away = tmp_path / "photos", tmp_path / "away"
    shutil.copytree(folder, photos)
    prepare(list_folder(photos), tmp_path / "whole", RAW, shard_bytes=9_000)
    outcomes = shard_writer.outcomes

    def read_beside_each_other(*arguments, **options):
        read = list(outcomes(*arguments, **options))
        photos.rename(away)
        gone = shard_forms.Outcome(reason="there is no such file", unreadable=True)
        yield from ((number, gone if 8 <= place < 12 else outcome) for place, (number, outcome) in enumerate(read))

    listing = list_folder(photos)
    with monkeypatch.context() as context:
        context.setattr(shard_writer, "outcomes", read_beside_each_other)
        with pytest.raises(DataError, match=r"could be read before, and can no longer: there is no such file\. Check"):
            prepare(listing, tmp_path / "shards", RAW, shard_bytes=9_000)
    away.rename(photos)
    prepare(listing, tmp_path / "shards", RAW, shard_bytes=9_000)
    assert digests(tmp_path / "shards") == digests(tmp_path / "whole")


def test_a_few_files_that_are_lost_are_left_out_by_name(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "photos")
    listing = list_folder(tmp_path / "photos")
    lost = [f"train/dog/{number}.jpg" for number in (1, 3, 5)] + ["val/dog/2.png"]  # the last of all
    for name in lost:
        (tmp_path / "photos" / name).unlink()
    index = prepare(listing, tmp_path / "shards", Form(), shard_bytes=9_000).index
    assert index is not None
    assert index.left_out == dict.fromkeys(lost, "there is no such file")


def with_a_lost_class(folder, photos, name):
    """Return a listing with more than 40 validation images of a class, and their names; their files are not there."""
    shutil.copytree(folder, photos)
    for number in range(45):
        (photos / "val" / name / f"{number}.jpg").write_bytes(b"content")
    listing = list_folder(photos)
    files = list((photos / "val" / name).iterdir())
    for file in files:
        file.unlink()
    return listing, [f"val/{name}/{file.name}" for file in files]


@pytest.mark.parametrize("name", ["cat", "dog"])  # with nothing before them in the split, and with something
@pytest.mark.parametrize("workers", [0, 2])
def test_a_class_of_which_no_file_can_be_read_is_left_out_by_name(folder, tmp_path, name, workers):
    listing, lost = with_a_lost_class(folder, tmp_path / "photos", name)
    for _ in range(2):  # the finished set is read again
        index = prepare(listing, tmp_path / "shards", Form(), workers=workers).index
        assert index is not None
        assert index.left_out == dict.fromkeys(lost, "there is no such file")
        assert index.splits["validation"] == {"cat": 3, "dog": 3} | {name: 0}


@pytest.mark.parametrize("name", ["cat", "dog"])
def test_data_that_goes_away_behind_a_class_that_cannot_be_read_is_missed(folder, tmp_path, name):
    photos = tmp_path / "photos"
    listing, lost = with_a_lost_class(folder, photos, name)

    def on_images(done, _):
        if done == 40 + 3 * (name == "dog") + 22 and photos.exists():  # behind the first look
            photos.rename(tmp_path / "away")

    assert len(lost) > 40
    with pytest.raises(DataError, match=r"The last 40 images could not be read.* run the same command again"):
        prepare(listing, tmp_path / "shards", Form(), on_images=on_images)
    assert not (tmp_path / "shards" / DESCRIPTION).exists()


def test_what_killed_processes_left_is_removed(folder, tmp_path):
    prepare(list_folder(folder), tmp_path / "whole", RAW, shard_bytes=9_000)
    shards = tmp_path / "shards"
    calls = iter(range(10**6))
    prepare(list_folder(folder), shards, RAW, shard_bytes=9_000, should_stop=lambda: next(calls) == 13)
    (shards / "mine.part").write_bytes(b"")
    for _ in range(2):  # in the middle, and between the last file of the set and the end
        (shards / ".prepare").mkdir(exist_ok=True)
        for name in ("validation.tar.part", "index.npz.0a1b2c3d.part", ".prepare/plan.json.0a1b2c3d.part"):
            (shards / name).write_bytes(b"")
        prepare(list_folder(folder), shards, RAW, shard_bytes=9_000)
        assert {path.name for path in shards.iterdir()} == {"mine.part", *digests(tmp_path / "whole")}


@pytest.mark.skipif(multiprocessing.get_start_method() != "fork", reason="patches reach workers that are forked")
def test_images_that_end_a_process_are_named(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(read_ahead, "_SECONDS_BETWEEN_LOOKS", 0.1)
    fatal = (folder / "train/dog/4.png").read_bytes()
    read_image = shard_forms.read_image

    def read(content):
        if content == fatal:
            os.kill(os.getpid(), signal.SIGKILL)
        return read_image(content)

    monkeypatch.setattr(shard_forms, "_SMALL_IMAGES_A_CHUNK", 2)
    monkeypatch.setattr(shard_forms, "read_image", read)
    with pytest.raises(ResnetsError, match=r"one of .*/train/dog/4\.png.*check-data DATA --quarantine"):
        prepare(list_folder(folder), tmp_path / "shards", RAW, workers=1)


def test_shards_are_made_of_shards_too(folder, tmp_path):
    prepare(list_folder(folder), tmp_path / "as-is", Form())
    prepare(list_shards(tmp_path / "as-is"), tmp_path / "raw", RAW)
    prepare(list_folder(folder), tmp_path / "direct", RAW)
    assert digests(tmp_path / "raw") == digests(tmp_path / "direct")


def test_shards_of_shards_know_whether_there_were_splits(tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        Image.new("RGB", (9, 9)).save(tmp_path / "photos" / name / "0.png")
    prepare(list_folder(tmp_path / "photos"), tmp_path / "first", Form())
    prepare(list_shards(tmp_path / "first"), tmp_path / "second", Form())
    assert digests(tmp_path / "second") == digests(tmp_path / "first")
    assert list(open_test_folder(tmp_path / "second").splits) == ["test"]


def test_two_preparations_at_once_do_not_write_to_one_folder(folder, tmp_path):
    prepare(list_folder(folder), tmp_path / "whole", RAW, shard_bytes=9_000)
    refusals = multiprocessing.get_context("fork").Queue()

    def try_too():
        with pytest.raises(DataError) as refused:
            prepare(list_folder(folder), tmp_path / "shards", RAW, shard_bytes=9_000)
        refusals.put(str(refused.value))

    def on_images(done, _):
        if done == 10:
            other = multiprocessing.get_context("fork").Process(target=try_too)
            other.start()
            other.join(120)
            assert other.exitcode == 0

    prepare(list_folder(folder), tmp_path / "shards", RAW, shard_bytes=9_000, on_images=on_images)
    assert "is being written by another `resnets prepare`" in refusals.get(timeout=120)
    assert digests(tmp_path / "shards") == digests(tmp_path / "whole")


def test_a_finished_set_that_lost_a_shard_is_not_called_finished(folder, tmp_path):
    prepare(list_folder(folder), tmp_path / "shards", RAW)
    (tmp_path / "shards/train-000000.tar").write_bytes(b"cut off")
    with pytest.raises(DataError, match=r"train-000000\.tar has 7 bytes.*make the shards anew.*in another folder"):
        prepare(list_folder(folder), tmp_path / "shards", RAW)


@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_too_long_for_jpeg_is_left_out_by_name(tmp_path, workers):
    for name in ("cat", "dog"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        Image.new("RGB", (9, 9)).save(tmp_path / "photos" / name / "0.png")
    Image.new("RGB", (70_000, 8)).save(tmp_path / "photos/cat/long.png")
    form = Form(kind="jpeg", resize_px=8, quality=90)
    index = prepare(list_folder(tmp_path / "photos"), tmp_path / "shards", form, workers=workers).index
    assert index is not None
    assert index.images == 2
    assert "70000 x 8 pixels" in index.left_out["cat/long.png"]


def test_a_line_of_the_classes_is_one_class(tmp_path):
    for name in ("a\nb", "c"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        Image.new("RGB", (9, 9)).save(tmp_path / "photos" / name / "0.png")
    prepare(list_folder(tmp_path / "photos"), tmp_path / "shards", Form())
    assert (tmp_path / "shards/classes.txt").read_text() == "a\\nb\nc\n"
    assert open_test_folder(tmp_path / "shards").classes == ("a\nb", "c")


def test_progress_counts_every_image_once(folder, tmp_path):
    seen = []
    prepare(list_folder(folder), tmp_path / "shards", RAW, shard_bytes=9_000, on_images=lambda *got: seen.append(got))
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert seen[-1] == (46, 46)


def test_a_folder_that_holds_something_else_is_refused_and_left_alone(folder, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(DataError, match="is not empty, and holds no shards"):
        prepare(list_folder(folder), tmp_path, RAW)
    assert digests(tmp_path) == {"mine.txt": hashlib.sha256(b"mine").hexdigest()}
    prepare(list_folder(folder), tmp_path / "shards", RAW)
    before = digests(tmp_path / "shards")
    with pytest.raises(DataError, match="shards of other images or with other options"):
        prepare(list_folder(folder), tmp_path / "shards", Form())
    again = prepare(list_folder(folder), tmp_path / "shards", RAW)
    assert again.index is not None
    assert again.index.images == 44
    assert digests(tmp_path / "shards") == before


def test_other_options_do_not_go_on_with_what_was_begun(folder, tmp_path):
    stopped = prepare(list_folder(folder), tmp_path / "shards", RAW, should_stop=lambda: True)
    assert stopped.index is None
    with pytest.raises(DataError, match="options have changed"):
        prepare(list_folder(folder), tmp_path / "shards", Form())


def test_a_folder_of_which_nothing_can_be_read_makes_no_set(tmp_path):
    for name in ("a", "b"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        (tmp_path / "photos" / name / "0.jpg").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"No image could be read: 2 images\. [ab]/0\.jpg: it is a text file"):
        prepare(list_folder(tmp_path / "photos"), tmp_path / "shards", RAW)
    assert not (tmp_path / "shards" / DESCRIPTION).exists()


def test_a_place_that_cannot_be_written_is_a_clear_error(folder, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"file/shards cannot be written"):
        prepare(list_folder(folder), tmp_path / "file/shards", RAW)
