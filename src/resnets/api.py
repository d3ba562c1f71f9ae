"""The verbs as functions: build, recipe, check_data, train, load, evaluate, predict. The command line goes through them.

```python
import resnets

spec = resnets.recipe("digits.resnet20")
run = resnets.train(spec, run="runs/x")              # resumes by itself
net = resnets.load("runs/x")                         # model + preprocessing + class names
net.predict(["seven.png"])                           # [[Prediction(label, index, probability), …], …]
resnets.evaluate([net], data="digits")["top1_error"]
```
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from resnets.artifacts.scores import check_scores_path, write_scores
from resnets.data.check import check_data
from resnets.data.open import find_dataset
from resnets.data.splits import FileSplit
from resnets.data.views import shorter_sides
from resnets.engine.device import check_precision, choose_device, set_up, use_channels_last, worker_processes
from resnets.engine.interruption import listen
from resnets.engine.progress import counting
from resnets.engine.step import DTYPES
from resnets.models.build import build as build_from_spec
from resnets.recipes.find import check_data as check_recipe_data
from resnets.recipes.find import recipe
from resnets.specs.catalogue import model_spec
from resnets.specs.cores import usable_cores
from resnets.specs.data import ImageFolder
from resnets.specs.errors import ImageError, InterruptedRunError, UserError, counted
from resnets.specs.preprocess import LARGEST_PX
from resnets.specs.protocol import Dense
from resnets.specs.run import Machine, TrainSpec
from resnets.tasks.classify import features as feature_extraction
from resnets.tasks.classify import predict as prediction
from resnets.tasks.classify.ensemble import (
    check_classes,
    check_held_out,
    open_for_models,
    shares,
    warnings_of_seen_images,
)
from resnets.tasks.classify.evaluate import align_classes, choose_split, warnings_of_scores
from resnets.tasks.classify.load import load_classifier, load_source
from resnets.tasks.classify.predict import Prediction, Unreadable
from resnets.tasks.classify.testing import Computing, evaluate_each, named_protocols
from resnets.tasks.classify.train import TrainedRun
from resnets.tasks.classify.train import train as train_classifier

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from jaxtyping import Float32

    from resnets.artifacts.conversion import Conversion
    from resnets.artifacts.model_folder import StoredModel
    from resnets.data.shard_index import ShardIndex
    from resnets.data.splits import Split
    from resnets.models.interop.foreign import Hints
    from resnets.specs.protocol import ProtocolSpec
    from resnets.tasks.classify.evaluate import EvaluationReport
    from resnets.tasks.classify.testing import Tested

__all__ = [
    "Classifier",
    "Prediction",
    "TrainedRun",
    "Unreadable",
    "build",
    "check_data",
    "convert",
    "default_run",
    "evaluate",
    "load",
    "recipe",
    "train",
]


def build(name: str, *, seed: int | None = None, **fields: Any) -> torch.nn.Module:
    """Return the net called `name` with fresh weights; its state dict has torchvision's names.

    Args:
        name: of the catalogue, such as `resnet50-v1.5`; `resnets describe` lists them.
        seed: of the weights; None draws from torch's global generator.
        fields: of the model's spec to replace, such as `num_classes=10`.

    Raises:
        SpecError: there is no such net or field.
    """
    return build_from_spec(model_spec(name, **fields), seed=seed)


def default_run(spec: TrainSpec) -> Path:
    """Return the run directory that `train` takes where none is given: runs/RECIPE-seedN."""
    return Path("runs") / f"{(spec.recipe or 'run').replace(':', '.')}-seed{spec.seed}"


def train(
    spec: TrainSpec,
    *,
    data: str | Path | None = None,
    data_root: str | Path | None = None,
    run: str | Path | None = None,
    machine: Machine | None = None,
    command: str = "call resnets.train again with the same arguments",
    quiet: bool = False,
) -> TrainedRun:
    """Train the run that `spec` describes; from its latest checkpoint if the run directory has one.

    Args:
        spec: from `recipe`, changed with `dataclasses.replace` where you like.
        data: "digits", "cifar10", "cifar100" or a folder of images; None takes the spec's.
        data_root: where CIFAR is, or is downloaded to.
        run: the run directory; None is runs/RECIPE-seedN.
        machine: device, workers, threads and other facts that do not change the result.
        command: what to type to go on after an interruption.
        quiet: show no progress.

    Raises:
        UserError: wrong input, and nothing was written; or images that went away meanwhile, and what was reached is saved.
        DivergedError: the loss or a weight is not finite; what was saved stays usable. The run directory keeps that, and
            the same call says it again, until device, threads, processes or version of torch are others.
        TrainingError: the disk is full, or the device's memory too small; what was saved stays usable.
        InterruptedRunError: Ctrl-C or SIGTERM; the state is saved.
    """
    spec, root = _with_data(spec, data, data_root)
    return train_classifier(
        spec,
        root=root,
        run=Path(run) if run is not None else default_run(spec),
        machine=machine or Machine(),
        command=command,
        quiet=quiet,
    )


def _with_data(spec: TrainSpec, data: str | Path | None, data_root: str | Path | None) -> tuple[TrainSpec, Path | None]:
    dataset, root = find_dataset(data, data_root, spec.dataset)
    if data is None and isinstance(dataset, ImageFolder):
        raise UserError("This recipe trains on a folder of images: name it with --data FOLDER.")
    check_recipe_data(spec, dataset, str(data))
    return dataclasses.replace(spec, dataset=dataset), root


@dataclass(frozen=True, slots=True)
class Classifier:
    """A trained model with its preprocessing and class names."""

    stored: StoredModel

    @property
    def model(self) -> torch.nn.Module:
        """The module: normalised images (n, channels, height, width) to logits (n, classes)."""
        return self.stored.model

    @property
    def name(self) -> str:
        """Full name of the exact variant."""
        return self.stored.name

    @property
    def unfinished(self) -> str | None:
        """What to say of a model from a checkpoint of a run that goes on or diverged; None for a finished one."""
        metrics = self.stored.metrics
        if metrics.get("finished", True):
            return None
        done, total = metrics.get("steps"), metrics.get("of")
        reached = f"step {done:,} of {total:,}" if isinstance(done, int) and isinstance(total, int) else ""
        diverged_at = metrics.get("diverged_at")
        if isinstance(diverged_at, int):
            weights = f"; these are the weights of {reached}" if reached else ""
            return f"{self.name} is from a run that diverged at step {diverged_at:,}{weights}."
        return f"{self.name} is from a run that is not finished{f': {reached}' if reached else ''}."

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names, in the order of the logits."""
        return self.stored.classes

    def predict(self, images: Any, *, top_k: int = 5, device: str = "cpu") -> list[list[Prediction]]:
        """Return the `top_k` most probable classes of each image, the best first.

        Args:
            images: paths, PIL images, uint8 arrays (height, width[, 3]) or tensors (channels, height, width); a
                single one counts as a list of one.
            top_k: classes an image.
            device: where to compute.

        Raises:
            ImageError: an image cannot be read. `predict_each` goes on instead.
            ModelError: the net gives NaN or infinity for an image.
        """
        results = []
        for entry in self.predict_each(images, top_k=top_k, device=device):
            if isinstance(entry, Unreadable):
                raise ImageError(f"{entry.path} cannot be read: {entry.reason}")
            results.append(entry)
        return results

    def predict_each(
        self, images: Any, *, top_k: int = 5, device: str = "cpu"
    ) -> Iterator[list[Prediction] | Unreadable]:
        """Yield what `predict` returns, image by image, with `Unreadable` in the place of a broken one.

        Raises:
            ModelError: the net gives NaN or infinity for an image.
        """
        if top_k < 1:
            raise UserError(f"top_k is {top_k}; it is at least 1.")
        return prediction.predict(self.stored, _listed(images), top_k=top_k, device=choose_device(device))

    def features(
        self, images: Any, *, stage: str | None = None, pooled: bool = True, device: str = "cpu"
    ) -> Float32[np.ndarray, "n channels *pixels"]:
        """Return the features of each image: (n, channels), or with `pooled=False` (n, channels, height, width).

        Args:
            images: as for `predict`.
            stage: conv2_x, conv3_x, ... (`model.feature_shapes()` lists them); None is the last. In a residual net,
                its average is the input of the fully-connected layer.
            pooled: average the map over its pixels.
            device: where to compute.

        Raises:
            ImageError: an image cannot be read. `features_each` goes on instead.
            ModelError: the model has no features, or those of an image are not finite.
            UserError: it has no such stage.
        """
        rows = []
        for entry in self.features_each(images, stage=stage, pooled=pooled, device=device):
            if isinstance(entry, Unreadable):
                raise ImageError(f"{entry.path} cannot be read: {entry.reason}")
            rows.append(entry)
        if rows:
            return np.stack(rows)
        _, shape = feature_extraction.choose_stage(self.stored, stage)
        return np.empty((0, *(shape[:1] if pooled else shape)), np.float32)

    def features_each(
        self, images: Any, *, stage: str | None = None, pooled: bool = True, device: str = "cpu"
    ) -> Iterator[Float32[np.ndarray, "channels ..."] | Unreadable]:
        """Yield what `features` returns, image by image, with `Unreadable` in the place of a broken one.

        Raises:
            ModelError: the model has no features, or those of an image are not finite.
            UserError: it has no such stage.
        """
        return feature_extraction.features(
            self.stored, _listed(images), stage=stage, pooled=pooled, device=choose_device(device)
        )


def _listed(images: Any) -> Iterable[Any]:
    """Return images as they are, and a single one as a list of one."""
    if isinstance(images, str | Path) or not isinstance(images, Iterable) or prediction.is_one_image(images):
        return [images]
    return images


def load(source: str | Path) -> Classifier:
    """Return a trained classifier, with its preprocessing and class names.

    Args:
        source: a run directory; a model folder; or, as a string, weights to download, once and with their checksum:
            `torchvision:resnet50[.IMAGENET1K_V1]`, `timm:NAME` or `hf-hub:OWNER/NAME[@REVISION]`. The progress of a
            download is shown on stderr.

    Raises:
        ModelError: there is none, it is damaged, or it cannot be downloaded.
        DataError: a download has the wrong checksum, or cannot be written.
    """
    return Classifier(load_classifier(source) if isinstance(source, Path) else load_source(source))


def evaluate(
    models: Sequence[Classifier | str | Path] | Classifier | str | Path,
    *,
    data: str | Path,
    data_root: str | Path | None = None,
    split: str | None = None,
    protocol: str | ProtocolSpec | Sequence[str | ProtocolSpec] = "center",
    weights: Sequence[float] | None = None,
    save_scores: str | Path | None = None,
    recalibrate_images: int = 0,
    machine: Machine | None = None,
    precision: str = "fp32",
    on_images: Callable[[int, int, str], None] = lambda done, of, what: None,
) -> dict[str, Any]:
    """Return the errors of a model, or of the ensemble of several, over a split (He et al. 2015, Sec. 4.1).

    Args:
        models: a classifier, or what `load` takes, or several: their softmax scores are averaged. Each has its own
            preprocessing; their classes are the same, in whatever order.
        data: "digits", "cifar10", "cifar100" or a folder of images.
        data_root: where CIFAR is.
        split: "test", "validation" or "train"; None takes test, else validation.
        protocol: "center", one view; "ten-crop"; "dense", the whole image at several sizes; a spec of
            `resnets.specs.protocol` for another form of these; or several, which are tested one after the other.
        weights: how much the scores of each model count; None is equally.
        save_scores: archive (.npz) to write: under the name of each protocol the probabilities, float32 (images,
            classes), NaN for unreadable images; and `labels`, `classes`, `images` (paths, or indices in the split).
        recalibrate_images: training images of `data` over which BatchNorm's statistics are averaged anew before the
            test, in a copy of the model; 0 keeps those of the model.
        machine: device, workers and threads.
        precision: "fp32", "bf16" or "fp16".
        on_images: told how many images are done, of how many, and what is at work: model and protocol.

    Returns:
        images, without_prediction (of these, images whose scores hold NaN: errors), top1_error, top5_error (percent;
        None with five classes or fewer), loss (None where it is not a finite number), split, protocol, settings,
        precision, recalibrate_images, dataset, models (names of their variants), sources (what was given), weights,
        classes, per_class_errors, per_class_images, confusion (rows true, columns predicted; without the images that
        have no prediction), skipped, notes, warnings (of scores that are NaN or infinite).
        Of several protocols, those fields that differ are in `protocols`, by name.

    Raises:
        UserError: a model or the data cannot be used, or do not allow a protocol.
    """
    protocols = named_protocols(protocol)
    if precision not in DTYPES:
        raise UserError(f"precision is {precision!r}; it is one of {', '.join(DTYPES)}.")
    if isinstance(models, Classifier | str | Path):
        models = [models]
    if not models:
        raise UserError("evaluate needs at least one model.")
    if recalibrate_images < 0:
        raise UserError(f"--recalibrate-batch-norm is {recalibrate_images}; it is 0 (off) or more images.")
    model_shares = shares(weights, len(models))
    scores_path = check_scores_path(Path(save_scores)) if save_scores is not None else None
    machine = machine or Machine()
    device = choose_device(machine.device)
    check_precision(precision, device)
    set_up(device, machine)
    classifiers = [model if isinstance(model, Classifier) else load(model) for model in models]
    stored = [classifier.stored for classifier in classifiers]
    sources = [model.name if isinstance(model, Classifier) else str(model) for model in models]
    check_classes(stored, sources)
    opened = open_for_models(stored, sources, lambda spec: find_dataset(data, data_root, spec))
    dataset = align_classes(opened, stored[0], sources[0])
    split = choose_split(dataset, split)
    check_held_out(stored, split)
    warnings = warnings_of_seen_images(stored, sources, dataset, split)
    computing = Computing(
        device=device,
        precision=precision,
        channels_last=use_channels_last(device, machine),
        workers=worker_processes(machine, device),
    )
    tested = dict(
        evaluate_each(
            stored,
            sources,
            model_shares,
            dataset,
            split,
            protocols,
            computing,
            recalibrate_images=recalibrate_images,
            keep_scores=scores_path is not None,
            on_images=on_images,
        )
    )
    if scores_path is not None:
        _write_scores(scores_path, tested, dataset.splits[split], stored[0].classes)
    notes = [*warnings, *(note for classifier in classifiers if (note := classifier.unfinished)), *dataset.notes]
    notes += next(iter(tested.values())).notes
    common = {
        "models": [classifier.name for classifier in classifiers],
        "sources": sources,
        "weights": model_shares,
        "dataset": dataset.name,
        "split": split,
        "precision": precision,
        "recalibrate_images": recalibrate_images,
        "classes": list(stored[0].classes),
        "notes": notes,
        "warnings": [
            f"{name}: {line}" if len(tested) > 1 else line
            for name, one in tested.items()
            for line in warnings_of_scores(one.report.result, sources, split)
        ],
    }
    reports = {name: _report(name, _settings(protocols[name], stored), one.report) for name, one in tested.items()}
    return common | (next(iter(reports.values())) if len(reports) == 1 else {"protocols": reports})


def _settings(protocol: ProtocolSpec, models: Sequence[StoredModel]) -> dict[str, Any]:
    """Return the fields of a protocol and, for dense testing, the shorter sides at which each model saw the images."""
    settings = dataclasses.asdict(protocol)
    if isinstance(protocol, Dense):
        settings["shorter_sides_px"] = [shorter_sides(protocol, one.preprocessor.spec.crop_px) for one in models]
    return settings


def _report(name: str, settings: dict[str, Any], report: EvaluationReport) -> dict[str, Any]:
    result = report.result
    return {
        "protocol": name,
        "settings": settings,
        "images": result.images,
        "without_prediction": result.without_prediction,
        "top1_error": result.top1_error,
        "top5_error": result.top5_error,
        "loss": result.loss if math.isfinite(result.loss) else None,
        "per_class_errors": result.per_class_errors,
        "per_class_images": result.per_class_images,
        "confusion": [list(row) for row in result.confusion],
        "skipped": [entry._asdict() for entry in report.skipped],
    }


def _write_scores(path: Path, tested: dict[str, Tested], split: Split, classes: Sequence[str]) -> None:
    numbers = range(len(split))
    images = list(map(split.images.path, numbers)) if isinstance(split, FileSplit) else list(numbers)
    probabilities = {
        name: one.scores.log_probabilities.exp().numpy() for name, one in tested.items() if one.scores is not None
    }
    write_scores(path, probabilities, labels=split.labels, classes=classes, images=images)


def prepare(
    source: str | Path,
    destination: str | Path,
    *,
    resize_px: int = 0,
    raw: bool = False,
    quality: int = 95,
    shard_mb: int = 128,
    workers: int = -1,
    quiet: bool = True,
) -> ShardIndex:
    """Make shards of a folder of images: tar files in WebDataset's layout, which train, evaluate and predict as it does.

    Without `resize_px` and `raw`, every file is copied as it is, and a run on the shards is bit for bit the run on the
    folder. An interrupted preparation goes on behind its last finished shard.

    Args:
        source: a folder of images, or of shards, or the address of shards on a web server.
        destination: a folder that does not exist, is empty, or holds what an interrupted preparation left.
        resize_px: shorter side of the larger images; 0 keeps every size.
        raw: store pixels, decoded once for all epochs, instead of JPEG.
        quality: of JPEG, 1 to 100, where images are resized.
        shard_mb: size of a shard, in megabytes.
        workers: processes that decode and encode; -1: one a core.
        quiet: show no progress on stderr.

    Raises:
        InterruptedRunError: it was stopped by a signal; the same call goes on.
        UserError: the source cannot be read, the destination holds something else or cannot be written, or an option
            has no meaning.
        ResnetsError: a worker process died.
    """
    from resnets.data.open import list_images
    from resnets.data.shard_index import Form
    from resnets.data.shard_mirror import is_url, mirror
    from resnets.data.shard_writer import prepare as write_shards

    if not 0 <= resize_px <= LARGEST_PX:
        raise UserError(f"--resize is {resize_px}; it is a number of pixels from 1 to {LARGEST_PX}, such as 256.")
    if not 1 <= quality <= 100:
        raise UserError(f"--quality is {quality}; JPEG's quality is between 1 and 100.")
    if not 1 <= shard_mb <= 100_000:
        raise UserError(f"--shard-mb is {shard_mb}; it is between 1 and 100,000.")
    if is_url(str(destination)):
        raise UserError(
            f"{destination} is an address; the shards are written to a folder, which a web server can show."
        )
    source = mirror(str(source)) if is_url(str(source)) else Path(source).expanduser()
    destination = Path(destination).expanduser()
    if destination.resolve().is_relative_to(source.resolve()):
        raise UserError(f"{destination} lies in {source}, whose images it is made of; choose a place outside it.")
    if raw:
        form = Form(kind="raw", resize_px=resize_px)
    elif resize_px:
        form = Form(kind="jpeg", resize_px=resize_px, quality=quality)
    else:
        form = Form()
    with listen() as interruption, counting("Preparing shards", quiet=quiet) as on_images:
        listing = list_images(source)
        interruption.can_save = True
        prepared = write_shards(
            listing,
            destination,
            form,
            shard_bytes=shard_mb * 10**6,
            workers=usable_cores() if Machine(workers=workers).workers < 0 else workers,
            on_images=on_images,
            should_stop=lambda: interruption.requested,
        )
    if prepared.index is None:
        raise InterruptedRunError(
            f"Stopped: {prepared.done:,} of {counted(prepared.images, 'image')} are in finished shards in {destination}. "
            "Run the same command again to go on.",
            interruption.exit_code,
        )
    return prepared.index


def convert(
    source: str | Path, destination: str | Path, *, to: str | None = None, hints: Hints | None = None
) -> Conversion:
    """Convert weights from another program to a model folder, or from a model or run to another program's form.

    Args:
        source: a file or folder of torchvision, timm, transformers, Caffe or a CIFAR program; or a run directory or
            model folder.
        destination: what is written; must not exist.
        to: resnets, torchvision, timm, huggingface, caffe or cifar; None goes by the destination's suffix.
        hints: what the source's files do not say: variant, normalisation, class names.

    Raises:
        UserError: the source cannot be read or does not say everything, the target's form cannot express the net, or
            the logits differ; nothing was written.
    """
    from resnets.artifacts import conversion
    from resnets.artifacts.formats import is_ours
    from resnets.models.interop.foreign import Hints

    path = Path(source)
    if not is_ours(path):
        return conversion.convert(path, Path(destination), hints, to)
    stated = hints or Hints()
    if stated != Hints(licence=stated.licence):
        raise UserError(
            f"{source} is a model of this package, which says everything itself; only --licence can be given."
        )
    stored = load_classifier(path)
    if stated.licence is not None:
        stored = dataclasses.replace(stored, licence=stated.licence)
    return conversion.convert(stored, Path(destination), None, to)
