"""The machine of a bake that lives, and what runs on it, whatever reaches it.

For a bake that runs, and for one that ended early and has left its builder.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from amibuild.aws.ec2 import InstanceFacts
from amibuild.aws.session import Cloud
from amibuild.bake_keys import keys_file
from amibuild.communicator.base import Communicator, RemoteJob
from amibuild.communicator.ssm import SsmCommunicator
from amibuild.errors import ResourceFailed, UsageError
from amibuild.guests import Ran
from amibuild.journal import BakeStarted, Created, Remains, ResourceKind
from amibuild.library.step import StepFile
from amibuild.names import BakeId, InstanceId
from amibuild.recipe.ssh import Ssh
from amibuild.resume import journal_file, living
from amibuild.steps.launch import Purpose
from amibuild.wait import silent

if TYPE_CHECKING:
    from amibuild.communicator.ssh_live import Live

# What does not shrink comes in 60 commands then.
STDOUT_LIMIT_BYTES = 1024 * 1024
HOME = "/root"


@dataclass(frozen=True)
class BakeMachine:
    """`live` is there where it is reached over SSH: then it has a terminal, too."""

    id: InstanceId
    communicator: Communicator
    live: Live | None = None

    def close(self) -> None:
        if self.live is not None:
            self.live.close()

    def run(self, script: bytes, *, timeout_s: int) -> Ran:
        """Runs a bash script as root at home, with nothing on its stdin.

        Raises: CommandFailed when it does not end by itself.
        """
        if self.live is not None:
            stdout, stderr = bytearray(), bytearray()
            code = self.live.run(
                script, timeout_s=timeout_s, stdout=_kept(stdout), stderr=_kept(stderr)
            )
            return Ran(code, bytes(stdout), bytes(stderr))
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


def _kept(at: bytearray) -> Callable[[bytes], bool]:
    def keep(chunk: bytes) -> bool:
        at.extend(chunk)
        return True

    return keep


def where(state_dir: Path, bake_id: str) -> BakeStarted:
    """Which target and region that bake is in. Raises: UsageError."""
    started = Remains(journal_file(state_dir, bake_id)).started
    if started is None:
        raise UsageError(f"the journal of bake {bake_id} does not say where it was")
    return started


def find(
    cloud: Cloud,
    state_dir: Path,
    bake_id: str,
    purpose: Purpose | None,
    tell: Callable[[str], None] = lambda _: None,
) -> BakeMachine:
    """The machine of that purpose; without one the builder, or if there is none, the fresh one.

    It is reached as its bake reaches it, and the caller closes it. `cloud` is that of the bake's
    target, in whatever region.
    Raises: UsageError when none lives; ResourceFailed when it does not run; what `reach_again`
    does, and HostError when the keys of the bake are gone.
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
            settings = _over_ssh(remains, one)
            if settings is None:
                return BakeMachine(facts.id, SsmCommunicator(cloud.ssm, facts.id))
            return by_ssh(cloud, facts, settings, state_dir, bake_id, resources, tell)
    what = f"{purpose} machine" if purpose else "machine"
    raise UsageError(
        f"bake {bake_id} has no {what} that lives",
        hint="a bake that fails with --on-error keep leaves its builder until its lease is over",
    )


def _over_ssh(remains: Remains, purpose: Purpose) -> Ssh | None:
    """How the bake reaches that machine; None over SSM: the image may have lost its sshd."""
    started = remains.started
    if started is None or (purpose is Purpose.VERIFY and not started.fresh_over_ssh):
        return None
    return started.ssh


def by_ssh(
    cloud: Cloud,
    facts: InstanceFacts,
    settings: Ssh,
    state_dir: Path,
    bake_id: str,
    resources: Sequence[Created],
    tell: Callable[[str], None],
) -> BakeMachine:
    """Over Run Command where no sshd listens. Raises: as `find`."""
    # paramiko takes half a second to import: only here it is needed.
    from amibuild.communicator.ssh_keys import read_identity
    from amibuild.communicator.ssh_live import Live
    from amibuild.steps.reach_again import NoSshd, reach_again

    identity = read_identity(keys_file(state_dir, BakeId(bake_id)), bake_id)
    groups = (one.id for one in resources if one.kind is ResourceKind.SECURITY_GROUP)
    try:
        communicator = reach_again(cloud, facts, settings, identity, next(groups, None), tell)
    except NoSshd:
        tell(f"no sshd answers on {facts.id}: over Run Command, by its agent")
        return BakeMachine(facts.id, SsmCommunicator(cloud.ssm, facts.id))
    return BakeMachine(facts.id, communicator, Live(communicator.link))
