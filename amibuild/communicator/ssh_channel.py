"""What goes through one channel of an SSH connection: a command's files, what it says, its end."""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import paramiko

from amibuild.communicator import shell, unit
from amibuild.communicator.base import RemoteJob
from amibuild.communicator.packing import (
    Holding,
    Packer,
    Send,
    equal,
    is_worth_pressing,
    read_holding,
)
from amibuild.communicator.ssh_link import SILENCE_S, Away
from amibuild.wait import SHARE_OF_ELAPSED, Clock, Observer, Waiting

if TYPE_CHECKING:
    from typing_extensions import Buffer

PACKET_BYTES = 32 * 1024
PIECE_BYTES = 1024 * 1024
# What takes longer to press than to send is not worth it: nothing limits what goes there.
LEVEL = 1
TELL_S = 1.0

Passed = Callable[[int], None]
"""Hears of each part that has passed, in bytes."""


@dataclass(frozen=True)
class Done:
    exit_code: int
    stdout: bytes
    stderr: str

    @property
    def text(self) -> str:
        return self.stdout.decode(errors="replace")

    @property
    def is_told(self) -> bool:
        """Whether it says how its job ended."""
        return bool(shell.read_end(self.text) or shell.HEADER.match(self.text))


@contextmanager
def unless_ended(channel: paramiko.Channel) -> Iterator[None]:
    """Around what is sent: it may have ended there, for want of space on its disk, and says so."""
    try:
        yield
    except OSError as error:
        told = not isinstance(error, TimeoutError) and channel.status_event.wait(SILENCE_S)
        if not (told and channel.recv_exit_status() > 0):
            raise


def sending(channel: paramiko.Channel) -> Send:
    def send(part: bytes) -> None:
        # As much as a packet takes, for each gets a copy of what it was offered.
        offset = 0
        while offset < len(part):
            offset += channel.send(part[offset : offset + PACKET_BYTES])

    return send


def upload_job(channel: paramiko.Channel, job: RemoteJob, holding: Holding, told: Told) -> None:
    send = told.of(sending(channel))
    there = equal(job.files, holding)
    sent = [file for file in job.files if file.path not in there]
    is_pressed = is_worth_pressing(sent, len(job.files))
    send(b"z\n" if is_pressed else b"\n")
    shell.pack_job(job, Packer(send, LEVEL if is_pressed else None), there)
    channel.shutdown_write()


class Told:
    """Tells now and then how much has passed, the less often the longer it takes."""

    def __init__(self, what: str, timeout_s: float, observer: Observer, clock: Clock) -> None:
        self._what = what
        self._timeout_s = timeout_s
        self._observer = observer
        self._clock = clock
        self._began = self._last = clock.monotonic()
        self._passed = 0

    def begin(self) -> Passed:
        """From nothing, since what is cut is sent again."""
        self._passed = 0
        return self._pass

    def of(self, send: Send) -> Send:
        passed = self.begin()

        def counted(part: bytes) -> None:
            send(part)
            passed(len(part))

        return counted

    def _pass(self, size: int) -> None:
        self._passed += size
        now = self._clock.monotonic()
        elapsed = now - self._began
        if now - self._last >= max(TELL_S, elapsed * SHARE_OF_ELAPSED):
            self._last = now
            state = f"{self._passed / 1e6:,.1f} MB"
            self._observer(Waiting(self._what, state, elapsed, self._timeout_s))


class _Incoming(io.RawIOBase):
    def __init__(self, channel: paramiko.Channel, passed: Passed) -> None:
        self._channel = channel
        self._passed = passed

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Buffer) -> int:
        with memoryview(buffer) as room:
            data = self._channel.recv(len(room))
            room[: len(data)] = data
        self._passed(len(data))
        return len(data)


def incoming(channel: paramiko.Channel, passed: Passed = lambda size: None) -> io.BufferedReader:
    """What comes, in large pieces: paramiko moves all that it holds, up to 16 MiB, for each."""
    return io.BufferedReader(_Incoming(channel, passed), PIECE_BYTES)


def holding_of(channel: paramiko.Channel) -> tuple[bytes, Holding | None]:
    """What the machine has of the job already; or its first line, where that says another thing."""
    line = b""
    while not line.endswith(b"\n") and (byte := channel.recv(1)):
        line += byte
    word, _, size = line.decode(errors="replace").strip().partition(" ")
    if word != unit.HAS_LINE:
        return line, None
    if size == "0":
        return b"", Holding()
    try:
        return b"", read_holding(incoming(channel).read(int(size)), unit.HAS)
    except (ValueError, EOFError, zlib.error):
        raise Away("what it said that it has came damaged") from None


def read_all(channel: paramiko.Channel) -> Done:
    """All that a command said, and how it ended. Raises: Away, and what breaks on the way."""
    stdout = incoming(channel).read()
    stderr = channel.makefile_stderr("rb").read()
    status = channel.recv_exit_status() if channel.status_event.wait(SILENCE_S) else -1
    if status < 0:
        raise Away("the connection broke before the command ended")
    return Done(status, stdout, stderr.decode(errors="replace"))
