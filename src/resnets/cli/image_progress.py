"""How many images are done, as a line on stderr that keeps itself up to date where stderr is a terminal."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from resnets.specs.visible import in_line

if TYPE_CHECKING:
    from collections.abc import Callable

_SECONDS_BETWEEN_DRAWINGS = 0.25


def image_progress() -> Callable[[int, int, str], None]:
    """Return a function that takes the images done, how many there are, and what is being done with them."""
    started, drawn, before = time.perf_counter(), 0.0, ""

    def show(done: int, of: int, what: str) -> None:
        nonlocal started, drawn, before
        if not sys.stderr.isatty():
            return
        now = time.perf_counter()
        if what != before:
            started, before = (started if not before else now), what
        elif done < of and now - drawn < _SECONDS_BETWEEN_DRAWINGS:
            return
        drawn = now
        rate = done / max(now - started, 1e-9)
        line = f"{in_line(what)}: {done:,} of {of:,} images"
        if now > started and done:
            line += f", {rate:,.1f} images/s, {(of - done) / rate:,.0f} s left"
        end = "\r\x1b[K" if done >= of else ""
        print(f"\r\x1b[K{line}{end}", end="", file=sys.stderr, flush=True)

    return show
