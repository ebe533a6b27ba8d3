"""What a killed endpoint left on this host, and how it goes: before the next one starts, and with
the next `amibuild local status` or `down`.

Whoever has the store open is an endpoint, or about to be one: what lies beside its store is
nobody else's. So all of this happens under the store's lock.
"""

from __future__ import annotations

import fcntl
import itertools
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from amibuild.local import announcement, private
from amibuild.local.durable import StoreBusy
from amibuild.local.removal import remove_rest
from amibuild.local.store import Store

MACHINES = "machines"
STORE = "store"
BASE = "base"
# What makes the base image, or tries the host's processor on it, names its folders so.
HALF_MADE = "making-*"


def tidy(local: Path) -> tuple[str, ...]:
    """Removes what killed endpoints of the local target's data folder left; what that was.

    Nothing, where an endpoint is alive. Raises: HostError when something can't be removed.
    """
    found: list[str] = []
    announcement.forget_dead(local)
    for root in (local, local / "none"):
        # Nobody's, and so without a lock, which would make a store anew.
        found += _removed_store(root)
        if not _something_left(root):
            continue
        try:
            # Opening it throws away what was half-made in it.
            with Store.open(root / STORE):
                found += tidy_held(root)
        except StoreBusy:
            continue
    return tuple(found)


def tidy_held(root: Path) -> tuple[str, ...]:
    """The same for one store's folder, whose lock the caller holds."""
    parts = (_removed_store(root), _machines(root / MACHINES), _half_made_bases(root / BASE))
    return tuple(itertools.chain(*parts))


def _something_left(root: Path) -> bool:
    """Cheap, so that a look at a tidy host costs nothing: the folder goes last, and with each."""
    temporary = root / STORE / "temporary"
    return (
        (root / MACHINES).exists()
        or any(root.glob(f"{BASE}/{HALF_MADE}"))
        or (temporary.is_dir() and any(temporary.iterdir()))
    )


def _removed_store(root: Path) -> Iterator[str]:
    if remove_rest(root / STORE):
        yield "a store that a reset was about to remove"


def _machines(folder: Path) -> Iterator[str]:
    # Needs much that a look at the store does without.
    from amibuild.local.machines import remains

    if not folder.exists():
        return
    yield from remains.remove_all(folder)
    for name in sorted(path.name for path in folder.iterdir()):
        yield f"files of {name}"
    shutil.rmtree(folder)


def _half_made_bases(folder: Path) -> Iterator[str]:
    for path in sorted(folder.glob(HALF_MADE)):
        with _alone(folder) as alone:
            if alone:
                remove_foreign(path)
                yield f"a half-made base image, {path.name}"


@contextmanager
def _alone(folder: Path) -> Iterator[bool]:
    """Whether nobody makes a base image there; two data folders may share it."""
    with (folder / "lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def remove_foreign(path: Path) -> None:
    """Removes a file or a folder, whoever's the files in it are."""
    if not path.is_dir():
        path.unlink(missing_ok=True)
    elif os.geteuid() == 0:
        shutil.rmtree(path)
    else:
        # The tree's files belong to ids that only the namespace may act for.
        private.run(["rm", "-rf", "--one-file-system", path])
