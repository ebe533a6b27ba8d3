"""A panic that is the emulator's fault is told from all others, and resets the machine."""

from __future__ import annotations

import json
import socket

import pytest

from amibuild.local.machines.emulation import killed_by_emulator
from amibuild.local.machines.monitor import Monitor

# Of the console of a machine that died of it, shortened.
BOOT = b"[    0.000000] Linux version 6.12.118+deb13-cloud-amd64\r\n"
OOPS = b"[   29.162003] Oops: int3: 0000 [#1] PREEMPT SMP NOPTI\r\n"
PANIC = b"[   29.917979] Kernel panic - not syncing: Fatal exception in interrupt\r\n"
OTHER = b"[    3.000000] Kernel panic - not syncing: VFS: Unable to mount root fs\r\n"


@pytest.mark.parametrize(
    ("console", "killed"),
    [
        (BOOT + OOPS + PANIC, True),
        (OOPS + PANIC, True),  # the beginning has scrolled away
        (BOOT + OOPS, False),
        (BOOT + OTHER, False),
        (BOOT + b"login: ", False),
        (BOOT + OOPS + PANIC + BOOT, False),  # it has been reset since
        (BOOT + OTHER + BOOT + OOPS + PANIC, True),
        (b"", False),
    ],
)
def test_only_a_panic_by_a_stale_breakpoint_is_the_emulators(console: bytes, killed: bool) -> None:
    assert killed_by_emulator(console) is killed


def test_the_monitor_presses_reset() -> None:
    near, far = socket.socketpair()
    monitor = Monitor(near, name="test")
    with far, far.makefile("rw") as lines:
        assert json.loads(lines.readline())["execute"] == "qmp_capabilities"
        lines.write(json.dumps({"return": {}, "id": 1}) + "\n")
        lines.flush()
        monitor.reset()
        assert json.loads(lines.readline())["execute"] == "system_reset"
    monitor.close()
