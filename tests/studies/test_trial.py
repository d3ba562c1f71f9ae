"""The parts of a trial: images that take no time, or less of it; what limits, by the rates; what is worth trying."""

import dataclasses
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import resnets
from resnets.data.sources import FolderFiles
from resnets.specs.errors import ImageError, UserError
from resnets.studies.commands import with_flags, without_flag
from resnets.studies.diagnosis import Measured
from resnets.studies.doctor import _places as places_of
from resnets.studies.trial import Rate
from resnets.studies.trial_images import (
    ImagesInMemory,
    SmallerImages,
    are_larger,
    drop_from_cache,
    make_smaller,
    read_images,
)
from resnets.studies.trial_options import Option, fewer_workers, more_workers, no_workers


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
        ({"transfer": 100}, "transfer"),
        ({"read": 100, "cached": True}, "model"),
        ({"again": 100, "cached": True}, "disk"),
        ({"load": 100, "decode": None}, "batches"),
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
    assert fewer_workers(8, measured(load=800, model=100, workers=8)) == [2]
    assert fewer_workers(1, measured(load=800, model=100, workers=1)) == []


def test_a_net_that_shares_its_cores_with_workers_is_tried_without_any():
    crowded = measured(load=400, model=100, workers=8, device="cpu", cores=2, threads=2)
    assert [option.flags for option in no_workers(crowded)] == [(("--workers", "0"),)]
    for other in ({"workers": 0}, {"threads": 1}, {"cores": 16}, {"device": "cuda"}):
        assert not list(no_workers(dataclasses.replace(crowded, **other)))


def test_reading_stops_with_the_time_but_not_before_some_are_read():
    class Slow(ImagesInMemory):
        def read(self, index, most=None):
            time.sleep(0.02)
            return super().read(index, most)

    reading = read_images(Slow([b"abc"], 100), range(100), readers=2, seconds=0.1)
    assert 2 <= len(reading.indices) < 40
    assert reading.images_per_second == pytest.approx(len(reading.indices) / reading.seconds)
    assert len(read_images(Slow([b"abc"], 9), range(9), readers=3, seconds=0.0, at_least=9).indices) == 9


def test_readers_wait_side_by_side_and_unreadable_images_are_counted():
    barrier = threading.Barrier(3, timeout=5)

    class Together(ImagesInMemory):
        def read(self, index, most=None):
            barrier.wait()
            if index == 1:
                raise ImageError("it is broken")
            return bytes([index])

    reading = read_images(Together([b""], 3), [2, 1, 0], readers=3, seconds=5.0)
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


def test_only_files_can_be_dropped_from_the_cache(tmp_path):
    path = tmp_path / "a.jpg"
    path.write_bytes(b"abc")
    assert drop_from_cache(FolderFiles.of([path, tmp_path / "none.jpg"]), [0, 1]) in (0, 1)
    assert drop_from_cache(ImagesInMemory([b"abc"], 1), [0]) == 0
    assert path.read_bytes() == b"abc"


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
