"""Models tested under one or more protocols: what `api.evaluate` does once models and images are there."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from resnets.data.batches import evaluation_batches
from resnets.engine.distributed import Distributed
from resnets.engine.recalibrate import recalibrate_batch_norm
from resnets.models.fold import fold_batch_norm
from resnets.specs.errors import DataError, UserError
from resnets.specs.protocol import PROTOCOLS, Center, Dense, TenCrop, protocol_name
from resnets.tasks.classify.ensemble import Member, evaluate_ensemble
from resnets.tasks.classify.evaluate import EvaluationReport, evaluate_model
from resnets.tasks.classify.memory import available_bytes, check_memory
from resnets.tasks.classify.score import check_protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from torch import Tensor, nn

    from resnets.artifacts.model_folder import StoredModel
    from resnets.data.splits import Dataset
    from resnets.specs.protocol import ProtocolSpec
    from resnets.tasks.classify.ensemble import Scores

_RECALIBRATION_BATCH = 128


@dataclass(frozen=True, kw_only=True, slots=True)
class Computing:
    """Where and how the models are computed."""

    device: torch.device
    precision: str
    channels_last: bool
    workers: int
    """Processes that decode files."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Tested:
    """The outcome of a protocol."""

    report: EvaluationReport
    scores: Scores | None
    """The score of every image; None where they were not kept."""
    notes: tuple[str, ...] = ()
    """What was done to the models before."""


def named_protocols(given: str | ProtocolSpec | Sequence[str | ProtocolSpec]) -> dict[str, ProtocolSpec]:
    """Return protocols by their names, in the order given.

    Raises:
        UserError: a name is unknown, there is none, or two are of the same name.
    """
    protocols: dict[str, ProtocolSpec] = {}
    for one in [given] if isinstance(given, str | Center | TenCrop | Dense) else given:
        if isinstance(one, str) and one not in PROTOCOLS:
            raise UserError(f"--protocol is {one!r}; it is {', '.join(PROTOCOLS)}, or several of them.")
        protocol = PROTOCOLS[one] if isinstance(one, str) else one
        name = protocol_name(protocol)
        if name in protocols:
            raise UserError(f"--protocol names {name} twice; test two forms of it one after the other.")
        protocols[name] = protocol
    if not protocols:
        raise UserError(f"--protocol names none; it is {', '.join(PROTOCOLS)}, or several of them.")
    return protocols


def evaluate_each(
    models: Sequence[StoredModel],
    names: Sequence[str],
    shares: Sequence[float],
    dataset: Dataset,
    split: str,
    protocols: dict[str, ProtocolSpec],
    computing: Computing,
    *,
    recalibrate_images: int,
    keep_scores: bool,
    on_images: Callable[[int, int, str], None],
) -> Iterator[tuple[str, Tested]]:
    """Yield what the models, together, score under each protocol.

    Args:
        models: the first one's classes are what the labels index.
        names: what messages call the models.
        shares: how much the scores of each count; they sum to 1.
        dataset: holds the split, and "train" where BatchNorm is recalibrated.
        split: the images to test on.
        protocols: by their names.
        computing: where and how.
        recalibrate_images: training images that BatchNorm's statistics are averaged over anew; 0 keeps them.
        keep_scores: return the scores of every image too.
        on_images: told how many images are done, of how many, and what is at work: model and protocol.

    Raises:
        UserError: a model or the images do not allow a protocol.
    """
    images = dataset.splits[split]
    for stored, called in zip(models, names, strict=True):
        for protocol in protocols.values():
            check_protocol(protocol, stored.model.eval(), stored.preprocessor, images, called)
            if isinstance(protocol, Dense):
                check_memory(protocol, stored, called, computing.precision, available_bytes(computing.device))
    layout = torch.channels_last if computing.channels_last else torch.contiguous_format
    modules: list[nn.Module] = []
    notes: list[str] = []
    for stored, called in zip(models, names, strict=True):
        module = stored.model.to(computing.device).to(memory_format=layout)  # pyright: ignore[reportCallIssue]
        if recalibrate_images:
            module, note = _recalibrated(module, stored, called, dataset, recalibrate_images, computing)
            notes.append(note)
        modules.append(module.eval())
    for name, protocol in protocols.items():
        done: dict[str, int] = {}

        def count(called: str, batch: int, name: str = name, done: dict[str, int] = done) -> None:
            what = f"{called}, {name}"
            done[what] = done.get(what, 0) + batch
            on_images((done[what] - 1) % len(images) + 1, len(images), what)

        # A single view is scored as in training, to the bit; many are worth a faster copy of the net.
        nets = modules if isinstance(protocol, Center) else [fold_batch_norm(module) for module in modules]
        if len(models) == 1 and not keep_scores:
            report = evaluate_model(
                nets[0],
                images,
                models[0].preprocessor,
                models[0].classes,
                ranks=Distributed(device=computing.device),
                protocol=protocol,
                precision=computing.precision,
                channels_last=computing.channels_last,
                workers=computing.workers,
                on_images=lambda batch: count(names[0], batch),
            )
            yield name, Tested(report=report, scores=None, notes=tuple(notes))
            continue
        members = [
            Member(name=called, stored=stored, module=net, share=share)
            for called, stored, net, share in zip(names, models, nets, shares, strict=True)
        ]
        report, scores = evaluate_ensemble(
            members,
            images,
            protocol,
            ranks=Distributed(device=computing.device),
            precision=computing.precision,
            channels_last=computing.channels_last,
            workers=computing.workers,
            on_images=count,
        )
        yield name, Tested(report=report, scores=scores, notes=tuple(notes))


def _recalibrated(
    module: nn.Module, stored: StoredModel, name: str, dataset: Dataset, images: int, computing: Computing
) -> tuple[nn.Module, str]:
    """Return a copy whose BatchNorm statistics are averages over training images, each seen as in a centre crop.

    And what to say of it: how many images these were.
    """
    train = dataset.splits.get("train")
    if train is None:
        raise DataError(
            f"--recalibrate-batch-norm takes training images, and {dataset.name} has no train split; give a folder with "
            "train/ in it."
        )
    if not 1 < images <= len(train):
        raise UserError(
            f"--recalibrate-batch-norm is {images}; it is between 2 and the {len(train)} training images of "
            f"{dataset.name}."
        )
    # Files are sorted by class: a batch of neighbours would have the statistics of one class.
    chosen = np.random.default_rng(0).permutation(len(train))[:images]
    batches = evaluation_batches(
        train.taken(chosen),
        stored.preprocessor,
        batch_size=math.ceil(images / max(1, round(images / _RECALIBRATION_BATCH))),
        device=computing.device,
        channels_last=computing.channels_last,
        workers=computing.workers,
    )
    module = copy.deepcopy(module)
    used = 0

    def readable() -> Iterator[Tensor]:
        nonlocal used
        for batch in batches:
            if len(batch) > 1:
                used += len(batch)
                yield batch.images

    if not recalibrate_batch_norm(module, readable(), computing.precision, Distributed(device=computing.device)):
        return module, f"{name} has no BatchNorm whose statistics could be averaged anew."
    rest = "" if used == images else f", of {images:,} asked for: the others could not be read"
    return module, f"BatchNorm's statistics of {name} are averages over {used:,} training images{rest}."
