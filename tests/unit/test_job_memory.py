"""What a job prints is in memory on its machine: there is little of it, and a step may fill it."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from amibuild.communicator import log, shell
from amibuild.communicator.base import CommandResult, RemoteJob, check
from amibuild.communicator.ssm import SsmCommunicator
from amibuild.errors import CommandFailed
from amibuild.library.step import StepFile
from amibuild.steps.hints import hint_for
from amibuild.wait import silent
from tests.unit.fakes import FakeClock, ShellSsm

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a tmpfs")
MIB = 1024 * 1024
# Prints so much, and waits until its log holds less than so many blocks of 512 bytes.
PRINTED = """\
exec 3>&1
printed() {
    head -c "$1" /dev/zero | tr '\\0' x
    until [ "$(stat -L -c %b /dev/fd/3)" -lt "$2" ]; do sleep 0.02; done
}
"""


@pytest.fixture
def ssm(tmp_path: Path) -> ShellSsm:
    return ShellSsm(tmp_path / "run")


def small(ssm: ShellSsm, size: str) -> ShellSsm:
    """Its /run is a tmpfs of that size, which goes with the command's own mount namespace."""
    ssm.root.mkdir()
    ssm.shell = ["unshare", "--mount", *ssm.shell]
    ssm.before = f"mount -t tmpfs -o size={size} none {ssm.root} || exit\n"
    return ssm


def run(ssm: ShellSsm, script: str, *files: StepFile, timeout_s: int = 60) -> CommandResult:
    job = RemoteJob("step", script, timeout_s, files)
    return SsmCommunicator(ssm, "i-1", clock=FakeClock()).run(job, silent)


def test_the_middle_of_a_long_log_is_dropped_while_it_grows(
    ssm: ShellSsm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log, "LOG_HELD_BYTES", 2 * MIB)
    monkeypatch.setattr(log, "LOG_LIMIT_BYTES", MIB)
    done = run(ssm, f"{PRINTED}echo begin; printed 6M 4096; printed 6M 4096; echo end; exit 3")
    assert done.exit_code == 3
    assert done.log.startswith("begin\nxxx")
    assert done.log.endswith("xxxend\n")
    assert f"... {12 * MIB + 10 - MIB} bytes left out ..." in done.log
    kept = next(ssm.root.glob("step/job-*/log")).stat()
    assert kept.st_size == 12 * MIB + 10
    assert kept.st_blocks * 512 < 2 * MIB


@as_root
def test_a_step_may_print_more_than_its_machine_has_memory_for(ssm: ShellSsm) -> None:
    turn = "printed 24M 81920"
    done = run(small(ssm, "72M"), f"{PRINTED}set -e\necho begin\n{f'{turn}; ' * 8}echo; echo end")
    assert done.exit_code == 0
    assert done.log.startswith("begin\n")
    assert done.log.endswith("x\nend\n")
    assert f"... {8 * 24 * MIB + 11 - log.LOG_LIMIT_BYTES} bytes left out ..." in done.log


@as_root
@pytest.mark.parametrize("what", ["in its folder", "in its log"])
def test_a_step_that_fills_the_memory_is_told_so_with_its_exit_code(
    ssm: ShellSsm, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log, "LOOK_S", 100)  # it prints faster than anybody looks
    where = {"in its folder": ">big", "in its log": ""}[what]
    done = run(small(ssm, "16M"), f"echo begin; head -c 100M /dev/zero {where} || exit 7")
    assert done.log.startswith("begin\n")
    with pytest.raises(CommandFailed, match="ended with exit code 7") as caught:
        check("step", done)
    assert caught.value.tail[-1] == shell.FULL
    assert hint_for(caught.value) == shell.FULL_HINT


@as_root
def test_one_that_succeeded_all_the_same_has_succeeded(ssm: ShellSsm) -> None:
    done = run(small(ssm, "16M"), "echo begin; head -c 100M /dev/zero >big 2>said; echo end")
    assert (done.exit_code, done.log) == (0, "begin\nend\n")


@as_root
def test_one_whose_time_is_up_with_its_memory_full_is_told_as_such(ssm: ShellSsm) -> None:
    script = "echo begin; head -c 100M /dev/zero >big; sleep 1000"
    with pytest.raises(CommandFailed, match="did not end within 1 s") as caught:
        run(small(ssm, "16M"), script, timeout_s=1)
    assert caught.value.tail[0] == "begin"


@as_root
def test_a_result_that_fills_the_memory_is_told_so(ssm: ShellSsm) -> None:
    script = "echo begin; head -c 12M /dev/urandom >$AMIBUILD_RESULT"
    with pytest.raises(CommandFailed, match="could not be run to its end") as caught:
        run(small(ssm, "16M"), script)
    assert caught.value.tail[0] == "begin"
    assert caught.value.tail[-1] == shell.FULL


@as_root
def test_a_step_whose_files_do_not_fit_is_told_so(ssm: ShellSsm) -> None:
    with pytest.raises(CommandFailed, match="before it began its work") as caught:
        run(small(ssm, "64k"), "true", StepFile("large", b"x" * MIB))
    assert caught.value.hint == shell.FULL_HINT
    assert ssm.systemd.started == []


def test_a_process_that_a_script_leaves_behind_does_not_hold_its_job(
    ssm: ShellSsm, tmp_path: Path
) -> None:
    left = tmp_path / "left"
    done: list[CommandResult] = []
    script = f"(until [ -e {left} ]; do sleep 0.1; done) & echo begun"
    waiting = threading.Thread(target=lambda: done.append(run(ssm, script)))
    waiting.start()
    try:
        waiting.join(30)
        assert [one.log for one in done] == ["begun\n"]
    finally:
        left.touch()
        waiting.join(60)
