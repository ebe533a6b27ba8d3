"""A job runs once, and to its end, whatever becomes of the command that began it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from amibuild import secret
from amibuild.aws.ssm import Invocation
from amibuild.communicator import log, shell, unit
from amibuild.communicator.base import CommandResult, RemoteJob
from amibuild.communicator.shell import Unit
from amibuild.communicator.ssm import SsmCommunicator
from amibuild.errors import CommandFailed
from amibuild.secret import Secret
from amibuild.wait import Look, silent, until
from tests.unit.fakes import FakeClock, ShellSsm

VALUE = "s3cr3t-of-a-game"


@pytest.fixture
def ssm(tmp_path: Path) -> Iterator[ShellSsm]:
    yield ShellSsm(tmp_path / "run")
    secret.forget_all()


def run(ssm: ShellSsm, script: str, **more: object) -> CommandResult:
    job = RemoteJob("step", script, **{"timeout_s": 60, **more})  # type: ignore[arg-type]
    return SsmCommunicator(ssm, "i-1", clock=FakeClock()).run(job, silent)


def starting(id_: str, script: str) -> str:
    at = Unit("step", id_)
    packed = shell.payload(RemoteJob("step", script, 60))
    return unit.start(at, shell.unpack_inline(at, packed), 60)


def read(done: Invocation) -> tuple[int, str]:
    reply = shell.read_reply(done.stdout)
    assert reply is not None, done
    return reply.exit_code, shell.open_reply(reply.first)[0]


def eventually(path: Path) -> None:
    until(lambda: Look("missing", path.exists() or None), what=str(path), timeout_s=20)


def ended(pid: int) -> bool:
    """Whether it is gone, or dead and not yet collected by the process that inherited it."""
    try:
        return Path("/proc", str(pid), "stat").read_text().rpartition(") ")[2].startswith("Z")
    except (FileNotFoundError, ProcessLookupError):
        return True


def test_a_command_that_arrives_again_gets_the_same_reply(ssm: ShellSsm, tmp_path: Path) -> None:
    sent = starting("a1", f"echo ran | tee -a {tmp_path}/ran; exit 3")
    first, second = ssm.ran(sent), ssm.ran(sent)
    assert read(first) == read(second) == (3, "ran\n")
    assert first.stdout == second.stdout
    assert ssm.systemd.started == ["amibuild-job-step-a1.service"]
    assert (tmp_path / "ran").read_text() == "ran\n"


def test_of_two_that_arrive_at_once_both_wait_for_one_run(ssm: ShellSsm, tmp_path: Path) -> None:
    sent = starting("a1", f"echo ran | tee -a {tmp_path}/ran; sleep 0.3")
    with ThreadPoolExecutor() as pool:
        done = list(pool.map(ssm.ran, [sent] * 4))
    assert [read(one) for one in done] == [(0, "ran\n")] * 4
    assert ssm.systemd.started == ["amibuild-job-step-a1.service"]
    assert (tmp_path / "ran").read_text() == "ran\n"


def test_a_start_that_was_cut_short_is_made_good_by_the_next(ssm: ShellSsm, tmp_path: Path) -> None:
    at = Unit("step", "a1")
    packed = shell.payload(RemoteJob("step", "echo ran", 60))
    cut = unit.start(at, f"{shell.unpack_inline(at, packed)}kill -9 $$\n", 60)
    assert ssm.ran(cut).exit_code is None
    assert read(ssm.ran(starting("a1", "echo ran"))) == (0, "ran\n")


def test_a_job_that_ends_its_command_is_picked_up_by_another(ssm: ShellSsm, tmp_path: Path) -> None:
    end_it = f"kill -9 $(cat {ssm.agent})"
    done = run(ssm, f"echo ran >>{tmp_path}/ran; echo before; {end_it}; sleep 0.2; echo on; exit 7")
    assert (done.exit_code, done.log) == (7, "before\non\n")
    assert (tmp_path / "ran").read_text() == "ran\n"
    assert [len(ssm.sent), len(ssm.systemd.started)] == [2, 1]
    assert "run.sh" not in ssm.sent[1]


class Dying(ShellSsm):
    """Its agent is lost with the first job and does not come back."""

    def ran(self, script: str) -> Invocation:
        if len(self.sent) == 1:
            return super().ran(script)
        return Invocation("TimedOut", "Delivery Timed Out", None, "", "")


def test_a_machine_that_does_not_come_back_is_told_as_before(tmp_path: Path) -> None:
    ssm = Dying(tmp_path / "run")
    with pytest.raises(CommandFailed, match="did not run: Undeliverable"):
        run(ssm, f"kill -9 $(cat {ssm.agent}); sleep 0.2")


def test_a_command_that_did_not_begin_anything_is_not_attached_to(ssm: ShellSsm) -> None:
    done = ssm.ran(unit.attach(Unit("step", "a1")))
    end = shell.read_end(done.stdout)
    assert end is not None
    assert end.result == "unknown"


def test_a_step_that_is_run_again_first_ends_what_is_left_of_it(
    ssm: ShellSsm, tmp_path: Path
) -> None:
    began = tmp_path / "began"
    left = starting("a1", f"touch {began}; sleep 1000 & wait")
    with ThreadPoolExecutor() as pool:
        first = pool.submit(ssm.ran, left)
        eventually(began)
        assert read(ssm.ran(starting("b2", "echo new"))) == (0, "new\n")
        end = shell.read_end(first.result().stdout)
    assert end is not None
    assert ssm.systemd.started == ["amibuild-job-step-a1.service", "amibuild-job-step-b2.service"]
    began.unlink()
    assert shell.read_end(ssm.ran(left).stdout) is not None, "it came late"
    assert not began.exists()


def test_one_whose_time_is_up_is_ended_with_all_that_it_started(
    ssm: ShellSsm, tmp_path: Path
) -> None:
    script = f"sleep 1000 & echo $! >{tmp_path}/child; echo waiting; wait"
    with pytest.raises(CommandFailed, match="did not end within 1 s") as caught:
        run(ssm, script, timeout_s=1)
    assert caught.value.tail == ("waiting",)
    child = int((tmp_path / "child").read_text())
    until(lambda: Look("runs", ended(child) or None), what=f"process {child}", timeout_s=20)
    assert len(ssm.sent) == 1


def test_nothing_of_its_secrets_outlives_one_that_is_killed(ssm: ShellSsm) -> None:
    with pytest.raises(CommandFailed, match="did not end within 1 s"):
        run(ssm, "sleep 1000", timeout_s=1, secrets={"token": Secret("token", VALUE)})
    left = [path for path in ssm.root.rglob("*") if path.is_file()]
    assert left
    assert not [path for path in left if VALUE.encode() in path.read_bytes()]
    assert not {path.name for path in left} & {"key.pem", "secrets.cms", "all.tar", "token"}


class Beside(ShellSsm):
    """A command that goes on while others are sent."""

    def send(self, instance_id: str, script: str, *, comment: str, timeout_s: int) -> str:
        self.sent.append(script)
        if "run.sh" in script:
            threading.Thread(target=self.ran, args=(script,), daemon=True).start()
        else:
            self.ran(script)
        return f"command-{len(self.sent)}"


def test_one_that_is_left_is_stopped_on_the_machine(tmp_path: Path) -> None:
    ssm = Beside(tmp_path / "run")
    began = tmp_path / "began"
    job = RemoteJob("step", f"trap '' TERM; touch {began}; sleep 1000 & wait; sleep 1000", 60)
    with SsmCommunicator(ssm, "i-1", clock=FakeClock()).started(job, silent):
        eventually(began)
        assert len(ssm.systemd.running) == 1
    assert ssm.systemd.running == []
    assert ssm.cancelled == ["command-1"]


def test_one_that_is_killed_by_a_signal_is_told_by_its_number(ssm: ShellSsm) -> None:
    assert run(ssm, "kill -9 $$").exit_code == 137


def test_what_the_agent_has_in_its_environment_a_job_has(ssm: ShellSsm) -> None:
    ssm.before = "export http_proxy='a b' INVOCATION_ID=of-the-command\n"
    done = run(ssm, 'echo "$http_proxy $INVOCATION_ID $AGAIN"', environment={"AGAIN": "x"})
    assert done.log == "a b of-the-unit x\n"


def test_half_a_secret_beside_the_gap_of_a_log_is_not_shown(
    ssm: ShellSsm, monkeypatch: pytest.MonkeyPatch
) -> None:
    Secret("token", VALUE)
    # Of the beginning 1,000 bytes are kept, and of the end 7,000: in both half of a value.
    monkeypatch.setattr(log, "LOG_LIMIT_BYTES", 8000)
    said = run(ssm, f"printf '%0990d{VALUE}%09000d{VALUE}%06991d\\n' 1 2 3").log
    assert "bytes left out" in said
    halves = (VALUE[:10], VALUE[8:])
    assert not any(half in said for half in halves)
    monkeypatch.setattr(shell, "longest", lambda: 0)
    said = run(ssm, f"printf '%0990d{VALUE}%09000d{VALUE}%06991d\\n' 1 2 3").log
    assert all(half in said for half in halves), "this is what would be shown"


def test_a_gap_takes_nothing_with_it_where_there_are_no_secrets() -> None:
    cut = "begin\n... 7 bytes left out ...\nend\n"
    assert shell.masked_log(cut) == cut
