"""The ImageNet runs of Tables 2 to 4 and Fig. 4, and how their test errors are read: from evaluations kept beside them.

Ten-crop and dense tests need the images, which you supply, so `reproduce` does not run them. It reads what
`resnets evaluate RUN --data IMAGENET --protocol ten-crop --json > RUN/ten-crop.json` leaves in the run directory; any
.json file there, or in its model folder, is looked into, and one that holds several protocols serves for each. A
model folder without a run directory fills no row: its config.json does not say how the net was trained, and its errors
are those of the centre crop.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
from typing import TYPE_CHECKING, Any, Literal

from resnets.paper.core.experiment import FromRuns, PlannedRun, Row, Unavailable
from resnets.recipes.find import recipe
from resnets.specs.catalogue import model_name
from resnets.specs.protocol import PROTOCOLS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from resnets.artifacts.found_runs import FoundRun
    from resnets.paper.core.verdict import Rule

    Protocol = Literal["center", "ten-crop", "dense"]
    Field = Literal["top1_error", "top5_error"]

VALIDATION_IMAGES = 50_000
_UNFINISHED = "from a run that is not finished"
"""What a note of `resnets evaluate` says of a checkpoint."""
MEANINGS = {"top1_error": "top-1 error, %", "top5_error": "top-5 error, %"}
COST = "needs ImageNet; up to 600,000 iterations of 256 images a net: days on several GPUs"
HOW_TO_FILL = (
    "To fill a row: `resnets train RECIPE --data IMAGENET`, then `resnets evaluate runs/RECIPE-seed0 --data IMAGENET "
    "--protocol {protocol} --json > runs/RECIPE-seed0/{protocol}.json`. Every .json file of a run directory and of its "
    "model folder is looked into; only evaluations of the finished run count, of all 50,000 validation images, with the "
    "settings that {protocol} has without further flags, and with the BatchNorm statistics of the run. An error that was "
    "not measured in fp32 says so."
)
WHAT_IS_MISSING = (
    "no finished run in runs, results or --run-root: put there the run directory that `resnets train` makes (config.json, "
    "metrics.jsonl), and into it {evaluations} of `resnets evaluate`, as the notes say; a model folder alone does not tell "
    "how it was trained"
)


def on_imagenet(net: str, name: str) -> PlannedRun:
    """Return the paper's run of a net on ImageNet; `name` is the recipe's: `resnet34_a`."""
    return PlannedRun(name=net, spec=recipe(f"imagenet.{name}"))


def tested(plan: PlannedRun, protocol: Protocol, field: Field, paper: int | float, source: str, rule: Rule) -> Row:
    """Return the row of a run's error under a test protocol."""
    return Row(
        run=f"{plan.name} ({plan.spec.recipe})",
        meaning=f"{MEANINGS[field]}, {protocol}",
        ours=FromRuns(
            runs=(plan,),
            read=error_under(protocol, field),
            missing=what_is_missing(protocol),
            tested_in=precisions_under(protocol, field=field),
        ),
        rule=rule,
        paper=paper,
        printed=f"{paper:.2f}",
        source=source,
        budget="full",
    )


def compared_under(
    first: PlannedRun,
    second: PlannedRun,
    protocol: Protocol,
    paper: int | float,
    source: str,
    rule: Rule,
) -> Row:
    """Return the row of the difference of two runs' top-1 errors under a test protocol."""
    read = error_under(protocol, "top1_error")
    return Row(
        run=f"{first.name} - {second.name}",
        meaning=f"top-1 error, points, {protocol}",
        ours=FromRuns(
            runs=(first, second),
            read=lambda one, other: read(one) - read(other),
            missing=what_is_missing(protocol),
            tested_in=precisions_under(protocol),
        ),
        rule=rule,
        paper=paper,
        printed=f"{paper:.2f}",
        source=source,
        budget="full",
    )


def what_is_missing(*protocols: Protocol) -> str:
    """Return what a row says that has no run: which files make one, with an evaluation under each protocol."""
    return WHAT_IS_MISSING.format(evaluations=" and ".join(f"{protocol}.json" for protocol in protocols))


def error_under(protocol: Protocol, field: Field) -> Callable[[FoundRun], float]:
    """Return a function that reads a run's error, in percent, on ImageNet's validation images under a protocol.

    It raises `Unavailable` where no evaluation is kept, or only one of fewer images, of other settings than the paper's,
    with other BatchNorm statistics than the run's, or of a checkpoint from before the end of the run. One in fp32 comes
    before others.
    """
    return lambda run: float(_evaluation_under(run, protocol, field)[field])


def precisions_under(*protocols: Protocol, field: Field = "top1_error") -> Callable[..., set[str]]:
    """Return a function that reads in which precisions the errors of some runs were measured; see `error_under`."""
    return lambda *runs: {_precision(_evaluation_under(run, protocol, field)) for run in runs for protocol in protocols}


def _evaluation_under(run: FoundRun, protocol: Protocol, field: Field) -> dict[str, Any]:
    from resnets.artifacts.run_directory import RunDirectory

    unsuited = ""
    suited: list[dict[str, Any]] = []
    for path, evaluation in itertools.chain(evaluations(run.path), evaluations(RunDirectory(run.path).model)):
        if evaluation.get("protocol") != protocol:
            continue
        if obstacle := _obstacle(run, evaluation, protocol, field):
            unsuited = f"{path} {obstacle}"
        else:
            suited.append(evaluation)
    if suited:
        return min(suited, key=lambda evaluation: _precision(evaluation) != "fp32")
    raise Unavailable(
        unsuited
        or f"not tested: resnets evaluate {run.path} --data IMAGENET --protocol {protocol} --json > "
        f"{run.path / f'{protocol}.json'}"
    )


def _precision(evaluation: dict[str, Any]) -> str:
    """Return the arithmetic of an evaluation; those that do not say are from before it was recorded, and taken as fp32."""
    return str(evaluation.get("precision", "fp32"))


def check_images(run: FoundRun) -> None:
    """Refuse a run whose final weights were tested on other images than the 50,000 of ImageNet's validation split.

    Raises:
        Unavailable: they were, or the log is damaged.
    """
    final = run.log.final
    if final is None or final.split != "validation":
        raise Unavailable(f"{run.path} has no validation error of its final weights")
    if final.images != VALIDATION_IMAGES:
        raise Unavailable(f"{run.path} was tested on {final.images} images of validation; the paper's are 50,000")


def evaluations(folder: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Yield the evaluations that the .json files of a folder hold, with their file; what is something else is passed."""
    for path in sorted(folder.glob("*.json")):
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            continue
        if not isinstance(document, dict):
            continue
        several = document.get("protocols")
        for one in several.values() if isinstance(several, dict) else [document]:
            if isinstance(one, dict) and "protocol" in one:
                yield path, document | one


def _obstacle(run: FoundRun, evaluation: dict[str, Any], protocol: Protocol, field: Field) -> str:
    """Return why an evaluation is not the paper's of this run's net, or an empty text."""
    images, models = evaluation.get("images"), evaluation.get("models")
    if evaluation.get("split") != "validation" or images != VALIDATION_IMAGES:
        return f"is over {images} images of {evaluation.get('split')}; the paper's are 50,000 of validation"
    if isinstance(models, list) and len(models) != 1:
        return f"is of an ensemble of {len(models)}"
    net = model_name(run.spec.model)
    if isinstance(models, list) and models != [net]:
        return f"is of {models[0]}; the run's net is {net}"
    notes = evaluation.get("notes")
    if isinstance(notes, list) and any(_UNFINISHED in note for note in notes if isinstance(note, str)):
        return "is of a checkpoint from before the end of the run; test the finished run again"
    # Evaluations from before it was recorded are taken as without.
    if (images := evaluation.get("recalibrate_images", 0)) != 0:
        return f"is with BatchNorm statistics of {images} training images, made anew; this row's are those of the run"
    settings = evaluation.get("settings")
    # As JSON has them: a tuple is a list there.
    paper = json.loads(json.dumps(dataclasses.asdict(PROTOCOLS[protocol])))
    for name, expected in paper.items():
        if not isinstance(settings, dict) or name not in settings:
            return f"does not say with which {name} it was made; this row's is {expected}"
        if settings[name] != expected:
            return f"is with {name} {settings[name]}; this row's is {expected}"
    value = evaluation.get(field)
    return "" if isinstance(value, int | float) else f"has no {field}"
