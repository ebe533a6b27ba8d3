"""A stream is read to its end, and only its first or last part is kept."""

from __future__ import annotations

import os

from amibuild.local.machines.console import Reader

DEADLINE_S = 10


def everything(content: bytes, *, limit: int, keep_first: bool) -> bytes:
    read, write = os.pipe()
    reader = Reader(read, limit=limit, keep_first=keep_first, name="test")
    with os.fdopen(write, "wb") as stream:
        stream.write(content)
    assert reader.ended(DEADLINE_S)
    return reader.content()


def test_a_console_keeps_its_last_bytes() -> None:
    long = b"".join(b"%09d\n" % n for n in range(100_000))
    assert everything(long, limit=64 * 1024, keep_first=False) == long[-64 * 1024 :]


def test_an_output_keeps_its_first_bytes_and_does_not_hold_up_the_writer() -> None:
    long = b"".join(b"%09d\n" % n for n in range(300_000))  # 3 MB
    assert everything(long, limit=1 << 20, keep_first=True) == long[: 1 << 20]


def test_what_is_there_can_be_read_before_the_end() -> None:
    read, write = os.pipe()
    reader = Reader(read, limit=100, keep_first=True, name="test")
    assert not reader.ended()
    os.close(write)
    assert reader.ended(DEADLINE_S)
    assert reader.content() == b""
