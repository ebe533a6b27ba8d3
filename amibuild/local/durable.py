"""Files that survive a power cut, and what can be wrong with them. Used by the store only."""

from __future__ import annotations

import ctypes
import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from amibuild.errors import HostError


class StoreBusy(HostError):
    """Another process has the store open. `pid` is 0 when it could not be read."""

    def __init__(self, root: Path, pid: int) -> None:
        who = f"process {pid}" if pid else "another process"
        super().__init__(
            f"the local target's store {root} is in use by {who}", hint="amibuild local status"
        )
        self.pid = pid


class StoreTooNew(HostError):
    def __init__(self, root: Path, found: int, known: int) -> None:
        super().__init__(
            f"the local target's store {root} was written by a newer amibuild: "
            f"its format is {found}, this one knows {known}",
            hint="use that amibuild, or start anew with `amibuild local reset`",
        )


class StoreDamaged(HostError):
    """A file of the store does not hold what was written to it. `path` is that file."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path} is damaged: {reason}")
        self.path = path


class StoreFull(HostError):
    def __init__(self, root: Path) -> None:
        super().__init__(
            f"no space is left for the local target on the disk of {root}",
            hint="remove images with `amibuild prune --target local`, or all of them with "
            "`amibuild local reset`; AMIBUILD_DATA_DIR moves the data to another disk",
        )


@contextmanager
def on_disk(root: Path) -> Iterator[None]:
    """Turns what a disk can refuse into errors with a hint.

    Raises: StoreFull; HostError when `root` may not be written.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StoreFull(root) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.EIO):
            raise HostError(f"the local target's data can't be kept: {error}") from error
        raise


def write_whole(path: Path, content: bytes, *, temporary: Path) -> None:
    """Replaces a file so that a reader finds the old one or the new one, whole.

    `temporary` is a folder on the same disk, emptied by whoever finds it after a crash.
    """
    part = temporary / f"{path.name}.{secrets.token_hex(4)}"
    try:
        with part.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """The names in it survive a power cut from now on."""
    number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def sync_disk(folder: Path) -> None:
    """Everything on the disk of `folder` survives a power cut from now on.

    One call for thousands of files; Python has no syncfs(2), and other systems have only sync(2).
    """
    syncfs = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)
    if syncfs is None:
        os.sync()
        return
    number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        if syncfs(number) != 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), str(folder))
    finally:
        os.close(number)
