import itertools
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from resnets.data.batches import TrainingBatches, evaluation_batches, training_batches
from resnets.data.preprocess import Preprocessor
from resnets.data.sources import FolderFiles
from resnets.data.splits import FileSplit, ResidentSplit
from resnets.data.statistics import Statistics
from resnets.specs.catalogue import model_spec
from resnets.specs.data import AreaCrop, Color, Digits, ImageFolder, PadCrop, ScaleCrop
from resnets.specs.errors import DataError, SpecError
from resnets.specs.finetune import Finetune
from resnets.specs.preprocess import Preprocess
from resnets.specs.run import TrainSpec

pytestmark = [
    # Python 3.12 and later warn of threads that exist when a process forks; torch has some.
    pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning"),
]

CPU = torch.device("cpu")
MAKE = {"device": CPU, "channels_last": True}
GRAY = Preprocessor(Preprocess(resize_px=4, crop_px=4, color="gray", mean=(7.0,), std=(2.0,)))


def paths_of(split):
    return tuple(Path(split.images.path(index)) for index in range(len(split)))


def run_of(global_batch, **fields):
    """Return a run on images in memory, or in a folder where `fields` crop those."""
    fields = {"augment": PadCrop(), "seed": 2} | fields
    dataset = Digits() if isinstance(fields["augment"], PadCrop) else ImageFolder(image_px=4, resize_px=4)
    return TrainSpec(model=model_spec("resnet18"), dataset=dataset, global_batch=global_batch, **fields)


def resident(num_images):
    random = np.random.default_rng(1)
    images = random.integers(0, 256, (num_images, 4, 4, 1), dtype=np.uint8)
    return ResidentSplit(images=images, labels=random.integers(0, 5, num_images))


def files(folder, num_images):
    split = resident(num_images)
    paths = tuple(folder / f"{number}.png" for number in range(num_images))
    for path, image in zip(paths, split.images, strict=True):
        Image.fromarray(image[..., 0]).save(path)
    return FileSplit(images=FolderFiles.of(paths), labels=split.labels)


def taken(batches, first_step, count):
    return list(itertools.islice(batches.batches(first_step), count))


@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), st.integers(0, 6), st.integers(0, 9))
def test_processes_and_passes_share_the_batches_of_one_process(share, accumulation, world_size, step, extra):
    global_batch = share * accumulation * world_size
    split = resident(global_batch + extra)
    whole = taken(training_batches(split, GRAY, run_of(global_batch), **MAKE), step, 2)
    shared = [
        taken(
            training_batches(
                split, GRAY, run_of(global_batch, accumulation=accumulation), rank=rank, world_size=world_size, **MAKE
            ),
            step,
            2 * accumulation,
        )
        for rank in range(world_size)
    ]
    for number, one in enumerate(whole):
        of_step = slice(number * accumulation, (number + 1) * accumulation)
        parts = [batch for rank in shared for batch in rank[of_step]]
        assert torch.equal(one.images, torch.cat([part.images for part in parts]))
        assert torch.equal(one.labels, torch.cat([part.labels for part in parts]))
        np.testing.assert_array_equal(one.indices, np.concatenate([part.indices for part in parts]))


@given(st.integers(0, 12), st.integers(1, 3))
def test_a_start_at_a_step_is_the_tail_of_the_stream(step, accumulation):
    spec = run_of(6, accumulation=accumulation)
    stream = taken(training_batches(resident(11), GRAY, spec, **MAKE), 0, (step + 2) * accumulation)
    tail = taken(training_batches(resident(11), GRAY, spec, **MAKE), step, 2 * accumulation)
    for one, other in zip(stream[step * accumulation :], tail, strict=True):
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.labels, other.labels)


def test_an_epoch_takes_every_image_once_though_batches_do_not_divide_it():
    batches = training_batches(resident(10), GRAY, run_of(4), **MAKE)
    indices = np.concatenate([batch.indices for batch in taken(batches, 0, 5)])
    assert Counter(indices[:10].tolist()) == Counter(indices[10:].tolist()) == Counter(range(10))


def test_both_kinds_of_split_give_training_batches(tmp_path):
    in_memory = training_batches(resident(9), GRAY, run_of(4), **MAKE)
    in_files = training_batches(files(tmp_path, 9), GRAY, run_of(4, augment=AreaCrop()), **MAKE)
    assert isinstance(in_memory, TrainingBatches)
    assert isinstance(in_files, TrainingBatches)
    assert in_memory.num_images == in_files.num_images == 9
    in_memory.close()
    in_files.close()


def test_an_augmentation_of_the_other_kind_of_split_is_refused(tmp_path):
    with pytest.raises(SpecError, match="pad-crop"):
        training_batches(resident(9), GRAY, run_of(4, augment=AreaCrop()), **MAKE)
    with pytest.raises(SpecError, match="area-crop"):
        training_batches(files(tmp_path, 9), GRAY, run_of(4), **MAKE)


def test_a_batch_larger_than_the_split_is_refused_before_anything_is_read():
    split = FileSplit(images=FolderFiles.of(["missing.png"] * 5), labels=np.zeros(5, np.int64))
    with pytest.raises(DataError, match=r"global_batch is 6.*only 5"):
        training_batches(split, GRAY, run_of(6, augment=AreaCrop()), **MAKE)


@given(st.integers(0, 17), st.integers(1, 6), st.integers(1, 4))
def test_evaluation_takes_every_image_once_over_all_processes(num_images, batch_size, world_size):
    split = resident(num_images)
    batches = [
        batch
        for rank in range(world_size)
        for batch in evaluation_batches(
            split, GRAY, batch_size=batch_size, device=CPU, channels_last=True, rank=rank, world_size=world_size
        )
    ]
    assert sorted(index for batch in batches for index in batch.indices.tolist()) == list(range(num_images))
    for batch in batches:
        assert 1 <= len(batch) <= batch_size
        expected = (split.images[batch.indices].astype(np.float64) - 7) / 2
        np.testing.assert_array_equal(batch.images.permute(0, 2, 3, 1).numpy(), expected)
        np.testing.assert_array_equal(batch.labels.numpy(), split.labels[batch.indices])


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("channels_last", [True, False])
def test_evaluation_of_files_equals_that_of_the_same_images_in_memory(tmp_path, workers, channels_last):
    make = {"batch_size": 3, "device": CPU, "channels_last": channels_last, "rank": 1, "world_size": 2}
    in_memory = list(evaluation_batches(resident(11), GRAY, **make))
    in_files = list(evaluation_batches(files(tmp_path, 11), GRAY, workers=workers, **make))
    for one, other in zip(in_memory, in_files, strict=True):
        assert torch.equal(one.images, other.images)
        assert one.images.stride() == other.images.stride()
        assert torch.equal(one.labels, other.labels)
        np.testing.assert_array_equal(one.indices, other.indices)


@pytest.mark.parametrize("workers", [0, 1])
def test_evaluation_names_every_image_it_could_not_read(tmp_path, workers):
    split = files(tmp_path, 8)
    for number in (1, 4, 5):
        paths_of(split)[number].write_bytes(b"")
    batches = list(evaluation_batches(split, GRAY, batch_size=2, device=CPU, channels_last=True, workers=workers))
    assert [batch.indices.tolist() for batch in batches] == [[0], [2, 3], [], [6, 7]]
    assert [skipped.path for batch in batches for skipped in batch.skipped] == [
        str(paths_of(split)[number]) for number in (1, 4, 5)
    ]
    assert batches[2].images.shape == (0, 1, 4, 4)


@pytest.mark.data
def test_real_photographs_train_and_evaluate(testdata):
    paths = sorted((testdata / "flowers" / "train").rglob("*.jpg"))[::100]
    labels = np.arange(len(paths), dtype=np.int64)
    split = FileSplit(images=FolderFiles.of(paths), labels=labels)
    preprocessor = Preprocessor(Preprocess(resize_px=73, crop_px=64))
    batches = training_batches(
        split, preprocessor, run_of(16, augment=AreaCrop()), workers=min(2, os.cpu_count() or 1), **MAKE
    )
    for batch in taken(batches, 0, 2):
        assert batch.images.shape == (16, 3, 64, 64)
        assert not batch.skipped
        assert batch.images.std() > 10
    batches.close()
    evaluated = list(evaluation_batches(split, preprocessor, batch_size=16, device=CPU, channels_last=True))
    assert sum(len(batch) for batch in evaluated) == len(paths)


@pytest.mark.parametrize("kind", ["memory", "files"])
def test_balanced_sampling_evens_out_the_classes_for_any_number_of_processes(tmp_path, kind):
    split = resident(24) if kind == "memory" else files(tmp_path, 24)
    split.labels[:] = [0] * 20 + [1] * 3 + [2]
    augment = PadCrop() if kind == "memory" else AreaCrop()
    spec = run_of(6, augment=augment, finetune=Finetune(balance="sampling"))
    whole = taken(training_batches(split, GRAY, spec, **MAKE), 0, 4)
    assert Counter(label for batch in whole for label in batch.labels.tolist()) == {0: 8, 1: 8, 2: 8}
    shares = [taken(training_batches(split, GRAY, spec, rank=rank, world_size=2, **MAKE), 0, 4) for rank in range(2)]
    for one, *parts in zip(whole, *shares, strict=True):
        assert torch.equal(one.images, torch.cat([part.images for part in parts]))
        np.testing.assert_array_equal(one.indices, np.concatenate([part.indices for part in parts]))
    (later,) = taken(training_batches(split, GRAY, spec, **MAKE), 3, 1)
    assert torch.equal(later.images, whole[3].images)


def test_colour_axes_of_the_training_set_need_its_statistics(tmp_path):
    color = Color(pca_std=0.1, pca_axes="training-set")
    spec = run_of(4, augment=AreaCrop(), color=color)
    rgb = Preprocessor(Preprocess(resize_px=4, crop_px=4))
    with pytest.raises(ValueError, match="need its statistics"):
        training_batches(files(tmp_path, 9), rgb, spec, **MAKE)
    statistics = Statistics(mean_image=None, axes=np.eye(3), eigenvalues=np.array([1.0, 0, 0]), images=9)
    plain, shifted = (
        taken(training_batches(files(tmp_path, 9), rgb, one, statistics=statistics, **MAKE), 0, 1)[0]
        for one in (run_of(4, augment=AreaCrop()), spec)
    )
    difference = shifted.images - plain.images
    assert difference[:, 0].abs().min() > 0.1  # red alone, the only axis along which there is a variance
    assert not difference[:, 1:].any()
    with pytest.raises(SpecError, match="scale-crop"):
        training_batches(files(tmp_path, 9), rgb, run_of(4), **MAKE)


def test_a_scaled_crop_of_an_image_in_memory_is_refused():
    with pytest.raises(SpecError, match="pad-crop"):
        training_batches(resident(9), GRAY, run_of(4, augment=ScaleCrop()), **MAKE)
