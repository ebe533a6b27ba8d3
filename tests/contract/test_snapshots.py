"""Snapshots: made of volumes, listed, kept."""

from __future__ import annotations

from typing import Any

import pytest

from tests.contract.answers import answers
from tests.contract.conftest import REGION, Aws, Refuses, Start
from tests.contract.imaged import (
    MISSING_SNAPSHOT,
    also_restarted,
    completed,
    snapshot,
    snapshot_of,
    tagged,
    tags_of,
)

API = "EC2 API reference, CreateSnapshot"
LIST = "EC2 API reference, DescribeSnapshots"
CODES = "EC2 API reference, Error codes"


def root_volume(aws: Aws, instance: str) -> str:
    return str(aws.instance(instance)["BlockDeviceMappings"][0]["Ebs"]["VolumeId"])


def made(aws: Aws, **asked: Any) -> str:
    """A volume, available."""
    request = {"AvailabilityZone": f"{REGION}a", **asked}
    volume = aws.ec2.create_volume(**request)["VolumeId"]

    def state() -> str:
        return aws.ec2.describe_volumes(VolumeIds=[volume])["Volumes"][0]["State"]

    aws.until(state, "available")
    return volume


@answers(
    "CreateSnapshot",
    "of a stopped instance's root volume",
    "pending, then completed; it holds the disk as it was",
    source=API,
)
def test_a_root_volume_can_be_snapshotted_and_registered(aws: Aws) -> None:
    instance = aws.stopped()
    with aws.machine(instance).spec.disk.open("r+b") as disk:
        disk.write(b"kept")
    volume = root_volume(aws, instance)
    asked: dict[str, Any] = {"TagSpecifications": tagged("snapshot", a="1")}
    answer = aws.ec2.create_snapshot(VolumeId=volume, Description="by hand", **asked)
    assert (answer["State"], answer["VolumeId"], answer["VolumeSize"]) == ("pending", volume, 2)
    assert (answer["Description"], tags_of(dict(answer))) == ("by hand", {"a": "1"})
    taken = completed(aws, answer["SnapshotId"])
    image = aws.ec2.register_image(
        Name="registered",
        Architecture="x86_64",
        VirtualizationType="hvm",
        RootDeviceName="/dev/xvda",
        BlockDeviceMappings=[{"DeviceName": "/dev/xvda", "Ebs": {"SnapshotId": taken}}],
    )["ImageId"]
    with aws.machine(aws.running(ImageId=image)).spec.disk.open("rb") as disk:
        assert disk.read(4) == b"kept"


@answers(
    "CreateSnapshot",
    "of a volume that is not attached",
    "a snapshot of it",
    source=API,
)
def test_a_detached_volume_can_be_snapshotted(aws: Aws) -> None:
    source = snapshot_of(aws, aws.image())
    volume = made(aws, SnapshotId=source, Encrypted=True)
    taken = completed(aws, aws.ec2.create_snapshot(VolumeId=volume)["SnapshotId"])
    found = snapshot(aws, taken)
    assert (found["VolumeId"], found["Encrypted"]) == (volume, True)


def test_a_volume_that_was_never_written_can_be_snapshotted(aws: Aws) -> None:
    volume = made(aws, Size=3)
    taken = completed(aws, aws.ec2.create_snapshot(VolumeId=volume)["SnapshotId"])
    assert snapshot(aws, taken)["VolumeSize"] == 3


@answers(
    "CreateSnapshot",
    "and the volume is attached and written to while it is pending",
    "the volume as it was when the snapshot was asked for",
    source=f"{API}: you may use the volume while the snapshot is pending",
)
def test_what_is_written_later_is_not_in_it(start: Start) -> None:
    aws = start(latency="image=1.5")
    volume, machine = made(aws, Size=1), aws.running()
    taken = aws.ec2.create_snapshot(VolumeId=volume)["SnapshotId"]
    aws.ec2.attach_volume(VolumeId=volume, InstanceId=machine, Device="/dev/sdf")
    with aws.machine(machine).disks[volume].open("r+b") as disk:
        disk.write(b"late")
    again = made(aws, SnapshotId=completed(aws, taken))
    aws.ec2.attach_volume(VolumeId=again, InstanceId=machine, Device="/dev/sdg")
    with aws.machine(machine).disks[again].open("rb") as disk:
        assert disk.read(4) == bytes(4)


@answers(
    "CreateSnapshot",
    "of a stopped instance's data volume; then StartInstances",
    "a machine that runs at once",
    source=API,
    ours="it is pending until the disk is read",
)
def test_a_machine_waits_until_its_volume_is_read(start: Start) -> None:
    aws = start(latency="image=1.5")
    data: Any = [{"DeviceName": "/dev/sdf", "Ebs": {"VolumeSize": 1}}]
    instance = aws.stopped(BlockDeviceMappings=data)
    volume = aws.instance(instance)["BlockDeviceMappings"][1]["Ebs"]["VolumeId"]
    taken = aws.ec2.create_snapshot(VolumeId=volume)["SnapshotId"]
    aws.ec2.start_instances(InstanceIds=[instance])
    assert (aws.state(instance), snapshot(aws, taken)["State"]) == ("pending", "pending")
    aws.until_state(instance, "running")
    assert snapshot(aws, taken)["State"] == "completed"


@answers("CreateSnapshot", "a volume that is not there", "InvalidVolume.NotFound", source=CODES)
def test_a_volume_that_is_not_there_is_not_found(aws: Aws, refuses: Refuses) -> None:
    missing = "vol-0123456789abcdef0"
    refuses("InvalidVolume.NotFound", aws.ec2.create_snapshot, VolumeId=missing)


@answers(
    "CreateSnapshot",
    "tags for other things; DryRun",
    "InvalidParameterValue; DryRunOperation, and no snapshot",
    source=API,
)
def test_a_refused_snapshot_is_not_made(aws: Aws, refuses: Refuses) -> None:
    volume = made(aws, Size=1)
    take = aws.ec2.create_snapshot
    wrong = tagged("volume", a="1")
    refuses("InvalidParameterValue", take, VolumeId=volume, TagSpecifications=wrong)
    refuses("DryRunOperation", take, VolumeId=volume, DryRun=True)
    assert aws.ec2.describe_snapshots(OwnerIds=["self"])["Snapshots"] == []


def test_a_snapshot_that_fails_says_why(start: Start) -> None:
    """DescribeSnapshots: State error, with a StateMessage."""
    aws = start("capture:1=the disk is full")
    taken = aws.ec2.create_snapshot(VolumeId=made(aws, Size=1))["SnapshotId"]
    aws.until(lambda: str(snapshot(aws, taken)["State"]), "error")
    assert snapshot(aws, taken)["StateMessage"] == "the disk is full"


@answers(
    "DescribeSnapshots",
    "after a restart",
    "volume, encryption, key, description, tags and time as before",
    source=LIST,
)
def test_all_that_is_said_of_it_lasts(start: Start) -> None:
    aws = start()
    volume = made(aws, Size=1, Encrypted=True)
    asked: dict[str, Any] = {"TagSpecifications": tagged("snapshot", a="1")}
    taken = aws.ec2.create_snapshot(VolumeId=volume, Description="kept", **asked)["SnapshotId"]
    completed(aws, taken)
    before = snapshot(aws, taken)
    assert (before["Encrypted"], before["VolumeId"]) == (True, volume)
    assert snapshot(start(), taken) == before


@answers(
    "DeleteSnapshot",
    "a pending snapshot",
    "it is gone",
    source="EC2 API reference, DeleteSnapshot",
)
def test_a_pending_snapshot_can_be_deleted_and_stays_away(start: Start) -> None:
    aws = start(latency="image=1.3")
    kept, gone = (
        aws.ec2.create_snapshot(VolumeId=made(aws, Size=1))["SnapshotId"] for _ in range(2)
    )
    aws.ec2.delete_snapshot(SnapshotId=gone)
    completed(aws, kept)
    for now in also_restarted(aws, start):
        found = now.ec2.describe_snapshots(OwnerIds=["self"])["Snapshots"]
        assert [s["SnapshotId"] for s in found] == [kept]


@answers(
    "DescribeSnapshots",
    "filters",
    "those that match: description, encrypted, owner-id, snapshot-id, start-time, status, "
    "volume-id, volume-size, tag:<key>, tag-key",
    source=f"{LIST}, Filter",
)
def test_snapshots_are_found_by_what_they_say(aws: Aws) -> None:
    volume = made(aws, Size=3, Encrypted=True)
    asked: dict[str, Any] = {"TagSpecifications": tagged("snapshot", game="chess")}
    taken = aws.ec2.create_snapshot(VolumeId=volume, Description="a [game]", **asked)["SnapshotId"]
    aws.ec2.create_snapshot(VolumeId=made(aws, Size=1))
    completed(aws, taken)
    found = snapshot(aws, taken)

    def matches(name: str, *values: str) -> list[str]:
        filters: Any = [{"Name": name, "Values": list(values)}]
        answer = aws.ec2.describe_snapshots(OwnerIds=["self"], Filters=filters)
        return [s["SnapshotId"] for s in answer["Snapshots"]]

    for name, value in (
        ("description", "a [*]"),
        ("encrypted", "true"),
        ("volume-size", "3"),
        ("volume-id", volume),
        ("snapshot-id", taken),
        ("tag:game", "che?s"),
        ("tag-key", "game"),
    ):
        assert matches(name, value) == [taken], name
    assert taken in matches("start-time", f"{found['StartTime']:%Y-%m-%d}T*")
    assert taken in matches("owner-id", found["OwnerId"])
    assert matches("status", "error") == []


@answers("DescribeSnapshots", "a filter that is none", "InvalidParameterValue", source=CODES)
@answers(
    "DescribeSnapshots",
    "ids that are unknown, or none",
    "InvalidSnapshot.NotFound, InvalidSnapshotID.Malformed",
    source=CODES,
)
@answers("DescribeSnapshots", "an owner that is none", "InvalidUserID.Malformed", source=CODES)
def test_a_question_that_makes_no_sense_is_refused(aws: Aws, refuses: Refuses) -> None:
    ask = aws.ec2.describe_snapshots
    refuses("InvalidParameterValue", ask, Filters=[{"Name": "colour", "Values": ["red"]}])
    refuses("InvalidSnapshot.NotFound", ask, SnapshotIds=[MISSING_SNAPSHOT])
    refuses("InvalidSnapshotID.Malformed", ask, SnapshotIds=["snap-none"])
    refuses("InvalidUserID.Malformed", ask, OwnerIds=["me"])


@answers(
    "DescribeSnapshots",
    "MaxResults",
    "pages with a NextToken; fewer than 5 are InvalidParameterValue",
    source=f"{LIST}, MaxResults",
)
def test_many_snapshots_come_in_pages(aws: Aws, refuses: Refuses) -> None:
    volume = made(aws, Size=1)
    taken = {aws.ec2.create_snapshot(VolumeId=volume)["SnapshotId"] for _ in range(7)}
    pages = aws.ec2.get_paginator("describe_snapshots").paginate(
        OwnerIds=["self"], PaginationConfig={"PageSize": 5}
    )
    sizes, seen = [], []
    for page in pages:
        sizes.append(len(page["Snapshots"]))
        seen += [s["SnapshotId"] for s in page["Snapshots"]]
    assert (sizes, set(seen), len(seen)) == ([5, 2], taken, 7)
    refuses("InvalidParameterValue", aws.ec2.describe_snapshots, MaxResults=4)
    refuses("InvalidNextToken", aws.ec2.describe_snapshots, MaxResults=5, NextToken="?")


@answers(
    "CreateSnapshots",
    "of an instance",
    "one snapshot for each of its volumes",
    source="EC2 API reference, CreateSnapshots",
    ours="UnsupportedOperation",
)
def test_many_snapshots_at_once_are_refused(aws: Aws, refuses: Refuses) -> None:
    asked = {"InstanceSpecification": {"InstanceId": aws.stopped()}}
    refuses("UnsupportedOperation", aws.ec2.create_snapshots, **asked)


@pytest.mark.parametrize("parameter", ["OutpostArn", "Location"])
def test_what_has_no_effect_here_is_refused_by_name(
    aws: Aws, refuses: Refuses, parameter: str
) -> None:
    asked = {"VolumeId": made(aws, Size=1), parameter: "local"}
    assert parameter in refuses("UnsupportedOperation", aws.ec2.create_snapshot, **asked)
