"""The report of one run or several: read them, test what can be tested, write the page."""

from __future__ import annotations

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
    parts = tuple(_part(run, data, data_root, machine or Machine(), on_images) for run in runs)
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


def _check_writable(path: Path) -> None:
    """Refuse a path that cannot be written, before minutes are spent on testing."""
    if path.suffix.lower() not in (".html", ".htm"):
        raise RunError(f"--out {path}: the report is a web page; give it a name that ends in .html.")
    if path.is_dir():
        raise RunError(f"--out {path} is a folder; name the file, such as {path / 'report.html'}.")
    if not path.parent.is_dir():
        raise RunError(f"--out {path} cannot be written: there is no folder {path.parent}.")


def _part(
    run: RunRecord,
    data: str | None,
    data_root: str | Path | None,
    machine: Machine,
    on_images: Callable[[int, int, str], None],
) -> RunPart:
    """Return the run with its examination, or with the reason why there is none."""
    if not run.has_weights:
        reason = f"{printable(run.path)} holds no weights, neither a model nor a checkpoint."
        return RunPart(record=run, missing=Missing(reason=reason))
    try:
        examination = examine(run, data=data, data_root=data_root, machine=machine, on_images=on_images)
    except NoImagesError as error:
        wanted = "--data FOLDER" if "--data FOLDER" in str(error) else "--data-root DIR"
        command = f"{shlex.join(['resnets', 'report', str(run.path)])} {wanted}"
        return RunPart(record=run, missing=Missing(reason=str(error), command=command))
    except DeviceError:
        raise
    except UserError as error:
        if data is not None or data_root is not None:
            raise
        return RunPart(record=run, missing=Missing(reason=str(error)))
    return RunPart(record=run, examination=examination)


def _as_json(part: RunPart) -> dict[str, Any]:
    run, end = part.record, error_of(part.record)
    found = part.examination
    return {
        "run": str(run.path),
        "net": net_name(run.spec.model),
        "finished": run.finished,
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
