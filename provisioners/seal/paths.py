"""Whose block it is: the path of the file that a byte of the disk belongs to.

By debugfs, which only reads, and only on ext4; on another file system the answer says so. A file
that a package brought and nobody changed is no secret: everybody has it.
"""

import hashlib
import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

JOURNAL_INODE = 8
SECTOR = 512


@dataclass(frozen=True)
class Where:
    """`path` is a file's, or says in words what else it is."""

    path: str
    is_packaged: bool = False


class Paths:
    def __init__(self, disk: str, partition: str, root: Path | None = None) -> None:
        """`root` is where the partition is mounted, to see what packages brought."""
        self._partition = partition
        self._root = root
        self._disk = disk
        self.begin = begin_of(disk, partition)
        self._end = self.begin + _size(partition)
        self.block_size = self._read_block_size()
        self._known: dict[int, Where] = {}

    def of(self, offset: int) -> Where:
        if not self.begin <= offset < self._end:
            return Where(beside(_about(self._disk), offset))
        if not self.block_size:
            return Where("in a file system that is not ext4")
        block = (offset - self.begin) // self.block_size
        if block not in self._known:
            self._known[block] = self._look(block)
        return self._known[block]

    def _look(self, block: int) -> Where:
        inode = self._last_word(f"icheck {block}")
        if not inode.isdigit():
            return Where("in no file (of a deleted one, or never used)")
        if int(inode) == JOURNAL_INODE:
            return Where("in no file (the file system's journal)")
        path = self._last_word(f"ncheck {inode}")
        if not path.startswith("/"):
            return Where(f"in inode {inode}, which has no name")
        path = "/" + path.lstrip("/")  # //NAME for what is in the root folder itself
        return Where(path, self._is_packaged(path))

    def _last_word(self, request: str) -> str:
        lines = self._debugfs(request).splitlines()
        return lines[-1].partition("\t")[2].strip() if lines else ""

    def _debugfs(self, request: str) -> str:
        # -c: catastrophic mode opens read-only and believes no bitmap that is not needed.
        done = subprocess.run(
            ["debugfs", "-R", request, self._partition],
            capture_output=True,
            text=True,
            errors="replace",
        )
        return done.stdout

    def _read_block_size(self) -> int:
        found = re.search(r"^Block size:\s+(\d+)", self._debugfs("stats -h"), re.MULTILINE)
        return int(found[1]) if found else 0

    def _is_packaged(self, path: str) -> bool:
        if self._root is None:
            return False
        file = self._root / path.lstrip("/")
        if not file.is_file() or file.is_symlink():
            return False
        wanted = f"{hashlib.md5(file.read_bytes()).hexdigest()}  {path.lstrip('/')}"
        lists = (self._root / "var/lib/dpkg/info").glob("*.md5sums")
        return any(wanted in one.read_text(errors="replace").splitlines() for one in lists)


def begin_of(disk: str, partition: str) -> int:
    """Bytes from the disk's begin to the partition's; 0 when there are no partitions."""
    return _offset(partition) - _offset(disk)


def beside(about: Path, offset: int) -> str:
    """What is outside of the root file system, by the disk's folder in /sys."""
    partitions = [one.parent for one in about.glob("*/partition")]
    for one in partitions:
        begin, sectors = (int((one / name).read_text()) for name in ("start", "size"))
        if begin <= offset // SECTOR < begin + sectors:
            return f"in another partition ({one.name})"
    return "in no partition" if partitions else "in another partition, or in none"


def _about(device: str) -> Path:
    # By number: the name may be one that nobody gave but us.
    number = Path(device).stat().st_rdev
    return Path(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}")


def _offset(device: str) -> int:
    about = _about(device)
    # A machine without partitions has each as a loop of its own.
    for name, unit in (("start", SECTOR), ("loop/offset", 1)):
        if (about / name).exists():
            return int((about / name).read_text()) * unit
    return 0


def _size(device: str) -> int:
    with Path(device).open("rb") as file:
        return file.seek(0, os.SEEK_END)
