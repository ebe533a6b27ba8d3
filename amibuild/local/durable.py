"""Files that survive a power cut, and what can be wrong with them. Used by the store."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from amibuild.errors import HostError
from amibuild.proc import began, has_ended

# 2 knows devices, keys, permissions and the life of an image. It reads 1, which has none.
FORMAT = 2
_LOCK_WIDTH = 31
_FORMAT = re.compile(rb"amibuild store, format (?P<number>[0-9]+)\n")


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
            hint="with any EC2 client deregister images and delete their snapshots, then "
            "`amibuild local gc`; or forget them all with `amibuild local reset`; "
            "AMIBUILD_DATA_DIR moves the data to another disk",
        )


def holder(root: Path) -> int | None:
    """The process that has the store of `root` open; None when none has, or it can't be told.

    For a look only: it may be another's a moment later.
    """
    try:
        lock = os.open(root / "lock", os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        pid, began_at = _written(lock)
    finally:
        os.close(lock)
    return None if pid == 0 or has_ended(pid, began_at) else pid


def open_lock(root: Path) -> int:
    """Locks the store of `root` for this process, and says so in the lock's file, which it returns.

    Raises: StoreBusy; FileNotFoundError without such a folder.
    """
    while True:
        lock = os.open(root / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            _take(lock, root)
            if _is_named(lock, root / "lock"):
                return lock
        except BaseException:
            os.close(lock)
            raise
        # A reset moved the store away after it was opened: that lock keeps nobody out.
        os.close(lock)


def release_lock(lock: int) -> None:
    os.pwrite(lock, _line(""), 0)
    os.close(lock)


def _take(lock: int, root: Path) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise StoreBusy(root, _written(lock)[0]) from error
    try:
        os.pwrite(lock, _line(f"{os.getpid()} {began(os.getpid()) or 0}"), 0)
    except OSError as error:
        # What frees a full disk opens the store first. Nobody is told who has it, then.
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise


def _is_named(lock: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(lock), path.stat())
    except FileNotFoundError:
        return False


def _line(text: str) -> bytes:
    """Always as long: a full disk has the place for it."""
    return f"{text:<{_LOCK_WIDTH}}\n".encode()


def _written(lock: int) -> tuple[int, int | None]:
    words = os.pread(lock, _LOCK_WIDTH, 0).decode("ascii", "replace").split()
    numbers = [int(word) for word in words if word.isdecimal()]
    if not numbers:
        return 0, None
    return numbers[0], numbers[1] if len(numbers) > 1 and numbers[1] else None


def check_format(root: Path, temporary: Path) -> tuple[StoreDamaged, ...]:
    """Reads which format the store has, and writes ours where there is none, or an older one.

    Raises: StoreTooNew.
    """
    path = root / "format"
    damage: tuple[StoreDamaged, ...] = ()
    try:
        match = _FORMAT.fullmatch(path.read_bytes())
    except FileNotFoundError:
        found = 0
    else:
        found = int(match["number"]) if match else 0
        if match is None:
            # Every record says its format, too: this file is not worth the store.
            damage = (StoreDamaged(path, "it does not say the store's format"),)
    if found > FORMAT:
        raise StoreTooNew(root, found, FORMAT)
    if found != FORMAT:
        write_whole(path, f"amibuild store, format {FORMAT}\n".encode(), temporary=temporary)
    return damage


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
