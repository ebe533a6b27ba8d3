"""The end of a stream of bytes, kept in memory: a machine's console, a command's output."""

from __future__ import annotations

import os
import threading

CONSOLE_LIMIT = 64 * 1024  # what GetConsoleOutput gives at most
_CHUNK = 64 * 1024


class Reader:
    """Reads a descriptor to its end in a thread of its own, and closes it.

    Everything is read, so that the writer never waits; only the first (`keep_first`) or the last
    `limit` bytes are kept.
    """

    def __init__(self, descriptor: int, *, limit: int, keep_first: bool, name: str) -> None:
        self._descriptor = descriptor
        self._limit = limit
        self._keep_first = keep_first
        self._kept = bytearray()
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._read, name=name, daemon=True)
        self._thread.start()

    def content(self) -> bytes:
        with self._lock:
            return bytes(self._kept)

    def ended(self, wait_s: float = 0) -> bool:
        return self._ended.wait(wait_s)

    def _read(self) -> None:
        try:
            while chunk := self._chunk():
                with self._lock:
                    if self._keep_first:
                        self._kept += chunk[: self._limit - len(self._kept)]
                    else:
                        self._kept += chunk
                        del self._kept[: max(len(self._kept) - self._limit, 0)]
        finally:
            os.close(self._descriptor)
            self._ended.set()

    def _chunk(self) -> bytes:
        try:
            return os.read(self._descriptor, _CHUNK)
        except OSError:  # a reset socket is an end like any other
            return b""
