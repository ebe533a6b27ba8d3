"""Attributes of images and snapshots: above all, who may use them."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest

from tests.contract.answers import answers
from tests.contract.conftest import REGION, Aws, Refuses, Start
from tests.contract.imaged import (
    MISSING_IMAGE,
    MISSING_SNAPSHOT,
    STRANGER,
    also_restarted,
    as_account,
    copied,
    image,
    names,
    snapshot,
    snapshot_of,
)

API = "EC2 API reference, ModifyImageAttribute"
READ = "EC2 API reference, DescribeImageAttribute"
SNAPSHOT = "EC2 API reference, ModifySnapshotAttribute"
CODES = "EC2 API reference, Error codes"
DEPRECATE = "EC2 User Guide, Deprecate an AMI"
FRIEND: dict[str, Any] = {"Add": [{"UserId": STRANGER}]}
EVERYBODY: dict[str, Any] = {"Add": [{"Group": "all"}]}


def permissions(aws: Aws, id_: str) -> list[Any]:
    answer = aws.ec2.describe_image_attribute(ImageId=id_, Attribute="launchPermission")
    return list(answer["LaunchPermissions"])


def volume_permissions(aws: Aws, id_: str) -> list[Any]:
    attribute: Any = "createVolumePermission"
    answer = aws.ec2.describe_snapshot_attribute(SnapshotId=id_, Attribute=attribute)
    return list(answer["CreateVolumePermissions"])


def own_key(aws: Aws) -> str:
    kms = aws.session.client("kms", endpoint_url=aws.service.url, region_name=REGION)
    return str(kms.create_key()["KeyMetadata"]["Arn"])


@answers(
    "ModifyImageAttribute",
    "launch permissions added and removed, as a structure or by OperationType",
    "both ways do the same",
    source=f"{API}, LaunchPermission, OperationType, UserId",
)
def test_permissions_are_given_and_taken(start: Start) -> None:
    aws = start()
    made = aws.image()
    modify: Any = aws.ec2.modify_image_attribute
    modify(
        ImageId=made, LaunchPermission={"Add": [{"UserId": STRANGER}, {"UserId": "222233334444"}]}
    )
    modify(ImageId=made, LaunchPermission={"Remove": [{"UserId": "222233334444"}]})
    arn = "arn:aws:organizations::111122223333:organization/o-1"
    asked = {"ImageId": made, "Attribute": "launchPermission", "OrganizationArns": [arn]}
    modify(**asked, OperationType="add")
    for now in also_restarted(aws, start):
        assert permissions(now, made) == [{"UserId": STRANGER}, {"OrganizationArn": arn}]
    now.ec2.modify_image_attribute(**asked, OperationType="remove")  # type: ignore[arg-type]
    assert permissions(now, made) == [{"UserId": STRANGER}]
    now.ec2.reset_image_attribute(ImageId=made, Attribute="launchPermission")
    assert permissions(now, made) == []
    assert permissions(start(), made) == []


@answers(
    "RunInstances, DescribeImages",
    "another account, of a private image",
    "InvalidAMIID.NotFound; once it is shared a machine, with the owner's tags unseen",
    source="EC2 User Guide, Share an AMI with specific accounts",
)
def test_whom_it_is_shared_with_can_use_it(aws: Aws, refuses: Refuses) -> None:
    pairs: Any = [{"ResourceType": "image", "Tags": [{"Key": "a", "Value": "1"}]}]
    made = aws.image(TagSpecifications=pairs)
    friend = as_account(aws, STRANGER)
    launch = {"InstanceType": "c7i.large", "MinCount": 1, "MaxCount": 1, "ImageId": made}
    refuses("InvalidAMIID.NotFound", friend.ec2.describe_images, ImageIds=[made])
    refuses("InvalidAMIID.NotFound", friend.ec2.run_instances, **launch)
    aws.ec2.modify_image_attribute(ImageId=made, LaunchPermission=FRIEND)  # type: ignore[arg-type]
    found = image(friend, made)
    assert (found["Name"], found["Tags"]) == ("an-image", [])
    friend.running(ImageId=made)
    refuses("AuthFailure", friend.ec2.deregister_image, ImageId=made)
    aws.ec2.modify_image_attribute(ImageId=made, OperationType="remove", UserIds=[STRANGER])
    refuses("InvalidAMIID.NotFound", friend.ec2.run_instances, **launch)


@answers(
    "ModifyImageAttribute",
    "the group `all`",
    "a public image, deprecated two years after it was made",
    source=f"{API}; {DEPRECATE}",
)
def test_a_public_image_has_an_end(start: Start) -> None:
    aws = start()
    made = aws.image()
    aws.ec2.modify_image_attribute(ImageId=made, LaunchPermission=EVERYBODY)  # type: ignore[arg-type]
    for now in also_restarted(aws, start):
        found = image(now, made)
        assert found["Public"] is True
        ends = datetime.fromisoformat(found["DeprecationTime"])
        assert (ends - datetime.fromisoformat(found["CreationDate"])).days in {730, 731}
    stranger = as_account(now, "222233334444")
    assert names(stranger, ImageIds=[made]) == ["an-image"]


@answers(
    "EnableImageDeprecation",
    "a public image, more than two years after it was made",
    "an error",
    source="EC2 API reference, EnableImageDeprecation; the code is not written anywhere",
    ours="InvalidParameterValue",
)
def test_a_public_image_cannot_last_longer(aws: Aws, refuses: Refuses) -> None:
    made = aws.image()
    aws.ec2.modify_image_attribute(ImageId=made, LaunchPermission=EVERYBODY)  # type: ignore[arg-type]
    now = datetime.fromisoformat(image(aws, made)["CreationDate"])
    late = now.replace(day=1, year=now.year + 3)
    asked = {"ImageId": made, "DeprecateAt": late}
    refuses("InvalidParameterValue", aws.ec2.enable_image_deprecation, **asked)


@answers(
    "ModifyImageAttribute",
    "an account or a group that is none",
    "InvalidAMIAttributeItemValue",
    source=CODES,
)
def test_a_permission_for_nobody_is_refused(aws: Aws, refuses: Refuses) -> None:
    made = aws.image()
    for nobody in ({"UserId": "12"}, {"Group": "friends"}):
        asked = {"ImageId": made, "LaunchPermission": {"Add": [nobody]}}
        refuses("InvalidAMIAttributeItemValue", aws.ec2.modify_image_attribute, **asked)
    assert permissions(aws, made) == []


@answers(
    "ModifyImageAttribute",
    "sharing an image that is encrypted with the account's default key",
    "InvalidParameter: Snapshots encrypted with the AWS Managed CMK can't be shared",
    source="EC2 User Guide, Share an AMI; as seen in packer issue 7410",
)
@answers(
    "ModifySnapshotAttribute",
    "sharing a snapshot that is encrypted with the account's default key",
    "OperationNotPermitted: Encrypted snapshots with EBS default key cannot be shared",
    source="EBS user guide, Share a snapshot; as seen in packer issue 7499",
)
def test_what_the_default_key_encrypts_cannot_be_shared(aws: Aws, refuses: Refuses) -> None:
    made = copied(aws, aws.base, Encrypted=True)
    message = refuses(
        "InvalidParameter", aws.ec2.modify_image_attribute, ImageId=made, LaunchPermission=FRIEND
    )
    assert message.startswith("Snapshots encrypted with the AWS Managed CMK can't be shared")
    asked = {"SnapshotId": snapshot_of(aws, made), "CreateVolumePermission": FRIEND}
    message = refuses("OperationNotPermitted", aws.ec2.modify_snapshot_attribute, **asked)
    assert message == "Encrypted snapshots with EBS default key cannot be shared"
    assert permissions(aws, made) == []


@answers(
    "ModifyImageAttribute, ModifySnapshotAttribute",
    "sharing what is encrypted with a key of one's own",
    "it is shared with accounts; making it public is an error",
    source="EC2 User Guide, Share an AMI; EBS user guide, Share a snapshot",
    ours="InvalidParameter for the image, OperationNotPermitted for the snapshot",
)
def test_what_a_key_of_ones_own_encrypts_can_be_shared(aws: Aws, refuses: Refuses) -> None:
    made = copied(aws, aws.base, Encrypted=True, KmsKeyId=own_key(aws))
    held = snapshot_of(aws, made)
    aws.ec2.modify_image_attribute(ImageId=made, LaunchPermission=FRIEND)  # type: ignore[arg-type]
    aws.ec2.modify_snapshot_attribute(SnapshotId=held, CreateVolumePermission=FRIEND)  # type: ignore[arg-type]
    assert (permissions(aws, made), volume_permissions(aws, held)) == (
        [{"UserId": STRANGER}],
        [{"UserId": STRANGER}],
    )
    public: dict[str, Any] = {"LaunchPermission": EVERYBODY}
    refuses("InvalidParameter", aws.ec2.modify_image_attribute, ImageId=made, **public)
    public = {"CreateVolumePermission": EVERYBODY}
    refuses("OperationNotPermitted", aws.ec2.modify_snapshot_attribute, SnapshotId=held, **public)


@answers(
    "ModifyImageAttribute",
    "a pending image",
    "InvalidAMIID.Unavailable: ... is currently pending and may not be used for this operation",
    source=f"{CODES}; as seen in SUSE's ec2imgutils, issue 45",
)
def test_a_pending_image_cannot_be_shared(start: Start, refuses: Refuses) -> None:
    aws = start(latency="image=60")
    slow = aws.ec2.create_image(InstanceId=aws.stopped(), Name="slow")["ImageId"]
    asked = {"ImageId": slow, "LaunchPermission": FRIEND}
    message = refuses("InvalidAMIID.Unavailable", aws.ec2.modify_image_attribute, **asked)
    assert f"'{slow}' is currently pending and may not be used for this operation" in message


@answers(
    "ModifyImageAttribute",
    "another account's image, or none",
    "AuthFailure, InvalidAMIID.NotFound",
    source=CODES,
)
def test_only_its_owner_changes_an_image(aws: Aws, refuses: Refuses) -> None:
    modify, read = aws.ec2.modify_image_attribute, aws.ec2.describe_image_attribute
    for code, id_ in (("AuthFailure", aws.base), ("InvalidAMIID.NotFound", MISSING_IMAGE)):
        refuses(code, modify, ImageId=id_, LaunchPermission=FRIEND)
        refuses(code, read, ImageId=id_, Attribute="launchPermission")


@answers(
    "ModifyImageAttribute",
    "Description, or Attribute=description with Value",
    "the description is changed",
    source=f"{API}, Description, Value",
)
@answers(
    "ModifyImageAttribute",
    "ImdsSupport v2.0",
    "it is set, machines need a token, and it can't be undone",
    source=f"{API}, ImdsSupport",
)
def test_description_and_imds_support_can_be_changed(start: Start, refuses: Refuses) -> None:
    aws = start()
    made = aws.image()
    modify: Any = aws.ec2.modify_image_attribute
    modify(ImageId=made, Description={"Value": "first"})
    modify(ImageId=made, Attribute="description", Value="second")
    modify(ImageId=made, ImdsSupport={"Value": "v2.0"})
    for now in also_restarted(aws, start):
        found = image(now, made)
        assert (found["Description"], found["ImdsSupport"]) == ("second", "v2.0")
    undo = {"ImageId": made, "ImdsSupport": {"Value": "v1.0"}}
    refuses("InvalidParameterValue", now.ec2.modify_image_attribute, **undo)
    options = now.instance(now.running(ImageId=made))["MetadataOptions"]
    assert options["HttpTokens"] == "required"


@answers(
    "ModifyImageAttribute",
    "two attributes at once, or none",
    "InvalidParameterCombination",
    source=f"{API}: you can specify only one attribute at a time; {CODES}",
)
@answers("ModifyImageAttribute", "an attribute that is none", "InvalidParameterValue", source=CODES)
def test_one_attribute_at_a_time(aws: Aws, refuses: Refuses) -> None:
    made, modify = aws.image(), aws.ec2.modify_image_attribute
    both = {"Description": {"Value": "x"}, "LaunchPermission": FRIEND}
    refuses("InvalidParameterCombination", modify, ImageId=made, **both)
    refuses("InvalidParameterCombination", modify, ImageId=made)
    refuses("InvalidParameterValue", modify, ImageId=made, Attribute="bootMode", Value="uefi")


@answers(
    "DescribeImageAttribute",
    "each attribute",
    "its value; blockDeviceMapping is AuthFailure, for owners too",
    source=f"{READ}; aws-cli issue 1083",
)
def test_each_attribute_can_be_read(aws: Aws, refuses: Refuses) -> None:
    made = aws.image(Description="of parts")

    def value(attribute: Any, key: str) -> Any:
        answer: Any = aws.ec2.describe_image_attribute(ImageId=made, Attribute=attribute)
        assert answer["ImageId"] == made
        return answer.get(key, {}).get("Value")

    assert value("description", "Description") == "of parts"
    assert value("bootMode", "BootMode") == "uefi"
    assert value("sriovNetSupport", "SriovNetSupport") == "simple"
    assert value("deregistrationProtection", "DeregistrationProtection") == "disabled"
    for attribute, key in (("kernel", "KernelId"), ("tpmSupport", "TpmSupport")):
        assert value(attribute, key) is None
    asked = {"ImageId": made, "Attribute": "blockDeviceMapping"}
    refuses("AuthFailure", aws.ec2.describe_image_attribute, **asked)


@answers(
    "DescribeImageAttribute, DescribeImages",
    "lastLaunchedTime of an image",
    "when a machine was last made from it, a day later; nothing before",
    source=f"{READ}; EC2 API reference, Image, lastLaunchedTime",
    ours="at once, for nobody waits a day here",
)
def test_the_last_launch_is_remembered(start: Start) -> None:
    aws = start()
    made = aws.image()
    assert "LastLaunchedTime" not in image(aws, made)
    instance = aws.running(ImageId=made)
    launched = aws.instance(instance)["LaunchTime"]
    for now in also_restarted(aws, start):
        said = image(now, made)["LastLaunchedTime"]
        asked: Any = {"ImageId": made, "Attribute": "lastLaunchedTime"}
        assert now.ec2.describe_image_attribute(**asked)["LastLaunchedTime"]["Value"] == said
        assert abs((datetime.fromisoformat(said) - launched).total_seconds()) <= 2
    assert "LastLaunchedTime" not in image(now, now.base)


@answers(
    "ModifySnapshotAttribute",
    "createVolumePermission added and removed",
    "they are kept, and the snapshot is there for whom they name",
    source=f"{SNAPSHOT}; EBS user guide, Share a snapshot",
)
def test_snapshots_can_be_shared(start: Start, refuses: Refuses) -> None:
    aws = start()
    held = snapshot_of(aws, aws.image())
    friend = as_account(aws, STRANGER)
    assert friend.ec2.describe_snapshots(SnapshotIds=[held])["Snapshots"] == []
    aws.ec2.modify_snapshot_attribute(
        SnapshotId=held,
        Attribute="createVolumePermission",
        OperationType="add",
        UserIds=[STRANGER, "222233334444"],
    )
    take: Any = {"Remove": [{"UserId": "222233334444"}]}
    aws.ec2.modify_snapshot_attribute(SnapshotId=held, CreateVolumePermission=take)
    assert snapshot(friend, held)["SnapshotId"] == held
    refuses("AuthFailure", friend.ec2.delete_snapshot, SnapshotId=held)
    for now in also_restarted(aws, start):
        assert volume_permissions(now, held) == [{"UserId": STRANGER}]
    attribute: Any = "createVolumePermission"
    now.ec2.reset_snapshot_attribute(SnapshotId=held, Attribute=attribute)
    assert volume_permissions(now, held) == []
    assert volume_permissions(start(), held) == []


@answers(
    "ModifySnapshotAttribute",
    "a snapshot of another account's, or none; an account that is none; nothing to change",
    "AuthFailure, InvalidSnapshot.NotFound; InvalidAMIAttributeItemValue; "
    "InvalidParameterCombination",
    source=CODES,
)
def test_a_snapshot_is_shared_by_its_owner_with_somebody(aws: Aws, refuses: Refuses) -> None:
    modify, held = aws.ec2.modify_snapshot_attribute, snapshot_of(aws, aws.image())
    share = {"CreateVolumePermission": FRIEND}
    refuses("AuthFailure", modify, SnapshotId=snapshot_of(aws, aws.base), **share)
    refuses("InvalidSnapshot.NotFound", modify, SnapshotId=MISSING_SNAPSHOT, **share)
    nobody: Any = {"CreateVolumePermission": {"Add": [{"UserId": "12"}]}}
    refuses("InvalidAMIAttributeItemValue", modify, SnapshotId=held, **nobody)
    refuses("InvalidParameterCombination", modify, SnapshotId=held)


@answers(
    "ModifyImageAttribute, ModifySnapshotAttribute",
    "DryRun",
    "DryRunOperation; nothing changes",
    source=f"{API}, DryRun; {SNAPSHOT}, DryRun",
)
@pytest.mark.parametrize(
    "change",
    [
        {"LaunchPermission": FRIEND},
        {"Description": {"Value": "x"}},
        {"ImdsSupport": {"Value": "v2.0"}},
    ],
)
def test_a_dry_run_changes_nothing(aws: Aws, refuses: Refuses, change: dict[str, Any]) -> None:
    made = aws.image()
    before = image(aws, made)
    refuses("DryRunOperation", aws.ec2.modify_image_attribute, ImageId=made, DryRun=True, **change)
    assert image(aws, made) == before
    assert permissions(aws, made) == []
    asked = {"SnapshotId": snapshot_of(aws, made), "CreateVolumePermission": FRIEND}
    refuses("DryRunOperation", aws.ec2.modify_snapshot_attribute, **asked, DryRun=True)
    assert volume_permissions(aws, snapshot_of(aws, made)) == []
