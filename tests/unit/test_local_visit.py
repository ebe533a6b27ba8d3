"""What stands on a machine's console is handed on once, whatever is forgotten of it meanwhile."""

from __future__ import annotations

import os

import pytest

from amibuild.local.machines.console import CONSOLE_LIMIT
from amibuild.local.usage import memory, usage
from amibuild.local.visit import added

# Lines that all differ, as much as is kept of a console.
FULL = "".join(f"line {n}\n" for n in range(10_000)).encode()[-CONSOLE_LIMIT:]


@pytest.mark.parametrize(
    ("seen", "now", "new"),
    [
        (b"", b"boot\n", b"boot\n"),
        (b"boot\n", b"boot\nlogin:", b"login:"),
        (b"boot\n", b"boot\n", b""),
        (FULL, FULL[5000:] + b"new", b"new"),
        (b"the end of the old machine", b"the new one boots", b"the new one boots"),
        (b"something", b"", b""),
    ],
    ids=["first", "more", "same", "its start was forgotten", "rebooted", "off"],
)
def test_only_what_is_new_on_the_console_is_handed_on(seen: bytes, now: bytes, new: bytes) -> None:
    assert added(seen, now) == new


def test_a_process_takes_memory_and_one_that_is_gone_none() -> None:
    assert memory([os.getpid()]) > 1 << 20
    assert memory([2**22 + 1]) == 0


def test_a_disk_that_is_not_made_yet_takes_nothing() -> None:
    assert usage({"disk": "/nowhere/disk.raw", "pids": []}) == {
        "disk_bytes": 0,
        "disk_allocated_bytes": 0,
        "memory_bytes": 0,
    }
