"""The line on stderr that says how far a check is: a bar with rate and time left, or plain lines where none can be."""

from __future__ import annotations

import shutil
import sys
import time
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

_SECONDS_BETWEEN_DRAWINGS = 0.2
_SECONDS_BETWEEN_LINES = 10.0
_RATE_WINDOW_SECONDS = 30.0
_CLEAR = "\r\x1b[K"


class CheckProgress:
    """Keeps one line on stderr up to date; a context manager that removes it at the end, whatever that is."""

    def __init__(self) -> None:
        self._live = sys.stderr.isatty()
        self._shown = time.monotonic()
        self._what = ""
        self._recent: deque[tuple[float, int]] = deque()

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Remove the line."""
        if self._live:
            print(_CLEAR, end="", file=sys.stderr, flush=True)

    def show(self, what: str, done: int, of: int) -> None:
        """Show what is at work and how much of it is done; most calls draw nothing."""
        now = time.monotonic()
        anew = what != self._what
        if anew:
            self._what = what
            self._recent.clear()
        self._recent.append((now, done))
        while len(self._recent) > 2 and now - self._recent[0][0] > _RATE_WINDOW_SECONDS:
            self._recent.popleft()
        wait = _SECONDS_BETWEEN_DRAWINGS if self._live else _SECONDS_BETWEEN_LINES
        if (self._live and anew) or now - self._shown >= wait:
            self._shown = now
            line = _line(what, done, of, self._rate(), bar=self._live)
            columns = shutil.get_terminal_size().columns
            text = f"{_CLEAR}{line[: columns - 1]}" if self._live else f"{line}\n"
            print(text, end="", file=sys.stderr, flush=True)

    def _rate(self) -> float:
        (before, then), (now, done) = self._recent[0], self._recent[-1]
        return (done - then) / (now - before) if now > before else 0.0


def _line(what: str, done: int, of: int, rate: float, *, bar: bool) -> str:
    if not of:
        return f"{what} …"
    parts = [what]
    if bar:
        filled = round(20 * done / of)
        parts.append("━" * filled + "─" * (20 - filled))
    parts.append(f"{done:,} of {of:,} images")
    if rate > 0:
        parts += [f"{rate:,.0f}/s", f"{_duration((of - done) / rate)} left"]
    return "  ".join(parts)


def _duration(seconds: float) -> str:
    """Return a time as a person says it.

    >>> _duration(42.0), _duration(125.0), _duration(7300.0)
    ('42 s', '2 min', '2 h 2 min')
    """
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"
