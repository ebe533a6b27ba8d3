"""Trees of files to a machine and from it over SSH, each way as one compressed tar stream.

As they are: modes, owners, times, links, holes and any name. Only files, folders and links travel;
what comes back is never written by way of a link, or out of the folder that it is to lie in.
"""

from __future__ import annotations

import grp
import io
import os
import pwd
import stat
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import IO, overload

from amibuild.communicator.base import TAIL_LINES
from amibuild.communicator.packing import (
    SAMPLE_BYTES,
    SAMPLES,
    Content,
    Owner,
    Packer,
    shrinks,
)
from amibuild.communicator.shell import quote
from amibuild.communicator.ssh import SshCommunicator
from amibuild.communicator.ssh_channel import LEVEL, Done
from amibuild.errors import CommandFailed, HostError, UsageError
from amibuild.wait import Observer, silent

# Of a tree there, to see whether it would shrink.
PROBE_BYTES = 4 * 1024 * 1024
BUFFER_BYTES = 256 * 1024
# Exit codes that tar does not have.
NOTHING_THERE, NO_FILES = 66, 67
PROBE_LIMIT_BYTES = PROBE_BYTES * 85 // 100
_KINDS = {
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def is_folder(ssh: SshCommunicator, path: str) -> bool:
    """Whether there is one, or a link to one. Raises: WaitTimeout."""
    done = ssh.download(f"looking for {path}", f"test -d {quote(path)}", lambda _: None)
    return done.exit_code == 0


def send_tree(ssh: SshCommunicator, source: Path, to: str, observer: Observer = silent) -> None:
    """What is at `source` and below, as `to` there. Raises: UsageError, CommandFailed, WaitTimeout.

    Owners are kept by name, else by number.
    """
    entries = list(_entries(source))
    folder, name = os.path.split(to.rstrip("/"))
    pressed = shrinks(b"".join(_samples(entries)))

    def write(packer: Packer) -> None:
        seen: dict[tuple[int, int], str] = {}
        for path, facts in entries:
            below = path.relative_to(source).as_posix()
            _pack(packer, path, facts, name if below == "." else f"{name}/{below}", seen)
        packer.end()

    # A folder that is there may be a link to one, as /bin is: what comes goes where it leads.
    take = f"mkdir -p {quote(folder or '/')}\n"
    take += f"tar -x{'z' if pressed else ''}p --keep-directory-symlink -f - -C "
    done = ssh.upload(
        f"sending {source}",
        f"set -eu\numask 022\n{take}{quote(folder or '/')}\n",
        write,
        LEVEL if pressed else None,
        observer,
    )
    _check(f"sending {source}", done)


def fetch_tree(ssh: SshCommunicator, source: str, into: Path, observer: Observer = silent) -> None:
    """What is at `source` there and below, in the folder `into`, under its own name.

    Raises: UsageError, CommandFailed, WaitTimeout.
    """
    folder, name = os.path.split(source.rstrip("/"))
    tar = f"tar -c --sparse --format=gnu -C {quote(folder or '/')}"
    named = quote(f"./{name}")
    # Not pax, which has a header more for each file: of its times, in parts of a second.
    # Of a file that grows meanwhile it brings what there was, and ends with 1.
    # The kernel's files say that they are empty.
    script = f"""\
set -eu
[ -e {quote(source)} ] || [ -L {quote(source)} ] || exit {NOTHING_THERE}
case $(stat -f -c %T {quote(source)} 2>/dev/null) in
proc | sysfs | cgroup2fs | debugfs | tracefs | securityfs) exit {NO_FILES} ;;
esac
set --
[ "$({tar} {named} 2>/dev/null | head -c {PROBE_BYTES} | gzip -1 | wc -c)" \
-gt {PROBE_LIMIT_BYTES} ] || set -- -I "gzip -1"
{tar} "$@" -f - {named} || [ $? = 1 ]
"""
    into.mkdir(parents=True, exist_ok=True)
    done = ssh.download(f"fetching {source}", script, lambda stream: unpack(stream, into), observer)
    if done.exit_code == NOTHING_THERE:
        raise UsageError(f"there is no {source} on the machine")
    if done.exit_code == NO_FILES:
        raise UsageError(
            f"{source} is the kernel's, and no file of a disk",
            hint="`amibuild run BAKE_ID -- cat FILE` shows one",
        )
    _check(f"fetching {source}", done)


def unpack(stream: IO[bytes], into: Path) -> None:
    """A tar as it comes. Raises: UsageError when something in it must not be there; HostError when
    this host can't take it; OSError when it is cut short."""
    coming = _Coming(stream)
    try:
        with tarfile.open(fileobj=coming, mode="r|*", bufsize=BUFFER_BYTES) as tar:
            tar.extraction_filter = _as_it_is
            _unpack(tar, into)
        while coming.read(65536):
            pass
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise OSError(f"what came is no whole tar: {error}") from error
    except _Cut as cut:
        raise cut.why from cut
    except OSError as error:
        raise HostError(f"{error.filename or into}: {error.strerror or error}") from error


class _Cut(Exception):
    def __init__(self, why: OSError) -> None:
        super().__init__(str(why))
        self.why = why


class _Coming(io.RawIOBase):
    """A stream whose errors are told from those of this host's disk."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream

    def read(self, size: int = -1, /) -> bytes:
        try:
            return self._stream.read(size)
        except OSError as error:
            raise _Cut(error) from error


def _unpack(tar: tarfile.TarFile, into: Path) -> None:
    folders = []
    for member in tar:
        _refuse(member, into)
        path = into / member.name
        if member.isdir():
            folders.append(member)
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            continue
        if path.is_symlink() or path.is_file():
            path.unlink()  # or it would be written to
        tar.extract(member, into, numeric_owner=True)
        if member.issym():  # whose time tarfile leaves
            os.utime(path, (member.mtime, member.mtime), follow_symlinks=False)
    # Now: nothing could be written into one that is read only, and it would get a new time.
    for member in reversed(folders):
        path = into / member.name
        tar.chown(member, path, numeric_owner=True)
        tar.utime(member, path)
        tar.chmod(member, path)


def _entries(source: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """Folders before what is in them. Raises: UsageError."""
    facts = _facts(source)
    if refused := _KINDS.get(stat.S_IFMT(facts.st_mode)):
        raise UsageError(f"{source} is {refused}: only files, folders and links can travel")
    yield source, facts
    if stat.S_ISDIR(facts.st_mode):
        for path in sorted(source.iterdir()):
            yield from _entries(path)


def _facts(path: Path) -> os.stat_result:
    try:
        return path.lstat()
    except OSError as error:
        raise UsageError(f"{path} can't be read: {error.strerror}") from error


def _pack(
    packer: Packer,
    path: Path,
    facts: os.stat_result,
    name: str,
    seen: dict[tuple[int, int], str],
) -> None:
    mode, owner, mtime = stat.S_IMODE(facts.st_mode), _owner(facts), int(facts.st_mtime)
    if stat.S_ISLNK(facts.st_mode):
        target = os.readlink(path)  # noqa: PTH115 - a Path would not keep it as it is written
        packer.link(name, target, owner, mtime)
    elif stat.S_ISDIR(facts.st_mode):
        packer.folder(name, mode, owner, mtime)
    elif (first := seen.setdefault((facts.st_dev, facts.st_ino), name)) != name:
        packer.same(name, first)
    else:
        with _content(path) as content:
            packer.file(name, content, mode, owner, mtime)


def _owner(facts: os.stat_result) -> Owner:
    """Without the names that are not known here."""
    user = group = ""
    with suppress(KeyError):
        user = pwd.getpwuid(facts.st_uid).pw_name
    with suppress(KeyError):
        group = grp.getgrgid(facts.st_gid).gr_name
    return Owner(user, group, facts.st_uid, facts.st_gid)


@contextmanager
def _content(path: Path) -> Iterator[Content]:
    """Not in memory: it may be larger than that. Raises: UsageError."""
    try:
        file = path.open("rb", buffering=0)
    except OSError as error:
        raise UsageError(f"{path} can't be read: {error.strerror}") from error
    with file:
        yield _File(path, file.fileno())


class _File:
    """What a file holds, read where it is asked for. Mapped into memory it would be faster, and one
    that gets shorter meanwhile would end this process (SIGBUS).

    Raises: HostError when it is shorter by now, or can't be read.
    """

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path = path
        self._descriptor = descriptor
        self._size = os.fstat(descriptor).st_size
        self._begin, self._near = 0, b""

    def __len__(self) -> int:
        return self._size

    @overload
    def __getitem__(self, at: int) -> int: ...

    @overload
    def __getitem__(self, at: slice) -> bytes: ...

    def __getitem__(self, at: int | slice) -> int | bytes:
        begin, end = (at.start, at.stop) if isinstance(at, slice) else (at, at + 1)
        end = min(end, self._size)
        if not self._begin <= begin <= end <= self._begin + len(self._near):
            self._begin = begin
            self._near = self._read(begin, max(end, min(begin + BUFFER_BYTES, self._size)))
        near = self._near[begin - self._begin : end - self._begin]
        return near if isinstance(at, slice) else near[0]

    def _read(self, begin: int, end: int) -> bytes:
        parts = []
        while begin < end:
            try:
                part = os.pread(self._descriptor, end - begin, begin)
            except OSError as error:
                raise HostError(f"{self._path} can't be read: {error.strerror}") from error
            if not part:
                raise HostError(f"{self._path} became shorter while it was sent")
            parts.append(part)
            begin += len(part)
        return b"".join(parts)


def _samples(entries: Sequence[tuple[Path, os.stat_result]]) -> Iterator[bytes]:
    """Of some files, at most, spread over all of them."""
    files = [(path, facts.st_size) for path, facts in entries if stat.S_ISREG(facts.st_mode)]
    for path, size in files[:: max(len(files) // SAMPLES, 1)]:
        with path.open("rb") as file:
            file.seek(size // 2)
            yield file.read(SAMPLE_BYTES)


def _refuse(member: tarfile.TarInfo, into: Path) -> None:
    """What a machine may have made to be written elsewhere than it seems. Raises: UsageError."""
    told = repr(member.name)
    if not (member.isreg() or member.isdir() or member.issym() or member.islnk()):
        raise UsageError(f"{told} is a pipe or a device: only files, folders and links can travel")
    names = [member.name, *([member.linkname] if member.islnk() else [])]
    for name in map(PurePosixPath, names):
        if name.is_absolute() or ".." in name.parts:
            raise UsageError(f"{told} would lie out of {into}")
        for parent in [*name.parents, *([] if name == PurePosixPath(member.name) else [name])]:
            if parent.name and (into / parent).is_symlink():
                raise UsageError(f"{told} would be written by way of a link, {parent}")
    if member.isdir() and (into / member.name).is_symlink():
        raise UsageError(f"{told} would be written by way of a link")


def _as_it_is(member: tarfile.TarInfo, _: str) -> tarfile.TarInfo:
    """It was looked at already: newer Pythons would take more from it."""
    return member


def _check(what: str, done: Done) -> None:
    if done.exit_code != 0:
        raise CommandFailed(
            what=what,
            exit_code=done.exit_code,
            reason=f"ended with exit code {done.exit_code}",
            tail=done.stderr.splitlines()[-TAIL_LINES:],
        )
