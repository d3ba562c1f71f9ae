"""The loader benchmark: the same crops for all, faithful ones, and rows for what is there and what is not."""

import importlib.util
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from resnets.specs.errors import DataError, UserError
from resnets.studies import bench_crops
from resnets.studies.bench_crops import (
    Crop,
    fidelity,
    large_photographs,
    photographs,
    plan_crops,
    reference_crop,
)
from resnets.studies.bench_data import bench_data, loader_systems, one_core_systems, shard_systems
from resnets.studies.bench_pipelines import our_files

SIDE = 32

# webdataset leaves the archives that it has opened to the garbage collector.
pytestmark = pytest.mark.filterwarnings(r"ignore:unclosed file.*photographs\.tar:ResourceWarning")


@pytest.fixture(scope="module")
def plan(photos):
    return plan_crops(photographs(photos, 10)[0], side=SIDE, batch=4, batches=3)


def test_boxes_lie_in_their_photographs_and_have_the_shares_and_shapes_of_the_reference(plan):
    for batch in plan.batches:
        assert len(batch) == 4
        for crop in batch:
            left, top, right, bottom = crop.box
            assert 0 <= left < right <= crop.width == 160
            assert 0 <= top < bottom <= crop.height == 120
            assert 0.08 - 1e-9 <= (right - left) * (bottom - top) / (160 * 120) <= 1 + 1e-9
            assert 3 / 4 - 1e-9 <= (right - left) / (bottom - top) <= 4 / 3 + 1e-9
            left, top, width, height = crop.whole
            assert (left + width <= 160, top + height <= 120, min(left, top) >= 0) == (True, True, True)
            assert np.abs(np.subtract((left, top, left + width, top + height), crop.box)).max() <= 0.5


def test_the_product_cuts_these_very_boxes(plan):
    files = our_files(plan)
    for number, batch in enumerate(plan.batches):
        pixels = files[number].pixels.numpy()
        for place, crop in enumerate(batch):
            difference = pixels[place].astype(int) - reference_crop(crop, SIDE, fractional=False)
            assert np.square(difference).mean() < 255**2 / 10**3  # 30 dB; of another box it is 15


@given(st.floats(min_value=20.0, max_value=5000.0), st.floats(min_value=20.0, max_value=5000.0))
def test_a_photograph_is_decoded_as_small_as_its_crop_allows(width, height):
    crop = Crop(path=Path("x"), width=6000, height=6000, box=(0.0, 0.0, width, height), flip=False)
    scale = crop.scale(SIDE)
    assert scale in (1, 2, 4, 8)
    assert scale == 1 or min(width, height) / scale >= SIDE
    assert scale == 8 or min(width, height) / (2 * scale) < SIDE


def test_fidelity_is_the_peak_signal_to_noise_ratio(plan):
    def off_by_two(place):
        pixels = reference_crop(plan[0][place], SIDE, fractional=False)
        return np.where(pixels > 100, pixels - 2, pixels + 2).astype(np.uint8)

    found = fidelity(off_by_two, plan, fractional=False)
    expected = round(20 * math.log10(255 / 2), 1)
    assert found == {"psnr_db": expected, "psnr_db_lowest": expected, "psnr_crops": 4}
    exact = fidelity(lambda place: reference_crop(plan[0][place], SIDE, fractional=False), plan, fractional=False)
    assert (exact["psnr_db"], exact["psnr_db_lowest"]) == (None, None)


def test_only_upright_jpegs_that_can_be_read_are_taken(tmp_path):
    image = Image.new("RGB", (40, 30), "red")
    image.save(tmp_path / "good.jpg")
    image.convert("L").save(tmp_path / "gray.jpeg")
    image.convert("CMYK").save(tmp_path / "print.jpg")
    image.save(tmp_path / "other.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "turned.jpg", exif=exif)
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "good.jpg").read_bytes()[:300])
    (tmp_path / "notes.txt").write_text("no image", "utf-8")
    found, left_out = photographs(tmp_path, 10)
    assert ([path.name for path in found], left_out) == (["good.jpg", "gray.jpeg"], 4)
    with pytest.raises(DataError, match="no folder"):
        photographs(tmp_path / "good.jpg", 10)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no JPEG photographs"):
        photographs(tmp_path / "empty", 10)


def test_large_photographs_have_the_size_and_bytes_of_a_cameras(photos, tmp_path, monkeypatch):
    monkeypatch.setattr(bench_crops, "LARGE_PX", (800, 600))
    sources, _ = photographs(photos, 10)
    for megabytes in (0.12, 0.2):
        for path in large_photographs(sources, tmp_path, 2, megabytes):
            with Image.open(path) as image:
                assert image.size == (800, 600)
            assert path.stat().st_size == pytest.approx(1e6 * megabytes, rel=0.1)


def test_every_pipeline_that_is_here_is_close_to_the_reference(plan, tmp_path):
    for system in one_core_systems(plan, tmp_path):
        if any(importlib.util.find_spec(need.module) is None for need in system.needs):
            continue
        prepared = system.prepare()
        prepared.run(1)
        if prepared.facts.get("psnr_db") is not None:
            assert prepared.facts["psnr_db"] > 30, system.name
        prepared.close()


def test_the_table_has_all_systems_and_loaders_with_their_share_of_the_cores(photos):
    found = bench_data(photos, workers=[1], side=SIDE, batch=2, rounds=1, quiet=True)
    rows = {row.system: row for row in found.rows}
    assert list(rows)[:2] == ["Pillow + torchvision", "resnets"]
    assert rows["resnets"].ratio.median > 0
    assert (rows["Pillow + torchvision"].facts["psnr_db"], rows["resnets"].facts["boxes"]) == (None, "whole pixels")
    for name, alone in (("DataLoader, 1 worker", "Pillow + torchvision"), ("resnets, 1 worker", "resnets")):
        loader = rows[name]
        share = loader.images_per_second.median / rows[alone].images_per_second.median
        assert loader.facts["of_linear"] == pytest.approx(share, abs=1e-3)
        assert loader.against == "DataLoader, 1 worker"
    for row in found.rows:
        assert row.images_per_second is not None or row.hint.startswith("pip install ")


def test_shards_hold_the_same_crops_of_smaller_photographs(photos, tmp_path, monkeypatch):
    monkeypatch.setattr("resnets.studies.bench_shards.SHORTER_PX", 96)
    plan = plan_crops(photographs(photos, 10)[0], side=64, batch=4, batches=2)
    kilobytes = {}
    for system in shard_systems(plan, tmp_path):
        prepared = system.prepare()
        prepared.run(1)
        assert prepared.facts["psnr_db"] > 27, system.name  # a crop of another box has 15
        kilobytes[system.name] = prepared.facts["kilobytes"]
    assert kilobytes["resnets, raw 256"] == pytest.approx(96 * 128 * 3 / 1e3, rel=0.02)


def test_a_loader_counts_the_images_of_its_turn(plan):
    for loader in loader_systems(plan, 2):
        assert loader.images == plan.batch * 12


def test_wrong_numbers_are_refused_before_anything_is_read(photos):
    for name, value in (("side", 0), ("batch", 0), ("rounds", 0), ("workers", [0])):
        with pytest.raises(UserError, match=r"is 0; it is at least 1"):
            bench_data(photos, **{name: value})
