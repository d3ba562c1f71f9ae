"""The report of one run or several: read them, test what can be tested, write the page."""

from __future__ import annotations

import dataclasses
import os
import shlex
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resnets.report.comparison import error_of
from resnets.report.examination import NoImagesError, examine
from resnets.report.page import render, write_page
from resnets.report.part import Missing, RunPart
from resnets.report.prose import net_name
from resnets.report.run_record import read_runs
from resnets.report.text import printable
from resnets.report.views import page_view
from resnets.specs.data import ImageFolder
from resnets.specs.errors import DeviceError, RunError, UserError
from resnets.specs.run import Machine

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from resnets.report.run_record import RunRecord


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """A report that was written."""

    path: Path
    bytes: int
    parts: tuple[RunPart, ...]

    def as_json(self) -> dict[str, Any]:
        """Return where it is and what it says of each run, in plain values; errors in percent."""
        return {"report": str(self.path), "bytes": self.bytes, "runs": [_as_json(part) for part in self.parts]}


def write_report(
    paths: Sequence[str | Path],
    *,
    out: str | Path | None = None,
    data: str | None = None,
    data_root: str | Path | None = None,
    title: str | None = None,
    machine: Machine | None = None,
    on_images: Callable[[int, int, str], None] = lambda done, of, what: None,
) -> Report:
    """Write one HTML file about runs, finished or not, that needs nothing else to be read.

    Args:
        paths: run directories.
        out: the file; None is RUN/report.html for one run, and report.html in the current folder for several.
        data: "digits", "cifar10", "cifar100" or a folder of images to test the nets on. Without it they are tested on
            what they were trained on where that is here, and the report says what it lacks where it is not.
        data_root: where CIFAR is.
        title: of the page; None is the names of the runs.
        machine: device, workers and threads of the test.
        on_images: told how many images are done, of how many, and of which run.

    Raises:
        UserError: there is no run, it is damaged, the images that were named cannot be used, or the file cannot be
            written; an older report is left as it was.
    """
    runs = read_runs([Path(path) for path in paths])
    path = Path(out) if out is not None else _default_path(runs)
    _check_writable(path)
    machine = machine or Machine()
    command = _command(paths, out, data_root, title, machine)
    parts = tuple(_part(run, runs, data, data_root, machine, on_images, command) for run in runs)
    html = render(page_view(parts, title, _generator()))
    write_page(path, html)
    return Report(path=path, bytes=len(html.encode()), parts=parts)


def _generator() -> str:
    try:
        return f"resnets {metadata.version('resnets')}"
    except metadata.PackageNotFoundError:  # run from a source tree
        return "resnets"


def _default_path(runs: Sequence[RunRecord]) -> Path:
    return runs[0].path / "report.html" if len(runs) == 1 else Path("report.html")


def _command(
    paths: Sequence[str | Path],
    out: str | Path | None,
    data_root: str | Path | None,
    title: str | None,
    machine: Machine,
) -> list[str]:
    """Return the command that writes this very page."""
    options: list[tuple[str, Any]] = [("--out", out), ("--title", title), ("--data-root", data_root)]
    usual = Machine()
    for name in ("device", "workers", "threads"):
        value = getattr(machine, name)
        options.append((f"--{name}", value if value != getattr(usual, name) else None))
    given = [word for flag, value in options if value is not None for word in (flag, str(value))]
    return ["resnets", "report", *map(str, paths), *given]


def _check_writable(path: Path) -> None:
    """Refuse a path that cannot be written, before minutes are spent on testing."""
    if path.suffix.lower() not in (".html", ".htm"):
        raise RunError(f"--out {path}: the report is a web page; give it a name that ends in .html.")
    try:
        if path.is_dir():
            raise RunError(f"--out {path} is a folder; name the file, such as {path / 'report.html'}.")
        if not path.parent.is_dir():
            raise RunError(f"--out {path} cannot be written: there is no folder {path.parent}.")
    except OSError as error:  # a name that is too long, a folder that may not be entered
        raise RunError(f"--out {path} cannot be written: {error.strerror or error}.") from error
    # It is written beside its place first, so the folder decides.
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise RunError(
            f"The report {path} cannot be written: you may not write into {path.parent}. Name another with --out."
        )


def _part(
    run: RunRecord,
    runs: Sequence[RunRecord],
    data: str | None,
    data_root: str | Path | None,
    machine: Machine,
    on_images: Callable[[int, int, str], None],
    command: Sequence[str],
) -> RunPart:
    """Return the run with its examination, or with the reason why there is none."""
    if not run.has_weights:
        reason = f"{printable(run.path)} holds no weights, neither a model nor a checkpoint."
        return RunPart(record=run, missing=Missing(reason=reason))
    try:
        examination = examine(run, data=data, data_root=data_root, machine=machine, on_images=on_images)
    except NoImagesError as error:
        return RunPart(record=run, missing=Missing(reason=str(error), command=_completed(command, run, runs)))
    except DeviceError:
        raise
    except UserError as error:
        if data is not None or data_root is not None:
            raise
        return RunPart(record=run, missing=Missing(reason=str(error)))
    # The weights say more than the files beside them where the run is not finished.
    run = dataclasses.replace(run, fingerprint=run.fingerprint or examination.trained_on)
    return RunPart(record=run, examination=examination)


def _completed(command: Sequence[str], run: RunRecord, runs: Sequence[RunRecord]) -> str:
    """Return the command with what names the images of a run; nothing where no command is right for all runs."""
    if not isinstance(run.spec.dataset, ImageFolder):
        return f"{shlex.join(command)} --data-root DIR"
    # --data is for every run of the page.
    alike = all(isinstance(other.spec.dataset, ImageFolder) for other in runs)
    return f"{shlex.join(command)} --data FOLDER" if alike else ""


def _as_json(part: RunPart) -> dict[str, Any]:
    run, end = part.record, error_of(part.record)
    found = part.examination
    return {
        "run": str(run.path),
        "net": net_name(run.spec.model),
        "finished": run.finished,
        "diverged_at_step": run.diverged_at,
        "steps": run.steps_done,
        "full_steps": run.spec.full_steps,
        "split": end.split if end else None,
        "top1_error": end.top1_error if end else None,
        "images": end.images if end else None,
        "tested": None
        if found is None
        else {
            "split": found.split,
            "images": found.result.images,
            "skipped": len(found.skipped),
            "top1_error": found.result.top1_error,
            "top5_error": found.result.top5_error,
            "expected_calibration_error": found.calibration.expected_calibration_error,
        },
        "missing": part.missing.reason if part.missing else None,
        "command": part.missing.command or None if part.missing else None,
    }
