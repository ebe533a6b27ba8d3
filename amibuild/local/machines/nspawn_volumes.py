"""The disks of an nspawn machine besides its root: loop devices of this host, with nodes inside.

The nodes are in a folder that the supervisor keeps in memory, and that the machine has read-only
at /dev/disk: so they outlast its reboots, and are gone with it. The kernels of some hosts make no
partition nodes for loop devices, so each partition is a loop device of its own.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from amibuild.errors import HostError, WaitTimeout
from amibuild.local import gpt
from amibuild.local.durable import sync_disk
from amibuild.local.machines.base import DataVolume
from amibuild.local.machines.loops import MAJOR, Loop
from amibuild.local.machines.remains import await_free_loop

log = logging.getLogger(__name__)


class NspawnVolumes:
    """`folder` opens the folder of the nodes, by a file descriptor that the caller closes."""

    def __init__(self, folder: Callable[[], int]) -> None:
        self._folder = folder
        self._plugged: dict[str, tuple[DataVolume, dict[str, Loop]]] = {}
        self._lock = threading.Lock()

    def plug(self, volume: DataVolume) -> None:
        """Raises: HostError, with nothing plugged."""
        with self._lock:
            loops: dict[str, Loop] = {}
            try:
                loops[volume.link] = Loop.open(volume.disk)
                for number, offset, size in _partitions(volume.disk):
                    name = f"{volume.link}-part{number}"
                    loops[name] = Loop.open(volume.disk, offset=offset, size=size)
                self._make_nodes(loops)
            except (HostError, OSError) as error:
                for loop in loops.values():
                    loop.close()
                raise HostError(f"{volume.volume_id} can't be attached: {error}") from error
            self._plugged[volume.volume_id] = (volume, loops)

    def unplug(self, volume_id: str) -> bool:
        """False while something of it is mounted."""
        with self._lock:
            if volume_id not in self._plugged:
                return True
            volume, loops = self._plugged[volume_id]
            if any(loop.mounted() for loop in loops.values()):
                return False
            with contextlib.suppress(OSError):  # the machine has ended, and its nodes with it
                self._remove_nodes(loops)
            del self._plugged[volume_id]
            _release(volume, loops)
            return True

    def close(self) -> None:
        """The machine has ended: nothing holds its disks any longer."""
        with self._lock:
            plugged, self._plugged = self._plugged, {}
            for volume, loops in plugged.values():
                _release(volume, loops)

    def _make_nodes(self, loops: dict[str, Loop]) -> None:
        with _opened(self._folder()) as folder:
            for name, loop in loops.items():
                os.mknod(name, stat.S_IFBLK | 0o660, loop.device, dir_fd=folder)

    def _remove_nodes(self, loops: dict[str, Loop]) -> None:
        with _opened(self._folder()) as folder:
            for name in loops:
                os.unlink(name, dir_fd=folder)


def sync_loops(pid: int) -> None:
    """What the file systems on loop devices, as `pid` has them mounted, is in their files then."""
    for line in Path("/proc", str(pid), "mountinfo").read_text().splitlines():
        major, point = line.split()[2].partition(":")[0], line.split()[4]
        if major == str(MAJOR):
            inside = re.sub(r"\\([0-7]{3})", lambda m: chr(int(m[1], 8)), point).lstrip("/")
            with contextlib.suppress(OSError):  # unmounted meanwhile
                sync_disk(Path("/proc", str(pid), "root", inside))


def _partitions(disk: Path) -> list[tuple[int, int, int]]:
    """Number, offset and size of each; none without a partition table that is whole."""
    try:
        return [(p.number, p.offset, p.size) for p in gpt.read(disk).partitions]
    except HostError:
        return []


def _release(volume: DataVolume, loops: dict[str, Loop]) -> None:
    for loop in loops.values():
        loop.close()
    try:
        await_free_loop(volume.disk)
    except WaitTimeout as error:
        log.warning("%s: %s", volume.volume_id, error)


@contextlib.contextmanager
def _opened(descriptor: int) -> Iterator[int]:
    try:
        yield descriptor
    finally:
        os.close(descriptor)
