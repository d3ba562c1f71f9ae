"""What a person sees of a run while it goes on: a live display on a terminal, plain lines anywhere else.

Everything goes to stderr, so that stdout carries results only. `engine/loop.py` reports each step and each
evaluation; most reports only store numbers, and the screen is drawn a few times a second.
"""

from __future__ import annotations

import os
import sys
import time
from collections import deque
from contextlib import contextmanager
from typing import TYPE_CHECKING

from resnets.specs.visible import in_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType
    from typing import Self, TextIO

    from rich.console import RenderableType
    from rich.live import Live

_SECONDS_BETWEEN_DRAWINGS = 0.25
_SECONDS_BETWEEN_LINES = 10.0
_RATE_WINDOW_SECONDS = 60.0
# One batch says little about loss and error; this is an average over about the last twenty reports.
_SMOOTHING = 0.1


class Progress:
    """Shows a run that goes from `first_step` to `total_steps`; a context manager.

    Args:
        total_steps: steps of the whole run.
        first_step: the step this process starts from, above 0 when it resumes; the time left counts from here.
        quiet: show nothing at all.
        stream: where to write; None is stderr. A terminal gets a live display (without colour where NO_COLOR is
            set), everything else a line every ten seconds and at every evaluation.
    """

    def __init__(
        self, *, total_steps: int, first_step: int = 0, quiet: bool = False, stream: TextIO | None = None
    ) -> None:
        self._stream = stream or sys.stderr
        self._total_steps = total_steps
        self._step = first_step
        self._quiet = quiet
        self._live: Live | None = None
        self._start = self._shown = time.monotonic()
        self._reports = 0
        self._loss = self._error = self._lr = self._images_per_second = self._waiting_share = 0.0
        self._evaluation = ""
        # Moments and steps of the last minute, from which the time left is estimated.
        self._recent: deque[tuple[float, int]] = deque([(self._start, first_step)])

    def __enter__(self) -> Self:
        """Begin to measure time and, on a terminal, to draw."""
        self._start = self._shown = time.monotonic()
        self._recent = deque([(self._start, self._step)])
        if not self._quiet and _is_terminal(self._stream):
            from rich.console import Console
            from rich.live import Live

            # Stdout is not redirected: results must stay there. Warnings on stderr are printed above the display.
            self._live = Live(
                console=Console(file=self._stream, force_terminal=True, highlight=False),
                auto_refresh=False,
                redirect_stdout=False,
                redirect_stderr=self._stream is sys.stderr,
                get_renderable=self._render,
            )
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Draw the last state and give the terminal back, also when the run ends with an error."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def update(
        self, step: int, *, loss: float, error: float, lr: float, images_per_second: float, waiting_share: float
    ) -> None:
        """Report that `step` is done.

        Args:
            step: steps done since the run began.
            loss: mean cross entropy of the step's images.
            error: top-1 error of the step's images, in percent.
            lr: learning rate of the step.
            images_per_second: images trained on a second.
            waiting_share: share of the time spent waiting for data, 0 to 1.
        """
        weight = _SMOOTHING if self._reports else 1.0
        self._loss += weight * (loss - self._loss)
        self._error += weight * (error - self._error)
        self._lr, self._images_per_second, self._waiting_share = lr, images_per_second, waiting_share
        self._reports += 1
        self._step = step
        if self._quiet:
            return
        now = time.monotonic()
        if self._live is not None:
            if now - self._shown >= _SECONDS_BETWEEN_DRAWINGS:
                self._shown = now
                self._remember(now)
                self._live.refresh()
        elif now - self._shown >= _SECONDS_BETWEEN_LINES:
            self._shown = now
            self._remember(now)
            self.note(f"step {step:,} of {self._total_steps:,}  {self._numbers()}  {self._times()}")

    def evaluated(self, step: int, split: str, loss: float, top1_error: float) -> None:
        """Report an evaluation on `split` after `step` steps; `top1_error` is in percent."""
        self._step = step
        self._evaluation = f"{split} error {top1_error:.2f} %"
        training = f"  training error {self._error:.1f} %" if self._reports else ""
        self.note(f"step {step:,} of {self._total_steps:,}  {self._evaluation}  {split} loss {loss:.4f}{training}")

    def note(self, message: str) -> None:
        """Print a line, above the display where there is one; names of files and classes in it cannot steer a terminal."""
        if self._quiet:
            return
        message = in_line(message)
        if self._live is not None:
            from rich.text import Text

            self._live.console.print(Text(message), soft_wrap=True)
        else:
            print(f"{time.strftime('%H:%M:%S')}  {message}", file=self._stream, flush=True)

    def _remember(self, now: float) -> None:
        self._recent.append((now, self._step))
        while len(self._recent) > 2 and now - self._recent[0][0] > _RATE_WINDOW_SECONDS:
            self._recent.popleft()

    def _seconds_left(self) -> float | None:
        """Return the time left at the rate of the last minute, evaluations included; None when unknown."""
        (first, first_step), (last, last_step) = self._recent[0], self._recent[-1]
        if last_step <= first_step:
            return None
        return (self._total_steps - self._step) * (last - first) / (last_step - first_step)

    def _numbers(self) -> str:
        parts = [
            f"loss {self._loss:.3f}",
            f"training error {self._error:.1f} %",
            self._evaluation,
            f"lr {self._lr:.3g}",
            f"{self._images_per_second:,.0f} images/s",
            f"waiting for data {100 * self._waiting_share:.0f} %",
        ]
        return "  ".join(part for part in parts if part)

    def _times(self) -> str:
        elapsed = _clock(time.monotonic() - self._start)
        left = self._seconds_left()
        return f"elapsed {elapsed}" if left is None else f"elapsed {elapsed}  left {_clock(left)}"

    def _render(self) -> RenderableType:
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        top = Table.grid(padding=(0, 2), expand=True)
        top.add_column(ratio=1)
        top.add_column(no_wrap=True)
        bar = ProgressBar(total=self._total_steps, completed=self._step)
        top.add_row(bar, Text(f"{self._step:,} of {self._total_steps:,}  {self._times()}"))
        return Group(top, Text(self._numbers(), style="dim")) if self._reports else top


@contextmanager
def counting(what: str, *, quiet: bool = False, stream: TextIO | None = None) -> Iterator[Callable[[int, int], None]]:
    """Give a function that shows how many of how many images are done; a line that renews itself on a terminal.

    Args:
        what: what is being done, such as "Mean of the training images".
        quiet: show nothing.
        stream: where to write; None is stderr. What is no terminal gets a line every ten seconds.
    """
    output = stream or sys.stderr
    live = _is_terminal(output)
    started = shown = time.monotonic()

    def show(done: int, of: int) -> None:
        nonlocal shown
        now = time.monotonic()
        if quiet or now - shown < (_SECONDS_BETWEEN_DRAWINGS if live else _SECONDS_BETWEEN_LINES):
            return
        shown = now
        rate = done / max(now - started, 1e-9)
        left = f", left {_clock((of - done) / rate)}" if rate else ""
        line = f"{what}: {done:,} of {of:,} images, {rate:,.0f} images/s{left}"
        print(f"\r\x1b[K{line}" if live else line, end="" if live else "\n", file=output, flush=True)

    try:
        yield show
    finally:
        if live and not quiet:
            print("\r\x1b[K", end="", file=output, flush=True)


def _is_terminal(stream: TextIO) -> bool:
    return stream.isatty() and os.environ.get("TERM", "") not in ("dumb", "unknown")


def _clock(seconds: float) -> str:
    """Return a duration as m:ss, or h:mm:ss from an hour on."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
