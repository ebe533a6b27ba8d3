"""A job by way of the endpoint, whose machine is a shell of this one."""

from __future__ import annotations

from pathlib import Path

from amibuild.communicator.base import RemoteJob
from amibuild.communicator.ssm import SsmCommunicator
from amibuild.local.machines.script import Outcome
from amibuild.wait import silent
from tests.contract.conftest import Start
from tests.unit.fakes import ShellSsm


def test_a_job_runs_once_when_the_answer_to_its_command_is_lost(
    start: Start, tmp_path: Path
) -> None:
    """SendCommand has no client token, and botocore sends again what it got no answer to."""
    machine = ShellSsm(tmp_path / "run")

    def here(script: str) -> Outcome:
        done = machine.ran(script)
        return Outcome(done.exit_code or 0, done.stdout, done.stderr)

    aws = start("SendCommand:1=ConnectionLost:after", script=here)
    job = RemoteJob("step", f"echo ran | tee -a {tmp_path}/ran; sleep 0.5", 60)
    done = SsmCommunicator(aws.cloud.ssm, aws.running()).run(job, silent)
    assert (done.exit_code, done.log) == (0, "ran\n")
    assert (tmp_path / "ran").read_text() == "ran\n"

    def statuses() -> str:
        return " ".join(one["Status"] for one in aws.ssm.list_commands()["Commands"])

    # The one that came too late may not have looked yet.
    aws.until(statuses, "Success Success")
    assert len(machine.systemd.started) == 1
