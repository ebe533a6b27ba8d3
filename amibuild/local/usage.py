"""What a machine takes of this host, for `local status`."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

_BLOCK = 512  # the unit of st_blocks, whatever the file system's own is


def usage(instance: dict[str, Any]) -> dict[str, int]:
    """Bytes: the disk's own size, what of it takes space, and the memory of its processes."""
    try:
        seen = Path(instance["disk"]).stat()
        size, allocated = seen.st_size, seen.st_blocks * _BLOCK
    except OSError:  # not made yet, or gone
        size = allocated = 0
    return {
        "disk_bytes": size,
        "disk_allocated_bytes": allocated,
        "memory_bytes": memory(instance["pids"]),
    }


def memory(pids: Iterable[int]) -> int:
    """Resident bytes of these processes, what they share counted once (proc(5), smaps_rollup)."""
    return sum(_proportional(pid) for pid in pids)


def _proportional(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) * 1024
    except (OSError, StopIteration):
        return _resident(pid)


def _resident(pid: int) -> int:
    """Where the other is not for us to read, or not there: counts shared pages in each."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):
        return 0
