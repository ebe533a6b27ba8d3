"""Jobs by Run Command, with a shell of this machine at the other end."""

from __future__ import annotations

import base64
import hashlib
import os
import re
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import BaseModel

from amibuild.aws.ssm import COMMAND_LIMIT_BYTES, STDOUT_LIMIT, Invocation
from amibuild.communicator import log, shell
from amibuild.communicator.base import CommandResult, RemoteJob, check, handed_back
from amibuild.communicator.ssm import SsmCommunicator
from amibuild.errors import CommandFailed, Interrupted
from amibuild.library.step import StepFile
from amibuild.wait import Waiting, silent
from tests.unit.fakes import FakeClock, ShellSsm

NASTY = "a'b\"c $HOME `id` \\ \n EOF\nAMIBUILD\n"


@pytest.fixture
def ssm(tmp_path: Path) -> ShellSsm:
    return ShellSsm(tmp_path / "run")


def run(ssm: ShellSsm, script: str, **more: object) -> CommandResult:
    job = RemoteJob("step", script, 60, **more)  # type: ignore[arg-type]
    return SsmCommunicator(ssm, "i-1", clock=FakeClock()).run(job, silent)


def test_output_exit_code_and_result_come_back(ssm: ShellSsm) -> None:
    done = run(ssm, "echo out; echo err >&2; printf data >$AMIBUILD_RESULT; exit 7")
    assert done.exit_code == 7
    assert done.log == "out\nerr\n"
    assert done.result == b"data"


def test_the_last_lines_are_there_to_read_in_the_console_too(ssm: ShellSsm) -> None:
    run(ssm, "seq 100; exit 1")
    assert ssm.done["command-1"].stderr.split() == [str(n) for n in range(81, 101)]


def test_a_failure_carries_the_end_of_the_log(ssm: ShellSsm) -> None:
    with pytest.raises(CommandFailed) as caught:
        check("os", run(ssm, "seq 100; exit 3"))
    assert caught.value.tail == tuple(str(n) for n in range(81, 101))
    assert caught.value.command_exit_code == 3


def test_parameters_and_files_arrive_as_they_are(ssm: ShellSsm) -> None:
    content = bytes(range(256))
    done = run(
        ssm,
        'printf %s "$PARAM" >"$AMIBUILD_RESULT"; cat files/x >>"$AMIBUILD_RESULT"; '
        "stat -c %a files/x; head -c1; ls environment.sh",
        environment={"PARAM": NASTY},
        files=(StepFile("files/x", content, 0o755),),
    )
    assert done.result == NASTY.encode() + content
    assert done.log.startswith("755\n")
    assert "environment.sh" in done.log
    assert done.exit_code == 2, "the parameters are not left beside the script"


def test_a_step_that_fits_is_one_command(ssm: ShellSsm) -> None:
    run(ssm, "true", files=(StepFile("x", os.urandom(40_000)),))
    assert len(ssm.sent) == 1
    assert len(ssm.sent[0].encode()) < COMMAND_LIMIT_BYTES


def test_a_large_payload_goes_in_pieces_under_the_limit(ssm: ShellSsm) -> None:
    content = os.urandom(150_000)
    done = run(ssm, "sha256sum x | cut -c1-64", files=(StepFile("x", content),))
    assert done.log.strip() == hashlib.sha256(content).hexdigest()
    assert len(ssm.sent) > 2
    assert max(len(script.encode()) for script in ssm.sent) < COMMAND_LIMIT_BYTES


def test_a_large_payload_goes_by_the_bucket_where_there_is_one(
    ssm: ShellSsm, tmp_path: Path
) -> None:
    content = os.urandom(150_000)

    def upload(payload: bytes) -> str:
        stored = tmp_path / "payload"
        stored.write_bytes(payload)
        return stored.as_uri()

    job = RemoteJob("step", "sha256sum x | cut -c1-64", 60, (StepFile("x", content),))
    done = SsmCommunicator(ssm, "i-1", upload=upload, clock=FakeClock()).run(job, silent)
    assert done.log.strip() == hashlib.sha256(content).hexdigest()
    assert len(ssm.sent) == 1


def test_a_payload_that_was_changed_on_its_way_does_not_run(ssm: ShellSsm, tmp_path: Path) -> None:
    def upload(payload: bytes) -> str:
        stored = tmp_path / "payload"
        stored.write_bytes(payload[:-1] + b"?")
        return stored.as_uri()

    job = RemoteJob("step", "touch ran", 60, (StepFile("x", os.urandom(150_000)),))
    with pytest.raises(CommandFailed, match="before it began"):
        SsmCommunicator(ssm, "i-1", upload=upload, clock=FakeClock()).run(job, silent)
    assert ssm.systemd.started == []


def test_a_long_log_comes_back_whole(ssm: ShellSsm) -> None:
    done = run(ssm, "head -c 200000 /dev/urandom | base64; exit 0")
    assert len(done.log) > 260_000
    assert len(ssm.sent) > 5
    assert all(len(one.stdout) <= STDOUT_LIMIT for one in ssm.done.values())


def test_a_huge_log_keeps_its_beginning_and_end(
    ssm: ShellSsm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log, "LOG_LIMIT_BYTES", 4096)
    done = run(ssm, "seq 100000")
    assert done.log.startswith("1\n2\n")
    assert done.log.endswith("99999\n100000\n")
    assert re.search(r"\.\.\. \d+ bytes left out \.\.\.", done.log)
    assert len(done.log) < 5000


def test_a_log_that_cannot_be_packed_comes_in_few_commands(ssm: ShellSsm) -> None:
    done = run(ssm, "echo begin; head -c 3M /dev/urandom; echo end")
    assert done.log.startswith("begin\n")
    assert done.log.endswith("end\n")
    assert f"{3 * 1024 * 1024 + 10 - log.LOG_CUT_BYTES} bytes left out" in done.log
    assert len(ssm.sent) <= 1 + log.LOG_CUT_BYTES // shell.REPLY_BYTES + 1


def test_output_that_is_no_text_does_no_harm(ssm: ShellSsm) -> None:
    done = run(ssm, r"printf '\377\376\000ok\n'")
    assert done.log.endswith("ok\n")


class Stuck(ShellSsm):
    """A command that never reports."""

    def invocation(self, command_id: str, instance_id: str) -> Invocation:
        return Invocation("InProgress", "InProgress", None, "", "")


def test_an_interrupt_cancels_the_command_on_the_machine(tmp_path: Path) -> None:
    ssm = Stuck(tmp_path)

    def interrupt(_: Waiting) -> None:
        raise Interrupted("SIGINT")

    with pytest.raises(Interrupted):
        SsmCommunicator(ssm, "i-1", clock=FakeClock()).run(RemoteJob("s", "true", 60), interrupt)
    assert ssm.cancelled == ["command-1"]


def test_a_job_goes_on_beside_another_and_is_cancelled_with_its_block(tmp_path: Path) -> None:
    ssm = ShellSsm(tmp_path / "run")
    communicator = SsmCommunicator(ssm, "i-1", clock=FakeClock())
    with communicator.started(RemoteJob("long", "echo long", 60), silent) as its_end:
        assert communicator.run(RemoteJob("short", "echo short", 60), silent).log == "short\n"
        assert its_end(silent).log == "long\n"
    assert ssm.cancelled == []
    with (
        pytest.raises(CommandFailed),
        communicator.started(RemoteJob("long", "echo long", 60), silent),
    ):
        check("short", communicator.run(RemoteJob("short", "exit 1", 60), silent))
    assert ssm.cancelled == ["command-3"]


class TimedOut(ShellSsm):
    def invocation(self, command_id: str, instance_id: str) -> Invocation:
        return Invocation("TimedOut", "Execution Timed Out", None, "", "last words")


def test_a_time_out_is_told_as_one(tmp_path: Path) -> None:
    with pytest.raises(CommandFailed, match="did not end within 60 s") as caught:
        run(TimedOut(tmp_path), "true")
    assert caught.value.tail == ("last words",)


NO_ARCHIVE = b"no archive"


@pytest.mark.parametrize(
    "said",
    [
        "{0} 1 {1}\nx",
        "{0} 1 {1}\n\u20ac",
        f"{{0}} {len(NO_ARCHIVE)} {hashlib.sha256(NO_ARCHIVE).hexdigest()}\n"
        + base64.b64encode(NO_ARCHIVE).decode(),
        f"{{0}} {len(NO_ARCHIVE)} {{1}}\n" + base64.b64encode(NO_ARCHIVE).decode(),
    ],
    ids=["no base64", "no ascii", "no archive", "another hash"],
)
def test_a_reply_that_is_nonsense_is_told_as_one(tmp_path: Path, said: str) -> None:
    class Garbled(ShellSsm):
        def invocation(self, command_id: str, instance_id: str) -> Invocation:
            text = said.format("amibuild-reply 0", "0" * 64)
            return Invocation("Success", "Success", 0, text, "last words")

    with pytest.raises(CommandFailed, match=r"^step: (what the machine sent|its log came) back "):
        run(Garbled(tmp_path), "true")


class Handed(BaseModel):
    number: int


@pytest.mark.parametrize(
    ("result", "problem"),
    [
        (b"", "Invalid JSON: EOF while parsing"),
        (b"{", "Invalid JSON: EOF while parsing"),
        (b"\xff\xfe", "Invalid JSON: "),
        (b"[]", "Input should be an object"),
        (b'{"number": "many"}', "number: Input should be a valid integer"),
    ],
)
def test_what_a_job_hands_back_is_what_was_asked_for(result: bytes, problem: str) -> None:
    done = CommandResult(0, "first\nlast\n", result, 1.0)
    said = f"the count: what the machine handed back can't be read: {problem}"
    with pytest.raises(CommandFailed, match=f"^{re.escape(said)}") as caught:
        handed_back("the count", done, Handed)
    assert caught.value.tail == ("first", "last")
    assert handed_back("the count", replace(done, result=b'{"number": 3}'), Handed).number == 3


def test_the_payload_of_the_same_job_is_the_same() -> None:
    job = RemoteJob("s", "true", 60, (StepFile("x", b"y"),), {"A": "b"})
    assert shell.payload(job) == shell.payload(job)
