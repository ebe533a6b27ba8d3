"""Writing a file so that a reader never sees half of it, whatever kills the writer."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

MODE = 0o644


def write_atomically(path: Path, text: str) -> None:
    """`path` holds `text`, or what it held before: temporary file, fsync, rename.

    A file that exists keeps its mode; a link is followed, so that it still is one afterwards.
    Raises: OSError, with no temporary file left.
    """
    path = path.resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    mode = path.stat().st_mode & 0o7777 if path.exists() else MODE
    file, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    temporary = Path(name)
    try:
        with os.fdopen(file, "wb") as stream:
            stream.write(text.encode())
            stream.flush()
            os.fchmod(stream.fileno(), mode)
            os.fsync(stream.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """The rename itself is on the disk only once the folder is."""
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
