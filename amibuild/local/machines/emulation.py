"""A kernel that the emulator killed or holds still, told from one that died by itself.

Linux changes its own code while it runs: when the first unit gets a share of the processors, for
one. It puts a breakpoint (int3) where it writes, until all processors know the new code. A QEMU
before 8.1 that emulates two processors may keep what it translated meanwhile, and the kernel meets
a breakpoint that nobody knows any more: `Oops: int3`, and a panic. Seen once with QEMU 7.2; that
this is why is inferred from the trace. Seen once as well: a kernel that said nothing more after
2.3 s, with one processor busy for 11 minutes. One processor would end both: a bake took 355 s with
one, and 275 s with two.
"""

from __future__ import annotations

import enum

from amibuild.wait import Clock, SystemClock

BEGAN = b"Linux version"
PANIC = b"Kernel panic - not syncing"
STALE_BREAKPOINT = b"Oops: int3"
# What the kernel says last by itself; programs may be silent for long.
ENDED = b"Run /init as init process"
# A kernel says something each few seconds until then, also when its host is busy.
STILL_S = 60.0
# A machine that dies like this each time has another reason.
MOST_RESETS = 2


class Lost(enum.Enum):
    """What the emulator did to a kernel."""

    KILLED = "killed the guest's kernel (Oops: int3)"
    STILL = f"holds the guest's kernel still (no word for {STILL_S:.0f} s)"


class Pulse:
    """Feels a machine's console each time it is shown."""

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._seen = b""
        self._since = self._clock.monotonic()

    def lost(self, console: bytes) -> Lost | None:
        """By what the console says of the boot that it shows last."""
        now = self._clock.monotonic()
        if console != self._seen:
            self._seen, self._since = console, now
        begin = console.rfind(BEGAN)
        last = console[max(begin, 0) :]
        oops = last.find(STALE_BREAKPOINT)
        if 0 <= oops < last.find(PANIC):
            return Lost.KILLED
        in_kernel = begin >= 0 and ENDED not in last and PANIC not in last
        return Lost.STILL if in_kernel and now - self._since >= STILL_S else None
