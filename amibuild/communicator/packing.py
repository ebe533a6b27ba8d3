"""One compressed tar stream: what goes to a machine, made while it is sent.

Python's tarfile writes no sparse files and wants a whole archive; its headers are used as they are.
What does not shrink is not pressed: each part of the stream is a gzip member of its own, and gzip
reads one after the other.
"""

from __future__ import annotations

import gzip
import os
import tarfile
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Protocol, overload

from amibuild.library.step import StepFile


class Content(Protocol):
    """What bytes are, of a file that may be larger than the memory."""

    def __len__(self) -> int: ...

    @overload
    def __getitem__(self, at: int, /) -> int: ...

    @overload
    def __getitem__(self, at: slice, /) -> bytes: ...


Send = Callable[[bytes], None]

# A member of the stream: large enough that its 18 bytes are nothing, and sent while the next is
# made.
PART_BYTES = 1024 * 1024
# Of a part, to see whether the rest of it would shrink; less than this is not worth its time.
SAMPLE_BYTES = 4096
SHRINKS = 0.85
# Of all that is sent.
SAMPLES = 64
GZIP = 31  # zlib's word for a gzip member
HOLE_BYTES = 4096
# Fewer zeros are no reason for a map.
LEAST_HOLES_BYTES = 64 * 1024
ZEROS = bytes(HOLE_BYTES)

# The folder that a job's files are sent into. No folder above it is called so.
SENT_TO = "work"


@dataclass(frozen=True)
class Owner:
    """By name where the machine knows that, else by number. Root's where nothing is said."""

    user: str = ""
    group: str = ""
    uid: int = 0
    gid: int = 0

    @classmethod
    def named(cls, both: str) -> Owner:
        """Of `user:group`, or nothing."""
        user, _, group = both.partition(":")
        return cls(user, group)


ROOTS = Owner()


class Packer:
    """Takes entries, in an order in which folders and first names come before what needs them."""

    def __init__(self, send: Send, level: int | None) -> None:
        """Nothing is pressed where there is no level."""
        self._send = send
        self._level = level
        self._waiting: list[bytes] = []
        self._size = 0
        self._folders: set[str] = set()

    def file(
        self, name: str, content: Content, mode: int, owner: Owner = ROOTS, mtime: int = 0
    ) -> None:
        data = segments(content)
        member = self._member(name, tarfile.REGTYPE, mode, owner, mtime)
        if data is None:
            member.size = len(content)
            self._header(member)
            self._body(content, [(0, len(content))])
            return
        table = sparse_table(data, len(content))
        member.name = str(PurePosixPath(name).parent / "GNUSparseFile.0" / PurePosixPath(name).name)
        member.size = len(table) + sum(size for _, size in data)
        member.pax_headers = {
            "GNU.sparse.major": "1",
            "GNU.sparse.minor": "0",
            "GNU.sparse.name": name,
            "GNU.sparse.realsize": str(len(content)),
        }
        self._header(member)
        self._add(table)
        self._body(content, data)

    def folder(self, name: str, mode: int, owner: Owner = ROOTS, mtime: int = 0) -> None:
        self._folders.add(name)
        self._header(self._member(name, tarfile.DIRTYPE, mode, owner, mtime))

    def link(self, name: str, target: str, owner: Owner = ROOTS, mtime: int = 0) -> None:
        member = self._member(name, tarfile.SYMTYPE, 0o777, owner, mtime)
        member.linkname = target
        self._header(member)

    def same(self, name: str, first: str) -> None:
        """A second name of what is there under the first."""
        member = self._member(name, tarfile.LNKTYPE, 0o644, ROOTS, 0)
        member.linkname = first
        self._header(member)

    def end(self) -> None:
        self._add(bytes(2 * tarfile.BLOCKSIZE))
        self._flush()

    def _member(
        self, name: str, kind: bytes, mode: int, owner: Owner, mtime: int
    ) -> tarfile.TarInfo:
        for folder in reversed(PurePosixPath(name).parents[:-1]):
            if str(folder) not in self._folders:
                self.folder(str(folder), 0o755)
        member = tarfile.TarInfo(name)
        member.type, member.mode, member.mtime = kind, mode, mtime
        member.uname, member.gname = owner.user, owner.group
        member.uid, member.gid = owner.uid, owner.gid
        return member

    def _header(self, member: tarfile.TarInfo) -> None:
        self._add(member.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape"))

    def _body(self, content: Content, data: Sequence[tuple[int, int]]) -> None:
        size = 0
        for begin, length in data:
            for offset in range(begin, begin + length, PART_BYTES):
                self._add(content[offset : min(offset + PART_BYTES, begin + length)])
            size += length
        self._add(bytes(-size % tarfile.BLOCKSIZE))

    def _add(self, data: bytes) -> None:
        self._waiting.append(data)
        self._size += len(data)
        if self._size >= PART_BYTES:
            self._flush()

    def _flush(self) -> None:
        part = b"".join(self._waiting)
        self._waiting, self._size = [], 0
        self._send(part if self._level is None else pressed(part, self._level))


def pressed(part: bytes, level: int) -> bytes:
    """A gzip member, with no time in it; of what would not shrink, as it is."""
    thirds = (0, len(part) // 2, len(part) - SAMPLE_BYTES)
    sample = b"".join(part[at : at + SAMPLE_BYTES] for at in thirds if at >= 0)
    return zlib.compress(part, level if shrinks(sample) else 0, GZIP)


def is_worth_pressing(files: Sequence[StepFile], headers: int) -> bool:
    """From samples that are spread evenly over all of their bytes. Headers always shrink."""
    size = sum(len(file.content) for file in files)
    if size < headers * tarfile.BLOCKSIZE:
        return True
    step = max(size // SAMPLES, SAMPLE_BYTES)
    samples, passed = [], 0
    for file in files:
        for at in range(-passed % step, len(file.content), step):
            samples.append(file.content[at : at + SAMPLE_BYTES])
        passed += len(file.content)
    return shrinks(b"".join(samples))


def shrinks(sample: bytes) -> bool:
    """Enough to be worth the time."""
    return len(zlib.compress(sample, 1)) < SHRINKS * len(sample)


def segments(content: Content) -> list[tuple[int, int]] | None:
    """Offset and size of what is not a hole; None when the file is none with holes.

    By its content: what zeros a disk holds and what it leaves out is nobody's to see in git.
    """
    if len(content) < LEAST_HOLES_BYTES:
        return None
    found: list[tuple[int, int]] = []
    begin = None
    for offset in range(0, len(content), HOLE_BYTES):
        # The first byte alone, mostly: this is done for each of 200 MB.
        if content[offset] or content[offset : offset + HOLE_BYTES] != ZEROS:
            begin = offset if begin is None else begin
        elif begin is not None:
            found.append((begin, offset - begin))
            begin = None
    if begin is not None:
        found.append((begin, len(content) - begin))
    holes = len(content) - sum(size for _, size in found)
    return found if holes >= LEAST_HOLES_BYTES else None


def sparse_table(data: Sequence[tuple[int, int]], size: int) -> bytes:
    """GNU tar's sparse format 1.0: how many there are, then where each begins and its size."""
    numbers = [len(data) + 1, *(number for one in data for number in one), size, 0]
    text = "".join(f"{number}\n" for number in numbers).encode()
    return text + bytes(-len(text) % tarfile.BLOCKSIZE)


@dataclass(frozen=True)
class Held:
    """A file that a machine has from an earlier sending. `name` leads to it from the new one."""

    name: str
    inode: str
    mode: int
    owner: str
    sha256: str


class Holding:
    """What a machine has, by the paths that its files were sent under. Each is used once: two
    files that were sent are never one there."""

    def __init__(self, files: Iterable[tuple[str, Held]] = ()) -> None:
        self._files: dict[str, list[Held]] = {}
        self._used: set[str] = set()
        for path, held in files:
            self._files.setdefault(path, []).append(held)

    def take(self, file: StepFile) -> str | None:
        """The name of one that is equal to it, with mode and owner."""
        wanted = (file.mode, file.owner or "root:root")
        for one in self._files.get(file.path, ()):
            if one.inode in self._used or (one.mode, one.owner) != wanted:
                continue
            if one.sha256 == file.sha256:
                self._used.add(one.inode)
                return one.name
        return None


def read_holding(listed: bytes, folder: str) -> Holding:
    """From what unit.take has the machine say of `folder`. Raises: ValueError.

    Shape: INODE MODE OWNER PATH and NUL for each file, a NUL, then SHA256 *PATH and NUL.
    """
    facts, _, sums = gzip.decompress(listed).partition(b"\0\0")
    sha256 = {}
    for line in sums.split(b"\0")[:-1]:
        digest, _, path = line.partition(b" *")
        sha256[path] = digest.decode()
    found = []
    for line in filter(None, facts.strip(b"\0").split(b"\0")):
        inode, mode, owner, path = line.split(b" ", 3)
        whole = os.fsdecode(path.removeprefix(b"./"))
        digest_of = sha256.get(path, "")
        held = Held(f"{folder}/{whole}", inode.decode(), int(mode, 8), owner.decode(), digest_of)
        found.append((whole.partition(f"/{SENT_TO}/")[2], held))
    return Holding(found)


def equal(files: Sequence[StepFile], holding: Holding) -> dict[str, str]:
    """Of what need not be sent, by its path: the name of what is there."""
    found = {file.path: holding.take(file) for file in files if file.is_plain and file.content}
    return {path: name for path, name in found.items() if name is not None}


def pack(
    files: Sequence[StepFile], last: StepFile, packer: Packer, there: Mapping[str, str]
) -> None:
    """The files of a job. `last` is there only when all the others are."""
    for file in sorted((f for f in files if f.folder), key=lambda f: f.path):
        packer.folder(file.path, file.mode, Owner.named(file.owner))
    for file in files:
        if file.link:
            packer.link(file.path, file.link)
        elif same := file.same_as or there.get(file.path):
            packer.same(file.path, same)
        elif not file.folder:
            packer.file(file.path, file.content, file.mode, Owner.named(file.owner))
    packer.file(last.path, last.content, last.mode)
    packer.end()
