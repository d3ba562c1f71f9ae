"""The images that a run was trained on, for experiments that look into its net; nothing is downloaded for them."""

from __future__ import annotations

import functools
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

from resnets.paper.core.experiment import Unavailable
from resnets.specs.data import Cifar, ImageFolder
from resnets.specs.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from resnets.artifacts.found_runs import FoundRun
    from resnets.data.splits import Dataset, Split
    from resnets.specs.data import DatasetSpec

_ROOT: ContextVar[Path | None] = ContextVar("data_root", default=None)
_QUIET: ContextVar[bool] = ContextVar("quiet", default=True)


@contextmanager
def images_below(root: Path | None, *, quiet: bool = True) -> Iterator[None]:
    """Look for images below `root` inside the context; None is the folder for downloads.

    Where it is not `quiet`, what takes long shows on stderr how many images are done.
    """
    tokens = _ROOT.set(root), _QUIET.set(quiet)
    try:
        yield
    finally:
        _ROOT.reset(tokens[0])
        _QUIET.reset(tokens[1])


def counting_images(what: str) -> AbstractContextManager[Callable[[int, int], None]]:
    """Give a function that shows how many images are done, of how many; see `images_below`."""
    from resnets.engine.progress import counting

    return counting(what, quiet=_QUIET.get())


def training_images(run: FoundRun) -> Split:
    """Return the images that a run was trained on.

    Raises:
        Unavailable: they are not on this machine, or a folder, whose place is not known.
    """
    return _dataset(run.spec.dataset, _ROOT.get()).splits["train"]


@functools.lru_cache(maxsize=2)
def _dataset(spec: DatasetSpec, root: Path | None) -> Dataset:
    from resnets.data.cifar import default_data_root, find_cifar
    from resnets.data.open import open_dataset

    if isinstance(spec, ImageFolder):
        raise Unavailable("needs the images that it was trained on, and their folder is not known")
    if isinstance(spec, Cifar):
        root = root or default_data_root()
        if find_cifar(root, prefer=spec.num_classes) != spec.num_classes:
            raise Unavailable(
                f"needs the training images of CIFAR-{spec.num_classes}; give the folder that holds them with --data-root"
            )
    try:
        return open_dataset(spec, root)
    except DataError as error:
        raise Unavailable(f"the data cannot be used: {str(error).splitlines()[0]}") from error
