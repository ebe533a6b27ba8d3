"""Over SSH a step's time is its own: neither what it takes to send it, nor a cut, is taken off."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from amibuild import secret
from amibuild.communicator.base import RemoteJob
from amibuild.communicator.ssh import SshCommunicator
from amibuild.errors import CommandFailed, Interrupted
from amibuild.library.step import StepFile
from amibuild.proc import which
from amibuild.secret import Secret
from amibuild.wait import SystemClock, Waiting, silent
from tests.unit.ssh_server import Machine

FILES = (StepFile("files/x", os.urandom(2_000_000)),)


class Passing(SystemClock):
    """Time that somebody lets pass, and a little of this machine's."""

    passed_s = 0.0
    each_sleep_s = 0.0

    def monotonic(self) -> float:
        return super().monotonic() + self.passed_s

    def sleep(self, seconds: float) -> None:
        super().sleep(min(seconds, 0.1))
        self.passed_s += self.each_sleep_s


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    made = Machine(tmp_path / "run")
    yield made
    made.close()
    secret.forget_all()


def sending(do: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> Callable[[Waiting], None]:
    """An observer that does that once or more while a job's files are sent."""
    monkeypatch.setattr("amibuild.communicator.ssh_channel.TELL_S", 0)

    def observe(waiting: Waiting) -> None:
        if waiting.what == "step (sending it)":
            do()

    return observe


def test_the_time_for_sending_is_none_of_the_steps_and_is_told(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Passing()
    told: list[str] = []

    def slow(waiting: Waiting) -> None:
        if waiting.what == "step (sending it)":
            told.append(waiting.state)
            clock.passed_s += 200
            if len(told) == 1:
                machine.proxy.cut()

    monkeypatch.setattr("amibuild.communicator.ssh_channel.TELL_S", 0)
    ssh = SshCommunicator(machine.link, clock=clock)
    done = ssh.run(RemoteJob("step", "sleep 0.5; echo ran", 60, FILES), slow)
    assert done.log == "ran\n"
    assert told[-1].endswith(" MB")


def test_what_is_never_sent_to_its_end_is_given_up(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Passing()

    def fail() -> None:
        clock.passed_s += 2000
        machine.proxy.cut()

    ssh = SshCommunicator(machine.link, clock=clock)
    observer = sending(fail, monkeypatch)
    with pytest.raises(CommandFailed, match="its files were not there after 3600 s"):
        ssh.run(RemoteJob("step", "true", 60, FILES), observer)
    assert machine.systemd.started == []


@pytest.mark.parametrize(
    ("asked", "told_as", "secrets"),
    [
        ("cat /proc/sys/kernel/random/boot_id", "the boot id", {}),
        ("openssl req", "step (a key", {"token": Secret("token", "s3cr3t-of-a-game")}),
        ("/reply.tar.gz'", "step (its log)", {}),
    ],
)
def test_a_cut_of_minutes_ends_no_step_that_has_time_and_is_heard_of(
    machine: Machine, asked: str, told_as: str, secrets: dict[str, Secret]
) -> None:
    cuts: list[str] = []
    heard: list[str] = []

    def cut(command: str) -> None:
        if asked in command and "begin.sh" not in command and len(cuts) < 2:
            cuts.append(command)
            clock.each_sleep_s = 70
            machine.proxy.cut()

    clock = Passing()
    machine.on_command = cut
    script = "head -c 100000 /dev/urandom | base64"
    job = RemoteJob("step", script, 300, secrets=secrets)
    ssh = SshCommunicator(machine.link, clock=clock)
    done = ssh.run(job, lambda waiting: heard.append(f"{waiting.what}: {waiting.state}"))
    assert (done.exit_code, len(done.log) > 100_000, len(cuts)) == (0, True, 2)
    cut_off = [told for told in heard if told.startswith(told_as) and "not reached" in told]
    assert len(cut_off) == 2


def test_one_that_is_interrupted_while_it_is_sent_does_not_begin_later(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt() -> None:
        raise Interrupted("SIGINT")

    ssh = SshCommunicator(machine.link, new_id=lambda: "a1")
    with pytest.raises(Interrupted):
        ssh.run(RemoteJob("step", "true", 60, FILES), sending(interrupt, monkeypatch))
    assert (machine.root / "step/job-a1/began").exists()
    assert machine.systemd.started == []


def test_one_that_was_lost_as_soon_as_it_was_there_is_sent_again(
    machine: Machine, tmp_path: Path
) -> None:
    tar = machine.systemd.bin / "tar"
    tar.write_text(
        f'#!/bin/sh\n[ ! -e {tmp_path}/lost ] || exec {which("tar")} "$@"\n'
        f"cat >/dev/null\ntouch {tmp_path}/lost\nkill -9 $PPID\n"
    )
    tar.chmod(0o755)
    done = SshCommunicator(machine.link).run(RemoteJob("step", "echo ran", 60, FILES), silent)
    assert done.log == "ran\n"
    assert sum("begin.sh" in command for command in machine.commands) == 2
    assert len(machine.systemd.started) == 1
