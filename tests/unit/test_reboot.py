"""A reboot is one when the boot id is another; whatever is lost meanwhile is asked for again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import replace

import pytest

from amibuild.communicator.base import CommandResult, Ending, RemoteJob
from amibuild.errors import CommandFailed, WaitTimeout
from amibuild.steps.reboot import reboot
from amibuild.wait import Observer, silent
from tests.unit.fakes import FakeClock
from tests.unit.samples import build_step

AWAY = CommandFailed(what="boot-id", exit_code=None, reason="never reached the machine")


class Booting:
    """A machine that answers its boot ids in turn, the last for ever; an error is raised."""

    def __init__(self, *boots: str | CommandFailed, refuses: int = 0) -> None:
        self.jobs: list[str] = []
        self._boots: Iterator[str | CommandFailed] = iter(boots)
        self._last = boots[-1]
        self._refuses = refuses

    def run(self, job: RemoteJob, observer: Observer) -> CommandResult:
        self.jobs.append(job.name)
        if job.name == "reboot":
            return CommandResult(self._refuses, "said no\n" if self._refuses else "", b"", 0.1)
        boot = next(self._boots, self._last)
        if isinstance(boot, CommandFailed):
            raise boot
        return CommandResult(0, "", f"{boot}\n".encode(), 0.1)

    def started(self, job: RemoteJob, observer: Observer) -> AbstractContextManager[Ending]:
        raise AssertionError("not asked for")


def test_it_is_over_when_the_boot_id_is_another() -> None:
    machine = Booting("one", "one", AWAY, AWAY, "two")
    reboot(machine, timeout_s=60, observer=silent, clock=FakeClock())
    assert machine.jobs == ["boot-id", "reboot", *["boot-id"] * 4]


@pytest.mark.parametrize(
    ("after", "seen"), [("one", "not rebooted yet"), (AWAY, "never reached the machine")]
)
def test_a_machine_that_does_not_boot_anew_is_given_up(
    after: str | CommandFailed, seen: str
) -> None:
    with pytest.raises(WaitTimeout, match=seen):
        reboot(Booting("one", after), timeout_s=60, observer=silent, clock=FakeClock())


def test_one_that_refuses_is_told() -> None:
    with pytest.raises(CommandFailed, match="exit code 1") as caught:
        reboot(Booting("one", refuses=1), timeout_s=60, observer=silent, clock=FakeClock())
    assert caught.value.tail == ("said no",)


def test_a_step_that_reboots_makes_another_image() -> None:
    step = build_step()
    assert replace(step, reboots=True).digest != step.digest
