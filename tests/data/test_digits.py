"""The embedded digits."""

import numpy as np

from resnets.data.digits import open_digits


def test_the_first_1437_digits_train_and_the_last_360_test():
    from sklearn.datasets import load_digits

    reference = load_digits()
    dataset = open_digits()
    assert {name: len(split) for name, split in dataset.splits.items()} == {"train": 1437, "test": 360}
    labels = np.concatenate([dataset.splits["train"].labels, dataset.splits["test"].labels])
    images = np.concatenate([dataset.splits["train"].images, dataset.splits["test"].images])
    assert np.array_equal(labels, reference.target)
    assert images.dtype == np.uint8
    assert images.shape == (1797, 8, 8, 1)
    assert np.array_equal(np.round(images[..., 0] / 255 * 16), reference.images)


def test_digits_use_the_whole_range_of_bytes():
    dataset = open_digits()
    levels = np.unique(dataset.splits["train"].images)
    assert len(levels) == 17
    assert levels[[0, -1]].tolist() == [0, 255]
    assert dataset.classes == tuple("0123456789")


def test_the_fingerprint_of_the_digits_is_fixed():
    assert open_digits().fingerprint.startswith("0b7e9c3202")
