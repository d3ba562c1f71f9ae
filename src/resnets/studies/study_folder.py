"""The folder of a comparison: whose runs it holds, where each is, and the seconds each has taken."""

from __future__ import annotations

import json
import re
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from resnets.artifacts.run_directory import RunDirectory, write_json
from resnets.artifacts.run_log import number
from resnets.specs import io
from resnets.specs.errors import RunError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from resnets.specs.run import TrainSpec

FORMAT_VERSION = 1


@dataclass(frozen=True, slots=True)
class StudyFolder:
    """Paths inside the folder of a study, and what its `study.json` says."""

    path: Path
    specs: Mapping[str, TrainSpec]
    """Of the sides "a" and "b"; their seeds do not matter."""

    @property
    def study(self) -> Path:
        """The specs of both sides, and the times."""
        return self.path / "study.json"

    @property
    def document(self) -> Path:
        """The result as one JSON document."""
        return self.path / "compare.json"

    @property
    def picture(self) -> Path:
        """The curves."""
        return self.path / "compare.png"

    def run(self, side: str, seed: int) -> Path:
        """Return the run directory of one side and seed."""
        return self.path / f"{side}-seed{seed}"

    def check_same(self) -> None:
        """Refuse a folder that holds something else than this study, or part of it.

        Raises:
            RunError: it is a file, holds other files, or another study, or its path cannot be one of a folder.
        """
        try:
            is_file = self.path.exists() and not self.path.is_dir()
        except OSError as error:  # a name that is too long, a folder that may not be entered
            raise RunError(f"--run {self.path} cannot be read: {error.strerror or error}.") from error
        if is_file:
            raise RunError(f"--run {self.path} is a file; name a folder that is new or holds this comparison.")
        saved = self._read()
        if saved is None:
            # A study that was killed in its first run has nothing but that.
            names = sorted(entry.name for entry in self.path.iterdir()) if self.path.is_dir() else []
            if other := [name for name in names if not re.fullmatch(r"[ab]-seed\d+", name)]:
                raise RunError(
                    f"--run {self.path} holds something else ({other[0]}) and no comparison; name a folder that is new."
                )
            return
        for side, spec in self.specs.items():
            if changes := io.differences(saved[side], _identity(spec)):
                more = f"; and {len(changes) - 3} more" if len(changes) > 3 else ""
                raise RunError(
                    f"--run {self.path} holds a comparison whose {side.upper()} is another "
                    f"({'; '.join(changes[:3])}{more}). Nothing was changed: choose another --run."
                )

    def seconds(self, side: str, seed: int) -> float | None:
        """Return the seconds that a run has taken, over all its starts; None where one of them was not timed."""
        entry = self._times().get(self.run(side, seed).name)
        if entry is None or entry.get("untimed") or entry.get("open"):
            return None
        return float(entry["seconds"])

    @contextmanager
    def timed(self, side: str, seed: int) -> Iterator[None]:
        """Add the time until the end of the block to what a run has taken, unless it is finished before.

        A process that is killed leaves the entry open, or none: the time of this run is then not known. Nothing is
        written before there is a run.

        Raises:
            RunError: the folder cannot be written.
        """
        run = RunDirectory(self.run(side, seed))
        if run.is_finished:
            yield
            return
        entry = self._times().get(run.path.name) or {"seconds": 0.0, "untimed": run.path.exists()}
        entry = {"seconds": entry["seconds"], "untimed": bool(entry.get("untimed") or entry.get("open"))}
        if run.path.is_dir():
            self._write(run.path.name, entry | {"open": True})
        started = time.perf_counter()
        try:
            yield
        finally:
            if run.path.is_dir():
                entry["seconds"] = round(entry["seconds"] + time.perf_counter() - started, 2)
                self._write(run.path.name, entry | {"open": False})

    def _times(self) -> dict[str, dict[str, Any]]:
        saved = self._read()
        return {} if saved is None else saved["runs"]

    def begin(self) -> None:
        """Make the folder of a study whose runs may all lie elsewhere, unless it is there.

        Raises:
            RunError: the folder cannot be written.
        """
        if self._read() is None:
            self._write_times({})

    def _write(self, name: str, entry: dict[str, Any]) -> None:
        self._write_times(self._times() | {name: entry})

    def _write_times(self, times: dict[str, dict[str, Any]]) -> None:
        document = {
            "format_version": FORMAT_VERSION,
            **{side: _identity(spec) for side, spec in self.specs.items()},
            "runs": times,
        }
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            write_json(self.study, document)
        except OSError as error:
            raise RunError(f"{self.study} cannot be written: {error.strerror or error}.") from error

    def _read(self) -> dict[str, Any] | None:
        """Return what `study.json` holds, None where there is none.

        Raises:
            RunError: it cannot be read, or is damaged.
        """
        try:
            document = json.loads(self.study.read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise RunError(f"{self.study} cannot be read: {error.strerror or error}.") from error
        except (ValueError, RecursionError):
            document = None
        if (
            not isinstance(document, dict)
            or document.get("format_version") != FORMAT_VERSION
            or not all(isinstance(document.get(key), dict) for key in ("a", "b", "runs"))
        ):
            raise RunError(
                f"{self.study} is damaged, or of another version. Without it the runs beside it are kept: delete the file "
                "and give the same command."
            )
        for name, entry in document["runs"].items():
            if obstacle := _obstacle(entry):
                raise RunError(
                    f"{self.study} is damaged: {name} {obstacle}. Put it right, or delete the file: the runs beside it are "
                    "kept, and only their times are lost."
                )
        return document


def _obstacle(entry: Any) -> str:
    """Return what is wrong with what `study.json` says of a run's time; empty where nothing is."""
    if not isinstance(entry, dict):
        return f"is {io.shown(entry)}, and not an object with seconds"
    if "seconds" not in entry:
        return "lacks seconds"
    seconds = number(entry["seconds"])
    if seconds is None or seconds < 0:
        return f"has a time whose seconds is {io.shown(entry['seconds'])}; it is a number of 0 or more"
    return ""


def _identity(spec: TrainSpec) -> dict[str, Any]:
    """Return what makes a side of a study: its spec without label and seed."""
    return {name: value for name, value in io.to_json(spec).items() if name not in ("recipe", "seed")}
