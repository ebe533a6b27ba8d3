"""What a machine is told of its own end; systemd is played by stubs."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import pytest

from amibuild import proc
from amibuild.aws.ssm import Invocation
from amibuild.communicator import unit
from amibuild.communicator.base import CommandResult, Ending, RemoteJob
from amibuild.communicator.ssm import SsmCommunicator
from amibuild.errors import CommandFailed
from amibuild.library.bootstrap import PER_BOOT, lease_user_data
from amibuild.steps.connect import first_boot, wait_for_first_boot
from amibuild.verify.boot import run_checks
from amibuild.wait import Observer, silent
from tests.unit.fakes import FakeClock, ShellSsm

LEASE = timedelta(hours=2)
BEGIN = (
    "systemd-run --quiet --unit=amibuild-lease --on-active=7200 "
    "--timer-property=AccuracySec=1s --timer-property=StartLimitIntervalSec=0 systemctl poweroff"
)
RENEW = "systemctl restart amibuild-lease.timer"
WAIT = "cloud-init status --wait --long"


class Stubs:
    """Programs that write down how they were called; those of `failing` end badly."""

    def __init__(self, folder: Path) -> None:
        self.bin, self.log = folder / "bin", folder / "called"
        self.bin.mkdir()
        self.log.touch()

    def add(self, name: str, *, exit_code: int = 0) -> None:
        path = self.bin / name
        path.write_text(f'#!/bin/sh\necho "{name} $*" >>{self.log}\nexit {exit_code}\n')
        path.chmod(0o755)

    @property
    def called(self) -> list[str]:
        return self.log.read_text().splitlines()


@pytest.fixture
def stubs(tmp_path: Path) -> Stubs:
    made = Stubs(tmp_path)
    for name in ("systemd-run", "systemctl", "cloud-init"):
        made.add(name)
    return made


class StubbedSsm(ShellSsm):
    """A machine whose systemd is stubs, and whose timer is a file."""

    def __init__(self, root: Path, stubs: Stubs) -> None:
        super().__init__(root / "run")
        self.timer = root / "timer"
        self.before = f"PATH={stubs.bin}:$PATH\n"

    def ran(self, script: str) -> Invocation:
        return super().ran(script.replace(unit.LEASE, str(self.timer)))


@pytest.fixture
def machine(tmp_path: Path, stubs: Stubs) -> StubbedSsm:
    return StubbedSsm(tmp_path, stubs)


def connect(machine: StubbedSsm) -> None:
    wait_for_first_boot(SsmCommunicator(machine, "i-1", clock=FakeClock()), LEASE, silent)


@pytest.mark.parametrize("exit_code", [0, 1])
def test_the_lease_begins_with_each_boot_and_does_not_hold_it_up(
    tmp_path: Path, stubs: Stubs, exit_code: int
) -> None:
    """Who launched the machine may die before its first job; cloud-init runs this."""
    for name in ("systemd-run", "systemctl"):
        stubs.add(name, exit_code=exit_code)
    script, per_boot = tmp_path / "user-data", tmp_path / "per boot"
    here = lease_user_data(LEASE).decode().replace(PER_BOOT, f"'{per_boot}'")
    script.write_text(here)
    proc.run(["bash", "-c", f"PATH={stubs.bin}:$PATH bash {script}"])
    once = [BEGIN, RENEW] if exit_code else [BEGIN]
    assert stubs.called == once
    (left,) = per_boot.iterdir()
    done = proc.run(["bash", "-c", f"PATH={stubs.bin}:$PATH '{left}'"], check=False)
    assert done.exit_code == exit_code
    assert stubs.called == once * 2


def test_a_machine_that_can_not_keep_the_script_has_its_lease_from_the_first_job(
    tmp_path: Path, stubs: Stubs
) -> None:
    (tmp_path / "file").touch()
    here = lease_user_data(LEASE).decode().replace(PER_BOOT, f"{tmp_path}/file/per-boot")
    proc.run(["bash", "-c", here])


def test_the_lease_begins_before_the_first_boot_is_waited_for(
    machine: StubbedSsm, stubs: Stubs
) -> None:
    connect(machine)
    assert stubs.called == [BEGIN, WAIT]
    assert len(machine.sent) == 1, "a command of its own would cost a second or two"


def test_a_second_connect_begins_it_anew(machine: StubbedSsm, stubs: Stubs) -> None:
    stubs.add("systemd-run", exit_code=1)  # "was already loaded or has a fragment file"
    connect(machine)
    assert stubs.called == [BEGIN, RENEW, WAIT]


def test_a_machine_that_can_have_no_lease_is_not_worked_on(
    machine: StubbedSsm, stubs: Stubs
) -> None:
    for name in ("systemd-run", "systemctl"):
        stubs.add(name, exit_code=1)
    with pytest.raises(CommandFailed, match="first boot") as failed:
        connect(machine)
    assert "this machine can't be told to end by itself: " in failed.value.tail
    assert WAIT not in stubs.called


@pytest.mark.parametrize("there", [True, False])
def test_each_job_sets_a_lease_back_that_is_there(
    machine: StubbedSsm, stubs: Stubs, there: bool
) -> None:
    if there:
        machine.timer.touch()
    job = RemoteJob("os", "echo works; exit 3", 60)
    done = SsmCommunicator(machine, "i-1", clock=FakeClock()).run(job, silent)
    assert (done.exit_code, done.log) == (3, "works\n")
    assert stubs.called == ([RENEW] if there else [])


def test_a_lease_that_can_not_be_set_back_fails_no_job(machine: StubbedSsm, stubs: Stubs) -> None:
    machine.timer.touch()
    stubs.add("systemctl", exit_code=1)
    job = RemoteJob("os", "echo works", 60)
    assert SsmCommunicator(machine, "i-1", clock=FakeClock()).run(job, silent).exit_code == 0


class Recorder:
    """Takes one job, and answers as a verify machine."""

    def __init__(self) -> None:
        self.jobs: list[RemoteJob] = []

    def run(self, job: RemoteJob, observer: Observer) -> CommandResult:
        self.jobs.append(job)
        report = {"version": 1, "python": "3.13.5", "seconds": 1, "exit_code": 0, "checks": []}
        return CommandResult(0, "", json.dumps(report).encode(), 1.0)

    def started(self, job: RemoteJob, observer: Observer) -> Ending:
        raise AssertionError("nothing else is started")


def test_the_checks_take_the_lease_along(tmp_path: Path) -> None:
    recorder = Recorder()
    run_checks(recorder, [], LEASE, tmp_path, 60, silent)  # type: ignore[arg-type]
    (job,) = recorder.jobs
    assert job.environment == first_boot(LEASE).environment == {"LEASE_S": "7200"}
    (sent,) = (file for file in job.files if file.path == "first-boot.sh")
    assert sent.content.decode() == first_boot(LEASE).script
    assert "\nbash first-boot.sh\n" in job.script


def test_seal_stops_every_timer_but_the_lease(tmp_path: Path, stubs: Stubs) -> None:
    script = (Path(__file__).parents[2] / "provisioners/seal/run.sh").read_text()
    begin = script.index("    systemctl list-units --type=timer")
    stops = script[begin : script.index("\n    systemctl stop systemd-random-seed")]
    (stubs.bin / "systemctl").write_text(
        f'#!/bin/sh\n[ "$1" = list-units ] || exec echo "$*" >>{stubs.log}\n'
        "for unit in fstrim amibuild-lease logrotate; do\n"
        '    echo "$unit.timer loaded active waiting what it is for"\ndone\n'
    )
    proc.run(["bash", "-c", f"set -euo pipefail\nPATH={stubs.bin}:$PATH\n{stops}"])
    assert stubs.called == ["stop fstrim.timer logrotate.timer"]
