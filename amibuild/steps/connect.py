"""Waits until a machine takes commands and its first boot is over, and begins its lease."""

from __future__ import annotations

from datetime import timedelta
from importlib.resources import files

from amibuild.aws.session import Cloud
from amibuild.communicator.base import Communicator, RemoteJob, check
from amibuild.errors import ResourceFailed
from amibuild.library.bootstrap import begin_lease
from amibuild.wait import Look, Observer, until

FIRST_BOOT_S = 600


def wait_for_agent(cloud: Cloud, instance_id: str, *, timeout_s: float, observer: Observer) -> None:
    """Until SSM calls the agent Online.

    Raises: ResourceFailed when the instance dies first; WaitTimeout.
    """

    def look() -> Look[bool]:
        ping = cloud.ssm.ping(instance_id)
        if ping == "Online":
            return Look(ping, True)
        state = cloud.ec2.instance(instance_id)
        if state.state not in {"pending", "running"}:
            raise ResourceFailed(what=instance_id, state=state.state, reason=state.reason)
        return Look(f"agent {ping}")

    until(
        look,
        what=f"{instance_id}'s agent",
        timeout_s=timeout_s,
        observer=observer,
        hint="does the subnet reach SSM, has the profile its policy, has the image an agent?",
    )


def first_boot(lease: timedelta) -> RemoteJob:
    """Begins the machine's lease, and ends when cloud-init has. It fails when cloud-init did, or
    when the machine could not be told to end by itself."""
    wait = files("amibuild.steps").joinpath("first-boot.sh").read_text()
    script = begin_lease() + wait.partition("\n")[2]
    return RemoteJob(
        "first-boot",
        script,
        timeout_s=FIRST_BOOT_S,
        environment={"LEASE_S": str(int(lease.total_seconds()))},
    )


def wait_for_first_boot(communicator: Communicator, lease: timedelta, observer: Observer) -> None:
    """Until cloud-init has done its work; from now on nobody's death leaves the machine running.

    Raises: CommandFailed when cloud-init failed, or the lease could not be begun.
    """
    check("the first boot", communicator.run(first_boot(lease), observer))
