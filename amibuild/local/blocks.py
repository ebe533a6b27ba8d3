"""Blocks of 512 KiB, as EBS has them, named by the SHA-256 of what they hold and kept once.

A capture writes its new blocks to a folder of its own, syncs the disk once, and only then gives
them their names: so a name among the blocks always has its content, after a power cut too, and
what an interrupted capture wrote is thrown away at the next start.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from amibuild.local import durable, sparse
from amibuild.local.durable import StoreDamaged

T = TypeVar("T")

SIZE = 512 * 1024
# hashlib and the reads let go of the interpreter; a third thread won nothing on 2 cores.
THREADS = 2
# Blocks that one thread takes at once: futures cost little then, and progress still moves.
RUN = 16
_ZERO = bytes(SIZE)

Progress = Callable[[int, int], None]
"""Hears how many bytes are done, and of how many."""


@dataclass(frozen=True)
class BlockList:
    """A disk as its blocks: (number, digest), ascending. Those that are not named are zero."""

    entries: tuple[tuple[int, str], ...]

    def pack(self) -> bytes:
        return "".join(f"{number} {digest}\n" for number, digest in self.entries).encode()

    @classmethod
    def unpack(cls, content: bytes) -> BlockList:
        """Raises: ValueError."""
        pairs = (line.split(" ") for line in content.decode("ascii").splitlines())
        return cls(tuple((int(number), digest) for number, digest in pairs))

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.pack()).hexdigest()


class Blocks:
    """The folder of blocks. Captures and materialisations may run at once; `collect` runs alone."""

    def __init__(self, folder: Path, temporary: Path) -> None:
        self._folder = folder
        self._temporary = temporary
        self._users = 0
        self._idle = threading.Condition()
        folder.mkdir(exist_ok=True)

    def path(self, digest: str) -> Path:
        return self._folder / digest[:2] / digest

    def has(self, digest: str) -> bool:
        try:
            return self.path(digest).stat().st_size == SIZE
        except FileNotFoundError:
            return False

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """While this lasts no block goes away, whether a record names it or not."""
        with self._idle:
            self._users += 1
        try:
            yield
        finally:
            with self._idle:
                self._users -= 1
                self._idle.notify_all()

    def capture(self, disk: Path, progress: Progress) -> BlockList:
        """Keeps every block of the disk that is not all zero. Call it under `in_use`."""
        staging = Path(tempfile.mkdtemp(dir=self._temporary))
        try:
            with disk.open("rb") as file:
                numbers = _numbers_with_data(file.fileno())
                found = _in_parallel(
                    lambda number, buffer: self._keep(file.fileno(), number, staging, buffer),
                    numbers,
                    progress,
                )
            self._name_blocks(staging)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
        return BlockList(tuple((n, d) for n, d in zip(numbers, found, strict=True) if d))

    def materialise(self, blocks: BlockList, disk: Path, size: int) -> None:
        """A new sparse file with the blocks in it. Call it under `in_use`.

        Raises: StoreDamaged on the first block that is missing or wrong; no file is left then.
        """
        with disk.open("xb") as file:
            try:
                file.truncate(size)
                number = file.fileno()
                _in_parallel(
                    lambda entry, buffer: self._lay(number, *entry, buffer),
                    blocks.entries,
                    _unheard,
                )
            except BaseException:
                disk.unlink()
                raise

    def collect(self, used: Callable[[], set[str]], *, dry_run: bool = False) -> tuple[int, int]:
        """Removes every block that is not in `used()`, or only says how much that would be.

        The number of files and of bytes that it freed. Waits for captures and materialisations.
        """
        count = freed = 0
        with self._idle:
            self._idle.wait_for(lambda: self._users == 0)
            keep = used()
            for name, size in self.sizes().items():
                if name not in keep:
                    if not dry_run:
                        (self._folder / name[:2] / name).unlink()
                    count, freed = count + 1, freed + size
        return count, freed

    def sizes(self) -> dict[str, int]:
        """What is in the folder: each block's name, and its bytes; 9 ms for 1,000.

        One that is collected, or put aside as damaged, meanwhile counts or does not.
        """
        found = {}
        with os.scandir(self._folder) as prefixes:
            for prefix in prefixes:
                with os.scandir(prefix) as entries:
                    for entry in entries:
                        with suppress(FileNotFoundError):
                            found[entry.name] = entry.stat().st_size
        return found

    def _keep(self, disk: int, number: int, staging: Path, buffer: bytearray) -> str | None:
        size = os.preadv(disk, [buffer], number * SIZE)
        buffer[size:] = bytes(SIZE - size)
        if buffer == _ZERO:
            return None
        digest = hashlib.sha256(buffer).hexdigest()
        if not self.has(digest):
            try:
                staged = os.open(staging / digest, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            except FileExistsError:  # The same block twice in one disk: the other is writing it.
                return digest
            with os.fdopen(staged, "wb", buffering=0) as file:
                _write_all(file.fileno(), buffer, 0)
        return digest

    def _name_blocks(self, staging: Path) -> None:
        new = list(staging.iterdir())
        if not new:
            return
        durable.sync_disk(self._folder)
        for prefix in {path.name[:2] for path in new}:
            (self._folder / prefix).mkdir(exist_ok=True)
        for path in new:
            path.replace(self.path(path.name))
        durable.sync_disk(self._folder)

    def _lay(self, disk: int, number: int, digest: str, buffer: bytearray) -> None:
        path = self.path(digest)
        try:
            with path.open("rb", buffering=0) as file:
                size = file.readinto(buffer)
        except OSError as error:
            raise StoreDamaged(path, f"this block can't be read ({error.strerror})") from error
        if size != SIZE or hashlib.sha256(buffer).hexdigest() != digest:
            # Out of the way, so that a capture of the same content writes it anew.
            path.replace(path.with_suffix(".damaged"))
            raise StoreDamaged(path, "this block does not hold what its name says")
        _write_all(disk, buffer, number * SIZE)


def _numbers_with_data(disk: int) -> list[int]:
    """The numbers of the blocks that are not all hole."""
    numbers: list[int] = []
    for start, end in sparse.data_ranges(disk, 0, os.fstat(disk).st_size):
        first, last = start // SIZE, (end - 1) // SIZE
        numbers.extend(n for n in range(first, last + 1) if not numbers or n > numbers[-1])
    return numbers


def _in_parallel(
    work: Callable[[T, bytearray], str | None], items: Sequence[T], progress: Progress
) -> list[str | None]:
    """The results in the order of the items. The first error ends it, after the running ones.

    `work` gets a buffer of one block: a new one for each block costs more than reading it.
    """
    results: list[str | None] = [None] * len(items)
    done, lock = 0, threading.Lock()

    def run(first: int) -> None:
        nonlocal done
        buffer = bytearray(SIZE)
        for i, item in enumerate(items[first : first + RUN], first):
            results[i] = work(item, buffer)
        with lock:
            done = min(done + RUN, len(items))
            progress(done * SIZE, len(items) * SIZE)

    pool = ThreadPoolExecutor(THREADS)
    try:
        runs = [pool.submit(run, first) for first in range(0, len(items), RUN)]
        for finished in wait(runs, return_when=FIRST_EXCEPTION).done:
            finished.result()
    finally:
        pool.shutdown(cancel_futures=True)
    return results


def _unheard(_done: int, _total: int) -> None:
    """For work that nobody watches."""


def _write_all(file: int, data: bytearray, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(file, view, offset)
        view, offset = view[written:], offset + written
