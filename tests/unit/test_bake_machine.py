"""A command on a bake's machine, and what a running step has said, with a shell at the far end."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from amibuild import proc
from amibuild.bake_machine import HOME, STDOUT_LIMIT_BYTES, BakeMachine
from amibuild.communicator.base import CommandResult, Ending, RemoteJob
from amibuild.communicator.said import CHUNK_BYTES, Said, Withheld, said_since
from amibuild.communicator.shell import WORK
from amibuild.guests import Ran
from amibuild.names import InstanceId
from amibuild.wait import Observer


class Here:
    """Runs jobs on this machine, in a folder that stands for a machine's."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.names: list[str] = []

    def run(self, job: RemoteJob, observer: Observer) -> CommandResult:
        self.names.append(job.name)
        at = self.folder / job.name
        at.mkdir(parents=True)
        for file in job.files:
            (at / file.path).write_bytes(file.content)
        environment = {**job.environment, "AMIBUILD_RESULT": str(at / "result")}
        if environment.get("HOME") == HOME:
            environment["HOME"] = str(self.folder)
        script = job.script.replace(WORK, str(self.folder))
        (at / "run.sh").write_text(f"{script}")
        log = at / "said"
        done = proc.run(
            ["bash", "-c", f"exec bash run.sh </dev/null >{log} 2>&1"],
            cwd=at,
            check=False,
            env=environment,
        )
        result = at / "result"
        handed = result.read_bytes() if result.exists() else b""
        return CommandResult(done.exit_code, log.read_text(), handed, 0.1)

    def started(self, job: RemoteJob, observer: Observer) -> AbstractContextManager[Ending]:
        raise AssertionError(job.name)


@pytest.fixture
def here(tmp_path: Path) -> Here:
    return Here(tmp_path / "machine")


def run(here: Here, script: str) -> Ran:
    return BakeMachine(InstanceId("i-1"), here).run(script.encode(), timeout_s=60)


def test_output_and_errors_come_apart_and_the_exit_code_with_them(here: Here) -> None:
    ran = run(here, r"printf '\377\000x'; echo oh >&2; exit 7")
    assert ran == Ran(7, b"\xff\x00x", b"oh\n")


def test_it_begins_at_home_with_nothing_on_stdin_and_without_our_variables(here: Here) -> None:
    ran = run(here, 'cat; pwd; echo "$HISTFILE"; env | grep -c "AMIBUILD_RESULT\\|LIMIT_BYTES"')
    assert ran.stdout.decode().splitlines() == [str(here.folder), "/dev/null", "0"]


def test_too_much_output_is_cut_and_that_is_said(here: Here) -> None:
    ran = run(here, f"head -c {STDOUT_LIMIT_BYTES + 1} /dev/zero")
    assert (ran.exit_code, len(ran.stdout)) == (0, STDOUT_LIMIT_BYTES)
    assert str(STDOUT_LIMIT_BYTES + 1) in ran.stderr.decode()


def test_two_at_a_time_do_not_meet(here: Here) -> None:
    run(here, "true")
    run(here, "true")
    assert len(set(here.names)) == 2


def test_what_a_step_says_is_fetched_from_where_the_last_look_ended(here: Here) -> None:
    log = here.folder / "os" / "job-a" / "log"
    assert said(here, 0) == b""
    log.parent.mkdir(parents=True)
    log.write_bytes(b"one\n")
    assert said(here, 0) == b"one\n"
    log.write_bytes(b"one\n" + b"x" * CHUNK_BYTES + b"y")
    assert said(here, 4) == b"x" * CHUNK_BYTES
    assert said(here, 4 + CHUNK_BYTES) == b"y"


def test_of_a_step_that_ran_twice_the_newer_one_is_told(here: Here) -> None:
    for number, name in enumerate(("job-b", "job-a")):
        log = here.folder / "os" / name / "log"
        log.parent.mkdir(parents=True)
        log.write_text(name)
        os.utime(log, (number, number))
    assert said(here, 0) == b"job-a"


def test_of_a_middle_that_was_dropped_only_the_size_is_told(here: Here) -> None:
    log = here.folder / "os" / "job-a" / "log"
    log.parent.mkdir(parents=True)
    log.write_bytes(b"begin" + bytes(100) + b"end\n")
    log.with_name("cut").write_text("5 105\n")
    assert told(here, 0) == Said(b"begin")
    assert told(here, 5) == Said(b"end\n", left_out=100)
    assert told(here, 65) == Said(b"end\n", left_out=40)
    assert told(here, 107) == Said(b"d\n")
    assert told(here, 5).shown == b"\n... 100 bytes left out ...\nend\n"


@pytest.mark.parametrize("mark", ["secrets", "reader.pem"])
def test_what_a_step_with_secrets_says_stays_there(here: Here, mark: str) -> None:
    log = here.folder / "os" / "job-a" / "log"
    log.parent.mkdir(parents=True)
    log.write_text("the secret")
    log.with_name(mark).touch()
    with pytest.raises(Withheld):
        said(here, 0)


def said(here: Here, offset: int) -> bytes:
    return told(here, offset).text


def told(here: Here, offset: int) -> Said:
    found = said_since(here, "os", offset)
    # The next look has a folder of its own on a machine.
    (here.folder / "os-said").rename(here.folder / f"os-said-{len(here.names)}")
    return found
