"""Unpacks checked files into one folder: zip, tar, tar.gz, tar.xz, tar.bz2, or a file as it is.

    python3 unpack.py ARTIFACTS.json FETCHED FOLDER

ARTIFACTS.json is a list of {"sha256", "into", "strip", "unpack"}, with "name" for a plain file.
Nothing is ever written outside of FOLDER, nor through a link, and no link leads out of it: every
entry is written by hand, into folders that are looked at before. Modes are 755 and 644, the owner
is who runs this; devices, sockets and setuid bits stay behind. What would unpack to more than is
free, or to far more than its own size, is a bomb and ends before it has filled the disk.
"""

from __future__ import annotations

import json
import lzma
import os
import shutil
import stat
import struct
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

CHUNK = 1024 * 1024
# Text packs 20 times smaller, a disk of zeros 1,000 times. What is small may do what it likes.
GROWS = 200
SMALL = 1024 * 1024 * 1024
# An empty file takes room, too.
LEAST = 4096
# So much stays free on the disk for what else runs there.
SPARE = 256 * 1024 * 1024
PROGRAM_STARTS = (b"\x7fELF", b"#!")
UNIX = 3  # a zip's create_system, the only one whose modes mean anything


class Unsafe(Exception):
    """An entry that no honest archive has, or that can't be what was meant."""


BROKEN = (
    Unsafe,
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    NotImplementedError,  # a zip's compression that Python lacks
    OSError,
    OverflowError,
    ValueError,  # a header's number or name that is none
    KeyError,  # a zip's entry that its list does not have
    RuntimeError,  # a zip's password, a nesting without an end
    struct.error,
    MemoryError,
)


class Room:
    """How many bytes may still be written."""

    def __init__(self, path: Path, folder: Path) -> None:
        self.free = shutil.disk_usage(folder).free - SPARE
        self.allowed = max(SMALL, path.stat().st_size * GROWS)

    def take(self, size: int) -> None:
        self.free -= size
        self.allowed -= size
        if self.allowed < 0:
            raise Unsafe(f"it unpacks to more than {GROWS} times its size, as a bomb does")
        if self.free < 0:
            raise Unsafe(f"it does not fit: {SPARE >> 20} MiB of the disk must stay free")


@dataclass(frozen=True)
class Entry:
    """One thing in an archive. `link` is where a link leads; `hard` when it is a hard one."""

    name: str
    kind: str  # folder, file, link
    executable: bool = False
    link: str = ""
    hard: bool = False
    body: IO[bytes] | None = None


def entries(path: Path) -> Iterator[Entry]:
    """What is in an archive, whatever its name ends in: its first bytes tell.

    Raises: Unsafe when it is no archive, is encrypted or holds what can't be unpacked.
    """
    with path.open("rb") as opened:
        magic = opened.read(4)
    if magic in (b"PK\x03\x04", b"PK\x05\x06"):
        yield from _zip_entries(path)
    elif tarfile.is_tarfile(path):
        yield from _tar_entries(path)
    else:
        raise Unsafe("is no zip, tar, tar.gz, tar.xz or tar.bz2; for a plain file: unpack = false")


def _tar_entries(path: Path) -> Iterator[Entry]:
    with tarfile.open(path) as tar:
        for member in tar:
            if member.isdir():
                yield Entry(member.name, "folder")
            elif member.isreg():
                yield Entry(
                    member.name, "file", bool(member.mode & 0o111), body=tar.extractfile(member)
                )
            elif member.issym() or member.islnk():
                yield Entry(member.name, "link", link=member.linkname, hard=member.islnk())
            else:
                raise Unsafe(f"{member.name!r} is a device or a pipe")


def _zip_entries(path: Path) -> Iterator[Entry]:
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            mode = info.external_attr >> 16 if info.create_system == UNIX else 0
            if info.flag_bits & 1:
                raise Unsafe(f"{info.filename!r} is encrypted")
            if info.is_dir():
                yield Entry(info.filename, "folder")
            elif stat.S_ISLNK(mode):
                yield Entry(info.filename, "link", link=os.fsdecode(archive.read(info)))
            elif stat.S_IFMT(mode) in (0, stat.S_IFREG):
                with archive.open(info) as body:
                    yield Entry(info.filename, "file", bool(mode & 0o111), body=body)
            else:
                raise Unsafe(f"{info.filename!r} is a device or a pipe")


def parts_of(name: str) -> tuple[str, ...]:
    """The folders and the name of an entry. Raises: Unsafe when it leads elsewhere."""
    if not name or name.startswith("/") or "\0" in name:
        raise Unsafe(f"{name!r} leads out of the archive")
    parts = tuple(part for part in PurePosixPath(name).parts if part != ".")
    # A backslash separates where such an archive is made, and is part of a name here.
    if ".." in parts or "\\" in name:
        raise Unsafe(f"{name!r} leads out of the archive")
    return parts


def unpack(path: Path, folder: Path, strip: int = 0) -> int:
    """The entries below `folder`, without their first `strip` folders; how many there were."""
    count, room = 0, Room(path, folder)
    for entry in entries(path):
        room.take(LEAST)
        parts = parts_of(entry.name)[strip:]
        if not parts:
            continue
        count += 1
        if entry.kind == "folder":
            enter(folder, parts)
            continue
        target = enter(folder, parts[:-1]) / parts[-1]
        if entry.kind == "link":
            _link(folder, target, entry, strip)
        else:
            assert entry.body is not None
            _write(target, entry.body, room, executable=entry.executable)
    if not count:
        raise Unsafe(f"nothing is left of it without its first {strip} folders")
    return count


def enter(folder: Path, parts: Sequence[str]) -> Path:
    """The folder of these names, made where it is missing. A link on the way is refused."""
    here = folder
    for part in parts:
        here = here / part
        if here.is_symlink() or (here.exists() and not here.is_dir()):
            raise Unsafe(f"{here.relative_to(folder)} is no folder, and something is to go into it")
        if not here.exists():
            here.mkdir()
            here.chmod(0o755)
    return here


def _write(target: Path, body: IO[bytes], room: Room, *, executable: bool) -> None:
    if target.is_dir() and not target.is_symlink():
        raise Unsafe(f"{target.name} is a folder and a file")
    target.unlink(missing_ok=True)
    # O_EXCL: what was just removed does not come back as a link.
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    with os.fdopen(os.open(target, flags, 0o600), "wb") as out:
        while chunk := body.read(CHUNK):
            room.take(len(chunk))
            out.write(chunk)
        os.fchmod(out.fileno(), 0o755 if executable else 0o644)


def _link(folder: Path, target: Path, entry: Entry, strip: int) -> None:
    if target.is_dir() and not target.is_symlink():
        raise Unsafe(f"{entry.name!r} is a folder and a link")
    if entry.hard:
        parts = parts_of(entry.link)[strip:]
        source = enter(folder, parts[:-1]) / parts[-1] if parts else folder
        if source.is_symlink() or not source.is_file():
            raise Unsafe(f"{entry.name!r} is a hard link to {entry.link!r}, which is no file in it")
        if source != target:
            target.unlink(missing_ok=True)
            os.link(source, target)
        return
    if entry.link.startswith("/"):
        raise Unsafe(f"{entry.name!r} is a link to {entry.link!r}, out of the archive")
    target.unlink(missing_ok=True)
    target.symlink_to(entry.link)


def check_links(folder: Path) -> None:
    """Raises: Unsafe when a link leads out of `folder`, by itself or over other links."""
    top = folder.resolve()
    for root, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(root, name)
            if not path.is_symlink():
                continue
            try:
                leads_to = path.resolve()
            except (OSError, RuntimeError) as error:
                raise Unsafe(f"{path.relative_to(folder)} is a link that leads nowhere") from error
            if leads_to != top and top not in leads_to.parents:
                where = path.relative_to(folder)
                raise Unsafe(f"{where} is a link to {os.readlink(path)!r}, out of the archive")  # noqa: PTH115  # Path.readlink would normalise it


def place(path: Path, folder: Path, name: str) -> None:
    """A plain file, under its own name; a program may be run."""
    with path.open("rb") as body:
        executable = body.read(4).startswith(PROGRAM_STARTS)
        body.seek(0)
        target = folder / parts_of(name)[-1]
        _write(target, body, Room(path, folder), executable=executable)


def unpack_all(artifacts: Sequence[Mapping[str, Any]], fetched: Path, folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    for artifact in artifacts:
        path, label = fetched / artifact["sha256"], artifact["sha256"][:12]
        into = enter(folder, parts_of(artifact["into"]))
        try:
            if artifact["unpack"]:
                count = unpack(path, into, artifact["strip"])
                sys.stderr.write(f"{label}: {count} entries\n")
            else:
                place(path, into, artifact["name"])
            check_links(folder)
        except BROKEN as error:
            raise Unsafe(f"{label}: {error}") from error


def main() -> int:
    if len(sys.argv) != 4:
        sys.stderr.write(f"usage: {sys.argv[0]} ARTIFACTS.json FETCHED FOLDER\n")
        return 2
    try:
        artifacts = json.loads(Path(sys.argv[1]).read_text())
        unpack_all(artifacts, Path(sys.argv[2]), Path(sys.argv[3]))
    except Unsafe as error:
        sys.stderr.write(f"not unpacked: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
