"""A real machine whose lease runs out is gone, and nothing of the lease was on its disk."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path

import pytest

from amibuild.communicator.base import RemoteJob, check
from amibuild.communicator.ssm import SsmCommunicator
from amibuild.library.bootstrap import lease_user_data
from amibuild.steps.connect import wait_for_first_boot
from amibuild.steps.reboot import reboot
from amibuild.wait import silent
from tests.contract.conftest import Aws
from tests.local.test_images import aws as aws  # the fixture

pytestmark = [
    pytest.mark.machine,
    pytest.mark.skipif(os.geteuid() != 0, reason="nspawn machines need root"),
]

# The jobs between two of its beginnings take less, beside other tests too.
LEASE = timedelta(seconds=60)
SEAL = Path(__file__).parents[2] / "provisioners/seal/run.sh"
TIMERS = "systemctl list-units --type=timer --plain --no-legend --no-pager | awk '{ print $1 }'"
LEFT = "systemctl show --property=NextElapseUSecMonotonic --value amibuild-lease.timer"
# /run and the kernel's own file systems are memory.
ON_DISK = "find / -xdev -name '*amibuild-lease*' 2>/dev/null || true"


def test_a_machine_without_jobs_is_gone_when_its_lease_is_over(aws: Aws) -> None:
    never_called = aws.launch(
        InstanceType="t3.small",
        InstanceInitiatedShutdownBehavior="terminate",
        UserData=lease_user_data(timedelta(seconds=10)).decode(),
    )
    instance = aws.running(InstanceType="t3.small", InstanceInitiatedShutdownBehavior="terminate")
    machine = SsmCommunicator(aws.cloud.ssm, instance)

    def ask(name: str, script: str) -> str:
        return check(name, machine.run(RemoteJob(name, script, 60), silent)).log.strip()

    wait_for_first_boot(machine, LEASE, silent)
    first = ask("look", LEFT)
    assert ask("look-again", LEFT) != first, "a job sets it back"
    wait_for_first_boot(machine, LEASE, silent)  # a second connect
    assert ask("disk", ON_DISK) == ""
    seal = SEAL.read_text()
    begin = seal.index("    systemctl list-units --type=timer")
    ask("stops", seal[begin : seal.index("\n    systemctl stop systemd-random-seed")])
    assert ask("timers", TIMERS) == "amibuild-lease.timer"
    aws.until_state(instance, "terminated")
    aws.until_state(never_called, "terminated")
    for ended in (instance, never_called):
        assert aws.instance(ended)["StateReason"]["Code"] == "Client.InstanceInitiatedShutdown"


def test_a_machine_that_was_booted_again_has_its_lease(aws: Aws) -> None:
    """Nobody may be there any more who would begin it."""
    instance = aws.running(
        InstanceType="t3.small",
        InstanceInitiatedShutdownBehavior="terminate",
        UserData=lease_user_data(timedelta(hours=1)).decode(),
    )
    machine = SsmCommunicator(aws.cloud.ssm, instance)

    def ask(name: str, script: str) -> str:
        return check(name, machine.run(RemoteJob(name, script, 120), silent)).log.strip()

    reboot(machine, timeout_s=120, observer=silent)
    ask("booted", "cloud-init status --wait >/dev/null")
    assert "amibuild-lease.timer" in ask("timers", TIMERS).splitlines()
    assert ask("disk", ON_DISK).startswith("/var/lib/cloud/scripts/per-boot/")


def test_a_machine_with_a_lease_that_is_stopped_keeps_its_disk_for_the_capture(aws: Aws) -> None:
    instance = aws.running(InstanceType="t3.small", InstanceInitiatedShutdownBehavior="terminate")
    wait_for_first_boot(SsmCommunicator(aws.cloud.ssm, instance), timedelta(hours=1), silent)
    aws.ec2.stop_instances(InstanceIds=[instance])
    aws.until_state(instance, "stopped")
    aws.ec2.terminate_instances(InstanceIds=[instance])
