"""Ctrl-C and SIGTERM: at once while there is nothing to save, then a request that the loop reads between steps."""

from __future__ import annotations

import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from resnets.specs.errors import InterruptedRunError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType


class Interruption:
    """Whether, and by which signal, the process was asked to stop."""

    def __init__(self) -> None:
        self.signal: int | None = None
        self.can_save = False
        """Whether a signal waits until the loop has saved; before that, it ends the process."""

    @property
    def requested(self) -> bool:
        """Whether to save and stop."""
        return self.signal is not None

    @property
    def exit_code(self) -> int:
        """130 after Ctrl-C; 75 after SIGTERM, which says to a scheduler that the run can be requeued."""
        return 130 if self.signal == signal.SIGINT else 75

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGINT and (self.requested or not self.can_save):
            raise KeyboardInterrupt  # a second Ctrl-C does not wait for the save
        self.signal = number
        if not self.can_save:
            raise InterruptedRunError("Stopped before the first step; there was nothing to save.", self.exit_code)


@contextmanager
def listen() -> Iterator[Interruption]:
    """Handle SIGINT and SIGTERM until the end of the block; outside the main thread nothing is handled."""
    interruption = Interruption()
    if threading.current_thread() is not threading.main_thread():
        yield interruption
        return
    before = {number: signal.signal(number, interruption._handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield interruption
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
