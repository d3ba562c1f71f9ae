import gc
import itertools
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from resnets.data.augment import mirrored
from resnets.data.batches import training_batches
from resnets.data.color import COLOR_DRAWS, ColorAugment
from resnets.data.crop import read_crop
from resnets.data.loader import EvaluationFiles, TrainingFiles
from resnets.data.order import COLOR_STREAM, TrainingStream, uniforms
from resnets.data.preprocess import Preprocessor
from resnets.data.read_ahead import TERMINATION_GRACE_SECONDS, decoded_batches, read_ahead
from resnets.data.sources import FolderFiles
from resnets.data.splits import FileSplit
from resnets.specs.catalogue import model_spec
from resnets.specs.data import AreaCrop, Color, ImageFolder, Mix, RandAugment, ScaleCrop, TrivialAugment
from resnets.specs.errors import DataError, ResnetsError
from resnets.specs.preprocess import ColorOrder, Preprocess
from resnets.specs.run import TrainSpec

pytestmark = [
    # Python 3.12 and later warn of threads that exist when a process forks; torch has some.
    pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning"),
]

CPU = torch.device("cpu")
SIZES = [(40, 30), (17, 50), (64, 64), (200, 90), (25, 24), (31, 44), (90, 90), (400, 300), (30, 300), (55, 20)]
AUGMENT = AreaCrop(min_area=0.3)


def paths_of(split):
    return tuple(Path(split.images.path(index)) for index in range(len(split)))


def write_images(folder, sizes):
    random = np.random.default_rng(0)
    paths = []
    for number, (width, height) in enumerate(sizes):
        coarse = Image.fromarray(random.integers(0, 256, (5, 5, 3), dtype=np.uint8))
        path = folder / f"{number}.{'jpg' if number % 2 else 'png'}"
        coarse.resize((width, height)).save(path)
        paths.append(path)
    return FileSplit(images=FolderFiles.of(paths), labels=np.arange(len(paths), dtype=np.int64) % 3)


@pytest.fixture
def split(tmp_path):
    return write_images(tmp_path, SIZES)


def preprocessor_for(color: ColorOrder = "rgb"):
    channels = 1 if color == "gray" else 3
    return Preprocessor(
        Preprocess(resize_px=28, crop_px=24, color=color, mean=(100.0,) * channels, std=(50.0,) * channels)
    )


def run_of(order: ColorOrder = "rgb", **fields):
    channels = 1 if order == "gray" else 3
    folder = ImageFolder(image_px=24, resize_px=28, color=order, mean=(100.0,) * channels, std=(50.0,) * channels)
    fields = {"augment": AUGMENT, "seed": 3, "global_batch": 8, "accumulation": 2} | fields
    return TrainSpec(model=model_spec("resnet18"), dataset=folder, **fields)


def first_batches(
    split,
    *,
    count=4,
    first_step=0,
    workers=0,
    order: ColorOrder = "rgb",
    channels_last=True,
    rank=0,
    world_size=1,
    **fields,
):
    batches = training_batches(
        split,
        preprocessor_for(order),
        run_of(order, **fields),
        device=CPU,
        channels_last=channels_last,
        workers=workers,
        rank=rank,
        world_size=world_size,
    )
    taken = list(itertools.islice(batches.batches(first_step), count))
    batches.close()
    return taken


def assert_same(some, others):
    for one, other in zip(some, others, strict=True):
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.labels, other.labels)
        np.testing.assert_array_equal(one.indices, other.indices)
        assert one.skipped == other.skipped
        assert one.own_share == other.own_share


@pytest.mark.parametrize("workers", [1, 3])
def test_the_number_of_workers_changes_no_pixel(split, workers):
    paths_of(split)[4].write_bytes(b"no image")
    assert_same(first_batches(split), first_batches(split, workers=workers))


def test_a_later_start_gives_the_tail_of_the_stream(split):
    assert_same(first_batches(split, count=8)[6:], first_batches(split, count=2, first_step=3, workers=2))


def test_two_processes_share_what_one_would_take(split):
    whole = first_batches(split, count=3, accumulation=1)
    shares = [first_batches(split, count=3, accumulation=1, rank=rank, world_size=2) for rank in range(2)]
    for one, *parts in zip(whole, *shares, strict=True):
        assert torch.equal(one.images, torch.cat([part.images for part in parts]))
        np.testing.assert_array_equal(one.indices, np.concatenate([part.indices for part in parts]))


@pytest.mark.parametrize("color", ["rgb", "bgr", "gray"])
def test_batches_equal_images_that_are_read_one_by_one(split, color):
    preprocessor = preprocessor_for(color)
    stream = TrainingStream(seed=3, num_images=len(SIZES), global_batch=8)
    positions = np.arange(8, 16)
    draws = stream.uniforms(positions, 5)
    (batch,) = first_batches(split, count=1, first_step=1, accumulation=1, order=color)
    np.testing.assert_array_equal(batch.indices, stream.indices(positions))
    np.testing.assert_array_equal(batch.labels.numpy(), split.labels[batch.indices])
    for place, index in enumerate(batch.indices):
        image = read_crop(paths_of(split)[index], AUGMENT, preprocessor, draws[place, :4])
        pixels = preprocessor.arrange(np.asarray(image)).astype(np.float64)
        pixels = pixels[:, ::-1] if mirrored(AUGMENT, draws[place, 4:]) else pixels
        np.testing.assert_allclose(batch.images[place].permute(1, 2, 0).numpy(), (pixels - 100) / 50, atol=1e-6)


VARIED = {
    "augment": ScaleCrop(min_resize_px=26, max_resize_px=40),
    "color": Color(pca_std=0.1, brightness=0.3, contrast=0.3, saturation=0.3, hue=0.1),
    "policy": TrivialAugment(),
    "erase_probability": 0.5,
}
MIXED = VARIED | {"mix": Mix(mixup_alpha=0.4, cutmix_alpha=1.0), "policy": RandAugment()}


@pytest.mark.parametrize("fields", [VARIED, MIXED])
def test_a_varied_stream_depends_on_neither_workers_nor_interruptions(split, fields):
    paths_of(split)[4].write_bytes(b"no image")
    whole = first_batches(split, count=6, **fields)
    assert_same(whole, first_batches(split, count=6, workers=2, **fields))
    assert_same(whole[4:], first_batches(split, count=2, first_step=2, workers=1, **fields))


def test_processes_share_a_varied_stream(split):
    whole = first_batches(split, count=3, accumulation=1, **VARIED)
    shares = [first_batches(split, count=3, accumulation=1, rank=rank, world_size=2, **VARIED) for rank in range(2)]
    for one, *parts in zip(whole, *shares, strict=True):
        torch.testing.assert_close(one.images, torch.cat([part.images for part in parts]), rtol=0, atol=0)


def test_every_variation_changes_the_images_and_none_the_labels(split):
    plain = {"augment": VARIED["augment"]}
    before = first_batches(split, **plain)
    for name in ("color", "policy", "erase_probability"):
        for one, other in zip(before, first_batches(split, **plain, **{name: VARIED[name]}), strict=True):
            assert not torch.equal(one.images, other.images)
            assert torch.equal(one.labels, other.labels)
            assert other.partner_labels is None
    for one, other in zip(before, first_batches(split, **plain, mix=Mix(mixup_alpha=1.0)), strict=True):
        torch.testing.assert_close(
            other.images, other.own_share * one.images + (1 - other.own_share) * one.images.roll(1, 0)
        )
        assert torch.equal(other.partner_labels, one.labels.roll(1))


def test_a_broken_image_changes_how_no_other_is_varied(split):
    whole = first_batches(split, count=10, **VARIED)
    paths_of(split)[7].write_bytes(b"")
    for one, other in zip(whole, first_batches(split, count=10, **VARIED), strict=True):
        kept = torch.from_numpy(one.indices != 7)
        assert torch.equal(one.images[kept], other.images)


def test_colours_are_varied_after_the_crop_and_the_mirror_and_before_the_mean(split):
    plain = {"augment": VARIED["augment"], "accumulation": 1}
    one = first_batches(split, count=1, **plain)[0]
    other = first_batches(split, count=1, **plain, color=Color(pca_std=2.0))[0]
    draws = uniforms(3, np.arange(8), COLOR_DRAWS, COLOR_STREAM)
    shift = ColorAugment(Color(pca_std=2.0), preprocessor_for()).shift(draws[:, :4]) / 50
    assert np.abs(shift).max() > 1
    difference = (other.images - one.images).numpy()
    np.testing.assert_allclose(difference, np.broadcast_to(shift[:, :, None, None], difference.shape), atol=1e-5)


def test_a_bgr_model_is_trained_on_the_same_images(split):
    for one, other in zip(first_batches(split, **VARIED), first_batches(split, order="bgr", **VARIED), strict=True):
        torch.testing.assert_close(one.images.flip(1), other.images, rtol=1e-5, atol=1e-4)


def test_gray_images_take_policy_erasing_and_mixing(split):
    fields = {name: value for name, value in MIXED.items() if name != "color"}
    for batch in first_batches(split, order="gray", **fields):
        assert batch.images.shape == (4, 1, 24, 24)
        assert batch.partner_labels is not None


@pytest.mark.parametrize("channels_last", [True, False])
def test_batches_of_files_have_the_layout_that_was_asked_for(split, channels_last):
    (batch,) = first_batches(split, count=1, channels_last=channels_last)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    assert batch.images.is_contiguous(memory_format=layout)
    assert batch.images.shape == (4, 3, 24, 24)


def test_a_broken_image_is_left_out_and_named_once_an_epoch(split):
    whole = first_batches(split, count=10)
    paths_of(split)[7].write_bytes(paths_of(split)[7].read_bytes()[:300])
    broken = first_batches(split, count=10)
    assert Counter(skipped.path for batch in broken for skipped in batch.skipped) == {str(paths_of(split)[7]): 4}
    assert all(skipped.reason for batch in broken for skipped in batch.skipped)
    for one, other in zip(whole, broken, strict=True):
        kept = one.indices != 7
        assert len(other) == kept.sum() == 4 - len(other.skipped)
        assert torch.equal(one.images[torch.from_numpy(kept)], other.images)
        assert torch.equal(one.labels[torch.from_numpy(kept)], other.labels)


def test_only_many_batches_in_a_row_without_a_readable_image_end_the_run(split):
    for path in paths_of(split):
        path.unlink()
    assert [len(batch) for batch in first_batches(split, count=19)] == [0] * 19
    with pytest.raises(DataError, match=r"20 training batches in a row .*\.(png|jpg): there is no such file"):
        first_batches(split, count=20)


@pytest.mark.parametrize("workers", [0, 1])
def test_random_numbers_of_the_run_are_left_alone(split, workers):
    before = torch.get_rng_state()
    first_batches(split, workers=workers, **MIXED)
    assert torch.equal(torch.get_rng_state(), before)


def test_closing_ends_the_worker_processes(split):
    batches = training_batches(split, preprocessor_for(), run_of(), device=CPU, channels_last=True, workers=2)
    next(batches.batches(0))
    assert len(multiprocessing.active_children()) == 2
    next(batches.batches(5))
    assert len(multiprocessing.active_children()) == 2
    batches.close()
    batches.close()
    assert not multiprocessing.active_children()


def test_messages_name_the_images_of_a_batch(split):
    stream = TrainingStream(seed=3, num_images=len(split), global_batch=4)
    training = TrainingFiles(split, preprocessor_for(), AUGMENT, stream)
    evaluation = EvaluationFiles(split, preprocessor_for(), [np.array([2, 0]), np.array([9, 5, 4])])
    for files, number in ((training, 0), (training, 5), (evaluation, 0), (evaluation, 1)):
        assert files.paths(number) == [str(paths_of(split)[index]) for index in files[number].indices.tolist()]


def test_the_files_can_be_sent_to_a_process_that_is_not_forked(split):
    stream = TrainingStream(seed=3, num_images=len(SIZES), global_batch=8)
    files = TrainingFiles(split, preprocessor_for(), AUGMENT, stream)
    sent = pickle.loads(pickle.dumps(files))
    assert torch.equal(files[2].pixels, sent[2].pixels)


class Signalled(TrainingFiles):
    """Sends a signal to the process that reads pass 2."""

    def __init__(self, which, *arguments):
        super().__init__(*arguments)
        self.which = which

    def __getitem__(self, number):
        if number == 2:
            os.kill(os.getpid(), self.which)
        return super().__getitem__(number)


@pytest.fixture
def signalled(split):
    stream = TrainingStream(seed=3, num_images=len(SIZES), global_batch=8)
    return lambda which: Signalled(which, split, preprocessor_for(), AUGMENT, stream)


@pytest.mark.parametrize("which", [signal.SIGINT, signal.SIGTERM])
def test_a_worker_goes_on_when_the_whole_run_is_told_to_stop(signalled, which):
    batches = read_ahead(signalled(which), range(6), workers=1, device=CPU)
    assert [len(batch.indices) for batch in batches] == [8] * 6


def test_a_killed_worker_is_reported_where_a_batch_is_asked_for(signalled):
    handler = signal.getsignal(signal.SIGCHLD)
    batches = read_ahead(signalled(signal.SIGKILL), itertools.count(), workers=1, device=CPU)
    next(batches)
    latest = time.monotonic() + 120
    while multiprocessing.active_children():  # the worker is killed meanwhile, and nothing interrupts its parent
        assert time.monotonic() < latest
        time.sleep(0.01)
    with pytest.raises(ResnetsError, match=r"reads images died.*fewer than --workers 1 \(0 reads"):
        list(batches)
    assert signal.getsignal(signal.SIGCHLD) is handler
    assert not multiprocessing.active_children()


def test_a_defect_in_a_worker_is_not_taken_for_its_death(signalled):
    batches = read_ahead(signalled("no signal"), itertools.count(), workers=1, device=CPU)
    with pytest.raises(TypeError, match="Caught TypeError in DataLoader worker"):
        list(batches)
    assert not multiprocessing.active_children()


def test_a_program_that_leaves_workers_running_ends_at_once():
    program = """
import time
import torch
from resnets.data.read_ahead import read_ahead

if __name__ == "__main__":
    batches = read_ahead(["one", "two", "three"], range(3), workers=1, device=torch.device("cpu"))
    print(next(batches), time.monotonic())
"""
    finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300, check=True)
    seconds_at_the_end = time.monotonic()
    item, seconds_at_the_item = finished.stdout.split()
    assert item == "one"
    assert not finished.stderr
    # From the item on: the imports alone take many seconds on a machine that does other work.
    assert seconds_at_the_end - float(seconds_at_the_item) < TERMINATION_GRACE_SECONDS / 2


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_memory_that_is_used_again_holds_each_batch_until_the_next_is_taken(split, workers):
    split = FileSplit(images=split.images, labels=split.labels)
    batches = [np.roll(np.arange(10), number)[: 3 + number % 4] for number in range(40)]
    files = EvaluationFiles(split, preprocessor_for(), batches)
    expected = [files[number].pixels.clone() for number in range(40)]
    taken = decoded_batches(files, range(40), workers=workers, device=CPU)
    places = set()
    for number, batch in enumerate(taken):
        time.sleep(0.002 * (number % 3))  # workers that run ahead would write over it
        assert torch.equal(batch.pixels, expected[number])
        np.testing.assert_array_equal(batch.indices.numpy(), batches[number])
        places.add(batch.pixels.data_ptr())
    assert len(places) == 3 * workers


def test_shared_memory_that_is_full_is_said_in_a_line(split, monkeypatch):
    def refused(size):
        raise RuntimeError(
            f"unable to allocate shared memory(shm) for file </torch_1_{size}>: No space left on device (28)"
        )

    monkeypatch.setattr(torch.UntypedStorage, "_new_shared", refused)
    batches = training_batches(split, preprocessor_for(), run_of(), device=CPU, channels_last=True, workers=2)
    with pytest.raises(ResnetsError, match=r"2 workers .* MiB of shared memory.* --workers 2 .*--shm-size"):
        next(batches.batches(0))


class Collecting(torch.utils.data.Dataset):
    """Tells the private memory of the worker, in megabytes, before and after a full garbage collection."""

    def __getitem__(self, _):
        before = private_mb()
        gc.collect()
        return before, private_mb()


def private_mb():
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()[1:]
    return int(dict(line.split(":") for line in lines)["Private_Dirty"].split()[0]) / 1e3


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="needs Linux")
def test_a_worker_shares_the_objects_of_its_parent_whatever_is_collected():
    kept = [[number] for number in range(300_000)]
    ((before, after),) = read_ahead(Collecting(), range(1), workers=1, device=CPU)
    assert len(kept) == 300_000
    assert after - before < 8
