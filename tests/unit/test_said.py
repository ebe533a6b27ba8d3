"""What a running step says is shown as it comes, also by a machine that is away for a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from amibuild.communicator.base import CommandResult, Ending, RemoteJob
from amibuild.communicator.said import LogLeft, Withheld, follow, rest, wait_until_over
from amibuild.errors import CommandFailed, NotFound, WaitTimeout
from amibuild.files import write_atomically
from amibuild.wait import Observer
from tests.unit.fakes import FakeClock

REBOOTED = CommandFailed(what="os-said", exit_code=1, reason="the machine rebooted")
AWAY = WaitTimeout(what="the boot id", waited_s=60, last_state="not reached")
UNKNOWN = NotFound(
    operation="SendCommand", code="InvalidInstanceId", message="i-1", region="us-east-1"
)


class Saying:
    """A machine whose log grows by each of these, or that fails so."""

    def __init__(self, *said: bytes | Exception) -> None:
        self.offsets: list[int] = []
        self._said: Iterator[bytes | Exception] = iter(said)
        self.left = len(said)

    def run(self, job: RemoteJob, observer: Observer) -> CommandResult:
        self.offsets.append(int(job.script.partition("from=")[2].split()[0]))
        self.left -= 1
        said = next(self._said)
        if isinstance(said, Exception):
            raise said
        begin = self.offsets[-1]
        if said.startswith(b"\0"):  # what the machine dropped
            begin, said = begin + said.count(b"\0"), said.lstrip(b"\0")
        return CommandResult(0, "withheld" if said == b"secret" else f"from {begin}", said, 0.1)

    def started(self, job: RemoteJob, observer: Observer) -> AbstractContextManager[Ending]:
        raise AssertionError("not asked for")


def followed(machine: Saying, read: int = 9) -> tuple[int, list[bytes], list[str]]:
    """Until nothing is left, or so many pieces were read."""
    seen: list[bytes] = []
    told: list[str] = []

    def show(piece: bytes) -> bool:
        seen.append(piece)
        return len(seen) < read

    def over() -> bool:
        return machine.left == 0

    shown = follow(machine, "os", over=over, show=show, away=told.append, clock=FakeClock())
    return shown, seen, told


@pytest.mark.parametrize("gone", [REBOOTED, AWAY, UNKNOWN])
def test_a_machine_that_is_away_is_asked_again_and_told_once(gone: Exception) -> None:
    machine = Saying(b"one", gone, gone, b"two", gone, b"")
    shown, seen, told = followed(machine)
    assert (shown, b"".join(seen)) == (6, b"onetwo")
    assert machine.offsets == [0, 3, 3, 3, 6, 6]
    assert len(told) == 2


def test_a_step_that_ends_while_its_machine_is_away_is_over() -> None:
    assert followed(Saying(b"one", AWAY))[:2] == (3, [b"one"])


def test_nobody_who_reads_is_told_no_more() -> None:
    machine = Saying(b"one", b"two", b"three")
    assert followed(machine, read=2)[1] == [b"one", b"two"]


def test_a_step_with_secrets_is_withheld() -> None:
    with pytest.raises(Withheld):
        followed(Saying(b"secret"))


def test_the_end_of_one_that_may_tell_secrets_is_waited_for() -> None:
    clock, ends = FakeClock(), iter([False, False, True])
    wait_until_over("step", lambda: next(ends), clock)
    assert next(ends, None) is None
    assert clock.monotonic() > 0


def test_the_rest_is_of_the_log_that_it_left_and_of_no_earlier_one(tmp_path: Path) -> None:
    log = tmp_path / "os.log"
    first = LogLeft(log)
    assert first.rest(0) == b""
    write_atomically(log, "one two")
    assert first.rest(4) == b"two"
    second = LogLeft(log)
    assert second.rest(1) == b""
    write_atomically(log, "its own")
    assert second.rest(4) == b"own"


def test_what_the_machine_dropped_meanwhile_is_told_and_not_asked_for_again() -> None:
    machine = Saying(b"one", bytes(90) + b"two", b"")
    shown, seen, _ = followed(machine)
    assert (shown, b"".join(seen)) == (96, b"one\n... 90 bytes left out ...\ntwo")
    assert machine.offsets == [0, 3, 96]


@pytest.mark.parametrize(
    ("offset", "shown"),
    [
        (3, b"in\n... 90 bytes left out ...\nend\n"),
        (5, b"\n... 90 bytes left out ...\nend\n"),
        (35, b"\n... 60 bytes left out ...\nend\n"),
        (95, b"end\n"),
        (97, b"d\n"),
        (200, b""),
    ],
)
def test_the_rest_of_a_log_that_came_cut_begins_where_it_was_read_to(
    offset: int, shown: bytes
) -> None:
    assert rest(b"begin\n... 90 bytes left out ...\nend\n", offset) == shown
    assert rest(b"begin\nend\n", 3) == b"in\nend\n"
