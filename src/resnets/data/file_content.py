"""What a file is by its first bytes, where it is no image by its name or cannot be read as one."""

from __future__ import annotations


def format_of_content(data: bytes) -> str | None:
    """Return the format of an image whose file begins with `data`: JPEG, PNG, GIF, WebP; None for all else."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WebP"
    magics = ((b"\xff\xd8\xff", "JPEG"), (b"\x89PNG\r\n", "PNG"), (b"GIF8", "GIF"))
    return next((name for magic, name in magics if data.startswith(magic)), None)


_CONTENTS = (
    (0, b"%PDF", "a PDF document"),
    (0, b"PK\x03\x04", "a ZIP archive"),
    (0, b"\x1f\x8b", "a gzip archive"),
    (0, b"7z\xbc\xaf", "a 7z archive"),
    (0, b"Rar!", "a RAR archive"),
    (257, b"ustar", "a tar archive"),
    (0, b"8BPS", "a Photoshop document"),
    (4, b"ftyphe", "a HEIC photograph, which is not read here"),
    (4, b"ftypmif1", "a HEIF photograph, which is not read here"),
    (0, b"\x00\x00\x00\x0cJXL ", "a JPEG XL image, which is not read here"),
    (0, b"\xff\x0a", "a JPEG XL image, which is not read here"),
    (4, b"ftyp", "a video"),
    (8, b"AVI ", "a video"),
    (0, b"\x1aE\xdf\xa3", "a video"),
    (0, b"\x93NUMPY", "a NumPy array"),
    (0, b"version https://git-lfs", "a pointer of Git LFS; `git lfs pull` fetches the file"),
)


def known_content(data: bytes) -> str | None:
    """Return in words what bytes are that are no image we read; None where that is not known."""
    for offset, magic, what in _CONTENTS:
        if data[offset : offset + len(magic)] == magic:
            return what
    start = data[:512].removeprefix(b"\xef\xbb\xbf").lstrip()
    low = start.lower()
    if low.startswith((b"<!doctype html", b"<html", b"<head")):
        return "a web page (HTML), as a failed download leaves it"
    if b"<svg" in low:
        return "an SVG drawing, which is not read here"
    if low.startswith(b"<?xml"):
        return "an XML file"
    text = data[:512].decode("utf-8", "ignore")
    # A letter may be cut in two at the end.
    whole = len(data[:512]) - len(text.encode()) <= 3
    return "a text file" if text and whole and all(map(_belongs_in_text, text)) else None


def _belongs_in_text(letter: str) -> bool:
    return letter.isprintable() or letter.isspace()
