"""A kernel that the emulator killed, told from one that died by itself.

Linux changes its own code while it runs: when the first unit gets a share of the processors, for
one. It puts a breakpoint (int3) where it writes, until all processors know the new code. A QEMU
before 8.1 that emulates two processors may keep what it translated meanwhile, and the kernel meets
a breakpoint that nobody knows any more: `Oops: int3`, and a panic. Seen once with QEMU 7.2; that
this is why is inferred from the trace. One processor would end it: a bake took 355 s with one, and
275 s with two.
"""

from __future__ import annotations

BEGAN = b"Linux version"
PANIC = b"Kernel panic - not syncing"
STALE_BREAKPOINT = b"Oops: int3"
# A machine that dies like this each time has another reason.
MOST_RESETS = 2


def killed_by_emulator(console: bytes) -> bool:
    """By what the console says of the boot that it shows last."""
    last = console[max(console.rfind(BEGAN), 0) :]
    oops = last.find(STALE_BREAKPOINT)
    return 0 <= oops < last.find(PANIC)
