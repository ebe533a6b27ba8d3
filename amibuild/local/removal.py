"""The end of a store: `amibuild local reset`, or who comes after one that was killed."""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path

from amibuild.local.store import Store


def remove_store(root: Path) -> bool:
    """All of a store, and what an earlier kill in the middle of this left; False without a store.

    It is renamed first: what a kill leaves is no half of a store then, and goes with the next tidy.
    Raises: StoreBusy.
    """
    remove_rest(root)
    if not root.exists():
        return False
    with Store.open(root):
        root.rename(doomed(root))
    remove_rest(root)
    return True


def remove_rest(root: Path) -> bool:
    """What is left of a store that was being removed; False without. Two may do this at once."""
    path = doomed(root)
    found = path.exists()
    while path.exists():
        with suppress(FileNotFoundError):  # the other was faster
            shutil.rmtree(path)
    return found


def doomed(root: Path) -> Path:
    return root.with_name(f"{root.name}.removed")
