"""Raw disks are sparse files: what of them is data, and copies that keep the holes."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

_CHUNK = 1 << 20


def data_ranges(file: int, start: int, end: int) -> Iterator[tuple[int, int]]:
    """The parts of `file` between `start` and `end` that are not hole, as first and last + 1."""
    position = start
    while position < end:
        try:
            first = os.lseek(file, position, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # Nothing but hole up to the end.
                return
            raise
        if first >= end:
            return
        position = os.lseek(file, first, os.SEEK_HOLE)
        yield first, min(position, end)


def pour(source: int, target: int, *, start: int, end: int, at: int) -> None:
    """Copies that part of `source` to `target`, from `at` on, where `target` is still hole."""
    for first, last in data_ranges(source, start, end):
        position = first
        while position < last:
            chunk = os.pread(source, min(_CHUNK, last - position), position)
            # A disk that is nearly full may take a part of it.
            position += os.pwrite(target, chunk, at + position - start)


def copy(source: Path, target: Path) -> None:
    """A new file, as long and with the same holes. Raises: OSError, with no file left."""
    with source.open("rb") as old, target.open("xb") as new:
        try:
            size = os.fstat(old.fileno()).st_size
            new.truncate(size)
            pour(old.fileno(), new.fileno(), start=0, end=size, at=0)
        except BaseException:
            target.unlink()
            raise
