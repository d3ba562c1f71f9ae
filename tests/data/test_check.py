"""Checking a dataset: thirty planted defects are named and nothing else, whatever the images and their source."""

import io
import json
import multiprocessing
import os
import shutil
import struct
import zlib
from collections import Counter
from functools import partial
from itertools import count

import numpy as np
import pytest
from PIL import Image

from resnets.data import image_probe, jpeg
from resnets.data.check import CheckLimits, check_data, check_images
from resnets.data.findings import KINDS
from resnets.data.image_tree import Entry
from resnets.data.quarantine import read_quarantine
from resnets.specs.errors import DataError, ImageError, SpecError, UserError


def scene(seed, size=(96, 72)):
    """An image unlike every other: smooth random colours with some fine structure."""
    random = np.random.default_rng(seed)
    coarse = Image.fromarray(random.integers(0, 256, (6, 8, 3), dtype=np.uint8)).resize(size, Image.Resampling.BICUBIC)
    fine = random.normal(0, 8, (size[1], size[0], 1))
    return Image.fromarray((np.asarray(coarse) + fine).clip(0, 255).astype(np.uint8))


def encoded(image, form="JPEG", **options):
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def scenes(root, counts, first_seed=0):
    """Write images: {"train/cat": 3} gives train/cat/000.jpg to 002.jpg; returns their paths."""
    paths = []
    for folder, images in counts.items():
        (root / folder).mkdir(parents=True, exist_ok=True)
        for number in range(images):
            paths.append(f"{folder}/{number:03}.jpg")
            (root / paths[-1]).write_bytes(encoded(scene(first_seed + len(paths)), quality=90))
    return paths


def bomb(width, height):
    """A PNG of a few bytes that says it has width x height pixels."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 99)) + chunk(b"IEND", b"")
    )


def plant(root, a, b, fresh):
    """Plant 30 defects below train/A and B and val/A; returns their (kind, first path), sorted.

    `fresh` yields images that are nowhere in the folder.
    """
    train_a, train_b, val_a = f"train/{a}", f"train/{b}", f"val/{a}"
    found = []

    def put(kind, path, data):
        (root / path).write_bytes(data)
        found.append((kind, path))

    def new(form="JPEG", **options):
        return encoded(next(fresh).convert("RGB"), form, **options)

    put("empty", f"{train_a}/p01.jpg", b"")
    put("zeros", f"{train_b}/p02.jpg", bytes(5000))
    put("not-an-image", f"{train_a}/p03.jpg", b"<!DOCTYPE html><html><body>404 Not Found</body></html>")
    put("not-an-image", f"{train_b}/p04.png", "Größe: 3 x 4, a caption that lost its image\n".encode())
    put("not-an-image", f"{val_a}/p05.jpeg", b"%PDF-1.7\n" + bytes(range(256)))
    data = new(quality=90)
    put("truncated", f"{train_a}/p06.jpg", data[: len(data) * 6 // 10])
    data = new("PNG")
    put("truncated", f"{train_b}/p07.png", data[: len(data) // 2])
    data = new(quality=90)
    put("truncated", f"{val_a}/p08.jpg", data[: len(data) // 2] + b"\xff\xd9")
    data = new(quality=90)
    put("truncated", f"{train_a}/p09.jpg", data[: len(data) // 2] + bytes(len(data) // 2))
    data = bytearray(new("PNG"))
    data[len(data) // 2] ^= 0xFF
    put("damaged", f"{train_b}/p10.png", bytes(data))
    data = new(quality=90)
    put("damaged", f"{train_a}/p11.jpg", data[:2] + bytes(40) + data[42:])
    put("too-large", f"{train_b}/p12.png", bomb(60_000, 60_000))
    put("too-large", f"{val_a}/p13.png", bomb(13_500, 13_500))
    put("tiny", f"{train_a}/p14.png", encoded(next(fresh).resize((12, 9)), "PNG"))
    put("extreme-aspect", f"{train_b}/p15.jpg", encoded(next(fresh).resize((480, 60)), quality=90))
    put("blank", f"{train_a}/p16.jpg", encoded(Image.new("RGB", (90, 70), (12, 90, 200)), quality=80))
    put("wrong-extension", f"{train_b}/p17.jpg", new("PNG"))
    put("rotated", f"{train_a}/p18.jpg", new(quality=90, exif=_orientation(6)))
    put("color-mode", f"{train_b}/p19.jpg", encoded(next(fresh).convert("CMYK"), quality=90))
    gray = np.asarray(next(fresh).convert("L")).astype(np.uint16) * 257
    put("color-mode", f"{train_a}/p20.png", encoded(Image.fromarray(gray), "PNG"))
    put("color-mode", f"{train_b}/p21.png", encoded(next(fresh).quantize(64), "PNG"))
    see_through = next(fresh).convert("RGBA")
    see_through.putalpha(128)
    put("color-mode", f"{val_a}/p22.png", encoded(see_through, "PNG"))
    frames = [next(fresh), next(fresh)]
    put("animated", f"{train_a}/p23.gif", encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]))

    # Copies: of a clean image each, whose path sorts first.
    original = sorted(path for path in (root / train_a).iterdir() if path.name[0] != "p")
    others = [path.relative_to(root).as_posix() for path in original[:6]]
    shutil.copy(root / others[0], root / f"{train_a}/p24.jpg")
    found.append(("duplicate", others[0]))
    shutil.copy(root / others[1], root / f"{train_b}/p25.jpg")
    found.append(("label-conflict", others[1]))
    shutil.copy(root / others[2], root / f"{val_a}/p26.jpg")
    found.append(("leak", others[2]))
    smaller = Image.open(root / others[3]).convert("RGB")
    smaller = smaller.resize((smaller.width * 2 // 3, smaller.height * 2 // 3))
    (root / f"{train_a}/p27.jpg").write_bytes(encoded(smaller, quality=60))
    found.append(("near-duplicate", others[3]))
    mirrored = Image.open(root / others[4]).convert("RGB").transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    (root / f"{val_a}/p28.jpg").write_bytes(encoded(mirrored, quality=80))
    found.append(("near-leak", others[4]))

    put("ignored-file", f"{train_a}/p29.txt", b"a caption")
    (root / f"{train_b}/p30.jpg").symlink_to("nowhere.jpg")
    found.append(("broken-link", f"{train_b}/p30.jpg"))
    assert len(found) == 30
    assert len({kind for kind, _ in found}) >= 15
    return sorted(found)


def _orientation(value):
    exif = Image.Exif()
    exif[0x0112] = value
    return exif.tobytes()


def named(report):
    return sorted((finding.kind, finding.paths[0]) for finding in report.findings)


@pytest.fixture
def clean(tmp_path):
    root = tmp_path / "photos"
    scenes(root, {"train/cat": 12, "train/dog": 12, "val/cat": 4, "val/dog": 4})
    return root


def test_a_clean_folder_has_no_findings(clean):
    report = check_data(clean, workers=0)
    assert named(report) == []
    assert report.errors == 0
    assert report.images == report.figures.images == 32
    assert report.counts == {"train": {"cat": 12, "dog": 12}, "validation": {"cat": 4, "dog": 4}}


@pytest.mark.parametrize("workers", [0, 2])
def test_thirty_planted_defects_are_named_and_nothing_else(clean, workers):
    planted = plant(clean, "cat", "dog", map(scene, count(5000)))
    assert named(check_data(clean, workers=workers)) == planted


@pytest.fixture(scope="module")
def flowers_report(testdata):
    return check_data(testdata / "flowers")


@pytest.mark.data
def test_of_4311_photographs_no_unrelated_pair_is_called_near(flowers_report):
    assert flowers_report.images == 4311
    # Looked at by eye: each is one photograph at another size or in other colours, or the next shot of a series.
    counted = Counter(finding.kind for finding in flowers_report.findings)
    assert counted == {"near-duplicate": 18, "near-leak": 3}
    assert all(len(finding.paths) == 2 for finding in flowers_report.findings)


@pytest.mark.data
def test_thirty_planted_defects_among_photographs_are_named_and_nothing_else(testdata, flowers_report, tmp_path):
    twice = {path for finding in flowers_report.findings for path in finding.paths}
    root = tmp_path / "flowers"
    pool = []
    for split, images in (("train", 80), ("val", 20)):
        for name in ("daisy", "rose", "tulip"):
            (root / split / name).mkdir(parents=True)
            folder = testdata / "flowers" / split / name
            files = [path for path in sorted(folder.iterdir()) if f"{split}/{name}/{path.name}" not in twice]
            for file in files[:images]:
                shutil.copy(file, root / split / name)
            pool += files[images : images + 20]
    assert named(check_data(root)) == []
    planted = plant(root, "daisy", "rose", (Image.open(file).convert("RGB") for file in pool))
    assert named(check_data(root)) == planted


def test_the_order_of_severity_is_the_order_of_the_report(clean):
    plant(clean, "cat", "dog", map(scene, count(5000)))
    report = check_data(clean, workers=0)
    grave = [finding.severity for finding in report.findings]
    assert grave == sorted(grave, key=["error", "warning", "note"].index)
    document = json.loads(json.dumps(report.as_json()))
    assert document["errors"] == report.errors == grave.count("error")
    assert {finding["kind"] for finding in document["findings"]} <= set(KINDS)
    assert sum(document["shorter_side_px"]["counts"]) == report.figures.images
    assert sum(document["aspect"]["counts"]) == report.figures.images


def test_images_may_come_from_anywhere(tmp_path):
    files = {f"shard/{number}": encoded(scene(number)) for number in range(20)}
    files["shard/7"] = files["shard/3"]
    files["shard/9"] = files["shard/9"][:300]
    entries = [
        Entry("train" if number < 10 else "test", "ab"[number % 2], path, partial(bytes, data))
        for number, (path, data) in enumerate(files.items())
    ]
    report = check_images(iter(entries), name="shards", total=len(entries), workers=0)
    assert named(report) == [("duplicate", "shard/3"), ("truncated", "shard/9")]
    short = check_images(iter(entries), name="shards", total=3, workers=2)  # a wrong total is no harm
    assert (named(short), short.counts) == (named(report), report.counts)


def _fail():
    raise RuntimeError("the shard is gone")


def test_a_source_that_fails_is_an_unreadable_image():
    report = check_images([Entry("train", "a", "x.jpg", _fail)], name="shards", total=1, workers=0)
    assert [(f.kind, f.detail) for f in report.findings if f.paths == ("x.jpg",)] == [
        ("unreadable", "reading it failed: the shard is gone")
    ]


def _end_the_process():
    os._exit(11)


def test_a_file_that_ends_the_process_that_decodes_it_is_named_and_the_others_are_checked():
    reads = [partial(bytes, encoded(scene(number))) for number in range(40)]
    reads[21] = _end_the_process
    entries = [Entry("train", "ab"[number % 2], f"{number}.jpg", read) for number, read in enumerate(reads)]
    report = check_images(entries, name="images", total=40, workers=2)
    assert named(report) == [("unreadable", "21.jpg")]
    assert "ended the process" in report.findings[0].detail
    assert report.figures.images == 39


def _make_fatal(monkeypatch, owner, name, content):
    """Have a function or method end its process where it decodes one file."""
    decode = getattr(owner, name)

    def decode_or_die(source, *args, **options):
        if getattr(source, "content", source) == content:
            os._exit(11)
        return decode(source, *args, **options)

    monkeypatch.setattr(owner, name, decode_or_die)


@pytest.mark.skipif(multiprocessing.get_start_method() != "fork", reason="patches reach processes that are forked")
@pytest.mark.parametrize(
    ("owner", "name", "path"),
    [
        pytest.param(
            jpeg.SequentialJpeg,
            "rows",
            "train/cat/005.jpg",
            marks=pytest.mark.skipif(jpeg.simplejpeg is None, reason="Pillow decodes where simplejpeg has no wheel"),
        ),
        (image_probe, "read_image", "val/dog/002.jpg"),
    ],
    ids=["training", "evaluation"],
)
def test_an_image_that_ends_the_decoder_of_its_split_is_named_and_left_out(clean, monkeypatch, owner, name, path):
    _make_fatal(monkeypatch, owner, name, (clean / path).read_bytes())
    report = check_data(clean, workers=2, quarantine=True)
    assert named(report) == [("unreadable", path)]
    assert report.figures.images == 31
    assert set(read_quarantine(clean)) == {path}


def test_a_jpeg_that_simplejpeg_refuses_and_pillow_reads_is_sound(clean):
    path = clean / "train/cat/005.jpg"
    content = path.read_bytes()
    part_2_of_3 = b"ICC_PROFILE\0\2\3" + bytes(40)
    path.write_bytes(content[:2] + b"\xff\xe2" + (len(part_2_of_3) + 2).to_bytes(2) + part_2_of_3 + content[2:])
    if jpeg.simplejpeg is not None:
        usual = jpeg.SequentialJpeg.parse(path.read_bytes())
        with pytest.raises(ImageError):
            usual.rows(usual.height, 1)
    assert named(check_data(clean, workers=0)) == []


def test_a_quarantine_list_holds_what_is_broken_and_what_was_asked_for(clean):
    planted = plant(clean, "cat", "dog", map(scene, count(5000)))
    before = {path: path.read_bytes() for path in clean.rglob("*") if path.is_file()}
    report = check_data(clean, workers=0, quarantine=True)
    assert report.quarantine_images == 13
    listed = read_quarantine(clean)
    broken = {"empty", "zeros", "not-an-image", "truncated", "damaged", "too-large"}
    assert set(listed) == {path for kind, path in planted if kind in broken}
    assert listed["train/cat/p01.jpg"] == "it is empty (0 bytes)"
    kinds = ["leaks", "near-leaks", "conflicts", "duplicates"]
    check_data(clean, workers=0, quarantine=True, quarantine_kinds=kinds)
    more = set(read_quarantine(clean)) - set(listed)
    first = dict(planted)
    assert more == {
        first["leak"], first["near-leak"],  # the training copies
        first["label-conflict"], "train/dog/p25.jpg",  # both
        "train/cat/p24.jpg",  # all but one
    }  # fmt: skip
    assert before.items() <= {path: path.read_bytes() for path in clean.rglob("*") if path.is_file()}.items()


def test_what_the_quarantine_list_leaves_out_is_no_error_any_more(clean):
    plant(clean, "cat", "dog", map(scene, count(5000)))
    assert check_data(clean, workers=0, quarantine=True).errors > 0
    report = check_data(clean, workers=0)
    assert set(report.by_kind()) & {"leak", "near-leak", "label-conflict"}
    assert "empty" not in report.by_kind()
    check_data(clean, workers=0, quarantine=True, quarantine_kinds=["leaks", "near-leaks", "conflicts"])
    assert check_data(clean, workers=0).errors == 0


def test_a_file_that_was_mended_leaves_the_list_and_what_a_person_added_stays(clean):
    (clean / "train/cat/000.jpg").write_bytes(b"")
    check_data(clean, workers=0, quarantine=True)
    document = json.loads((clean / "quarantine.json").read_text())
    document["images"].append({"path": "val/dog/001.jpg", "reason": "it shows a wolf"})
    (clean / "quarantine.json").write_text(json.dumps(document))
    (clean / "train/cat/000.jpg").write_bytes(encoded(scene(777)))
    check_data(clean, workers=0, quarantine=True)
    assert read_quarantine(clean) == {"val/dog/001.jpg": "it shows a wolf"}


def test_another_file_may_take_the_list(clean, tmp_path):
    (clean / "train/cat/000.jpg").write_bytes(b"")
    report = check_data(clean, workers=0, quarantine=tmp_path / "list.json")
    assert report.quarantine == tmp_path / "list.json"
    assert json.loads((tmp_path / "list.json").read_text())["images"][0]["path"] == "train/cat/000.jpg"
    assert read_quarantine(clean) == {}
    looked_at = []
    with pytest.raises(DataError, match="cannot be written"):
        check_data(
            clean,
            workers=0,
            quarantine=tmp_path / "no" / "list.json",
            on_progress=lambda what, done, _: looked_at.append((what, done)),
        )
    assert looked_at == [("listing the folder", 0)]
    assert not list(clean.glob(".*"))


def test_limits_and_kinds_that_mean_nothing_are_refused(clean):
    for wrong in ({"min_px": -1}, {"max_aspect": 0.5}, {"max_imbalance": float("nan")}, {"near_bits": 13}):
        with pytest.raises(SpecError, match="--"):
            CheckLimits(**wrong)
    with pytest.raises(UserError, match=r"'leak'.* Did you mean leaks"):
        check_data(clean, quarantine=True, quarantine_kinds=["leak"])
    with pytest.raises(UserError, match="add --quarantine"):
        check_data(clean, quarantine_kinds=["leaks"])


def test_limits_are_kept(clean):
    (clean / "train/cat/wide.jpg").write_bytes(encoded(scene(900, (150, 72))))
    assert named(check_data(clean, workers=0)) == []
    limits = CheckLimits(min_px=73, max_aspect=2.0, max_imbalance=1.0, near_bits=-1)
    found = Counter(finding.kind for finding in check_data(clean, workers=0, limits=limits).findings)
    assert found == {"tiny": 33, "extreme-aspect": 1, "imbalance": 1}


def test_progress_is_told_from_nothing_to_all(clean):
    told = []
    check_data(clean, workers=2, on_progress=lambda *told_now: told.append(told_now))
    done = [number for what, number, of in told if what == "checking"]
    assert done == sorted(done)
    assert (done[0], done[-1]) == (0, 32)


def test_hundreds_of_images_of_one_picture_are_one_finding(tmp_path):
    noise = np.random.default_rng(0)
    base = np.asarray(scene(1, (32, 32))).astype(int)
    entries = [
        Entry("train", "a", f"{number}.png", partial(bytes, encoded(Image.fromarray(
            (base + noise.integers(-3, 4, base.shape)).clip(0, 255).astype(np.uint8)), "PNG")))
        for number in range(300)
    ]  # fmt: skip
    report = check_images(entries, name="frames", total=300, workers=0)
    near = [finding for finding in report.findings if finding.kind == "near-duplicate"]
    assert [len(finding.paths) for finding in near] == [300]
