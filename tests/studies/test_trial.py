"""The parts of a trial: images that take no time, or less of it; what limits, by the rates; what is worth trying."""

import dataclasses
import os
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import resnets
import resnets.studies.doctor as doctor_module
from resnets.artifacts.run_directory import RunDirectory
from resnets.cli.doctor_screen import _stages
from resnets.data.preprocess import Preprocessor
from resnets.data.shard_index import Places
from resnets.data.shards import ShardFiles
from resnets.data.sources import FolderFiles, PackedNames
from resnets.engine.distributed import distributed
from resnets.engine.threads import threads
from resnets.specs.data import ImageFolder
from resnets.specs.errors import DeviceError, ImageError, ResnetsError, UserError
from resnets.specs.model import ResNetSpec
from resnets.studies import trial_course, trial_images, trial_options
from resnets.studies.commands import with_flags, without_flag
from resnets.studies.diagnosis import Measured, _headline
from resnets.studies.doctor import _places as places_of
from resnets.studies.machine_facts import machine_facts
from resnets.studies.trial import Rate, Trainee, host_rate, loading_rate
from resnets.studies.trial_course import Course
from resnets.studies.trial_images import (
    ImagesInMemory,
    Reading,
    SmallerImages,
    are_larger,
    drop_from_cache,
    make_smaller,
    read_images,
)
from resnets.studies.trial_options import Option, fewer_workers, more_workers, no_workers
from resnets.tasks.classify.prepare import prepare


def rate(images_per_second, waiting_share=0.0):
    value = float(images_per_second)
    return Rate(images_per_second=value, images=1, seconds=1 / value, waiting_share=waiting_share)


def measured(*, read=1e4, again=1e6, decode=1e4, load=None, model=1e4, transfer=None, device="cuda", **fields):
    load = min(read, again, decode) if load is None else load
    values = {
        "images": 1000,
        "total_bytes": 1e6,
        "batch": 8,
        "recipe_batch": 8,
        "workers": 4,
        "threads": 4,
        "device": device,
        "cores": 8,
        "cached": False,
        "read": rate(read),
        "read_again": rate(again),
        "mean_bytes": 1e3,
        "decode_one": None if decode is None else rate(decode / 4),
        "decode": None if decode is None else rate(decode),
        "load": rate(load),
        "transfer": None if transfer is None else rate(transfer),
        "model": rate(model),
        "whole": rate(min(load, model)),
    }
    return Measured(**(values | fields))


@pytest.mark.parametrize(
    ("rates", "limit"),
    [
        ({"read": 100}, "disk"),
        ({"decode": 100}, "decode"),
        ({"model": 100}, "model"),
        ({"transfer": 105, "load": 100}, "transfer"),
        ({"transfer": 95, "load": 100}, "transfer"),
        ({"transfer": 105, "load": 90, "decode": 95}, "decode"),
        ({"transfer": 105, "load": 90, "read": 95}, "disk"),
        ({"transfer": 300, "load": 100, "decode": 210, "read": 200}, "disk"),
        ({"transfer": 105, "load": 100, "model": 90}, "model"),
        # 16 threads of the run's own process, 10 ms to read an image and 25 to decode it.
        ({"read": 1600, "decode": 640, "load": 457, "workers": 0, "threads": 16}, "decode"),
        ({"read": 100, "cached": True}, "model"),
        ({"again": 100, "cached": True}, "disk"),
        ({"load": 100, "decode": None}, "batches"),
        ({"load": 1000, "decode": 1e4, "read": 1e6, "transfer": 1e5}, "batches"),
        ({"load": 1000, "decode": 1e4, "read": 1e6, "device": "cpu"}, "decode"),
    ],
)
def test_the_stage_that_limits_is_the_slowest(rates, limit):
    if rates.get("cached") and "read" in rates:
        rates = rates | {"load": 1e4, "model": 5e3}
    assert measured(**rates).limit == limit


@given(st.lists(st.floats(1, 1e5), min_size=3, max_size=3, unique=True))
def test_whatever_the_rates_the_one_that_limits_is_the_least(rates):
    read, decode, model = rates
    found = measured(read=read, decode=decode, model=model)
    assert found.limit == {read: "disk", decode: "decode", model: "model"}[min(rates)]
    assert found.factor >= 1


def test_what_is_said_of_the_way_to_the_device_can_be():
    found = measured(transfer=105, load=100, read=1e3, decode=1e3, workers=8)
    assert _headline(found) == (
        "The way to the device limits: 100 images/s arrive there; 8 workers could read and decode 500, and the model "
        "could train on 10,000."
    )
    assert found.factor == 100


@pytest.mark.parametrize(("workers", "readers"), [(0, "16 readers get"), (1, "1 reader gets"), (3, "3 readers get")])
def test_without_workers_the_threads_of_the_process_read(workers, readers):
    found = measured(read=100, load=90, workers=workers, threads=16)
    assert f"The disk limits: {readers} 100 images/s" in _headline(found)
    count = readers.rpartition(" ")[0]
    assert [name for name, *_ in _stages(found)][:2] == [f"read files from disk, {count}", f"read them again, {count}"]


def test_an_accelerator_waits_as_long_as_its_rate_falls_short_and_a_cpu_as_long_as_was_measured():
    assert measured(model=200, whole=rate(50, 0.99)).waiting_share == pytest.approx(0.75)
    assert measured(model=200, whole=rate(50, 0.6), device="cpu").waiting_share == 0.6


def test_what_shared_cores_could_do_is_the_processor_time_of_all_stages():
    # A model that takes 2 threads 10 ms, and decoding that takes 20 ms: 40 ms of processor time on 2 cores.
    found = measured(model=100, decode_one=rate(50), load=1000, device="cpu", cores=2, threads=2, workers=2)
    assert found.attainable == pytest.approx(50)
    assert found.shares_cores is False  # the workers are idle most of the time
    assert dataclasses.replace(found, load=rate(100)).shares_cores
    assert dataclasses.replace(found, workers=0).attainable == pytest.approx(1 / (1 / 100 + 1 / 1000))


def test_more_workers_are_tried_up_to_what_the_model_needs():
    few = measured(load=100, model=400, workers=1)
    assert more_workers(1, few, cores=8) == [5]
    assert more_workers(1, few, cores=2) == [2, 5, 4]
    assert all(count > 8 for count in more_workers(8, few, cores=2))
    # 16 threads of the run's own process bring 25 images/s each.
    assert more_workers(0, measured(load=400, model=200, workers=0, threads=16), cores=16) == [10]
    assert fewer_workers(8, measured(load=800, model=100, workers=8)) == [2]
    assert fewer_workers(1, measured(load=800, model=100, workers=1)) == []


def test_a_net_that_shares_its_cores_with_workers_is_tried_without_any():
    crowded = measured(load=400, model=100, workers=8, device="cpu", cores=2, threads=2)
    assert [option.flags for option in no_workers(crowded)] == [(("--workers", "0"),)]
    for other in ({"workers": 0}, {"threads": 1}, {"cores": 16}, {"device": "cuda"}):
        assert not list(no_workers(dataclasses.replace(crowded, **other)))


def test_reading_stops_with_the_time_but_not_before_some_are_read(monkeypatch):
    now, lock = [0.0], threading.Lock()
    monkeypatch.setattr(trial_images.time, "perf_counter", lambda: now[0])

    class Slow(ImagesInMemory):
        def read(self, index, most=None):
            with lock:
                now[0] += 0.02
            return super().read(index, most)

    reading = read_images(Slow([b"abc"], 100), range(100), readers=2, seconds=0.11)
    assert 6 <= len(reading.indices) <= 7  # one of them while the other reader was at the last that there is time for
    assert reading.images_per_second == pytest.approx(len(reading.indices) / reading.seconds)
    assert len(read_images(Slow([b"abc"], 9), range(9), readers=3, seconds=0.0, at_least=9).indices) == 9


def test_readers_wait_side_by_side_and_unreadable_images_are_counted():
    barrier = threading.Barrier(3, timeout=300)

    class Together(ImagesInMemory):
        def read(self, index, most=None):
            barrier.wait()
            if index == 1:
                raise ImageError("it is broken")
            return bytes([index])

    reading = read_images(Together([b""], 3), [2, 1, 0], readers=3, seconds=300.0)
    assert (reading.indices, reading.contents, reading.unreadable) == ((2, 0), (b"\2", b"\0"), 1)


def test_smaller_images_read_as_many_bytes_of_the_files_as_they_have():
    asked = []

    class Files(ImagesInMemory):
        def read(self, index, most=None):
            asked.append((index, most))
            return super().read(index, most)

    source = SmallerImages(Files([b"0123456789"], 3), [b"four", b"more than ten"])
    assert (source.read(0), source.read(1), source.read(2)) == (b"four", b"more than ten", b"four")
    assert asked == [(0, 4), (1, 13), (2, 3), (2, 4)]
    assert len(source) == 3
    assert source.taken(np.array([1])).read(0) == b"four"


def test_smaller_images_are_those_of_prepare(tmp_path):
    from PIL import Image

    folder = tmp_path / "data" / "train" / "a"
    folder.mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 256, (90, 120, 3), np.uint8)
    Image.fromarray(pixels).save(folder / "0.jpg", quality=90)
    Image.fromarray(pixels[:20, :20]).save(folder / "1.jpg", quality=90)
    contents = [(folder / f"{number}.jpg").read_bytes() for number in range(2)]
    assert are_larger(contents[:1], 40)
    assert not are_larger(contents[1:], 40)
    smaller = make_smaller(contents, 40, threads=2, seconds=60.0)
    for raw, mine in ((False, smaller.encoded), (True, smaller.raw)):
        shards = tmp_path / f"shards-{raw}"
        resnets.prepare(tmp_path / "data", shards, resize_px=40, raw=raw, workers=0, quiet=True)
        stored = b"".join(path.read_bytes() for path in sorted(shards.glob("*.tar")))
        assert all(content in stored for content in mine)


@pytest.fixture
def forgotten(monkeypatch):
    """The numbers on the disk of the files that the system was asked to forget."""
    if not hasattr(os, "posix_fadvise"):
        pytest.skip("no system that can be asked to forget files")
    asked = []
    monkeypatch.setattr(os, "posix_fadvise", lambda file, *_: asked.append(os.fstat(file).st_ino))
    return asked


def test_an_archive_beside_images_is_not_taken_for_their_shards(tmp_path, forgotten):
    for name in ("a.jpg", "b.jpg", "c.jpg", "left.tar"):
        (tmp_path / name).write_bytes(b"abc")
    source = FolderFiles(tmp_path, PackedNames.of(["a.jpg", "b.jpg", "c.jpg"]))
    assert drop_from_cache(source, [0, 2]) == 2
    assert forgotten == [(tmp_path / name).stat().st_ino for name in ("a.jpg", "c.jpg")]


def test_of_shards_those_are_dropped_that_the_images_are_in(tmp_path, forgotten):
    paths = tuple(str(tmp_path / f"train-{number:06}.tar") for number in range(3))
    for path in paths:
        Path(path).write_bytes(b"abcd")
    numbers = np.array([0, 1, 1, 2, 0])
    places = Places(shard=numbers, offset=numbers, size=numbers, crc32=numbers.astype(np.uint32))
    source = ShardFiles("set", paths, PackedNames.of("abcde"), places)
    for images in (source, SmallerImages(source, [b"x"])):
        forgotten.clear()
        assert drop_from_cache(images, [4, 2, 1]) == 2
        assert forgotten == [Path(path).stat().st_ino for path in paths[:2]]


def test_only_files_can_be_dropped_from_the_cache(tmp_path):
    path = tmp_path / "a.jpg"
    path.write_bytes(b"abc")
    assert drop_from_cache(FolderFiles.of([path, tmp_path / "none.jpg"]), [0, 1]) in (0, 1)
    assert drop_from_cache(ImagesInMemory([b"abc"], 1), [0]) == 0
    assert path.read_bytes() == b"abc"


@pytest.fixture
def course(photos, tmp_path):
    """A trial of a small run in the own process, on four training images."""
    net = ResNetSpec(block="basic", blocks=(1,), widths=(8,), stem="3x3", shortcut="B")
    spec = dataclasses.replace(
        resnets.recipe("folder.scratch"), model=net, dataset=ImageFolder(image_px=32, resize_px=36), global_batch=4
    )
    machine, nowhere = resnets.Machine(device="cpu", workers=0), RunDirectory(tmp_path / "none")
    with distributed(torch.device("cpu")) as ranks, threads(3):
        parts = prepare(spec, photos, nowhere, machine, ranks, "", quiet=True)
        yield Course(parts=parts, root=photos, facts=machine_facts(), seconds=1.0, on_stage=lambda stage: None)


@pytest.mark.parametrize(("workers", "readers"), [(0, 3), (1, 1), (2, 2)])
def test_as_many_read_as_in_the_run(course, monkeypatch, workers, readers):
    asked = []

    def read(*arguments, **named):
        asked.append(named["readers"])
        return read_images(*arguments, **named)

    monkeypatch.setattr(trial_course, "read_images", read)
    course.parts = dataclasses.replace(course.parts, workers=workers)
    course._read(course.parts.dataset.splits["train"])
    assert asked == [readers, readers]


def test_a_batch_of_the_trial_is_work_for_all_threads_of_the_process(course):
    # A thread reads an image in 10 ms and decodes it in 10: one makes 10 in 0.2 s, three make 30.
    course.seconds = 20 / 3
    reading = Reading(indices=tuple(range(64)), contents=(), unreadable=0, seconds=64 * 0.01 / 3)
    *_, together = course._begin(course.parts, 64, reading, rate(100))
    course.parts = dataclasses.replace(course.parts, workers=1)
    *_, alone = course._begin(course.parts, 64, dataclasses.replace(reading, seconds=64 * 0.01), rate(100))
    assert (together, alone) == (16, 8)  # 64, halved


def test_the_whole_takes_no_more_images_than_fit_into_the_memory_of_the_device(course, monkeypatch):
    asked = []

    def limited(images, most):
        asked.append(images)
        if images > most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 MiB.")
        return rate(1)

    monkeypatch.setattr(Course, "_begin", lambda self, memory, *_: (Trainee(memory), 4, 4))
    monkeypatch.setattr(trial_course, "step_rate", lambda parts, trainee, batch, *_: limited(len(batch), 2))
    monkeypatch.setattr(trial_course, "training_rate", lambda parts, *_: limited(parts.spec.global_batch, 1))
    found = course.measure()
    assert asked == [4, 2, 2, 1]
    assert (found.batch, found.recipe_batch, len(course._batch)) == (1, 4, 1)
    notes = [note for note in course.notes if "--accumulation" in note]
    assert [note.partition(" does")[0] for note in notes] == ["A pass of 4 images", "A pass of 2 images"]


@pytest.mark.parametrize(("text", "expected"), [("MPS backend out of memory", ResnetsError), ("shapes", RuntimeError)])
def test_a_single_image_that_does_not_fit_and_other_errors_end_the_trial(course, monkeypatch, text, expected):
    def fail(*_):
        raise RuntimeError(text)

    monkeypatch.setattr(Course, "_begin", lambda self, memory, *_: (Trainee(memory), 4, 4))
    monkeypatch.setattr(trial_course, "step_rate", fail)
    with pytest.raises(expected):
        course.measure()


def test_a_trial_without_memory_ends_in_an_error_that_shows_the_machine(monkeypatch):
    def fail(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 MiB. GPU 0 has 4 MiB free.")

    monkeypatch.setattr(doctor_module, "_diagnose", fail)
    with pytest.raises(ResnetsError, match="too little free memory") as caught:
        resnets.doctor("digits.resnet8", machine=resnets.Machine(device="cpu"))
    assert not isinstance(caught.value, UserError)


def test_a_gpu_without_bf16_is_tried_with_fp16(course, monkeypatch):
    def check(precision, device):
        if precision == "bf16":
            raise DeviceError("too old")

    monkeypatch.setattr(trial_options, "check_precision", check)
    assert [one.label for one in trial_options._half_precision(torch.device("cuda"))] == ["fp16"]
    assert not list(trial_options._half_precision(torch.device("cpu")))
    (option,) = trial_options._half_precision(torch.device("cuda"))
    assert option.change(course.parts).spec.precision == "fp16"


def test_the_time_that_forgetting_files_takes_counts(course, monkeypatch):
    monkeypatch.setattr(Course, "_turn", lambda self, parts: time.sleep(0.05) or 0)
    monkeypatch.setattr(trial_course, "training_rate", lambda *_: rate(1))
    course._training_rate(course.parts, Trainee(course.parts))
    assert course._whole_seconds >= 0.05


def test_what_the_device_does_is_no_part_of_what_the_host_decodes(course, monkeypatch):
    normalised = []

    def normalize(self, pixels):
        normalised.append(len(pixels))
        time.sleep(0.05)
        return pixels.float()

    monkeypatch.setattr(Preprocessor, "normalize", normalize)
    assert loading_rate(course.parts, 0.1).images_per_second < 80  # 4 images in 0.05 s
    assert normalised
    normalised.clear()
    found = host_rate(course.parts, 0.1)
    assert found.images % 4 == 0
    assert not normalised


def test_a_flag_takes_the_place_of_the_one_before():
    words = [
        "train",
        "x",
        "--workers",
        "-1",
        "--model.blocks",
        "2",
        "2",
        "--seed",
        "3",
        "--precision=fp32",
        "--data",
        "d",
    ]
    changed = with_flags(words, [("--workers", "4"), ("--model.blocks", "3", "4"), ("--precision", "bf16"), ("--new",)])
    assert " ".join(changed) == "train x --workers 4 --model.blocks 3 4 --seed 3 --precision bf16 --data d --new"
    assert with_flags(changed, [("--workers", "4")]) == changed


def test_the_recipe_behind_a_flag_stays():
    words = ["resnets", "train", "--workers", "1", "folder.scratch", "--data", "d", "schedule:cosine"]
    changed = with_flags(words, [("--workers", "4"), ("--data", "e")])
    assert " ".join(changed) == "resnets train --workers 4 folder.scratch --data e schedule:cosine"
    for flags in (["--seconds", "5"], ["--seconds=5"]):
        assert without_flag([*flags, "folder.scratch"], "--seconds", values=1) == ["folder.scratch"]


@pytest.mark.parametrize(
    ("data", "made", "copied"),
    [
        ("my photos", "my photos-73-raw", "/dev/shm/my photos"),
        (".", "{here}-73-raw", "/dev/shm/{name}"),
        ("..", "{above}-73-raw", "/dev/shm/{above.name}"),
        ("/", "/data-73-raw", "/dev/shm/data"),
    ],
)
def test_every_folder_has_a_name_for_what_is_made_of_it(tmp_path, monkeypatch, data, made, copied):
    here = tmp_path / "photos"
    here.mkdir()
    monkeypatch.chdir(here)
    prepare = ("resnets", "prepare", "DATA", "FOLDER", "--resize", "73", "--raw")
    option = Option(kind="raw", label="raw", flags=(), change=lambda parts: parts, prepare=(prepare,))
    words = {"here": here.resolve(), "name": here.name, "above": tmp_path.resolve()}
    places = places_of(option, Path(data))
    assert places == {"DATA": data, "FOLDER": made.format(**words), "/dev/shm/FOLDER": copied.format(**words)}


def test_a_run_of_small_images_in_memory_has_no_disk(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    machine = resnets.Machine(device="cpu", threads=1)
    diagnosis = resnets.doctor("digits.resnet8", machine=machine, seconds=1.0).diagnosis
    assert diagnosis is not None
    assert diagnosis.measured.limit in ("model", "batches")
    assert diagnosis.measured.read is None
    assert {one.kind for one in diagnosis.tried} <= {"precision", "threads"}
    assert not list(tmp_path.iterdir())  # nothing is written
    assert diagnosis.document()["advice"] == [advice.to_json() for advice in diagnosis.advice]


@pytest.mark.parametrize(
    "options", [{"seconds": 0.0}, {"spec": "folder.scratch"}, {"spec": "digits.resnet8", "data": "cifar10x"}]
)
def test_what_cannot_be_trained_is_refused(options):
    with pytest.raises(UserError):
        resnets.doctor(**options)
