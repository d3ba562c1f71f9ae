"""The file of scores that an evaluation can leave: a NumPy archive without pickled objects."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from resnets.specs.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from jaxtyping import Float32, Int64


def check_scores_path(path: Path) -> Path:
    """Return the path, before hours are spent on what cannot be written there.

    Raises:
        UserError: it does not end in .npz, is a folder, or its folder is missing or read-only.
    """
    if path.suffix != ".npz":
        raise UserError(f"--save-scores {path}: the file is a NumPy archive; give it a name that ends in .npz.")
    if path.is_dir() or not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
        raise UserError(f"--save-scores {path} cannot be written; name a file in a folder that exists.")
    return path


def write_scores(
    path: Path,
    probabilities: Mapping[str, Float32[np.ndarray, "images classes"]],
    *,
    labels: Int64[np.ndarray, " images"],
    classes: Sequence[str],
    images: Sequence[str] | Sequence[int],
) -> None:
    """Write an archive that is either complete or not there.

    Args:
        path: of the archive; an existing one is replaced.
        probabilities: by the name of the protocol; NaN in the rows of images that could not be read.
        labels: index of each image's class.
        classes: names of the columns, stored as `classes`.
        images: path of each image, or its index in the split, stored as `images`.

    Raises:
        UserError: the disk is full or the folder is gone.
    """
    temporary = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    arrays = {**probabilities, "labels": labels, "classes": np.array(classes), "images": np.array(images)}
    try:
        with temporary.open("wb") as file:
            np.savez(file, **arrays)  # pyright: ignore[reportArgumentType]
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise UserError(f"--save-scores {path} cannot be written: {error.strerror or error}.") from error
    finally:
        temporary.unlink(missing_ok=True)
