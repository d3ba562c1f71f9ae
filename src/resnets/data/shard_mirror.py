"""Shards on a web server: the index is fetched at once, each shard when its first image is needed.

They are kept in $RESNETS_DATA_ROOT/shards (default: ~/.cache/resnets/shards), in a folder that is named by the
checksum of the set, and verified when they arrive. Where $RESNETS_SHARD_CACHE_GB is set, those that were fetched longest
ago make room for new ones.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from resnets.data.cifar import default_data_root
from resnets.data.download import DownloadError, StderrProgress, download, download_once, read_url
from resnets.data.replace_file import replace_file
from resnets.data.shard_index import (
    DESCRIPTION,
    INDEX,
    MAX_DESCRIPTION_BYTES,
    MAX_INDEX_BYTES,
    read_description,
)
from resnets.specs.errors import DataError
from resnets.specs.visible import in_line

if TYPE_CHECKING:
    from collections.abc import Iterator

    from resnets.data.shard_index import Shard, ShardIndex

_ORIGIN = "origin.json"
LIMIT_VARIABLE = "RESNETS_SHARD_CACHE_GB"

# With the waits between them, a server may be out of order for two minutes.
_ATTEMPTS = 8

# A process asks once, so that all runs of a study have the same images.
_out_of_reach: set[str] = set()
_may_fetch: ContextVar[bool] = ContextVar("_may_fetch", default=True)


def is_url(data: str) -> bool:
    """Return whether a value of `--data` is the address of shards on a web server."""
    return data.lower().startswith(("http://", "https://"))


def mirror(url: str) -> Path:
    """Return a folder with the index of the shards at `url`, the address of the folder that holds them.

    While the server cannot be reached, the folder of the last time is returned, and a line on stderr says so.

    Raises:
        DataError: there is no index, it is damaged, or the folder cannot be written.
    """
    url = _without_file(url)
    if url in _out_of_reach and (kept := _last_mirror(url)) is not None:
        return kept
    try:
        content = read_url(f"{url}/{DESCRIPTION}", limit_bytes=MAX_DESCRIPTION_BYTES)
    except DownloadError as error:
        kept = _last_mirror(url) if error.out_of_reach else None
        if kept is not None:
            _limit_bytes()
            _out_of_reach.add(url)
            text = f"{url} is out of reach ({error.out_of_reach}): going on with what was fetched before, in {kept}."
            print(in_line(text), file=sys.stderr)
            return kept
        raise DataError(
            f"{error} --data takes the address of a folder of shards, with {DESCRIPTION} in it; `resnets prepare` makes one."
        ) from error
    described = read_description(f"{url}/{DESCRIPTION}", content)
    _limit_bytes()
    folder = default_data_root() / "shards" / str(described["index_sha256"])[:16]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        download_once(
            f"{url}/{INDEX}",
            folder / INDEX,
            checksum=f"sha256:{described['index_sha256']}",
            advice="Remove it and run the command again.",
            limit_bytes=MAX_INDEX_BYTES,
            on_progress=StderrProgress("Index of the shards"),
        )
        replace_file(folder / _ORIGIN, json.dumps({"url": url}).encode())
        replace_file(folder / DESCRIPTION, content)
    except OSError as error:
        raise DataError(
            f"{folder} cannot be written: {error.strerror or error}. $RESNETS_DATA_ROOT names another place."
        ) from error
    return folder


@dataclass(frozen=True, kw_only=True, slots=True)
class Origin:
    """Where the shards of a folder come from."""

    url: str
    folder: Path
    shards: tuple[Shard, ...]

    def fetch(self, number: int) -> None:
        """Download a shard.

        Raises:
            DataError: it cannot be had, or cannot be written.
        """
        shard = self.shards[number]
        self._make_room(shard.bytes)
        try:
            download(
                f"{self.url}/{shard.file}",
                self.folder / shard.file,
                checksum=f"sha256:{shard.sha256}",
                limit_bytes=shard.bytes,
                attempts=_ATTEMPTS,
            )
        except DataError as error:
            # Fetched by one process and removed by another, to make room, while this one waited: the caller sees that.
            if not isinstance(error.__cause__, FileNotFoundError):
                raise

    def _make_room(self, needed: int) -> None:
        limit = _limit_bytes()
        if limit is None:
            return
        present = []
        for shard in self.shards:
            with contextlib.suppress(OSError):  # another process may have removed it
                status = (self.folder / shard.file).stat()
                present.append((status.st_mtime, status.st_size, self.folder / shard.file))
        used = sum(size for _, size, _ in present)
        for _, size, path in sorted(present):
            if used + needed <= limit:
                break
            path.unlink(missing_ok=True)
            used -= size


def origin(folder: Path, index: ShardIndex) -> Origin | None:
    """Return where the shards of `folder` come from; None where they are all to be there.

    Raises:
        DataError: the note of it is damaged, or less may be kept than a shard takes.
    """
    path = folder / _ORIGIN
    try:
        url = json.loads(path.read_bytes())["url"]
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is damaged; give the address of the shards with --data again.") from error
    if not isinstance(url, str) or not is_url(url):
        raise DataError(f"{path} has no address; give the address of the shards with --data again.")
    limit, largest = _limit_bytes(), max((shard.bytes for shard in index.shards), default=0)
    if limit is not None and limit < largest:
        raise DataError(
            f"{LIMIT_VARIABLE} is {os.environ[LIMIT_VARIABLE]}, but the largest of these shards takes "
            f"{largest / 1e9:.3g} GB; allow several of them."
        )
    return Origin(url=url, folder=folder, shards=index.shards)


@contextlib.contextmanager
def fetching_nothing() -> Iterator[None]:
    """Let sets that are opened meanwhile read none but the shards that are there: see `ShardFiles.of_those_here`.

    This is for a look at a run, which is to download nothing and needs images of the set, not each at its place.
    """
    token = _may_fetch.set(False)
    try:
        yield
    finally:
        _may_fetch.reset(token)


def may_fetch() -> bool:
    """Return whether shards are fetched of sets that are opened now."""
    return _may_fetch.get()


def fetched_before(url: str) -> Path | None:
    """Return the folder of the shards at `url` as they were when they were last trained on here; no server is asked."""
    return _last_mirror(_without_file(url))


def fetched_shards(folder: Path) -> int | None:
    """Return how many training shards were fetched to `folder`; None where those in it come from no server."""
    return len(list(folder.glob("train-*.tar"))) if (folder / _ORIGIN).is_file() else None


def _without_file(url: str) -> str:
    return url.rstrip("/").removesuffix(f"/{DESCRIPTION}")


def _last_mirror(url: str) -> Path | None:
    """Return the folder that was written last for `url` and is complete but for shards."""
    notes = (default_data_root() / "shards").glob(f"*/{_ORIGIN}")
    with contextlib.suppress(OSError):  # another process removes or writes one
        for note in sorted(notes, key=lambda note: note.stat().st_mtime, reverse=True):
            with contextlib.suppress(ValueError, KeyError, TypeError):
                is_complete = all((note.parent / name).is_file() for name in (INDEX, DESCRIPTION))
                if is_complete and json.loads(note.read_bytes())["url"] == url:
                    return note.parent
    return None


def _limit_bytes() -> int | None:
    text = os.environ.get(LIMIT_VARIABLE, "")
    try:
        limit = float(text) if text else None
        if limit is not None and not 0 < limit < 1e9:
            raise ValueError
    except ValueError:
        raise DataError(f"{LIMIT_VARIABLE} is {text!r}; it is a number of gigabytes above 0, such as 200.") from None
    return None if limit is None else int(limit * 1e9)
