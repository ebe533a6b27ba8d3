"""Block device mappings: what an image says of its volumes, and the machines from it."""

from __future__ import annotations

from typing import Any

import pytest

from tests.contract.answers import answers
from tests.contract.conftest import Aws, Refuses, Start
from tests.contract.imaged import copied, image, names, snapshot, snapshot_of

CREATE = "EC2 API reference, CreateImage"
CODES = "EC2 API reference, Error codes"


def mapping(**ebs: Any) -> dict[str, Any]:
    return {"BlockDeviceMappings": [{"DeviceName": "/dev/xvda", "Ebs": ebs}]}


@answers(
    "CreateImage",
    "DeleteOnTermination of a volume that is there",
    "the image's mapping says so",
    source=f"{CREATE}, BlockDeviceMapping",
)
def test_a_volume_can_be_kept_at_the_end(start: Start) -> None:
    aws = start()
    made = aws.image(**mapping(DeleteOnTermination=False))
    before = image(aws, made)
    assert before["BlockDeviceMappings"][0]["Ebs"]["DeleteOnTermination"] is False
    assert image(start(), made) == before


@answers(
    "CreateImage",
    "another size, type, speed or encryption of a volume that is there",
    "an error",
    source=f"{CREATE}, BlockDeviceMapping; {CODES}",
    ours="InvalidBlockDeviceMapping that names the parameter",
)
@pytest.mark.parametrize(
    "ebs", [{"VolumeSize": 9}, {"VolumeType": "io2"}, {"Iops": 9000}, {"Encrypted": True}]
)
def test_nothing_else_of_it_can_be_changed(aws: Aws, refuses: Refuses, ebs: dict[str, Any]) -> None:
    asked = {"InstanceId": aws.stopped(), "Name": "changed", **mapping(**ebs)}
    message = refuses("InvalidBlockDeviceMapping", aws.ec2.create_image, **asked)
    assert next(iter(ebs)) in message
    assert names(aws, Owners=["self"]) == []
    assert aws.ec2.describe_snapshots(OwnerIds=["self"])["Snapshots"] == []


@answers(
    "CreateImage",
    "what the volume is like already",
    "an image",
    source=f"{CREATE}, BlockDeviceMapping",
)
def test_a_mapping_may_say_what_is_so(aws: Aws) -> None:
    made = aws.image(**mapping(VolumeSize=2, VolumeType="gp3", Encrypted=False))
    assert image(aws, made)["BlockDeviceMappings"][0]["Ebs"]["VolumeSize"] == 2


@answers(
    "CreateImage",
    "further volumes, with a snapshot or empty",
    "they are in the image's mapping",
    source=f"{CREATE}, BlockDeviceMapping",
)
def test_volumes_can_be_added(aws: Aws) -> None:
    source = snapshot_of(aws, aws.image("first"))
    more = [
        {"DeviceName": "/dev/sdf", "Ebs": {"SnapshotId": source}},
        {"DeviceName": "/dev/sdg", "Ebs": {"VolumeSize": 3}},
    ]
    found = image(aws, aws.image("second", BlockDeviceMappings=more))["BlockDeviceMappings"]
    assert [m["DeviceName"] for m in found] == ["/dev/xvda", "/dev/sdf", "/dev/sdg"]
    assert [m["Ebs"].get("SnapshotId") for m in found[1:]] == [source, None]


@answers(
    "CreateImage",
    "an instance with several volumes",
    "a snapshot of each, but of those that NoDevice leaves out",
    source=f"{CREATE}; EC2 User Guide, Create an EBS-backed AMI",
)
def test_every_volume_is_captured(aws: Aws) -> None:
    data = [{"DeviceName": d, "Ebs": {"VolumeSize": 1}} for d in ("/dev/sdf", "/dev/sdg")]
    instance = aws.stopped(BlockDeviceMappings=data)
    less = [{"DeviceName": "/dev/sdg", "NoDevice": ""}]
    made = aws.image(InstanceId=instance, BlockDeviceMappings=less)
    found = image(aws, made)["BlockDeviceMappings"]
    assert [m["DeviceName"] for m in found] == ["/dev/xvda", "/dev/sdf"]
    held = [snapshot(aws, m["Ebs"]["SnapshotId"]) for m in found]
    assert [(s["VolumeSize"], s["State"]) for s in held] == [(2, "completed"), (1, "completed")]
    done = aws.ec2.deregister_image(ImageId=made, DeleteAssociatedSnapshots=True)
    assert [r["ReturnCode"] for r in done["DeleteSnapshotResults"]] == ["success", "success"]


@answers(
    "CreateImage",
    "an instance with encrypted volumes",
    "encrypted snapshots",
    source=f"{CREATE}; EC2 User Guide, Use encryption with EBS-backed AMIs",
)
def test_what_an_encrypted_volume_gives_is_encrypted(start: Start) -> None:
    aws = start()
    made = aws.image(InstanceId=aws.stopped(**mapping(Encrypted=True)))
    found = snapshot(aws, snapshot_of(aws, made))
    assert found["Encrypted"] is True
    assert found["KmsKeyId"].startswith("arn:aws:kms:us-east-1:")
    assert snapshot(start(), found["SnapshotId"]) == found


@answers("CreateImage", "DryRun", "DryRunOperation, and no image", source=f"{CREATE}, DryRun")
def test_a_dry_run_makes_nothing(aws: Aws, refuses: Refuses) -> None:
    instance = aws.stopped()
    asked = {"InstanceId": instance, "Name": "dry", "DryRun": True}
    refuses("DryRunOperation", aws.ec2.create_image, **asked)
    assert names(aws, Owners=["self"]) == []
    aws.ec2.start_instances(InstanceIds=[instance])
    aws.until_state(instance, "running")  # nothing holds its disk


# -- and the machines from it --------------------------------------------------------------------


def volumes(aws: Aws, instance: str) -> dict[str, Any]:
    """Device name -> the volume behind it, with what is said of it there."""
    found = {}
    for mapped in aws.instance(instance)["BlockDeviceMappings"]:
        asked = [mapped["Ebs"]["VolumeId"]]
        (volume,) = aws.ec2.describe_volumes(VolumeIds=asked)["Volumes"]
        goes = mapped["Ebs"]["DeleteOnTermination"]
        found[mapped["DeviceName"]] = {**volume, "DeleteOnTermination": goes}
    return found


@answers(
    "RunInstances",
    "an image with sizes, types and further volumes of its own",
    "volumes as the image says, where the request says nothing else",
    source="EC2 User Guide, Block device mappings: AMI and instance",
)
def test_a_machine_has_the_volumes_that_its_image_says(aws: Aws) -> None:
    source = snapshot_of(aws, aws.image())
    root = {"SnapshotId": source, "VolumeSize": 5, "VolumeType": "gp3", "Iops": 4000}
    made = aws.ec2.register_image(
        Name="large",
        Architecture="x86_64",
        VirtualizationType="hvm",
        RootDeviceName="/dev/xvda",
        BlockDeviceMappings=[
            {"DeviceName": "/dev/xvda", "Ebs": {**root, "DeleteOnTermination": False}},  # type: ignore[typeddict-item]
            {"DeviceName": "/dev/sdf", "Ebs": {"VolumeSize": 3, "VolumeType": "gp3"}},
            {"DeviceName": "/dev/sdg", "Ebs": {"VolumeSize": 1}},
        ],
    )["ImageId"]
    less = [{"DeviceName": "/dev/sdg", "NoDevice": ""}]
    found = volumes(aws, aws.running(ImageId=made, BlockDeviceMappings=less))
    assert sorted(found) == ["/dev/sdf", "/dev/xvda"]
    said = [found["/dev/xvda"][k] for k in ("Size", "VolumeType", "Iops", "DeleteOnTermination")]
    assert said == [5, "gp3", 4000, False]
    assert found["/dev/sdf"]["Size"] == 3
    asked = mapping(VolumeSize=6, VolumeType="gp2")
    found = volumes(aws, aws.running(ImageId=made, **asked))
    assert (found["/dev/xvda"]["Size"], found["/dev/xvda"]["VolumeType"]) == (6, "gp2")


@answers(
    "RunInstances",
    "an image with encrypted snapshots",
    "encrypted volumes, with the same key",
    source="EC2 User Guide, Use encryption with EBS-backed AMIs",
)
def test_what_an_encrypted_image_gives_is_encrypted(aws: Aws) -> None:
    made = copied(aws, aws.base, Encrypted=True)
    key = snapshot(aws, snapshot_of(aws, made))["KmsKeyId"]
    root = volumes(aws, aws.running(ImageId=made))["/dev/xvda"]
    assert (root["Encrypted"], root["KmsKeyId"]) == (True, key)
