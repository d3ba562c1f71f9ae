"""The verbs as functions: build, recipe, train, load, evaluate, predict. The command line goes through them.

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
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from resnets.data.open import dataset_spec_for, open_for_testing
from resnets.engine.device import check_precision, choose_device, set_up, use_channels_last, worker_processes
from resnets.engine.distributed import Distributed
from resnets.engine.step import DTYPES
from resnets.models.build import build as build_from_spec
from resnets.recipes.find import recipe
from resnets.specs.catalogue import model_spec
from resnets.specs.data import DatasetSpec, Digits, ImageFolder
from resnets.specs.errors import ImageError, UserError
from resnets.specs.run import Machine, TrainSpec
from resnets.tasks.classify import predict as prediction
from resnets.tasks.classify.evaluate import align_classes, choose_split, combine, evaluate_model
from resnets.tasks.classify.load import load_classifier
from resnets.tasks.classify.predict import Prediction, Unreadable
from resnets.tasks.classify.train import TrainedRun
from resnets.tasks.classify.train import train as train_classifier

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from resnets.artifacts.model_folder import StoredModel

__all__ = [
    "Classifier",
    "Prediction",
    "TrainedRun",
    "Unreadable",
    "build",
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
        UserError: wrong input; nothing was written.
        TrainingError: the loss is not finite or the disk is full; what was saved stays usable.
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
    dataset, root = _dataset(data, data_root, spec.dataset)
    if data is None and isinstance(dataset, ImageFolder):
        raise UserError("This recipe trains on a folder of images: name it with --data FOLDER.")
    return dataclasses.replace(spec, dataset=dataset), root


def _dataset(
    data: str | Path | None, data_root: str | Path | None, default: DatasetSpec
) -> tuple[DatasetSpec, Path | None]:
    given_root = Path(data_root) if data_root is not None else None
    if data is None:
        return default, given_root
    dataset, root = dataset_spec_for(str(data), default)
    return dataset, root or given_root


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
        """What to say of a model from a checkpoint of a run that goes on; None for a finished one."""
        metrics = self.stored.metrics
        if metrics.get("finished", True):
            return None
        return f"{self.name} is from a run that is not finished: step {metrics['steps']:,} of {metrics['of']:,}."

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
        """Yield what `predict` returns, image by image, with `Unreadable` in the place of a broken one."""
        if top_k < 1:
            raise UserError(f"top_k is {top_k}; it is at least 1.")
        if isinstance(images, str | Path) or not isinstance(images, Iterable) or prediction.is_one_image(images):
            images = [images]
        return prediction.predict(self.stored, images, top_k=top_k, device=choose_device(device))


def load(path: str | Path) -> Classifier:
    """Return the classifier in a run directory or a model folder.

    Raises:
        ModelError: there is none, or it is damaged.
    """
    return Classifier(load_classifier(Path(path)))


def evaluate(
    models: Sequence[Classifier | str | Path] | Classifier | str | Path,
    *,
    data: str | Path,
    data_root: str | Path | None = None,
    split: str | None = None,
    protocol: str = "center",
    machine: Machine | None = None,
    precision: str = "fp32",
    on_images: Callable[[int, int], None] = lambda done, of: None,
) -> dict[str, Any]:
    """Return the errors of a model, or of the ensemble of several, over a split.

    Args:
        models: a classifier or the path of a run directory or model folder, or several.
        data: "digits", "cifar10", "cifar100" or a folder of images.
        data_root: where CIFAR is.
        split: "test", "validation" or "train"; None takes test, else validation.
        protocol: "center", a single view of the centre.
        machine: device, workers and threads.
        precision: "fp32", "bf16" or "fp16".
        on_images: told how many images are done, of how many.

    Returns:
        images, top1_error, top5_error (percent; None with five classes or fewer), loss, split, protocol, dataset,
        models, per_class_errors, confusion (rows true, columns predicted), skipped, notes.

    Raises:
        UserError: a model or the data cannot be used.
    """
    if protocol != "center":
        raise UserError(f"--protocol is {protocol!r}; this version tests with center.")
    if precision not in DTYPES:
        raise UserError(f"precision is {precision!r}; it is one of {', '.join(DTYPES)}.")
    if not models:
        raise UserError("evaluate needs at least one model.")
    machine = machine or Machine()
    if isinstance(models, Classifier | str | Path):
        models = [models]
    classifiers = [model if isinstance(model, Classifier) else load(model) for model in models]
    first = classifiers[0].stored
    module = combine([classifier.stored for classifier in classifiers])
    device = choose_device(machine.device)
    check_precision(precision, device)
    set_up(device, machine)
    dataset_spec, root = _dataset(data, data_root, first.dataset or Digits())
    dataset = align_classes(open_for_testing(dataset_spec, root, first.fingerprint), first)
    split = choose_split(dataset, split)
    done = 0

    def count(images: int) -> None:
        nonlocal done
        done += images
        on_images(done, len(dataset.splits[split]))

    channels_last = use_channels_last(device, machine)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    report = evaluate_model(
        module.to(device).to(memory_format=layout),  # pyright: ignore[reportCallIssue]
        dataset.splits[split],
        first.preprocessor,
        first.classes,
        ranks=Distributed(device=device),
        precision=precision,
        channels_last=channels_last,
        workers=worker_processes(machine),
        on_images=count,
    )
    result = report.result
    return {
        "models": [classifier.name for classifier in classifiers],
        "dataset": dataset.name,
        "split": split,
        "protocol": protocol,
        "images": result.images,
        "top1_error": result.top1_error,
        "top5_error": result.top5_error,
        "loss": result.loss,
        "per_class_errors": result.per_class_errors,
        "classes": list(first.classes),
        "confusion": [list(row) for row in result.confusion],
        "skipped": [entry._asdict() for entry in report.skipped],
        "notes": [*(note for classifier in classifiers if (note := classifier.unfinished)), *dataset.notes],
    }
