"""The 1,797 handwritten digits that scikit-learn carries: real images that need no download."""

from __future__ import annotations

import hashlib

import numpy as np

from resnets.data.splits import Dataset, ResidentSplit
from resnets.specs.data import DIGITS_CLASSES

TRAIN_IMAGES = 1_437


def open_digits() -> Dataset:
    """Return the digits, gray images of 8 x 8: the first 1,437 are "train", the last 360 "test".

    The file has 17 levels, 0 (paper) to 16 (ink). They are stretched to 0..255 (16 becomes 255, halves round to
    even), so that a digit saved as a PNG is what the model was trained on.
    """
    from sklearn.datasets import load_digits  # reads the file in its package; takes half a second to import

    levels, labels = load_digits(return_X_y=True)
    images = np.rint(levels * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8, 1)
    labels = labels.astype(np.int64)
    return Dataset(
        name="digits",
        classes=DIGITS_CLASSES,
        splits={
            "train": ResidentSplit(images=images[:TRAIN_IMAGES], labels=labels[:TRAIN_IMAGES]),
            "test": ResidentSplit(images=images[TRAIN_IMAGES:], labels=labels[TRAIN_IMAGES:]),
        },
        fingerprint=hashlib.sha256(images.tobytes() + labels.astype("<i8").tobytes()).hexdigest(),
    )
