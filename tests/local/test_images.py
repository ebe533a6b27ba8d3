"""Images of real machines: a snapshot registered, copied to another region, and booted there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest

from amibuild.local.service import Options, Service
from amibuild.wait import Look, SystemClock, until
from tests.contract.conftest import Aws
from tests.contract.imaged import available, completed, copied, in_region

pytestmark = [
    pytest.mark.machine,
    pytest.mark.skipif(os.geteuid() != 0, reason="nspawn machines need root"),
]

MARK = "/root/was-here"
# What takes a second or two alone takes far more beside other tests.
PATIENCE_S = 300.0


@pytest.fixture
def aws(data_dir: Path) -> Iterator[Aws]:
    service = Service(Options(data_dir, machine="nspawn"))
    key = service.options.key
    session = boto3.Session(key.id, key.secret, region_name="us-east-1")
    try:
        yield Aws(service, session, timeout_s=PATIENCE_S)
    finally:
        service.close()


def on(aws: Aws, instance: str, command: str) -> str:
    """The output of a command on the machine."""
    asked = {"commands": [command]}
    id_ = aws.ssm.send_command(
        InstanceIds=[instance], DocumentName="AWS-RunShellScript", Parameters=asked
    )["Command"]["CommandId"]

    def look() -> Look[str]:
        found = aws.ssm.get_command_invocation(CommandId=id_, InstanceId=instance)
        done = found["Status"] == "Success"
        return Look(found["Status"], found["StandardOutputContent"] if done else None)

    return until(look, what=command, timeout_s=PATIENCE_S, clock=SystemClock())


def test_a_registered_snapshot_and_its_copy_boot(aws: Aws) -> None:
    instance = aws.running(InstanceType="t3.small")
    on(aws, instance, f"echo yes > {MARK}; sync")
    aws.ec2.stop_instances(InstanceIds=[instance])
    aws.until_state(instance, "stopped")
    volume = aws.instance(instance)["BlockDeviceMappings"][0]["Ebs"]["VolumeId"]
    taken = completed(aws, aws.ec2.create_snapshot(VolumeId=volume)["SnapshotId"])
    aws.ec2.terminate_instances(InstanceIds=[instance])
    registered = available(
        aws,
        aws.ec2.register_image(
            Name=f"registered-{taken}",
            Architecture="x86_64",
            VirtualizationType="hvm",
            BootMode="uefi",
            EnaSupport=True,
            RootDeviceName="/dev/xvda",
            BlockDeviceMappings=[{"DeviceName": "/dev/xvda", "Ebs": {"SnapshotId": taken}}],
        )["ImageId"],
    )
    there = in_region(aws, "eu-west-1")
    copy = copied(there, registered, Name=f"copied-{taken}", Encrypted=True)
    booted = there.running(ImageId=copy, InstanceType="t3.small")
    try:
        assert on(there, booted, f"cat {MARK}") == "yes\n"
    finally:
        there.ec2.terminate_instances(InstanceIds=[booted])
        for place, made in ((there, copy), (aws, registered)):
            place.ec2.deregister_image(ImageId=made, DeleteAssociatedSnapshots=True)
