"""Download a file so that an interruption costs nothing, and unpack an archive so that nothing escapes its folder."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import io
import os
import ssl
import sys
import tarfile
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resnets.specs.errors import DataError
from resnets.specs.visible import in_line

if TYPE_CHECKING:
    from collections.abc import Iterator

Progress = Callable[[int, int | None], None]
"""Called with the bytes that are there and the bytes of the whole file, None where the server does not say."""

_CHUNK = 1 << 20
_TRANSIENT_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})


class DownloadError(DataError):
    """A server did not give what was asked for."""

    def __init__(self, message: str, status: int | None = None, *, out_of_reach: str = "") -> None:
        """Keep `status`, with which the server refused, or why it is `out_of_reach`, perhaps for a while only."""
        super().__init__(message)
        self.status = status
        self.out_of_reach = out_of_reach


class _TransientError(Exception):
    """A failure that may be gone at the next attempt."""


class _OversizeError(Exception):
    """An answer of more bytes than are expected at most."""


def download(
    url: str,
    destination: Path,
    *,
    checksum: str,
    limit_bytes: int | None = None,
    on_progress: Progress | None = None,
    authorization: str = "",
    attempts: int = 4,
    timeout_s: float = 30.0,
    first_wait_s: float = 1.0,
) -> Path:
    """Download `url` to `destination`, which appears only when it is complete and its checksum is right.

    What has arrived is kept in `destination` + ".part"; the next call, or the next attempt, asks for the rest.
    `checksum` is as for `verify`; None as `limit_bytes` sets no limit. `authorization` is a header that the server of
    `url` alone is sent, not one that it redirects to. After `attempts` in a row that bring no further byte it gives up;
    the waits between them double.

    Raises:
        DownloadError: the file cannot be had.
        DataError: it cannot be written, or has more than `limit_bytes` or another checksum (the part is then removed).
    """
    _check_address(url)
    part = destination.with_name(destination.name + ".part")
    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
        with _claim(part, destination) as file:
            if file is None:
                verify(destination, checksum, f"Move {destination} away to download it again.")
                return destination
            try:
                _fetch_all(
                    url,
                    file,
                    on_progress if limit_bytes is None else _stop_above(limit_bytes, url, on_progress),
                    authorization=authorization,
                    attempts=attempts,
                    timeout_s=timeout_s,
                    wait_s=first_wait_s,
                )
            except _OversizeError as error:
                part.unlink()
                raise DataError(f"{error} Nothing of it was kept.") from error
            os.fsync(file.fileno())
            try:
                verify(part, checksum, f"What came from {url} was removed; run the command again.")
            except DataError:
                part.unlink()
                raise
            part.replace(destination)
    except OSError as error:
        raise DataError(f"{destination} cannot be written: {error.strerror or error}.") from error
    return destination


def read_url(
    url: str,
    *,
    limit_bytes: int,
    authorization: str = "",
    attempts: int = 4,
    timeout_s: float = 30.0,
    first_wait_s: float = 1.0,
) -> bytes:
    """Return what `url` answers, with the retries and the header of `download`.

    Raises:
        DownloadError: there is no answer, or one of more than `limit_bytes`.
    """
    _check_address(url)
    answer = io.BytesIO()
    try:
        _fetch_all(
            url,
            answer,
            _stop_above(limit_bytes, url, None),
            authorization=authorization,
            attempts=attempts,
            timeout_s=timeout_s,
            wait_s=first_wait_s,
        )
    except _OversizeError as error:
        raise DownloadError(str(error)) from error
    return answer.getvalue()


def verify(path: Path, checksum: str, advice: str) -> None:
    """Compare a file with its checksum.

    Args:
        path: the file.
        checksum: "md5:...", "sha256:..." or "git:...", git's name of a file with this content (a SHA-1), in
            hexadecimal digits; the first eight or more are enough.
        advice: what to do if they differ; ends the message.

    Raises:
        DataError: they differ.
    """
    algorithm, _, expected = checksum.partition(":")
    if len(expected) < 8:
        raise ValueError(f"{checksum!r} is no checksum of at least eight digits")
    with path.open("rb") as file:
        if algorithm == "git":
            header = f"blob {os.fstat(file.fileno()).st_size}\0".encode()
            found = hashlib.file_digest(file, lambda: hashlib.sha1(header, usedforsecurity=False)).hexdigest()
        else:
            found = hashlib.file_digest(file, algorithm).hexdigest()
    if not found.startswith(expected.lower()):
        raise DataError(f"{path.name} has the {algorithm} checksum {found}; it should be {expected}. {advice}")


def verify_once(path: Path, checksum: str, advice: str) -> None:
    """Do what `verify` does, unless it was done for this checksum and the file has not been written since.

    What was verified is noted in `path` + ".verified": the checksum, and the file's size and time of modification.

    Raises:
        DataError: the checksums differ, or the file cannot be read.
    """
    try:
        state = _state(path, checksum)
        with contextlib.suppress(OSError, ValueError):
            if _marker(path).read_text(encoding="utf-8") == state:
                return
        verify(path, checksum, advice)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from error
    _note(path, state)


def download_once(
    url: str,
    path: Path,
    *,
    checksum: str,
    advice: str,
    limit_bytes: int | None = None,
    on_progress: Progress | None = None,
    authorization: str = "",
) -> None:
    """Download `url` to `path` unless a file is there, which is then verified, once, whoever put it there.

    Raises:
        DownloadError: the file cannot be had.
        DataError: it cannot be written, has more than `limit_bytes`, or has another checksum; for a file that was
            there, the message ends with `advice`.
    """
    if path.is_file():
        verify_once(path, checksum, advice)
        return
    with contextlib.suppress(OSError):
        _marker(path).unlink()
    download(
        url,
        path,
        checksum=checksum,
        limit_bytes=limit_bytes,
        on_progress=on_progress,
        authorization=authorization,
    )
    _note(path, _state(path, checksum))


def _marker(path: Path) -> Path:
    return path.with_name(f"{path.name}.verified")


def _state(path: Path, checksum: str) -> str:
    status = path.stat()
    return f"{checksum} {status.st_size} {status.st_mtime_ns}\n"


def _note(path: Path, state: str) -> None:
    with contextlib.suppress(OSError):  # in a folder that may not be written, files are verified each time
        _marker(path).write_text(state, encoding="utf-8")


def extract(archive: Path, destination: Path, *, max_bytes: int = 4 << 30) -> Path:
    """Unpack a tar archive into the new folder `destination`, which appears only when it is complete.

    An archive that holds nothing but a folder called like `destination` is unpacked as that folder.

    Raises:
        DataError: the archive is damaged, unpacks to more than `max_bytes`, or has a member that is no plain file or
            folder inside it; or the folder cannot be written.
    """
    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{destination.name}-", dir=destination.parent) as temporary:
            content = Path(temporary) / "content"
            content.mkdir()
            _unpack(archive, content, max_bytes)
            if [entry.name for entry in content.iterdir()] == [destination.name]:
                content = content / destination.name
            try:
                content.rename(destination)
            except OSError:
                # Another process may have finished the same work first; both have unpacked the same archive.
                if not destination.is_dir():
                    raise
    except OSError as error:
        raise DataError(f"{archive} cannot be unpacked to {destination}: {error.strerror or error}.") from error
    return destination


class StderrProgress:
    """Progress of one download on stderr: a line that is rewritten on a terminal, else a line every 10 seconds."""

    def __init__(self, label: str, clock: Callable[[], float] = time.monotonic) -> None:
        """Show `label` before the figures."""
        self._label = in_line(label)
        self._stream = sys.stderr
        self._clock = clock
        self._terminal = self._stream.isatty()
        self._start: tuple[float, int] | None = None
        self._shown = float("-inf")

    def __call__(self, done: int, total: int | None) -> None:
        """Show `done` of `total` bytes, unless the last time is too short ago."""
        now = self._clock()
        finished = done == total
        if self._start is None:
            self._start = (now, done)
        if not finished and now - self._shown < (0.2 if self._terminal else 10.0):
            return
        self._shown = now
        line = self._line(now, done, total)
        if self._terminal:
            self._stream.write(f"\r{line:<78}" + ("\n" if finished else ""))
        else:
            self._stream.write(line + "\n")
        self._stream.flush()

    def _line(self, now: float, done: int, total: int | None) -> str:
        assert self._start is not None
        began, resumed_at = self._start
        rate = (done - resumed_at) / (now - began) if now > began else 0.0
        line = f"{self._label}: {done / 1e6:.1f}"
        line += f" of {total / 1e6:.1f} MB" if total else " MB"
        if rate > 0:
            line += f", {rate / 1e6:.1f} MB/s"
            if total and done < total:
                line += f", {(total - done) / rate:.0f} s left"
        return line


@contextlib.contextmanager
def _claim(part: Path, destination: Path) -> Iterator[io.BufferedWriter | None]:
    """Open `part` for this process alone, waiting for another that writes it; None where `destination` exists."""
    while not destination.exists():
        with part.open("ab") as file:
            _lock(file)
            # While this one waited, another may have renamed or removed the file that was opened.
            if part.exists() and os.path.samestat(part.stat(), os.fstat(file.fileno())):
                file.seek(0, os.SEEK_END)
                yield file
                return
    yield None


def _lock(file: io.BufferedWriter) -> None:
    if sys.platform != "win32":
        import fcntl

        # Some network file systems have no locks; there, two processes at once end in a wrong checksum.
        with contextlib.suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)


def _stop_above(limit_bytes: int, url: str, on_progress: Progress | None) -> Progress:
    def progress(done: int, total: int | None) -> None:
        if max(done, total or 0) > limit_bytes:
            raise _OversizeError(f"{url} answers more than the {limit_bytes} bytes that are expected at most.")
        if on_progress is not None:
            on_progress(done, total)

    return progress


def _check_address(url: str) -> None:
    try:
        parts = urllib.parse.urlsplit(url)
    except ValueError as error:
        raise DataError(f"{url} is no address ({error}).") from error
    if parts.scheme not in ("http", "https"):
        raise DataError(f"{url} cannot be downloaded; an address begins with http:// or https://.")
    if "@" in parts.netloc:  # not repeated, since messages end in logs
        raise DataError(
            f"The address on {parts.hostname} holds a name or a password, which are not used; leave them out."
        )


def _fetch_all(
    url: str,
    file: io.BufferedIOBase,
    on_progress: Progress | None,
    *,
    authorization: str,
    attempts: int,
    timeout_s: float,
    wait_s: float,
) -> None:
    most, failures = file.tell(), 0
    while True:
        try:
            return _fetch(url, file, on_progress, authorization, timeout_s)
        except _TransientError as error:
            # Only a byte never reached before counts as progress: a server that begins anew and breaks off at the
            # same place each time must not keep us for ever.
            failures = 0 if file.tell() > most else failures + 1
            most = max(most, file.tell())
            if failures >= attempts:
                raise DownloadError(
                    f"{url} cannot be downloaded: {error} ({attempts} attempts). "
                    "Run the command again: it goes on where it stopped.",
                    out_of_reach=str(error),
                ) from error
            time.sleep(wait_s * 2 ** max(0, failures - 1))


def _fetch(
    url: str, file: io.BufferedIOBase, on_progress: Progress | None, authorization: str, timeout_s: float
) -> None:
    """Append what is missing, or raise `_TransientError` with the file holding what has arrived."""
    start = file.tell()
    response = _request(url, start, authorization, timeout_s)
    if response is None:
        return
    with response:
        if start and not _continues(response, start):
            start = _begin_anew(file)
        _append(response, file, start, on_progress)


def _request(url: str, start: int, authorization: str, timeout_s: float) -> http.client.HTTPResponse | None:
    """Return the answer to a request for the bytes from `start` on, or None where there are none left."""
    request = urllib.request.Request(url, headers={"User-Agent": "resnets"})
    if start:
        request.add_header("Range", f"bytes={start}-")
    if authorization:
        request.add_unredirected_header("Authorization", authorization)
    try:
        return urllib.request.build_opener(_Redirects).open(request, timeout=timeout_s)
    except urllib.error.HTTPError as error:
        with error:
            if error.code == 416 and start:
                if error.headers.get("Content-Range") == f"bytes */{start}":
                    return None
                # The part is longer than the file: it is of another version.
                return _request(url, 0, authorization, timeout_s)
            reason = f"the server answers {error.code} {' '.join(str(error.reason).split())}"
            if error.code in _TRANSIENT_STATUS:
                raise _TransientError(reason) from error
            raise DownloadError(f"{url} cannot be downloaded: {reason}.", error.code) from error
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, ssl.SSLCertVerificationError):
            raise DownloadError(f"{url} cannot be downloaded: {reason}.") from error
        raise _TransientError(str(reason) or type(reason).__name__) from error


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirections, with the Authorization header on the same server only."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: Any,
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        """Return the request to `newurl`, or None where the method does not allow it."""
        redirected = super().redirect_request(req, fp, code, msg, headers, newurl)
        authorization = req.unredirected_hdrs.get("Authorization")
        if redirected is not None and authorization and _server(newurl) == _server(req.full_url):
            redirected.add_unredirected_header("Authorization", authorization)
        return redirected


def _server(url: str) -> tuple[str, str]:
    return urllib.parse.urlsplit(url)[:2]


def _begin_anew(file: io.BufferedIOBase) -> int:
    file.truncate(0)
    return file.seek(0)


def _continues(response: http.client.HTTPResponse, start: int) -> bool:
    # A server that ignores the range answers 200 and sends the whole file.
    return response.status == 206 and response.headers.get("Content-Range", "").startswith(f"bytes {start}-")


def _append(
    response: http.client.HTTPResponse, file: io.BufferedIOBase, done: int, on_progress: Progress | None
) -> None:
    length = response.headers.get("Content-Length")
    total = done + int(length) if length is not None and length.isdecimal() else None
    while True:
        try:
            chunk = response.read1(_CHUNK)
        except (OSError, http.client.HTTPException) as error:
            raise _TransientError(str(error) or type(error).__name__) from error
        if not chunk:
            break
        file.write(chunk)
        done += len(chunk)
        if on_progress is not None:
            on_progress(done, total)
    file.flush()
    if total is not None and done < total:
        raise _TransientError(f"the connection ended after {done} of {total} bytes")


def _unpack(archive: Path, folder: Path, max_bytes: int) -> None:
    unpacked = 0
    try:
        with tarfile.open(archive, "r:*") as tar:
            for member in tar:
                _check_member(archive, member)
                unpacked += member.size
                if unpacked > max_bytes:
                    raise DataError(
                        f"{archive} unpacks to more than {max_bytes} bytes; that is not the archive expected."
                    )
                tar.extract(member, folder, filter="data")
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise DataError(f"{archive} is damaged ({error}); remove it to download it again.") from error


def _check_member(archive: Path, member: tarfile.TarInfo) -> None:
    # The "data" filter stops what leaves the folder, too; that it repairs some names in silence, and admits links,
    # is more than a dataset needs.
    parts = member.name.replace("\\", "/").split("/")
    if member.name.startswith(("/", "\\")) or ".." in parts or ":" in parts[0] or "\0" in member.name:
        raise DataError(f"{archive} holds {member.name!r}, which lies outside its folder; nothing of it was kept.")
    if not (member.isreg() or member.isdir()):
        raise DataError(f"{archive} holds {member.name!r}, which is a link or a device; nothing of it was kept.")
