"""Volumes: made, launched with, attached and detached, and what becomes of their files."""

from __future__ import annotations

from typing import Any

import pytest

from tests.contract.answers import answers
from tests.contract.conftest import REGION, Aws, Refuses

ZONE = f"{REGION}a"
API = "EC2 API reference"
ERRORS = f"{API}, Error codes"


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


@answers(
    "CreateVolume",
    "of a snapshot, encrypted; attached once it is available",
    "creating, available, in-use; the snapshot's size",
    source=f"{API}, CreateVolume and AttachVolume: states",
)
def test_it_is_creating_then_available_then_in_use(aws: Aws) -> None:
    request = {"SnapshotId": snapshot(aws), "AvailabilityZone": ZONE, "Encrypted": True}
    answer = aws.ec2.create_volume(**request, VolumeType="gp3")  # type: ignore[arg-type]
    volume = answer["VolumeId"]
    assert (answer["State"], answer["Size"]) == ("creating", 2)
    aws.until(lambda: state(aws, volume), "available")
    machine = aws.running()
    aws.ec2.attach_volume(VolumeId=volume, InstanceId=machine, Device="/dev/sdf")
    assert state(aws, volume) == "in-use"
    assert aws.machine(machine).disks[volume].stat().st_size == 2 << 30


@answers(
    "CreateVolume",
    "a client token again; with other parameters",
    "the same volume; IdempotentParameterMismatch",
    source=f"{API}, CreateVolume: ClientToken",
)
def test_a_token_gives_the_same_volume_again(aws: Aws, refuses: Refuses) -> None:
    request: dict[str, Any] = {
        "SnapshotId": snapshot(aws),
        "AvailabilityZone": ZONE,
        "ClientToken": "a-token",
    }
    first = aws.ec2.create_volume(**request)["VolumeId"]
    assert aws.ec2.create_volume(**request)["VolumeId"] == first
    refuses("IdempotentParameterMismatch", aws.ec2.create_volume, **request, Size=9)


@answers(
    "CreateVolume",
    "a size under the snapshot's",
    "InvalidParameterValue",
    source=f"{API}, CreateVolume: Size, equal to or larger than the snapshot size",
)
def test_it_cannot_be_smaller_than_its_snapshot(aws: Aws, refuses: Refuses) -> None:
    asked = {"SnapshotId": snapshot(aws), "AvailabilityZone": ZONE, "Size": 1}
    refuses("InvalidParameterValue", aws.ec2.create_volume, **asked)


@pytest.mark.parametrize(
    ("code", "asked"),
    [
        ("InvalidParameterValue", {"Size": 0}),
        ("InvalidParameterValue", {"Size": -5}),
        ("InvalidParameterValue", {"Size": 100_000, "VolumeType": "gp3"}),
        ("InvalidParameterValue", {"Size": 2000, "VolumeType": "standard"}),
        ("UnknownVolumeType", {"Size": 1, "VolumeType": "gp9"}),
        ("InvalidZone.NotFound", {"Size": 1, "AvailabilityZone": "mars-1a"}),
    ],
)
@answers(
    "CreateVolume",
    "a size that its type does not come in; a type, a zone that there is not",
    "InvalidParameterValue; UnknownVolumeType; InvalidZone.NotFound",
    source=f"{ERRORS}; EBS user guide, Volume types; fog/fog-aws #186",
)
def test_there_are_volumes_that_nobody_makes(
    aws: Aws, refuses: Refuses, code: str, asked: dict[str, Any]
) -> None:
    refuses(code, aws.ec2.create_volume, **{"AvailabilityZone": ZONE, **asked})
    assert aws.ec2.describe_volumes()["Volumes"] == []


@answers(
    "CreateVolume", "a snapshot that does not exist", "InvalidSnapshot.NotFound", source=ERRORS
)
def test_a_snapshot_that_is_not_there_makes_none(aws: Aws, refuses: Refuses) -> None:
    asked = {"SnapshotId": "snap-0123456789abcdef0", "AvailabilityZone": ZONE}
    refuses("InvalidSnapshot.NotFound", aws.ec2.create_volume, **asked)


@answers("AttachVolume", "a volume that is attached; deleting one", "VolumeInUse", source=ERRORS)
def test_an_attached_volume_is_attached_once(aws: Aws, refuses: Refuses) -> None:
    volume, machine = made(aws), aws.running()
    asked = {"VolumeId": volume, "InstanceId": machine, "Device": "/dev/sdf"}
    aws.ec2.attach_volume(**asked)  # type: ignore[arg-type]
    refuses("VolumeInUse", aws.ec2.attach_volume, **asked)
    refuses("VolumeInUse", aws.ec2.delete_volume, VolumeId=volume)


def empty(aws: Aws, gib: int = 3) -> str:
    volume = aws.ec2.create_volume(Size=gib, AvailabilityZone=ZONE)["VolumeId"]
    aws.until(lambda: state(aws, volume), "available")
    return volume


def attached(aws: Aws, instance: str) -> dict[str, str]:
    """The instance's devices and the volumes behind them."""
    found = aws.instance(instance)["BlockDeviceMappings"]
    return {m["DeviceName"]: m["Ebs"]["VolumeId"] for m in found}


@answers(
    "CreateVolume", "a size and no snapshot", "an empty volume", source=f"{API}, CreateVolume: Size"
)
def test_an_empty_volume_has_its_size_and_nothing_in_it(aws: Aws) -> None:
    volume, machine = empty(aws), aws.running()
    aws.ec2.attach_volume(VolumeId=volume, InstanceId=machine, Device="/dev/sdf")
    file = aws.machine(machine).disks[volume].stat()
    assert (file.st_size, file.st_blocks) == (3 << 30, 0)


@answers(
    "CreateVolume",
    "neither a size nor a snapshot",
    "MissingParameter",
    source=f"{API}, CreateVolume: Size; Error codes",
)
def test_a_volume_of_no_size_is_none(aws: Aws, refuses: Refuses) -> None:
    refuses("MissingParameter", aws.ec2.create_volume, AvailabilityZone=ZONE)


@answers(
    "RunInstances",
    "volumes by size, by snapshot and by both, encrypted, tagged",
    "they are attached, with their sizes",
    source=f"{API}, RunInstances: BlockDeviceMapping, TagSpecification",
)
def test_a_machine_is_launched_with_its_volumes(aws: Aws) -> None:
    source = snapshot(aws)
    asked = [
        {"DeviceName": "/dev/xvda", "Ebs": {"VolumeSize": 4, "Encrypted": True}},
        {"DeviceName": "/dev/sdf", "Ebs": {"VolumeSize": 5, "Encrypted": True}},
        {"DeviceName": "/dev/sdg", "Ebs": {"SnapshotId": source}},
        {"DeviceName": "/dev/sdh", "Ebs": {"SnapshotId": source, "VolumeSize": 3}},
    ]
    tags = [{"ResourceType": "volume", "Tags": [{"Key": "a", "Value": "b"}]}]
    machine = aws.running(BlockDeviceMappings=asked, TagSpecifications=tags)
    volumes = attached(aws, machine)
    assert list(volumes) == ["/dev/xvda", "/dev/sdf", "/dev/sdg", "/dev/sdh"]
    found = {v["VolumeId"]: v for v in aws.ec2.describe_volumes()["Volumes"]}
    seen = [(found[v]["Size"], found[v]["Encrypted"], found[v]["State"]) for v in volumes.values()]
    assert seen == [
        (4, True, "in-use"),
        (5, True, "in-use"),
        (2, False, "in-use"),
        (3, False, "in-use"),
    ]
    assert all(found[v]["Tags"] == [{"Key": "a", "Value": "b"}] for v in volumes.values())
    disks = aws.machine(machine).disks
    sizes = [disks[volumes[name]].stat().st_size >> 30 for name in ("/dev/sdf", "/dev/sdg")]
    assert sizes == [5, 2]
    assert aws.machine(machine).spec.disk.stat().st_size == 4 << 30
    assert volumes["/dev/xvda"] not in disks


@pytest.mark.parametrize(
    ("code", "mapping"),
    [
        ("MissingParameter", {"DeviceName": "/dev/sdf", "Ebs": {"VolumeType": "gp3"}}),
        (
            "InvalidSnapshot.NotFound",
            {"DeviceName": "/dev/sdf", "Ebs": {"SnapshotId": "snap-0123456789abcdef0"}},
        ),
        ("InvalidBlockDeviceMapping", {"DeviceName": "/dev/xvda", "Ebs": {"VolumeSize": 1}}),
    ],
)
@answers(
    "RunInstances",
    "a mapping without a size, of no snapshot, or too small for its snapshot",
    "MissingParameter; InvalidSnapshot.NotFound; InvalidBlockDeviceMapping",
    source=ERRORS,
)
def test_a_mapping_that_cannot_be_launches_nothing(
    aws: Aws, refuses: Refuses, code: str, mapping: dict[str, Any]
) -> None:
    refuses(code, aws.launch, BlockDeviceMappings=[mapping])
    assert aws.ec2.describe_instances()["Reservations"] == []


@answers(
    "RunInstances",
    "NoDevice; an instance store that the type does not have",
    "no volume for it",
    source=f"{API}, BlockDeviceMapping: NoDevice, VirtualName",
)
def test_no_device_and_instance_stores_add_none(aws: Aws) -> None:
    asked = [
        {"DeviceName": "/dev/sdf", "NoDevice": ""},
        {"DeviceName": "/dev/sdb", "VirtualName": "ephemeral0"},
    ]
    assert list(attached(aws, aws.running(BlockDeviceMappings=asked))) == ["/dev/xvda"]


@answers(
    "TerminateInstances",
    "volumes of the launch, with DeleteOnTermination false or not said",
    "the first stays available, the other goes",
    source="EC2 User Guide, Preserve data when an instance is terminated: CLI, at launch",
)
def test_those_of_a_launch_go_with_it_and_those_told_to_stay_do(aws: Aws) -> None:
    asked = [
        {"DeviceName": "/dev/sdf", "Ebs": {"VolumeSize": 1}},
        {"DeviceName": "/dev/sdg", "Ebs": {"VolumeSize": 1, "DeleteOnTermination": False}},
    ]
    machine = aws.running(BlockDeviceMappings=asked)
    volumes, files = attached(aws, machine), aws.machine(machine).disks
    aws.ec2.terminate_instances(InstanceIds=[machine])
    aws.until_state(machine, "terminated")
    left = [v["VolumeId"] for v in aws.ec2.describe_volumes()["Volumes"]]
    assert left == [volumes["/dev/sdg"]]
    assert state(aws, volumes["/dev/sdg"]) == "available"
    assert [files[volumes[name]].exists() for name in ("/dev/sdf", "/dev/sdg")] == [False, True]


@answers(
    "AttachVolume",
    "a stopped instance, which has a volume already",
    "both are there after the start",
    source=f"{API}, AttachVolume; EC2 User Guide, Stop and start",
)
def test_a_machine_keeps_its_volumes_over_a_stop_and_takes_one_while_it_is_off(aws: Aws) -> None:
    machine = aws.stopped(
        BlockDeviceMappings=[{"DeviceName": "/dev/sdf", "Ebs": {"VolumeSize": 1}}]
    )
    late = empty(aws)
    aws.ec2.attach_volume(VolumeId=late, InstanceId=machine, Device="/dev/sdg")
    assert state(aws, late) == "in-use"
    ends = {
        one["Device"]: one["DeleteOnTermination"]
        for volume in aws.ec2.describe_volumes()["Volumes"]
        for one in volume["Attachments"]
    }
    assert ends == {"/dev/xvda": True, "/dev/sdf": True, "/dev/sdg": False}
    aws.ec2.start_instances(InstanceIds=[machine])
    aws.until_state(machine, "running")
    volumes = attached(aws, machine)
    assert set(aws.machine(machine).disks) == {volumes["/dev/sdf"], late}


@answers(
    "DetachVolume",
    "only the volume named",
    "detaching, then available; it can be attached again",
    source=f"{API}, DetachVolume",
)
def test_a_volume_can_be_taken_from_a_machine_that_runs(aws: Aws) -> None:
    volume, machine = empty(aws), aws.running()
    aws.ec2.attach_volume(VolumeId=volume, InstanceId=machine, Device="/dev/sdf")
    assert aws.ec2.detach_volume(VolumeId=volume)["State"] == "detaching"
    aws.until(lambda: state(aws, volume), "available")
    assert aws.machine(machine).disks == {}
    assert list(attached(aws, machine)) == ["/dev/xvda"]
    aws.ec2.attach_volume(VolumeId=volume, InstanceId=machine, Device="/dev/sdf")
    assert volume in aws.machine(machine).disks


@answers(
    "DetachVolume",
    "a volume that the machine has mounted",
    "detaching until it lets go",
    source=f"{API}, VolumeAttachment: state",
)
def test_a_machine_that_does_not_let_go_keeps_its_volume(aws: Aws) -> None:
    volume, machine = empty(aws), aws.running()
    aws.ec2.attach_volume(VolumeId=volume, InstanceId=machine, Device="/dev/sdf")
    aws.machine(machine).holds.add(volume)
    aws.ec2.detach_volume(VolumeId=volume)

    def attachment() -> str:
        found = aws.ec2.describe_volumes(VolumeIds=[volume])["Volumes"][0]
        return found["Attachments"][0]["State"] if found["Attachments"] else found["State"]

    assert attachment() == "detaching"
    assert state(aws, volume) == "in-use"
    aws.machine(machine).holds.clear()
    aws.until(attachment, "available")


@answers(
    "DetachVolume",
    "a volume that is free; another instance or device named; the root of a running instance",
    "IncorrectState; InvalidAttachment.NotFound; OperationNotPermitted",
    source=ERRORS,
)
def test_what_is_not_attached_there_is_not_detached(aws: Aws, refuses: Refuses) -> None:
    volume, machine, other = empty(aws), aws.running(), aws.running()
    refuses("IncorrectState", aws.ec2.detach_volume, VolumeId=volume)
    aws.ec2.attach_volume(VolumeId=volume, InstanceId=machine, Device="/dev/sdf")
    for wrong in ({"InstanceId": other}, {"Device": "/dev/sdg"}):
        asked = {"VolumeId": volume, **wrong}
        refuses("InvalidAttachment.NotFound", aws.ec2.detach_volume, **asked)
    root = attached(aws, machine)["/dev/xvda"]
    refuses("OperationNotPermitted", aws.ec2.detach_volume, VolumeId=root)


@answers("AttachVolume", "a volume of another zone", "InvalidVolume.ZoneMismatch", source=ERRORS)
def test_a_volume_of_another_zone_is_not_attached(aws: Aws, refuses: Refuses) -> None:
    volume = aws.ec2.create_volume(Size=1, AvailabilityZone=f"{REGION}b")["VolumeId"]
    aws.until(lambda: state(aws, volume), "available")
    machine = aws.running(Placement={"AvailabilityZone": ZONE})
    asked = {"VolumeId": volume, "InstanceId": machine, "Device": "/dev/sdf"}
    refuses("InvalidVolume.ZoneMismatch", aws.ec2.attach_volume, **asked)


@answers(
    "ModifyVolume",
    "a smaller size; a larger one; a larger one while attached",
    "InvalidParameterValue; it grows; it grows",
    source=f"{API}, ModifyVolume: Size",
    ours="the last is UnsupportedOperation",
)
def test_a_volume_grows_and_does_not_shrink(aws: Aws, refuses: Refuses) -> None:
    volume, machine = empty(aws), aws.running()
    refuses("InvalidParameterValue", aws.ec2.modify_volume, VolumeId=volume, Size=1)
    aws.ec2.modify_volume(VolumeId=volume, Size=6)
    aws.ec2.attach_volume(VolumeId=volume, InstanceId=machine, Device="/dev/sdf")
    assert aws.machine(machine).disks[volume].stat().st_size == 6 << 30
    refuses("UnsupportedOperation", aws.ec2.modify_volume, VolumeId=volume, Size=7)


@answers(
    "AttachVolume",
    "the instance is terminated",
    "the volume stays, available",
    source="EC2 User Guide, Preserve data when an instance is terminated: after launch",
)
def test_it_is_free_when_its_machine_is_gone_and_its_file_goes_with_it(aws: Aws) -> None:
    volume, machine = made(aws), aws.running()
    aws.ec2.attach_volume(VolumeId=volume, InstanceId=machine, Device="/dev/sdf")
    file = aws.machine(machine).disks[volume]
    aws.ec2.terminate_instances(InstanceIds=[machine])
    aws.until_state(machine, "terminated")
    assert state(aws, volume) == "available"
    aws.ec2.delete_volume(VolumeId=volume)
    assert not file.exists()
    assert volume not in [v["VolumeId"] for v in aws.ec2.describe_volumes()["Volumes"]]
