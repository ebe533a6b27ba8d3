"""The end of a store: `amibuild local reset`, or who comes after one that was killed."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path

from amibuild.errors import HostError
from amibuild.local.durable import open_lock, release_lock


def remove_store(root: Path) -> bool:
    """All of a store, and what an earlier kill in the middle of this left; False without a store.

    It is renamed first: what a kill leaves is no half of a store then, and goes with the next tidy.
    Raises: StoreBusy; HostError where it is a link.
    """
    remove_rest(root)
    if not root.exists():
        return False
    if root.is_symlink():
        raise HostError(
            f"{root} is a link, to {root.resolve()}",
            hint="remove what it leads to by hand; AMIBUILD_DATA_DIR moves the data elsewhere",
        )
    # The lock alone: a store of a newer format can't be opened, and goes here.
    lock = open_lock(root)
    try:
        root.rename(doomed(root))
    finally:
        release_lock(lock)
    remove_rest(root)
    return True


def remove_rest(root: Path) -> bool:
    """What is left of a store that was being removed; False without. Two may do this at once."""
    path = doomed(root)
    found = os.path.lexists(path)
    if path.is_symlink():
        path.unlink(missing_ok=True)
    while path.exists():
        with suppress(FileNotFoundError):  # the other was faster
            shutil.rmtree(path)
    return found


def doomed(root: Path) -> Path:
    return root.with_name(f"{root.name}.removed")
