"""The machine of a bake that lives, and what runs on it, whatever reaches it.

For a bake that runs, and for one that ended early and has left its builder.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from amibuild.aws.session import Cloud
from amibuild.communicator.base import Communicator, RemoteJob
from amibuild.communicator.ssm import SsmCommunicator
from amibuild.errors import ResourceFailed, UsageError
from amibuild.guests import Ran
from amibuild.journal import BakeStarted, Remains
from amibuild.library.step import StepFile
from amibuild.names import InstanceId
from amibuild.resume import journal_file, living
from amibuild.steps.launch import Purpose
from amibuild.wait import silent

# What does not shrink comes in 60 commands then.
STDOUT_LIMIT_BYTES = 1024 * 1024
HOME = "/root"


@dataclass(frozen=True)
class BakeMachine:
    id: InstanceId
    communicator: Communicator

    def run(self, script: bytes, *, timeout_s: int) -> Ran:
        """Runs a bash script as root at home, with nothing on its stdin.

        Raises: CommandFailed when it does not end by itself.
        """
        wrapper = files("amibuild.steps").joinpath("run-command.sh").read_text()
        job = RemoteJob(
            # A name of its own: several may run at a time.
            f"run-{secrets.token_hex(4)}",
            wrapper,
            timeout_s,
            (StepFile("command.sh", script),),
            {"HOME": HOME, "HISTFILE": "/dev/null", "LIMIT_BYTES": str(STDOUT_LIMIT_BYTES)},
        )
        result = self.communicator.run(job, silent)
        return Ran(result.exit_code, result.result, result.log.encode())


def where(state_dir: Path, bake_id: str) -> BakeStarted:
    """Which target and region that bake is in. Raises: UsageError."""
    started = Remains(journal_file(state_dir, bake_id)).started
    if started is None:
        raise UsageError(f"the journal of bake {bake_id} does not say where it was")
    return started


def find(cloud: Cloud, state_dir: Path, bake_id: str, purpose: Purpose | None) -> BakeMachine:
    """The machine of that purpose; without one the builder, or if there is none, the fresh one.

    `cloud` is that of the bake's target, in whatever region.
    Raises: UsageError when none lives; ResourceFailed when it does not run.
    """
    remains = Remains(journal_file(state_dir, bake_id))
    if remains.started is not None and remains.started.region != cloud.region:
        cloud = cloud.in_region(remains.started.region)
    resources = tuple(remains.resources.values())
    wanted = (purpose,) if purpose else tuple(Purpose)
    for one in wanted:
        facts = living(cloud, resources, one)
        if facts is not None:
            if facts.state != "running":
                reason = "it has to run for that"
                raise ResourceFailed(what=facts.id, state=facts.state, reason=reason)
            return BakeMachine(facts.id, SsmCommunicator(cloud.ssm, facts.id))
    what = f"{purpose} machine" if purpose else "machine"
    raise UsageError(
        f"bake {bake_id} has no {what} that lives",
        hint="a bake that fails with --on-error keep leaves its builder until its lease is over",
    )
