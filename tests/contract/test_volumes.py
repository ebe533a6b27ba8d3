"""Volumes made from a snapshot, plugged into a running machine: how a finished disk is checked."""

from __future__ import annotations

from typing import Any

from tests.contract.conftest import REGION, Aws, Refuses

ZONE = f"{REGION}a"


def snapshot(aws: Aws) -> str:
    image = aws.ec2.describe_images(ImageIds=[aws.image()])["Images"][0]
    return image["BlockDeviceMappings"][0]["Ebs"]["SnapshotId"]


def state(aws: Aws, volume: str) -> str:
    return aws.ec2.describe_volumes(VolumeIds=[volume])["Volumes"][0]["State"]


def made(aws: Aws, **asked: Any) -> str:
    request = {"SnapshotId": snapshot(aws), "AvailabilityZone": ZONE, **asked}
    volume = aws.ec2.create_volume(**request)["VolumeId"]
    aws.until(lambda: state(aws, volume), "available")
    return volume


def test_it_is_creating_then_available_then_in_use(aws: Aws) -> None:
    """CreateVolume and AttachVolume, API reference: states of a volume."""
    request = {"SnapshotId": snapshot(aws), "AvailabilityZone": ZONE, "Encrypted": True}
    answer = aws.ec2.create_volume(**request, VolumeType="gp3")  # type: ignore[arg-type]
    volume = answer["VolumeId"]
    assert (answer["State"], answer["Size"]) == ("creating", 2)
    aws.until(lambda: state(aws, volume), "available")
    machine = aws.running()
    aws.ec2.attach_volume(VolumeId=volume, InstanceId=machine, Device="/dev/sdf")
    assert state(aws, volume) == "in-use"
    assert aws.machine(machine).disks[volume].stat().st_size == 2 << 30


def test_a_token_gives_the_same_volume_again(aws: Aws, refuses: Refuses) -> None:
    """CreateVolume, ClientToken."""
    request: dict[str, Any] = {
        "SnapshotId": snapshot(aws),
        "AvailabilityZone": ZONE,
        "ClientToken": "a-token",
    }
    first = aws.ec2.create_volume(**request)["VolumeId"]
    assert aws.ec2.create_volume(**request)["VolumeId"] == first
    refuses("IdempotentParameterMismatch", aws.ec2.create_volume, **request, Size=9)


def test_it_cannot_be_smaller_than_its_snapshot(aws: Aws, refuses: Refuses) -> None:
    """CreateVolume, Size: "equal to or larger than the snapshot size"."""
    asked = {"SnapshotId": snapshot(aws), "AvailabilityZone": ZONE, "Size": 1}
    refuses("InvalidParameterValue", aws.ec2.create_volume, **asked)


def test_a_snapshot_that_is_not_there_makes_none(aws: Aws, refuses: Refuses) -> None:
    asked = {"SnapshotId": "snap-0123456789abcdef0", "AvailabilityZone": ZONE}
    refuses("InvalidSnapshot.NotFound", aws.ec2.create_volume, **asked)


def test_an_attached_volume_is_attached_once(aws: Aws, refuses: Refuses) -> None:
    """Error codes: VolumeInUse."""
    volume, machine = made(aws), aws.running()
    asked = {"VolumeId": volume, "InstanceId": machine, "Device": "/dev/sdf"}
    aws.ec2.attach_volume(**asked)  # type: ignore[arg-type]
    refuses("VolumeInUse", aws.ec2.attach_volume, **asked)
    refuses("VolumeInUse", aws.ec2.delete_volume, VolumeId=volume)


def test_a_stopped_machine_takes_no_volume(aws: Aws, refuses: Refuses) -> None:
    """Error codes: IncorrectState. EC2 would take it; here only a running machine has a plug."""
    asked = {"VolumeId": made(aws), "InstanceId": aws.stopped(), "Device": "/dev/sdf"}
    refuses("IncorrectState", aws.ec2.attach_volume, **asked)


def test_it_is_free_when_its_machine_is_gone_and_its_file_goes_with_it(aws: Aws) -> None:
    """AttachVolume: such a volume stays when the instance is terminated."""
    volume, machine = made(aws), aws.running()
    aws.ec2.attach_volume(VolumeId=volume, InstanceId=machine, Device="/dev/sdf")
    file = aws.machine(machine).disks[volume]
    aws.ec2.terminate_instances(InstanceIds=[machine])
    aws.until_state(machine, "terminated")
    assert state(aws, volume) == "available"
    aws.ec2.delete_volume(VolumeId=volume)
    assert not file.exists()
    assert volume not in [v["VolumeId"] for v in aws.ec2.describe_volumes()["Volumes"]]
