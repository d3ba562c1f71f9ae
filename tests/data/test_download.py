"""Downloads from a server on this machine, and archives that try to escape."""

import functools
import hashlib
import http.server
import io
import os
import tarfile
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resnets.data.download import (
    DownloadError,
    StderrProgress,
    download,
    download_once,
    extract,
    read_url,
    verify,
    verify_once,
)
from resnets.specs.errors import DataError

CONTENT = bytes(range(256)) * 4_000
CHECKSUM = "sha256:" + hashlib.sha256(CONTENT).hexdigest()


class _Server(http.server.ThreadingHTTPServer):
    """Serves CONTENT at /file; how badly is set by the test."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.ranges = True
        self.statuses = []
        self.break_after = []
        self.requested = []
        self.url = f"http://127.0.0.1:{self.server_port}/file"


class _Handler(http.server.BaseHTTPRequestHandler):
    server: _Server

    def log_message(self, *_):
        pass

    def do_GET(self):
        given_range = self.headers.get("Range")
        self.server.requested.append(given_range)
        if self.path != "/file":
            return self.send_error(404)
        if self.server.statuses:
            return self.send_error(self.server.statuses.pop(0))
        start = int(given_range[6:-1]) if given_range and self.server.ranges else 0
        if start >= len(CONTENT):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(CONTENT)}")
            return self.end_headers()
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}")
        self.send_header("Content-Length", str(len(CONTENT) - start))
        self.end_headers()
        length = self.server.break_after.pop(0) if self.server.break_after else len(CONTENT)
        self.wfile.write(CONTENT[start : start + length])
        return None


@pytest.fixture
def server():
    with _Server() as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield server
        server.shutdown()


_download = functools.partial(download, first_wait_s=0.0, timeout_s=60.0)


def test_a_download_is_complete_and_its_progress_reaches_the_total(server, tmp_path):
    seen = []
    path = _download(server.url, tmp_path / "new" / "file", checksum=CHECKSUM, on_progress=lambda *s: seen.append(s))
    assert path.read_bytes() == CONTENT
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert seen == sorted(seen)
    assert [entry.name for entry in path.parent.iterdir()] == ["file"]


def test_a_file_that_is_there_is_not_downloaded_again(server, tmp_path):
    (tmp_path / "file").write_bytes(CONTENT)
    _download(server.url, tmp_path / "file", checksum=CHECKSUM)
    assert server.requested == []


def test_a_file_that_is_there_with_another_checksum_is_kept_and_named(server, tmp_path):
    (tmp_path / "file").write_bytes(b"mine")
    with pytest.raises(DataError, match="checksum") as error:
        _download(server.url, tmp_path / "file", checksum=CHECKSUM)
    assert hashlib.sha256(b"mine").hexdigest() in str(error.value)
    assert CHECKSUM[7:] in str(error.value)
    assert (tmp_path / "file").read_bytes() == b"mine"


@pytest.mark.parametrize("ranges", [True, False])
def test_a_part_is_continued_or_begun_anew_where_the_server_cannot(server, tmp_path, ranges):
    server.ranges = ranges
    (tmp_path / "file.part").write_bytes(CONTENT[:1000])
    assert _download(server.url, tmp_path / "file", checksum=CHECKSUM).read_bytes() == CONTENT
    assert server.requested == ["bytes=1000-"]


def test_a_connection_that_breaks_again_and_again_is_continued_while_bytes_arrive(server, tmp_path):
    server.break_after = [100_000] * 8
    assert _download(server.url, tmp_path / "file", checksum=CHECKSUM, attempts=2).read_bytes() == CONTENT
    assert server.requested[:3] == [None, "bytes=100000-", "bytes=200000-"]


def test_a_truncated_download_gives_up_in_the_end_and_keeps_the_part(server, tmp_path):
    server.ranges = False
    server.break_after = [5_000] * 100
    with pytest.raises(DataError, match="5000 of 1024000 bytes"):
        _download(server.url, tmp_path / "file", checksum=CHECKSUM, attempts=3)
    assert len(server.requested) == 4  # the first brought bytes
    assert not (tmp_path / "file").exists()
    assert (tmp_path / "file.part").read_bytes() == CONTENT[:5_000]


@pytest.mark.parametrize("extra", [b"", b"too long"])
def test_a_part_that_is_complete_or_too_long_is_recognised(server, tmp_path, extra):
    (tmp_path / "file.part").write_bytes(CONTENT + extra)
    assert _download(server.url, tmp_path / "file", checksum=CHECKSUM).read_bytes() == CONTENT


def test_a_server_that_is_busy_is_asked_again(server, tmp_path):
    server.statuses = [503, 429, 500]
    assert _download(server.url, tmp_path / "file", checksum=CHECKSUM).read_bytes() == CONTENT


def test_a_file_that_the_server_lacks_is_asked_for_once(server, tmp_path):
    with pytest.raises(DataError, match="404"):
        _download(server.url + "s", tmp_path / "file", checksum=CHECKSUM)
    assert len(server.requested) == 1


def test_a_wrong_checksum_names_both_and_removes_the_part(server, tmp_path):
    with pytest.raises(DataError) as error:
        _download(server.url, tmp_path / "file", checksum="md5:" + "0" * 32)
    assert "0" * 32 in str(error.value)
    assert hashlib.md5(CONTENT).hexdigest() in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_a_refused_connection_is_named(tmp_path):
    with pytest.raises(DataError, match="attempts"):
        _download("http://127.0.0.1:9/file", tmp_path / "file", checksum=CHECKSUM, attempts=2)


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://127.0.0.1/x", "nothing"])
def test_other_kinds_of_address_are_refused(url, tmp_path):
    with pytest.raises(DataError, match="http"):
        _download(url, tmp_path / "file", checksum=CHECKSUM)


@pytest.mark.parametrize("url", ["http://[::1", "https://me:secret@host/x"])
def test_what_is_no_address_is_refused_and_a_password_not_repeated(url, tmp_path):
    with pytest.raises(DataError) as refused:
        _download(url, tmp_path / "file", checksum=CHECKSUM)
    assert "secret" not in str(refused.value)


def test_a_place_that_cannot_be_written_is_named(server, tmp_path):
    (tmp_path / "blocked").write_text("a file where a folder is needed")
    with pytest.raises(DataError, match="cannot be written"):
        _download(server.url, tmp_path / "blocked" / "file", checksum=CHECKSUM)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_is_named(server, tmp_path):
    (tmp_path / "file.part").symlink_to("/dev/full")
    with pytest.raises(DataError, match="No space left"):
        _download(server.url, tmp_path / "file", checksum=CHECKSUM)


def test_two_at_once_do_not_disturb_each_other(server, tmp_path):
    failures = []

    def work():
        try:
            _download(server.url, tmp_path / "file", checksum=CHECKSUM)
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len(server.requested) == 1


def test_progress_is_plain_lines_where_there_is_no_terminal(capsys):
    now = [0.0]
    progress = StderrProgress("archive", clock=lambda: now[0])
    for second in range(21):
        now[0] = float(second)
        progress(second * 1_000_000, 20_000_000)
    lines = capsys.readouterr().err.splitlines()
    assert lines[1] == "archive: 10.0 of 20.0 MB, 1.0 MB/s, 10 s left"
    assert lines[2] == "archive: 20.0 of 20.0 MB, 1.0 MB/s"
    assert len(lines) == 3


def _archive(path, members):
    with tarfile.open(path, "w:gz") as tar:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                tar.addfile(member)
            else:
                name, content = member
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return path


def _special(name, kind, target=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def test_an_archive_is_unpacked_whole_and_its_own_folder_is_not_doubled(tmp_path):
    plain = _archive(tmp_path / "a.tar.gz", [("x.txt", b"x"), ("deep/y.txt", b"y")])
    assert (extract(plain, tmp_path / "plain") / "deep" / "y.txt").read_bytes() == b"y"
    folder = _archive(tmp_path / "b.tar.gz", [_special("set", tarfile.DIRTYPE), ("set/x.txt", b"x")])
    assert (extract(folder, tmp_path / "set") / "x.txt").read_bytes() == b"x"
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["a.tar.gz", "b.tar.gz", "plain", "set"]


@pytest.mark.parametrize(
    "member",
    [
        ("../evil", b"!"),
        ("/tmp/evil", b"!"),
        ("a/../../evil", b"!"),
        ("..\\evil", b"!"),
        ("C:\\evil", b"!"),
        _special("link", tarfile.SYMTYPE, "/etc/passwd"),
        _special("link", tarfile.SYMTYPE, "inside"),
        _special("link", tarfile.LNKTYPE, "../../evil"),
        _special("device", tarfile.CHRTYPE),
        _special("pipe", tarfile.FIFOTYPE),
    ],
    ids=lambda member: member.name if isinstance(member, tarfile.TarInfo) else member[0],
)
def test_a_member_outside_the_folder_or_of_another_kind_leaves_nothing_behind(tmp_path, member):
    archive = _archive(tmp_path / "a.tar.gz", [("good.txt", b"good"), member])
    with pytest.raises(DataError, match="nothing of it was kept"):
        extract(archive, tmp_path / "inner" / "set")
    assert list((tmp_path / "inner").iterdir()) == []
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["a.tar.gz", "inner"]


@given(name=st.text("ab./\\:~ ", min_size=1, max_size=12))
def test_whatever_a_member_is_called_nothing_is_written_outside(tmp_path_factory, name):
    folder = tmp_path_factory.mktemp("any")
    archive = _archive(folder / "a.tar", [(name, b"content")])
    try:
        extract(archive, folder / "inner" / "set")
    except DataError:
        assert list((folder / "inner").iterdir()) == []
    assert sorted(entry.name for entry in folder.iterdir()) == ["a.tar", "inner"]
    assert {entry.name for entry in (folder / "inner").iterdir()} <= {"set"}


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_a_truncated_archive_leaves_nothing_behind(tmp_path, share):
    content = hashlib.shake_256(b"seed").digest(100_000)
    archive = _archive(tmp_path / "a.tar.gz", [("x", content)])
    archive.write_bytes(archive.read_bytes()[: int(share * archive.stat().st_size)])
    with pytest.raises(DataError, match="damaged"):
        extract(archive, tmp_path / "set")
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.tar.gz"]


def test_an_archive_that_unpacks_to_too_much_is_refused(tmp_path):
    archive = _archive(tmp_path / "a.tar.gz", [(f"zeros{number}", bytes(10_000)) for number in range(20)])
    with pytest.raises(DataError, match="more than 100000 bytes"):
        extract(archive, tmp_path / "set", max_bytes=100_000)
    assert not (tmp_path / "set").exists()


def test_an_interrupted_extraction_never_looks_complete(tmp_path, monkeypatch):
    archive = _archive(tmp_path / "a.tar.gz", [("x", b"x"), ("y", b"y")])
    original = tarfile.TarFile.extract

    def interrupted(self, member, *args, **kwargs):
        if member.name == "y":
            raise KeyboardInterrupt
        return original(self, member, *args, **kwargs)

    monkeypatch.setattr(tarfile.TarFile, "extract", interrupted)
    with pytest.raises(KeyboardInterrupt):
        extract(archive, tmp_path / "set")
    assert not (tmp_path / "set").exists()


def test_a_checksum_can_be_gits_or_the_first_digits(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"hello\n")
    verify(path, "git:ce013625030ba8dba906f756967f9e9ca394464a", "")
    verify(path, "sha256:5891b5b5", "")
    for wrong in ("git:ce013625030ba8dba906f756967f9e9ca394464b", "sha256:5891b5b4", "md5:5891b5b5"):
        with pytest.raises(DataError, match=r"file has the .* Do this\."):
            verify(path, wrong, "Do this.")
    for too_short in ("sha256:", "sha256:5891b5", ""):
        with pytest.raises(ValueError, match="no checksum"):
            verify(path, too_short, "")


@pytest.mark.parametrize("part", [b"", CONTENT[:600_000]])
def test_a_download_above_its_limit_is_broken_off_and_leaves_nothing(server, tmp_path, part):
    if part:
        (tmp_path / "file.part").write_bytes(part)
    seen = []
    for limit in (5_000, len(CONTENT) - 1):
        with pytest.raises(DataError, match=f"more than the {limit} bytes") as caught:
            _download(
                server.url,
                tmp_path / "file",
                checksum=CHECKSUM,
                limit_bytes=limit,
                on_progress=lambda *state: seen.append(state),
            )
        assert not isinstance(caught.value, DownloadError)
        assert list(tmp_path.iterdir()) == []
    assert seen == []
    limited = functools.partial(_download, checksum=CHECKSUM, limit_bytes=len(CONTENT))
    assert limited(server.url, tmp_path / "file", on_progress=lambda *s: seen.append(s)).read_bytes() == CONTENT
    assert seen[-1] == (len(CONTENT), len(CONTENT))


def test_a_file_is_verified_once_and_again_when_it_is_written_or_expected_to_be_another(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"hello\n")
    verify_once(path, "sha256:5891b5b5", "")
    with pytest.raises(DataError, match=r"Do this\."):
        verify_once(path, "sha256:5891b5b4", "Do this.")
    status = path.stat()
    path.write_bytes(b"jello\n")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    verify_once(path, "sha256:5891b5b5", "")  # of the same size and time: taken for the same file
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    for _ in range(2):
        with pytest.raises(DataError, match=r"Do this\."):
            verify_once(path, "sha256:5891b5b5", "Do this.")
    (tmp_path / "file.verified").write_bytes(b"\xff")
    with pytest.raises(DataError, match=r"Do this\."):
        verify_once(path, "sha256:5891b5b5", "Do this.")
    with pytest.raises(DataError, match="cannot be read"):
        verify_once(tmp_path / "missing", "sha256:5891b5b5", "Do this.")


def test_a_download_is_not_verified_a_second_time_and_another_file_in_its_place_is(server, tmp_path, monkeypatch):
    path, arguments = tmp_path / "file", {"checksum": CHECKSUM, "advice": "Remove it."}
    path.with_name("file.verified").write_text("")  # says nothing about this file
    download_once(server.url, path, **arguments)
    with monkeypatch.context() as patch:
        patch.setattr("resnets.data.download.verify", None)
        download_once(server.url, path, **arguments)
    path.unlink()
    path.write_bytes(b"evil")
    with pytest.raises(DataError, match=r"checksum.*Remove it\."):
        download_once(server.url, path, **arguments)
    path.unlink()
    download_once(server.url, path, **arguments)
    assert path.read_bytes() == CONTENT
    assert len(server.requested) == 2


def test_a_short_answer_is_read_whole_and_a_long_one_refused(server):
    server.break_after = [1000]
    server.statuses = [503]
    assert read_url(server.url, limit_bytes=len(CONTENT), first_wait_s=0.0) == CONTENT
    with pytest.raises(DownloadError, match="more than the 5000 bytes"):
        read_url(server.url, limit_bytes=5000)
    with pytest.raises(DataError, match="http"):
        read_url("file:///etc/passwd", limit_bytes=5000)


def test_the_status_of_a_refusal_is_kept(server, tmp_path):
    with pytest.raises(DownloadError) as caught:
        _download(server.url + "s", tmp_path / "file", checksum=CHECKSUM)
    assert caught.value.status == 404
    server.statuses = [503] * 9
    with pytest.raises(DownloadError) as caught:
        _download(server.url, tmp_path / "file", checksum=CHECKSUM)
    assert caught.value.status is None
