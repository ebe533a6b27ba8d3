"""Loop devices: a raw file, or a part of it, as a disk of this host's kernel. Needs root.

Each clears itself when its last user is gone: the kernel takes it away with whoever holds it open
and whatever is mounted from it, so a killed endpoint leaves none.
Source: loop(4); LOOP_CONFIGURE is in Linux since 5.8.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from pathlib import Path

from amibuild.errors import HostError

MAJOR = 7
_TRIES = 32
_GET_FREE = 0x4C82
_CONFIGURE = 0x4C0A
_AUTOCLEAR = 4
# struct loop_config: the file, the block size, struct loop_info64, and room for more.
_CONFIG = struct.Struct("=II QQQQQ IIII 64s 64s 32s QQ 64x")


class Loop:
    """One loop device, there while this is open."""

    def __init__(self, number: int, device: int) -> None:
        """Use `open`."""
        self.number = number
        self._device = device

    @classmethod
    def open(cls, disk: Path, *, offset: int = 0, size: int = 0) -> Loop:
        """`size` 0 reaches to the end of the file. Raises: HostError."""
        backing = os.open(disk, os.O_RDWR | os.O_CLOEXEC)
        try:
            for _ in range(_TRIES):
                found = _try(backing, offset, size)
                if found is not None:
                    return found
        except OSError as error:
            raise HostError(f"no loop device for {disk}: {error}") from error
        finally:
            os.close(backing)
        raise HostError(f"no loop device for {disk}: others were faster {_TRIES} times")

    @property
    def device(self) -> int:
        """Its number as mknod(2) wants it."""
        return os.makedev(MAJOR, self.number)

    def mounted(self) -> bool:
        """Whether a file system on it is in use, in whatever namespace."""
        try:
            os.close(os.open(f"/dev/loop{self.number}", os.O_RDWR | os.O_EXCL | os.O_CLOEXEC))
        except OSError as error:
            if error.errno == errno.EBUSY:
                return True
            raise
        return False

    def close(self) -> None:
        """Lets go of it. Safe to call twice."""
        if self._device >= 0:
            os.close(self._device)
        self._device = -1


def _try(backing: int, offset: int, size: int) -> Loop | None:
    """None when somebody else took the device that was free a moment ago."""
    control = os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC)
    try:
        number = fcntl.ioctl(control, _GET_FREE)
    finally:
        os.close(control)
    device = os.open(f"/dev/loop{number}", os.O_RDWR | os.O_CLOEXEC)
    config = _CONFIG.pack(
        *(backing, 0),
        *(0, 0, 0, offset, size),
        *(0, 0, 0, _AUTOCLEAR),
        *(b"", b"", b"", 0, 0),
    )
    try:
        fcntl.ioctl(device, _CONFIGURE, config)
    except OSError as error:
        os.close(device)
        if error.errno == errno.EBUSY:
            return None
        raise
    return Loop(number, device)
