"""Weights between our model folders and other programs: read, completed, proven equal, written, read back.

A conversion either ends with a numeric proof and a complete file or folder, or writes nothing.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from resnets.artifacts.completion import complete
from resnets.artifacts.formats import FORMATS, OURS, choose_target, read_foreign
from resnets.artifacts.model_folder import StoredModel, build_with_weights
from resnets.artifacts.proof import Proof, prove
from resnets.artifacts.written_back import unwritable, write_proven
from resnets.data.preprocess import Preprocessor
from resnets.models.interop.foreign import Foreign, Hints
from resnets.models.interop.preprocessing import check_printable
from resnets.specs.architecture import variant
from resnets.specs.errors import UserError

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, kw_only=True, slots=True)
class Conversion:
    """What was converted into what, and how equal the two are."""

    source: str
    destination: str
    source_format: str
    target_format: str
    stored: StoredModel
    """The net with its preprocessing, class names and licence."""
    proof: Proof
    """Converted net against source; for a net that came from a third program, the larger of both differences."""
    declared_with: tuple[str, ...] = ()
    """Flags that stated the variant where the source's files do not tell it; the proof is then of the net declared."""
    assumed: tuple[str, ...] = ()
    """What neither the source's files nor the hints say, and was taken to be."""


def import_foreign(path: Path, hints: Hints | None = None) -> StoredModel:
    """Return the net of another program's files, in evaluation mode, proven to give the same logits.

    Args:
        path: a file of weights, or a folder with a config.json.
        hints: what the files do not say.

    Raises:
        ModelError: the files are damaged, hold another kind of net, do not say everything and neither do the hints,
            or the logits differ.
        SpecError: a hint cannot be right.
    """
    return _import(path, hints or Hints())[0]


def convert(
    source: Path | StoredModel, destination: Path, hints: Hints | None = None, to: str | None = None
) -> Conversion:
    """Convert a net to another program's form, or to a model folder.

    Args:
        source: files of another program, or one of our models.
        destination: what is written; must not exist.
        hints: what the source's files do not say; `hints.format` is the source's.
        to: resnets, torchvision, timm, huggingface, caffe or cifar; None is torchvision for a destination that ends
            in .pth, .pt or .safetensors, and resnets for another.

    Raises:
        ModelError: the net cannot be read, cannot be expressed in the target's form, or the logits differ; nothing
            was written then.
        UserError: the destination exists or cannot be written, or the formats are unknown.
    """
    hints = hints or Hints()
    target = choose_target(destination, to)
    try:
        exists = destination.exists() or destination.is_symlink()
    except OSError as error:  # a name that is too long, a folder that may not be entered
        raise unwritable(destination, error) from error
    if exists:
        raise UserError(f"{destination} exists, and convert replaces nothing; name another destination or remove it.")
    declared: tuple[str, ...] = ()
    assumed: tuple[str, ...] = ()
    if isinstance(source, StoredModel):
        for index, name in enumerate(source.classes):
            check_printable(name, f"The class name of output {index}")
        check_printable(source.licence, "The licence (--licence)")
        stored, proofs, origin = source, [], (source.name, OURS)
    else:
        stored, proof, foreign = _import(source, hints)
        proofs, origin = [proof], (str(source), foreign.format)
        declared = foreign.declared_with
        if hints.mean_image is not None and hints.std is None and foreign.format != "caffe":
            assumed = ("std 1, as --mean-image is given without --std",)
    proofs.append(write_proven(stored, destination, target))
    return Conversion(
        source=origin[0],
        destination=str(destination),
        source_format=origin[1],
        target_format=target,
        stored=stored,
        proof=max(proofs, key=lambda proof: proof.max_share),
        declared_with=declared,
        assumed=assumed,
    )


def _import(path: Path, hints: Hints) -> tuple[StoredModel, Proof, Foreign]:
    foreign = complete(read_foreign(path, hints), hints)
    spec, preprocess, classes, reference = foreign.spec, foreign.preprocess, foreign.classes, foreign.reference
    assert spec is not None
    assert preprocess is not None
    assert classes is not None
    assert reference is not None
    model = build_with_weights(spec, foreign.weights, foreign.source)
    preprocessor = Preprocessor(preprocess, foreign.mean_image)
    proof = prove(model, reference, preprocessor, source=foreign.source)
    stored = StoredModel(
        model=model,
        spec=spec,
        preprocessor=preprocessor,
        classes=classes,
        metrics={"converted_from": foreign.format, "max_difference": proof.max_difference},
        licence=foreign.licence,
    )
    return stored, proof, foreign


def as_json(conversion: Conversion) -> dict[str, Any]:
    """Return a conversion as plain JSON values."""
    stored, proof = conversion.stored, conversion.proof
    return {
        "source": conversion.source,
        "from": conversion.source_format,
        "destination": conversion.destination,
        "to": conversion.target_format,
        "name": stored.name,
        "variant": variant(stored.spec),
        "classes": len(stored.classes),
        "preprocess": dataclasses.asdict(stored.preprocessor.spec),
        **dataclasses.asdict(proof),
        "licence": stored.licence,
        "declared_with": list(conversion.declared_with),
        "assumed": list(conversion.assumed),
        "not_in_these_files": list(
            FORMATS[conversion.target_format].lacks if conversion.target_format in FORMATS else ()
        ),
    }
