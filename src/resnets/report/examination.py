"""What a run's net does on the images it is tested on: confusions, calibration, its most confident mistakes, its responses.

Everything comes from one pass over the split that the run's own log is about, with the weights that it has left.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from resnets.analysis import mistakes as analysis
from resnets.analysis.responses import LayerResponse, responses_on
from resnets.data.cifar import default_data_root, find_cifar
from resnets.data.open import dataset_spec_for
from resnets.engine.device import choose_device, set_up, use_channels_last, worker_processes
from resnets.metrics.calibration import Calibration, calibration
from resnets.metrics.classification import distinct
from resnets.report.comparison import error_of
from resnets.report.mistake_pictures import MistakePicture, mistake_pictures
from resnets.specs.data import Cifar, DatasetSpec, ImageFolder
from resnets.specs.errors import DataError, ModelError, UserError
from resnets.specs.protocol import Center
from resnets.tasks.classify.ensemble import open_for_models, warnings_of_seen_images
from resnets.tasks.classify.evaluate import align_classes, choose_split
from resnets.tasks.classify.load import load_classifier
from resnets.tasks.classify.testing import Computing, evaluate_each

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from jaxtyping import Bool, Int64

    from resnets.analysis.mistakes import ClassErrors, ConfusedPair
    from resnets.artifacts.model_folder import StoredModel
    from resnets.data.splits import Dataset, Skipped
    from resnets.metrics.classification import ClassificationResult
    from resnets.report.run_record import RunRecord
    from resnets.specs.run import Machine

MOST_MISTAKES = 12
MOST_PAIRS = 10
_RESPONSE_PIXELS = 2**22
"""Pixels that the responses of the layers are taken over, about: 4,096 images of CIFAR."""
_LEAST_RESPONSE_IMAGES = 256


class NoImagesError(UserError):
    """The images of a run are not known here; the message says how to name them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Examination:
    """The outcome of testing one run's net."""

    split: str
    dataset: str
    """Name of the images: digits, cifar10, or a folder."""
    fingerprint: str
    """Of the dataset; equal for two runs that were tested on the same images."""
    trained_on: str
    """Fingerprint of the dataset that the net was trained on; empty where its files do not say."""
    result: ClassificationResult
    skipped: tuple[Skipped, ...]
    """Images that could not be read and are in no number."""
    notes: tuple[str, ...]
    classes: tuple[str, ...]
    """Their names, each a different one."""
    confusion: Int64[np.ndarray, "classes classes"]
    """Images by class (row) and prediction (column)."""
    class_errors: tuple[ClassErrors, ...]
    pairs: tuple[ConfusedPair, ...]
    calibration: Calibration
    pictures: tuple[MistakePicture, ...]
    """The most confident mistakes, the most confident first."""
    responses: tuple[LayerResponse, ...]
    """Of each 3x3 layer, as in Fig. 7; none of a net without such layers."""
    response_images: int
    """Images that the responses are over."""
    response_split: str
    without_responses: str
    """Why there are no responses; empty where there are."""
    readable: Bool[np.ndarray, " images"]
    """For each image of the split whether it could be read, and so has a score."""
    wrong: Bool[np.ndarray, " images"]
    """For each image that could be read whether its class is not the most probable one; of the others, nothing."""


def examine(
    run: RunRecord,
    *,
    data: str | None = None,
    data_root: str | Path | None = None,
    machine: Machine,
    on_images: Callable[[int, int, str], None] = lambda done, of, what: None,
) -> Examination:
    """Test a run's net on every image of a split and look at what it gets wrong.

    Args:
        run: with weights.
        data: "digits", "cifar10", "cifar100" or a folder of images; None takes what the run was trained on, if that
            is here: nothing is downloaded then.
        data_root: where CIFAR is.
        machine: device, workers and threads.
        on_images: told how many images are done, of how many, and of which run or what else.

    Raises:
        NoImagesError: the images are not named and not here.
        UserError: weights or images cannot be used.
    """
    spec, root = _place(run, data, data_root)
    stored = load_classifier(run.path)
    dataset = open_for_models([stored], [run.name], lambda _: (spec, root))
    dataset = align_classes(dataset, stored, run.name)
    split = _split(run, dataset)
    device = choose_device(machine.device)
    set_up(device, machine)
    computing = Computing(
        device=device,
        precision="fp32",
        channels_last=use_channels_last(device, machine),
        workers=worker_processes(machine, device),
    )
    outcomes = evaluate_each(
        [stored],
        [run.name],
        [1.0],
        dataset,
        split,
        {"center": Center()},
        computing,
        recalibrate_images=0,
        keep_scores=True,
        on_images=lambda done, of, _: on_images(done, of, run.name),
    )
    _, tested = next(iter(outcomes))
    assert tested.scores is not None
    probabilities = tested.scores.log_probabilities.exp().numpy()
    # A net whose scores are NaN has no prediction for the image, which is an error but has no probability.
    scored = np.flatnonzero(~np.isnan(probabilities).any(axis=1))
    if not len(scored):
        raise ModelError(
            f"{run.path}: the net gives NaN for every image of the {split} split; its weights are of no use."
        )
    labels = np.asarray(dataset.splits[split].labels)
    wrong = np.ones(len(labels), bool)
    wrong[scored] = probabilities[scored].argmax(axis=1) != labels[scored]
    scores, kept = probabilities[scored], labels[scored]
    responses = _responses(
        stored, dataset, split, computing, lambda done, of: on_images(done, of, f"{run.name}, responses of its layers")
    )
    confident = analysis.most_confident_mistakes(scores, kept, most=MOST_MISTAKES)
    return Examination(
        split=split,
        dataset=dataset.name,
        fingerprint=dataset.fingerprint,
        trained_on=stored.fingerprint,
        result=tested.report.result,
        skipped=tested.report.skipped,
        notes=_notes(run, stored, dataset, split, tested.report.result.without_prediction),
        classes=tuple(distinct(stored.classes)),
        confusion=analysis.confusion_matrix(scores, kept),
        class_errors=tuple(analysis.errors_by_class(scores, kept)),
        pairs=tuple(analysis.most_confused_pairs(scores, kept, most=MOST_PAIRS)),
        calibration=calibration(scores, kept),
        pictures=mistake_pictures(stored, dataset.splits[split], confident, scored, device=device),
        responses=responses.layers,
        response_images=responses.images,
        response_split=responses.split,
        without_responses=responses.problem,
        readable=tested.scores.readable.numpy(),
        wrong=wrong,
    )


class _Responses(NamedTuple):
    layers: tuple[LayerResponse, ...]
    images: int
    split: str
    problem: str = ""


def _responses(
    stored: StoredModel,
    dataset: Dataset,
    tested: str,
    computing: Computing,
    on_images: Callable[[int, int], None],
) -> _Responses:
    """Return the responses of the layers to some images, how many these are and of which split, or why there are none."""
    name = "train" if "train" in dataset.splits else tested
    split = dataset.splits[name]
    most = max(_LEAST_RESPONSE_IMAGES, _RESPONSE_PIXELS // stored.preprocessor.spec.crop_px**2)
    # Files are sorted by class: the first ones would be of one class.
    chosen = np.random.default_rng(0).permutation(len(split))[:most]
    some = split.taken(chosen)
    try:
        found = responses_on(stored, some, device=computing.device, workers=computing.workers, on_images=on_images)
    except UserError as error:  # too few images, or a net without BatchNorm
        return _Responses((), 0, name, str(error))
    return _Responses(tuple(found), len(some), name)


def _place(run: RunRecord, data: str | None, data_root: str | Path | None) -> tuple[DatasetSpec, Path | None]:
    """Return the dataset to test on and where it is.

    Raises:
        NoImagesError: it is neither named nor here.
        DataError: what is named is no dataset.
    """
    default = run.spec.dataset
    root = Path(data_root).expanduser() if data_root is not None else None
    if data is not None:
        spec, named = dataset_spec_for(data, default)
        return spec, named or root
    match default:
        case ImageFolder():
            raise NoImagesError(f"{run.name} was trained on a folder of images, which is not named: --data FOLDER.")
        case Cifar():
            # A report never starts a download that nobody asked for.
            here = root if root is not None else default_data_root()
            if find_cifar(here, prefer=default.num_classes) == default.num_classes:
                return default, here
            kind = NoImagesError if root is None else DataError
            raise kind(
                f"CIFAR-{default.num_classes} is not in {here}: name the folder that holds it with --data-root DIR, or add "
                f"--data cifar{default.num_classes} to download it."
            )
        case _:
            return default, None


def _split(run: RunRecord, dataset: Dataset) -> str:
    """Return the split that the run's log is about, where the dataset has it; so the numbers can be compared."""
    logged = error_of(run)
    return choose_split(dataset, logged.split if logged is not None and logged.split in dataset.splits else None)


def _notes(
    run: RunRecord, stored: StoredModel, dataset: Dataset, split: str, without_prediction: int
) -> tuple[str, ...]:
    notes: list[str] = warnings_of_seen_images([stored], [run.name], dataset, split)
    step = stored.metrics.get("steps")
    if stored.metrics.get("finished") is False and isinstance(step, int):
        how = "is not finished" if run.diverged_at is None else f"diverged at step {run.diverged_at:,}"
        notes.append(f"The weights are those of the checkpoint of step {step:,}; the run {how}.")
    if stored.fingerprint and stored.fingerprint != dataset.fingerprint:
        notes.append("The images are not the ones that the run was trained on or have changed since.")
    if without_prediction:
        notes.append(
            f"The net gives NaN for {without_prediction:,} images: they count as errors, and are left out of the "
            "confusions, the calibration and the mistakes."
        )
    return (*notes, *dataset.notes)


def overlap(examinations: Sequence[Examination]) -> list[tuple[int, int, int, int]] | None:
    """Return for each run after the first how many images both get right, only the first, only it, and neither.

    Counted are the images that both could read. None where the runs were not tested on the same images.
    """
    first, *others = examinations
    if any((one.fingerprint, one.split) != (first.fingerprint, first.split) for one in others):
        return None
    return [
        (
            int((read & ~first.wrong & ~one.wrong).sum()),
            int((read & ~first.wrong & one.wrong).sum()),
            int((read & first.wrong & ~one.wrong).sum()),
            int((read & first.wrong & one.wrong).sum()),
        )
        for one in others
        for read in [first.readable & one.readable]
    ]
