"""What the emulator did to a kernel is told from what it did to itself, and resets the machine."""

from __future__ import annotations

import json
import socket

import pytest

from amibuild.local.machines.emulation import STILL_S, Lost, Pulse
from amibuild.local.machines.monitor import Monitor
from tests.unit.fakes import FakeClock

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
    assert (Pulse().lost(console) is Lost.KILLED) is killed


HELD = BOOT + b"[    2.300000] tsc: Refined TSC clocksource calibration: 2593.903 MHz\r\n"


@pytest.mark.parametrize(
    ("console", "lost"),
    [
        (HELD, Lost.STILL),
        (b"BdsDxe: starting Boot0002\r\n", None),  # the firmware's own business
        (HELD + b"[    3.000000] Run /init as init process\r\n", None),
        (BOOT + OTHER, None),
        (BOOT + OTHER + HELD, Lost.STILL),
    ],
)
def test_a_kernel_that_says_no_more_before_its_first_program_is_held_still(
    console: bytes, lost: Lost | None
) -> None:
    clock = FakeClock()
    pulse = Pulse(clock)
    assert pulse.lost(console[:-9]) is None
    clock.sleep(STILL_S)
    assert pulse.lost(console) is None  # it has just said something
    clock.sleep(STILL_S - 1)
    assert pulse.lost(console) is None
    clock.sleep(1)
    assert pulse.lost(console) is lost


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
