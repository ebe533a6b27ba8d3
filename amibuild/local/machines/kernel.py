"""The kernel calls that Python 3.11 has no function for: namespaces, mounts, process control.

Used by the supervisor only. Linux; every call raises OSError as Python's own do.
"""

from __future__ import annotations

import ctypes
import os
import signal
from enum import IntFlag

_libc = ctypes.CDLL(None, use_errno=True)

_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4


class Namespace(IntFlag):
    """Source: clone(2)."""

    MOUNT = 0x0002_0000
    UTS = 0x0400_0000
    IPC = 0x0800_0000
    USER = 0x1000_0000
    PID = 0x2000_0000
    NET = 0x4000_0000


class MountFlag(IntFlag):
    """Source: mount(2)."""

    NOSUID = 0x2
    NODEV = 0x4
    NOEXEC = 0x8
    BIND = 0x1000
    RECURSIVE = 0x4000
    SLAVE = 0x8_0000


def unshare(kinds: Namespace) -> None:
    _check(_libc.unshare(ctypes.c_int(kinds)), "unshare")


def enter(namespace_fd: int) -> None:
    _check(_libc.setns(ctypes.c_int(namespace_fd), ctypes.c_int(0)), "setns")


def mount(source: str, target: str, kind: str | None, flags: MountFlag, data: str = "") -> None:
    result = _libc.mount(
        os.fsencode(source),
        os.fsencode(target),
        os.fsencode(kind) if kind else None,
        ctypes.c_ulong(flags),
        os.fsencode(data) if data else None,
    )
    _check(result, f"mount {target}")


def unmount(target: str) -> None:
    _check(_libc.umount2(os.fsencode(target), ctypes.c_int(0)), f"umount {target}")


def die_with_parent() -> None:
    """SIGKILL for this process when the *thread* that forked it ends: for one-thread parents."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def stay_readable() -> None:
    """Lets /proc/self be read after a change of user namespace, which takes that away."""
    _prctl(_PR_SET_DUMPABLE, 1)


def _prctl(option: int, value: int) -> None:
    zero = ctypes.c_ulong(0)
    _check(_libc.prctl(ctypes.c_int(option), ctypes.c_ulong(value), zero, zero, zero), "prctl")


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
