"""The official CIFAR files in both forms, whole, damaged and malicious."""

import contextlib
import dataclasses
import hashlib
import io
import os
import pickle
import tarfile
import threading
import time
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from resnets.data import cifar
from resnets.data.cifar import default_data_root, find_cifar, open_cifar
from resnets.specs import io as io_of_specs
from resnets.specs.data import CIFAR10_CLASSES, Cifar
from resnets.specs.errors import DataError

CLASSES = {10: CIFAR10_CLASSES, 100: tuple(f"class_{number}" for number in range(100))}


@pytest.fixture
def small(monkeypatch):
    """CIFAR in every respect, with 50 training images and 10 test images."""
    monkeypatch.setattr(cifar, "_TRAIN_IMAGES", 50)
    monkeypatch.setattr(cifar, "_TEST_IMAGES", 10)


def _records(num_classes):
    dice = np.random.default_rng(num_classes)
    return dice.integers(0, 256, (60, 3072), dtype=np.uint8), dice.integers(0, num_classes, 60)


def _batches(num_classes):
    """Return the parts of the official sets as (file stem, rows)."""
    if num_classes == 100:
        return [("train", slice(0, 50)), ("test", slice(50, 60))]
    parts = [(f"data_batch_{number + 1}", slice(number * 10, number * 10 + 10)) for number in range(5)]
    return [*parts, ("test_batch", slice(50, 60))]


def _write_binary(folder, num_classes):
    folder.mkdir(parents=True)
    planes, labels = _records(num_classes)
    for stem, rows in _batches(num_classes):
        columns = [labels[rows, None].astype(np.uint8), planes[rows]]
        if num_classes == 100:
            columns.insert(0, np.full((len(planes[rows]), 1), 3, np.uint8))  # the coarse label
        (folder / f"{stem}.bin").write_bytes(np.concatenate(columns, axis=1).tobytes())
    names = "batches.meta.txt" if num_classes == 10 else "fine_label_names.txt"
    (folder / names).write_text("\n".join(CLASSES[num_classes]) + "\n\n")


class _Python2Pickler(pickle._Pickler):
    """Writes bytes as Python 2 wrote its strings, as the official files have them, and NumPy's old module name."""

    dispatch = pickle._Pickler.dispatch.copy()

    def save_bytes(self, value):
        short = len(value) < 256
        head = pickle.SHORT_BINSTRING if short else pickle.BINSTRING
        self.write(head + len(value).to_bytes(1 if short else 4, "little") + value)

    dispatch[bytes] = save_bytes

    def save_global(self, obj, name=None):
        module, name = obj.__module__, name or obj.__qualname__
        self.write(pickle.GLOBAL + f"{module.replace('numpy._core', 'numpy.core')}\n{name}\n".encode())

    dispatch[type(np.ndarray)] = save_global
    dispatch[type(np.empty(0).__reduce__()[0])] = save_global


def _official_pickle(value):
    file = io.BytesIO()
    _Python2Pickler(file, protocol=2).dump(value)
    return file.getvalue()


def _todays_pickle(value):
    return pickle.dumps({key.decode(): entry for key, entry in value.items()}, protocol=4)


def _write_python(folder, num_classes, dumps=_official_pickle):
    folder.mkdir(parents=True)
    planes, labels = _records(num_classes)
    kind = b"labels" if num_classes == 10 else b"fine_labels"
    for stem, rows in _batches(num_classes):
        (folder / stem).write_bytes(dumps({b"data": planes[rows], kind: labels[rows].tolist()}))
    names = {b"label_names" if num_classes == 10 else b"fine_label_names": [n.encode() for n in CLASSES[num_classes]]}
    (folder / ("batches.meta" if num_classes == 10 else "meta")).write_bytes(dumps(names))


FOLDERS = {
    (10, "binary"): "cifar-10-batches-bin",
    (10, "python"): "cifar-10-batches-py",
    (100, "binary"): "cifar-100-binary",
    (100, "python"): "cifar-100-python",
}
WRITERS = {"binary": _write_binary, "python": _write_python}


def _check(dataset, num_classes, validation_images=0):
    planes, labels = _records(num_classes)
    images = planes.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    parts = {"train": slice(0, 50 - validation_images), "test": slice(50, 60)}
    if validation_images:
        parts["validation"] = slice(50 - validation_images, 50)
    assert set(dataset.splits) == set(parts)
    for name, part in parts.items():
        assert np.array_equal(dataset.splits[name].images, images[part])
        assert np.array_equal(dataset.splits[name].labels, labels[part])
        assert dataset.splits[name].images.flags.c_contiguous
    assert dataset.classes == CLASSES[num_classes]


@pytest.mark.parametrize(("num_classes", "form"), FOLDERS)
@pytest.mark.parametrize("inner", [True, False])
def test_each_form_is_read_from_its_folder_or_the_one_above(small, tmp_path, num_classes, form, inner):
    folder = tmp_path / FOLDERS[num_classes, form]
    WRITERS[form](folder, num_classes)
    dataset = open_cifar(Cifar(num_classes=num_classes), folder if inner else tmp_path)
    _check(dataset, num_classes)
    assert dataset.name == f"cifar{num_classes}"


def test_a_folder_of_another_name_is_known_by_its_files(small, tmp_path):
    _write_binary(tmp_path / "mine", 10)
    _check(open_cifar(Cifar(), tmp_path / "mine"), 10)


def test_both_forms_have_the_same_fingerprint_and_a_changed_label_another(small, tmp_path):
    _write_binary(tmp_path / "a", 10)
    _write_python(tmp_path / "b", 10)
    fingerprint = open_cifar(Cifar(), tmp_path / "a").fingerprint
    assert open_cifar(Cifar(), tmp_path / "b").fingerprint == fingerprint
    path = tmp_path / "a" / "test_batch.bin"
    content = bytearray(path.read_bytes())
    content[0] = (content[0] + 1) % 10
    path.write_bytes(content)
    assert open_cifar(Cifar(), tmp_path / "a").fingerprint != fingerprint


def test_pickles_of_todays_python_and_numpy_are_read_too(small, tmp_path):
    _write_python(tmp_path / "cifar-100-python", 100, dumps=_todays_pickle)
    _check(open_cifar(Cifar(num_classes=100), tmp_path), 100)


def test_the_last_training_images_are_held_out(small, tmp_path):
    _write_binary(tmp_path / "cifar-10-batches-bin", 10)
    _check(open_cifar(Cifar(validation_images=7), tmp_path), 10, validation_images=7)


def _damage(folder, name, change):
    path = folder / name
    path.write_bytes(change(path.read_bytes()))


@pytest.mark.parametrize(
    ("name", "change", "reason"),
    [
        ("data_batch_3.bin", lambda content: content[:-1], "30729 bytes; it should have 30730"),
        ("test_batch.bin", lambda content: b"", "0 bytes"),
        ("data_batch_5.bin", lambda content: b"\x0a" + content[1:], "label 10; labels are 0 to 9"),
        ("batches.meta.txt", lambda content: content[:20], "it should name 10"),
    ],
)
def test_a_damaged_binary_file_is_named(small, tmp_path, name, change, reason):
    _write_binary(tmp_path / "cifar-10-batches-bin", 10)
    _damage(tmp_path / "cifar-10-batches-bin", name, change)
    with pytest.raises(DataError, match=reason) as error:
        open_cifar(Cifar(), tmp_path)
    assert name in str(error.value)


@pytest.mark.parametrize("form", ["binary", "python"])
def test_a_missing_batch_is_named(small, tmp_path, form):
    folder = tmp_path / FOLDERS[10, form]
    WRITERS[form](folder, 10)
    missing = folder / ("data_batch_4" + (".bin" if form == "binary" else ""))
    missing.unlink()
    with pytest.raises(DataError, match="missing") as error:
        open_cifar(Cifar(), tmp_path)
    assert missing.name in str(error.value)


class _Malicious:
    def __reduce__(self):
        return os.system, ("echo > executed",)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (pickle.dumps({b"data": _Malicious()}), "system.*could run code"),
        (pickle.dumps({b"data": print}), "print.*could run code"),
        (b"cbuiltins\neval\n(V1+1\ntR.", "eval.*could run code"),
        (pickle.dumps({b"data": np.zeros(3, object)}, protocol=2), "array of type"),
        (pickle.dumps({b"data": np.zeros((10, 3072), np.float32), b"labels": [0] * 10}, protocol=2), "array of type"),
        (pickle.dumps({b"data": np.zeros((10, 3071), np.uint8), b"labels": [0] * 10}, protocol=2), "no array"),
        (pickle.dumps({b"data": np.zeros((10, 3072), np.uint8), b"labels": [0] * 9}, protocol=2), "no list of 10"),
        (pickle.dumps({b"data": np.zeros((10, 3072), np.uint8), b"labels": [0] * 9 + [-1]}, protocol=2), "label -1"),
        (pickle.dumps({b"labels": [0] * 10}), "has no 'data'"),
        (pickle.dumps([1, 2]), "no dictionary"),
        (b"no pickle at all", "damaged"),
        (b"", "damaged"),
    ],
)
def test_a_pickle_that_is_no_official_file_is_refused_and_runs_nothing(small, tmp_path, monkeypatch, content, reason):
    monkeypatch.chdir(tmp_path)
    _write_python(tmp_path / "cifar-10-batches-py", 10)
    (tmp_path / "cifar-10-batches-py" / "data_batch_2").write_bytes(content)
    with pytest.raises(DataError, match=reason) as error:
        open_cifar(Cifar(), tmp_path)
    assert "data_batch_2" in str(error.value)
    assert not Path("executed").exists()


def test_a_damaged_pickle_gives_a_data_error_or_the_data(small, tmp_path):
    _write_python(tmp_path / "cifar-10-batches-py", 10)
    path = tmp_path / "cifar-10-batches-py" / "batches.meta"
    content = path.read_bytes()
    dice = np.random.default_rng(0)
    for _ in range(200):
        damaged = bytearray(content)
        damaged[dice.integers(len(damaged))] = dice.integers(256)
        path.write_bytes(damaged)
        with contextlib.suppress(DataError):
            assert len(open_cifar(Cifar(), tmp_path).classes) == 10


@pytest.fixture
def mirror(tmp_path, monkeypatch, small):
    """A server of small archives with the checksums that the reader expects; yields (its folder, requests)."""
    folder, requests = tmp_path / "mirror", []
    forms = []
    for form in cifar._FORMS:
        WRITERS[form.encoding](folder / form.folder, form.num_classes)
        with tarfile.open(folder / form.archive, "w:gz") as tar:
            tar.add(folder / form.folder, form.folder)
        digest = hashlib.md5((folder / form.archive).read_bytes()).hexdigest()
        forms.append(dataclasses.replace(form, checksum=f"md5:{digest}"))
    monkeypatch.setattr(cifar, "_FORMS", tuple(forms))

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *_):
            requests.append(self.path)

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        monkeypatch.setenv("RESNETS_CIFAR_URL", f"http://127.0.0.1:{server.server_port}/")
        yield folder, requests
        server.shutdown()


@pytest.mark.parametrize("num_classes", [10, 100])
def test_what_is_not_there_is_downloaded_once(mirror, tmp_path, monkeypatch, capsys, num_classes):
    monkeypatch.setenv("RESNETS_DATA_ROOT", str(tmp_path / "root"))
    for _ in range(2):
        _check(open_cifar(Cifar(num_classes=num_classes)), num_classes)
    assert mirror[1] == [f"/cifar-{num_classes}-binary.tar.gz"]
    assert "MB" in capsys.readouterr().err


def test_an_archive_that_is_there_is_unpacked_without_a_download(mirror, tmp_path):
    folder, requests = mirror
    (tmp_path / "root").mkdir()
    (folder / "cifar-10-python.tar.gz").rename(tmp_path / "root" / "cifar-10-python.tar.gz")
    _check(open_cifar(Cifar(), tmp_path / "root"), 10)
    assert requests == []


def test_a_failed_download_says_how_to_do_without_it(mirror, tmp_path):
    (mirror[0] / "cifar-10-binary.tar.gz").unlink()
    with pytest.raises(DataError, match="404") as error:
        open_cifar(Cifar(), tmp_path / "root")
    assert "--data-root" in str(error.value)


def test_a_downloaded_archive_with_another_checksum_is_removed(mirror, tmp_path):
    (mirror[0] / "cifar-10-binary.tar.gz").write_bytes(b"something else")
    with pytest.raises(DataError, match="checksum"):
        open_cifar(Cifar(), tmp_path / "root")
    assert list((tmp_path / "root").iterdir()) == []


def test_the_data_root_is_the_variable_or_the_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("RESNETS_DATA_ROOT", str(tmp_path))
    assert default_data_root() == tmp_path
    monkeypatch.delenv("RESNETS_DATA_ROOT")
    assert default_data_root().parts[-2:] == (".cache", "resnets")


def test_a_root_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="is a file"):
        open_cifar(Cifar(), tmp_path / "file")


def test_the_official_checksums_are_those_that_were_published():
    assert {form.archive: form.checksum for form in cifar._FORMS} == {
        "cifar-10-python.tar.gz": "md5:c58f30108f718f92721af3b95e74349a",
        "cifar-10-binary.tar.gz": "md5:c32a1d4ab5d03f1284b67883e8d87530",
        "cifar-100-python.tar.gz": "md5:eb9058c3a382ffc7106e4002c42a8d85",
        "cifar-100-binary.tar.gz": "md5:03b5dce01913d631647c71ecec9e9cb8",
    }


def test_the_real_cifar10_is_read_in_a_moment(testdata):
    if find_cifar(testdata) is None:
        pytest.skip("the test data lacks cifar-10-batches-bin")
    start = time.process_time()
    dataset = open_cifar(Cifar(validation_images=5000), testdata)
    assert time.process_time() - start < 10  # a fifth of a second to one second where nothing else runs
    assert {name: len(split) for name, split in dataset.splits.items()} == {
        "train": 45_000,
        "validation": 5_000,
        "test": 10_000,
    }
    assert dataset.classes == CIFAR10_CLASSES
    train = np.concatenate([dataset.splits["train"].images, dataset.splits["validation"].images])
    # The channel means of the training set that the literature gives: 125.3, 123.0, 113.9.
    assert np.abs(train.mean(axis=(0, 1, 2)) - (125.3, 123.0, 113.9)).max() < 0.1
    assert np.bincount(dataset.splits["test"].labels).tolist() == [1000] * 10


@pytest.mark.parametrize("side", [16, 8])
def test_smaller_images_are_means_over_squares_rounded_to_the_nearest(tmp_path, small, side):
    _write_binary(tmp_path / "cifar-10-batches-bin", 10)
    whole, pooled = open_cifar(Cifar(), tmp_path), open_cifar(Cifar(image_px=side), tmp_path)
    factor = 32 // side
    for name, split in whole.splits.items():
        squares = split.images.astype(np.float64).reshape(len(split), side, factor, side, factor, 3)
        # Halves up: NumPy's own rounding takes them to the even number.
        expected = np.floor(squares.mean(axis=(2, 4)) + 0.5)
        assert np.array_equal(pooled.splits[name].images, expected)
        assert pooled.splits[name].images.dtype == np.uint8
        assert np.array_equal(pooled.splits[name].labels, split.labels)
    assert pooled.fingerprint == whole.fingerprint  # the same images, so that errors on them compare


def test_a_mean_of_white_is_white():
    white = np.full((2, 32, 32, 3), 255, np.uint8)
    assert (cifar.pooled(white, 8) == 255).all()
    assert cifar.pooled(white, 32) is white


def test_a_configuration_from_before_there_were_smaller_images_is_the_same_run():
    old = {key: value for key, value in io_of_specs.to_json(Cifar()).items() if key != "image_px"}
    assert io_of_specs.from_json(Cifar, old) == Cifar()
