"""Our own terminal as one of another machine: each key goes there, Ctrl-C included."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from amibuild.communicator.ssh_live import Terminal

LEAST_COLUMNS, LEAST_ROWS = 80, 24


@contextmanager
def raw(stdin: int, stdout: int) -> Iterator[Terminal]:
    """Until this ends; then the terminal is as it was, whatever came between."""
    import termios
    import tty

    from amibuild.communicator.ssh_live import Terminal

    def size() -> tuple[int, int]:
        columns, rows = os.get_terminal_size(stdout)
        # One that does not know says 0, and programs there would divide by it.
        return columns or LEAST_COLUMNS, rows or LEAST_ROWS

    # A handler may come at any time, also while something is sent: it only leaves a mark.
    reading, writing = os.pipe()
    os.set_blocking(writing, False)

    def resized(*_: object) -> None:
        with suppress(BlockingIOError):
            os.write(writing, b"\0")

    before = termios.tcgetattr(stdin)
    handler = signal.signal(signal.SIGWINCH, resized)
    try:
        tty.setraw(stdin, termios.TCSADRAIN)
        yield Terminal(stdin, stdout, reading, size, os.environ.get("TERM", "linux"))
    finally:
        termios.tcsetattr(stdin, termios.TCSADRAIN, before)
        signal.signal(signal.SIGWINCH, handler)
        os.close(reading)
        os.close(writing)
