"""The local target's data folder: its small files are written by one process at a time, and are for
its user's eyes only.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from amibuild.local.durable import sync_folder

LOCK = "endpoint.json.lock"


@contextmanager
def alone(local: Path) -> Iterator[None]:
    """While this lasts nobody else writes them."""
    with (local / LOCK).open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def write_private(file: Path, text: str) -> None:
    """All of it or nothing: somebody may be reading it. Call it `alone`.

    So the part has a fixed name: what a kill leaves of it is the next one's to write over.
    """
    part = file.with_name(f"{file.name}.part")
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
    with os.fdopen(os.open(part, flags, 0o600), "w") as opened:
        os.fchmod(opened.fileno(), 0o600)
        opened.write(text)
        opened.flush()
        os.fsync(opened.fileno())
    part.replace(file)
    sync_folder(file.parent)
