"""The run directory: configuration, environment, metrics, checkpoints and the finished model of one run."""

from __future__ import annotations

import errno
import json
import os
import platform
import shlex
import shutil
import subprocess
import sys
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resnets.artifacts.run_log import read_run_log
from resnets.artifacts.tensors import read_tensors
from resnets.models.interop.files import save_tensors
from resnets.specs import io
from resnets.specs.cores import usable_cores
from resnets.specs.errors import RunError, SpecError
from resnets.specs.run import TrainSpec

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from resnets.artifacts.divergence import Divergence

_FINGERPRINT = "fingerprint"
PACKAGES = ("resnets", "torch", "torchvision", "numpy", "pillow", "scikit-learn")


@dataclass(frozen=True, slots=True)
class RunDirectory:
    """Paths inside one run directory, and what is written there."""

    path: Path

    @property
    def config(self) -> Path:
        """The resolved spec."""
        return self.path / "config.json"

    @property
    def environment(self) -> Path:
        """Versions, commit, hardware and command."""
        return self.path / "env.json"

    @property
    def metrics(self) -> Path:
        """One JSON object a line."""
        return self.path / "metrics.jsonl"

    @property
    def tensorboard(self) -> Path:
        """Event files."""
        return self.path / "tensorboard"

    @property
    def checkpoints(self) -> Path:
        """Checkpoints, and `latest`, which names one."""
        return self.path / "checkpoints"

    @property
    def statistics(self) -> Path:
        """Mean image and colour axes of the training images, where the run computes them."""
        return self.path / "statistics.safetensors"

    @property
    def model(self) -> Path:
        """The model folder, there when the run is finished."""
        return self.path / "model"

    @property
    def is_finished(self) -> bool:
        """Whether the run has ended and left its model."""
        return (self.model / "config.json").is_file()

    def divergence(self) -> Divergence | None:
        """Return how the run diverged; None where it has not, has gone on since, is finished, or has no log.

        None too where its spec names code of the user's own: that may have been mended since.
        """
        try:
            spec = self.saved_spec()
            if spec is None or self.is_finished or has_own_code(spec):
                return None
            return read_run_log(self.metrics).diverged
        except RunError:
            return None

    def saved_spec(self) -> TrainSpec | None:
        """Return the spec of the run that lives here, or None where there is none yet.

        Raises:
            RunError: `config.json` is damaged, or the path is a file or cannot be one of a folder.
        """
        try:
            if self.path.exists() and not self.path.is_dir():
                raise RunError(f"--run {self.path} is a file; name a folder that is new or holds a run.")
            if not self.config.is_file():
                return None
        except OSError as error:  # a name that is too long, a folder that may not be entered
            raise _unwritable(self.path, error) from error
        return read_spec(self.config)

    def check_same(self, spec: TrainSpec) -> None:
        """Refuse a directory that holds another run.

        Raises:
            RunError: naming the fields that differ.
        """
        saved = self.saved_spec()
        if saved is None or io.spec_hash(saved) == io.spec_hash(spec):
            return
        ours, theirs = io.to_json(saved), io.to_json(spec)
        for label in (ours, theirs):
            label.pop("recipe")
        changes = io.differences(ours, theirs)
        shown = "; ".join(changes[:6]) + (f"; and {len(changes) - 6} more" if len(changes) > 6 else "")
        raise RunError(
            f"{self.path} holds a run of another spec ({shown}). Nothing was changed: choose another --run, or give "
            "the same spec to go on."
        )

    def check_writable(self) -> None:
        """Refuse a folder that cannot be made or written into, without making it.

        Raises:
            RunError: with the reason.
        """
        there = self.path
        try:
            while not there.exists():
                there = there.parent
            error = (
                errno.ENOTDIR if not there.is_dir() else None if os.access(there, os.W_OK | os.X_OK) else errno.EACCES
            )
        except OSError as caught:  # a name that is too long, a folder that may not be entered
            raise _unwritable(self.path, caught) from caught
        if error is not None:
            raise _unwritable(self.path, OSError(error, os.strerror(error)))

    def load_statistics(self, fingerprint: str) -> dict[str, Tensor] | None:
        """Return the statistics that the run has kept of the images with this fingerprint, or None.

        Raises:
            ModelError: the file is damaged.
        """
        if not self.statistics.is_file():
            return None
        tensors = read_tensors(self.statistics)
        of = tensors.pop(_FINGERPRINT, None)
        return tensors if of is not None and bytes(of.tolist()) == fingerprint.encode() else None

    def save_statistics(self, tensors: dict[str, Tensor], fingerprint: str) -> None:
        """Keep the statistics of the training images, so that a resumed run need not compute them again.

        Raises:
            RunError: the file cannot be written.
        """
        import torch

        tensors = tensors | {_FINGERPRINT: torch.tensor(list(fingerprint.encode()), dtype=torch.uint8)}
        temporary = self.statistics.with_name(f".{self.statistics.name}.tmp-{os.getpid()}")
        try:
            save_tensors(tensors, temporary)
            temporary.replace(self.statistics)
        except OSError as error:
            raise _unwritable(self.path, error) from error
        finally:
            temporary.unlink(missing_ok=True)

    def create(self, spec: TrainSpec, start: dict[str, Any]) -> None:
        """Make the folder, write `config.json` where there is none yet, and add a start to `env.json`.

        Args:
            spec: the run.
            start: what this start adds to the environment: step, device, threads, processes.

        Raises:
            RunError: the folder cannot be written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            if not self.config.exists():
                write_json(self.config, io.to_json(spec))
            here = environment()
            write_json(self.environment, here | {"starts": [*self._starts(), start | {"command": here["command"]}]})
        except OSError as error:
            raise _unwritable(self.path, error) from error

    def _starts(self) -> list[Any]:
        try:
            starts = json.loads(self.environment.read_text(encoding="utf-8"))["starts"]
        except (OSError, ValueError, KeyError, TypeError):
            return []
        return starts if isinstance(starts, list) else []

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep a second process from training into the same folder until the end of the block.

        Raises:
            RunError: another process trains here, or the folder cannot be written.
        """
        try:
            import fcntl
        except ImportError:  # Windows
            yield
            return
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            file = (self.path / ".lock").open("w")
        except OSError as error:
            raise _unwritable(self.path, error) from error
        with file:
            try:
                # Not flock: worker processes would inherit it, and outlive a kill of this one by seconds.
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except (BlockingIOError, PermissionError) as error:
                raise RunError(
                    f"Another process is training in {self.path}; wait for it or choose another --run."
                ) from error
            except OSError:  # a file system without locks
                pass
            else:
                self._remove_leftovers()
            yield

    def _remove_leftovers(self) -> None:
        """Remove what a killed process was writing; with the lock held, nobody else writes here."""
        with suppress(OSError):
            for leftover in [*self.path.glob(".*.tmp-*"), *self.checkpoints.glob(".*.tmp-*")]:
                shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()


def read_spec(path: Path) -> TrainSpec:
    """Return the spec in a `config.json`.

    Raises:
        RunError: the file cannot be read or does not hold a spec.
    """
    try:
        return io.from_json(TrainSpec, json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror}.") from error
    except SpecError as error:
        raise RunError(f"{path} does not hold a training spec: {error}") from error
    except (ValueError, RecursionError) as error:  # also numbers of thousands of digits, and thousands of levels
        raise RunError(f"{path} is not valid JSON ({error}); the run it belongs to cannot be identified.") from error


def has_own_code(spec: TrainSpec) -> bool:
    """Return whether a spec has a part whose class lies outside of the package, in JSON a kind as `module:Class`."""

    def within(value: Any) -> bool:
        match value:
            case {"kind": str(kind), **fields}:
                return ":" in kind or any(map(within, fields.values()))
            case list():
                return any(map(within, value))
            case _:
                return False

    return within(io.to_json(spec))


def write_json(path: Path, value: Any) -> None:
    """Write `value` to `path` so that the file is either the old one or complete."""
    text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
    write_text(path, text, errors="backslashreplace")  # a valid escape in JSON


def write_text(path: Path, text: str, *, errors: str = "strict") -> None:
    """Write `text` to `path` so that the file is either the old one or complete.

    Args:
        path: the file. In a run directory, what a killed process had begun to write is removed by the next start.
        text: its content, written in UTF-8.
        errors: what becomes of characters that UTF-8 does not have; as for `open`.

    Raises:
        OSError: it cannot be written.
    """
    temporary = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    try:
        with temporary.open("w", encoding="utf-8", errors=errors) as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def conditions(device: str, threads: int, processes: int) -> dict[str, Any]:
    """Return what decides, beside the spec, how the numbers of a run are rounded on this machine.

    Args:
        device: the kind of it, as in "cpu": Apple's GPUs have the name of their processor.
        threads: of the CPU arithmetic.
        processes: of the run.
    """
    installed = _versions()
    return {
        "device": device,
        "hardware": (_gpu() if device == "cuda" else None) or _processor(),
        "threads": threads,
        "processes": processes,
        "versions": {name: installed[name] for name in ("resnets", "torch") if name in installed},
    }


def _versions() -> dict[str, str]:
    versions = {}
    for package in PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    if torch := sys.modules.get("torch"):
        versions["torch"] = str(torch.__version__)  # with the build (+cpu, +cu132), which the metadata may lack
    return versions


def environment() -> dict[str, Any]:
    """Return versions, commit, hardware and command of this process."""
    return {
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "python": platform.python_version(),
        "versions": _versions(),
        "commit": _commit(),
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": usable_cores(),
        "gpu": _gpu(),
    }


def _commit() -> dict[str, Any] | None:
    """Return the commit of the source tree this package runs from, None where it is installed without one."""
    here = Path(__file__).resolve().parent
    try:
        inside = subprocess.run(
            ["git", "-C", str(here), "ls-files", "--error-unmatch", __file__], capture_output=True, timeout=10
        )
        if inside.returncode != 0:
            return None
        commit = subprocess.run(
            ["git", "-C", str(here), "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10, check=True
        ).stdout.strip()
        changes = subprocess.run(
            ["git", "-C", str(here), "status", "--porcelain", "--untracked-files=no"],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    return {"sha": commit, "modified": bool(changes.strip())}


def _processor() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _gpu() -> str | None:
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return None
    return torch.cuda.get_device_name()


def _unwritable(path: Path, error: OSError) -> RunError:
    reasons = {
        errno.EACCES: "you may not write there",
        errno.EROFS: "the file system is read-only",
        errno.ENOSPC: "the disk is full",
        errno.ENOTDIR: "a part of the path is a file",
        errno.EEXIST: "a file of this name exists",
    }
    reason = reasons.get(error.errno or 0, error.strerror or str(error))
    return RunError(f"The run directory {path} cannot be written: {reason}. Choose another with --run.")
