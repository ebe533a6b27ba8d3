"""CopyImage and CopySnapshot: within a region and between two."""

from __future__ import annotations

from typing import Any

import pytest

from tests.contract.answers import answers
from tests.contract.conftest import REGION, Aws, Refuses, Start
from tests.contract.imaged import (
    ELSEWHERE,
    MISSING_IMAGE,
    MISSING_SNAPSHOT,
    STRANGER,
    also_restarted,
    as_account,
    completed,
    copied,
    image,
    in_region,
    names,
    snapshot,
    snapshot_of,
    tagged,
    tags_of,
)

API = "EC2 API reference, CopyImage"
SNAPSHOT = "EC2 API reference, CopySnapshot"
CODES = "EC2 API reference, Error codes"
TOKENS = "EC2 API reference, Ensuring idempotency"


def key(aws: Aws) -> str:
    """A key of the account's own, in the client's region."""
    kms = aws.session.client("kms", endpoint_url=aws.service.url, region_name=aws.region)
    return str(kms.create_key()["KeyMetadata"]["Arn"])


@answers(
    "CopyImage",
    "to another region",
    "an image with snapshots of its own there, and nowhere else; it says where it came from",
    source=API,
)
def test_a_copy_is_in_its_region_only_and_lasts(start: Start) -> None:
    aws = start()
    source = aws.image("source", Description="of parts")
    made = copied(in_region(aws, ELSEWHERE), source)
    before = image(in_region(aws, ELSEWHERE), made)
    assert (before["SourceImageId"], before["SourceImageRegion"]) == (source, REGION)
    assert before["OwnerId"] == image(aws, source)["OwnerId"]
    for now in also_restarted(aws, start):
        there = in_region(now, ELSEWHERE)
        assert image(there, made) == before
        assert names(there, Owners=["self"]) == ["a-copy"]
        assert names(now, Owners=["self"]) == ["source"]
        kept = snapshot_of(there, made)
        assert [s["SnapshotId"] for s in own_snapshots(there)] == [kept]
        assert [s["SnapshotId"] for s in own_snapshots(now)] == [snapshot_of(now, source)]


def own_snapshots(aws: Aws) -> list[Any]:
    return list(aws.ec2.describe_snapshots(OwnerIds=["self"])["Snapshots"])


@answers(
    "CopyImage",
    "and then RunInstances of the copy, the source being gone",
    "a machine from the same disk",
    source=API,
)
def test_a_copy_holds_the_disk_of_its_source(aws: Aws) -> None:
    instance = aws.stopped()
    with aws.machine(instance).spec.disk.open("r+b") as disk:
        disk.write(b"baked in")
    source = aws.image("source", InstanceId=instance)
    made = copied(aws, source)
    aws.ec2.deregister_image(ImageId=source, DeleteAssociatedSnapshots=True)
    with aws.machine(aws.running(ImageId=made)).spec.disk.open("rb") as disk:
        assert disk.read(8) == b"baked in"


def test_a_copy_takes_no_space_again(aws: Aws) -> None:
    """Ours: copies share their source's blocks."""
    instance = aws.stopped()
    with aws.machine(instance).spec.disk.open("r+b") as disk:
        disk.write(b"baked in")
    source = aws.image("source", InstanceId=instance)
    before = aws.service.store.usage()
    copied(aws, source)
    copied(in_region(aws, ELSEWHERE), source)
    after = aws.service.store.usage()
    assert (after.blocks, after.block_bytes) == (before.blocks, before.block_bytes)
    assert after.snapshots == before.snapshots + 2


@answers("CopyImage", "at first", "pending, and so is its snapshot", source="DescribeImages, State")
def test_a_copy_is_pending_at_first(start: Start) -> None:
    aws = start(latency="image=1.5")
    source = aws.image()
    made = aws.ec2.copy_image(Name="a-copy", SourceImageId=source, SourceRegion=REGION)["ImageId"]
    assert aws.image_state(made) == "pending"
    assert snapshot(aws, snapshot_of(aws, made))["State"] == "pending"
    aws.until(lambda: aws.image_state(made), "available")
    found = snapshot(aws, snapshot_of(aws, made))
    assert (found["State"], found["VolumeId"]) == ("completed", "vol-ffffffff")


@answers(
    "CopyImage",
    "a source that is not there, or not in that region",
    "InvalidAMIID.NotFound",
    source=CODES,
)
@answers("CopyImage", "a source that is pending", "InvalidAMIID.Unavailable", source=CODES)
def test_only_an_available_image_is_copied(start: Start, refuses: Refuses) -> None:
    aws = start(latency="image=60")
    source = aws.ec2.create_image(InstanceId=aws.stopped(), Name="slow")["ImageId"]
    copy = aws.ec2.copy_image
    asked: dict[str, Any] = {"Name": "a-copy", "SourceImageId": source, "SourceRegion": REGION}
    refuses("InvalidAMIID.Unavailable", copy, **asked)
    refuses("InvalidAMIID.NotFound", copy, **{**asked, "SourceImageId": MISSING_IMAGE})
    refuses("InvalidAMIID.NotFound", copy, **{**asked, "SourceRegion": ELSEWHERE})
    refuses("InvalidAMIID.Malformed", copy, **{**asked, "SourceImageId": "ami-none"})


@answers("CopyImage", "a region that is none", "InvalidParameterValue", source=CODES)
def test_a_region_that_is_none_is_refused(aws: Aws, refuses: Refuses) -> None:
    asked: dict[str, Any] = {
        "Name": "a-copy",
        "SourceImageId": aws.base,
        "SourceRegion": "mars-north-1",
    }
    refuses("InvalidParameterValue", aws.ec2.copy_image, **asked)


@answers("CopyImage", "a name of the account", "InvalidAMIName.Duplicate", source=CODES)
def test_a_name_is_taken_once_in_a_region(aws: Aws, refuses: Refuses) -> None:
    source = aws.image("taken")
    asked: dict[str, Any] = {"Name": "taken", "SourceImageId": source, "SourceRegion": REGION}
    refuses("InvalidAMIName.Duplicate", aws.ec2.copy_image, **asked)
    refuses("InvalidAMIName.Malformed", aws.ec2.copy_image, **{**asked, "Name": "what?"})
    assert copied(in_region(aws, ELSEWHERE), source, Name="taken")


@answers(
    "CopyImage",
    "the same client token again",
    "the same image; with other parameters IdempotentParameterMismatch",
    source=TOKENS,
)
def test_a_token_gives_the_same_copy_again(start: Start, refuses: Refuses) -> None:
    aws = start()
    asked: dict[str, Any] = {
        "Name": "a-copy",
        "SourceImageId": aws.image(),
        "SourceRegion": REGION,
        "ClientToken": "a-token",
    }
    made = copied(aws, asked["SourceImageId"], **asked)
    for now in also_restarted(aws, start):
        assert now.ec2.copy_image(**asked)["ImageId"] == made
        changed = {**asked, "Description": "another"}
        refuses("IdempotentParameterMismatch", now.ec2.copy_image, **changed)
    assert len(names(now, Owners=["self"])) == 2


@answers(
    "CopyImage",
    "without CopyImageTags",
    "a copy without the source's tags",
    source=f"{API}, CopyImageTags",
)
@answers(
    "CopyImage",
    "CopyImageTags, and tags in the call",
    "both on the copy; the snapshot has those of the call alone",
    source=f"{API}, CopyImageTags and TagSpecification",
)
def test_tags_are_copied_where_asked(start: Start) -> None:
    aws = start()
    source = aws.image(TagSpecifications=tagged(a="1", b="2"))
    assert tags_of(image(aws, copied(aws, source, Name="plain"))) == {}
    specifications = tagged("image", b="3", c="4") + tagged("snapshot", d="5")
    made = copied(aws, source, CopyImageTags=True, TagSpecifications=specifications)
    for now in also_restarted(aws, start):
        assert tags_of(image(now, made)) == {"a": "1", "b": "3", "c": "4"}
        assert tags_of(snapshot(now, snapshot_of(now, made))) == {"d": "5"}


@answers(
    "CopyImage",
    "tags for other things",
    "InvalidParameterValue",
    source=f"{API}, TagSpecification",
)
def test_only_image_and_snapshot_can_be_tagged(aws: Aws, refuses: Refuses) -> None:
    asked: dict[str, Any] = {"Name": "a-copy", "SourceImageId": aws.base, "SourceRegion": REGION}
    asked |= {"TagSpecifications": tagged("instance", a="1")}
    refuses("InvalidParameterValue", aws.ec2.copy_image, **asked)


@answers(
    "CopyImage",
    "Encrypted",
    "snapshots encrypted with the account's default key",
    source=f"{API}, Encrypted",
)
@answers(
    "CopyImage",
    "of an encrypted image, without Encrypted",
    "an encrypted copy",
    source=f"{API}, Encrypted",
)
def test_a_copy_can_be_encrypted_and_stays_so(start: Start) -> None:
    aws = start()
    source = aws.image()
    made = copied(aws, source, Encrypted=True)
    again = copied(aws, made, Name="again")
    for now in also_restarted(aws, start):
        for one in (made, again):
            assert image(now, one)["BlockDeviceMappings"][0]["Ebs"]["Encrypted"] is True
            found = snapshot(now, snapshot_of(now, one))
            assert found["Encrypted"] is True
            assert found["KmsKeyId"].startswith(f"arn:aws:kms:{REGION}:")
        assert snapshot(now, snapshot_of(now, source))["Encrypted"] is False


@answers(
    "CopyImage",
    "Encrypted, with a key of one's own",
    "snapshots encrypted with that key",
    source=f"{API}, KmsKeyId",
)
def test_a_copy_can_have_a_key_of_ones_own(aws: Aws) -> None:
    mine = key(aws)
    made = copied(aws, aws.image(), Encrypted=True, KmsKeyId=mine.rpartition("/")[2])
    assert snapshot(aws, snapshot_of(aws, made))["KmsKeyId"] == mine


@answers(
    "CopyImage",
    "a key that is not there",
    "a copy that fails later",
    source=f"{API}, KmsKeyId: keys are authenticated asynchronously",
)
def test_a_wrong_key_is_noticed_later(aws: Aws) -> None:
    asked: dict[str, Any] = {"Encrypted": True, "KmsKeyId": "alias/none"}
    asked |= {"Name": "a-copy", "SourceImageId": aws.base, "SourceRegion": REGION}
    made = aws.ec2.copy_image(**asked)["ImageId"]
    aws.until(lambda: aws.image_state(made), "failed")
    assert "alias/none" in image(aws, made)["StateReason"]["Message"]
    assert snapshot(aws, snapshot_of(aws, made))["State"] == "error"


@answers(
    "CopyImage",
    "a key without Encrypted",
    "InvalidParameterDependency",
    source=f"{API}, KmsKeyId; {CODES}",
)
@answers(
    "CopyImage",
    "Encrypted=false of an encrypted image",
    "an error",
    source=f"{API}, Encrypted; which code is not written anywhere",
    ours="InvalidParameterCombination",
)
def test_an_encryption_that_makes_no_sense_is_refused(aws: Aws, refuses: Refuses) -> None:
    asked: dict[str, Any] = {"Name": "a-copy", "SourceImageId": aws.base, "SourceRegion": REGION}
    refuses("InvalidParameterDependency", aws.ec2.copy_image, **asked, KmsKeyId=key(aws))
    asked["SourceImageId"] = copied(aws, aws.base, Name="encrypted", Encrypted=True)
    refuses("InvalidParameterCombination", aws.ec2.copy_image, **asked, Encrypted=False)


@answers(
    "CopyImage",
    "of another account's public image",
    "image and snapshots are the caller's, without the owner's tags",
    source=f"{API}; User Guide, Copy an AMI",
)
def test_a_copy_of_anothers_image_is_ones_own(aws: Aws, refuses: Refuses) -> None:
    made = copied(aws, aws.base)
    owner = image(aws, made)["OwnerId"]
    assert owner != image(aws, aws.base)["OwnerId"]
    found = snapshot(aws, snapshot_of(aws, made))
    assert found["OwnerId"] == owner
    aws.ec2.deregister_image(ImageId=made, DeleteAssociatedSnapshots=True)
    ids = [found["SnapshotId"]]
    refuses("InvalidSnapshot.NotFound", aws.ec2.describe_snapshots, SnapshotIds=ids)


@answers(
    "CopyImage",
    "of an image that is shared with the account",
    "a copy, with CopyImageTags only its ec2:SharedTag/ tags",
    source=f"{API}, CopyImageTags",
)
@answers(
    "CopyImage",
    "of another account's private image",
    "InvalidAMIID.NotFound",
    source=CODES,
)
def test_a_shared_image_can_be_copied_and_a_private_one_not(aws: Aws, refuses: Refuses) -> None:
    source = aws.image(TagSpecifications=tagged("image", a="1"))
    shared: Any = {"Key": "ec2:SharedTag/b", "Value": "2"}
    aws.ec2.create_tags(Resources=[source], Tags=[shared])
    friend = as_account(aws, STRANGER)
    asked: dict[str, Any] = {"Name": "mine", "SourceImageId": source, "SourceRegion": REGION}
    refuses("InvalidAMIID.NotFound", friend.ec2.copy_image, **asked)
    permission: Any = {"Add": [{"UserId": STRANGER}]}
    aws.ec2.modify_image_attribute(ImageId=source, LaunchPermission=permission)
    made = copied(friend, source, CopyImageTags=True)
    assert tags_of(image(friend, made)) == {"ec2:SharedTag/b": "2"}
    assert image(friend, made)["OwnerId"] == STRANGER
    assert snapshot(friend, snapshot_of(friend, made))["OwnerId"] == STRANGER
    assert names(aws, Owners=["self"]) == ["an-image"]


@answers(
    "CopyImage",
    "more than 20 at a time into a region",
    "ResourceLimitExceeded",
    source="EBS user guide, quotas: concurrent snapshot copies per destination region",
)
def test_twenty_copies_go_at_a_time(start: Start, refuses: Refuses) -> None:
    aws = start(latency="image=60")
    asked: dict[str, Any] = {"SourceImageId": aws.base, "SourceRegion": REGION}
    for number in range(20):
        aws.ec2.copy_image(Name=f"copy-{number}", **asked)
    refuses("ResourceLimitExceeded", aws.ec2.copy_image, Name="copy-20", **asked)
    there = in_region(aws, ELSEWHERE)
    assert there.ec2.copy_image(Name="copy-20", **asked)["ImageId"]


@answers("CopyImage", "DryRun", "DryRunOperation, and no image", source=f"{API}, DryRun")
def test_a_dry_run_makes_nothing(aws: Aws, refuses: Refuses) -> None:
    asked: dict[str, Any] = {
        "Name": "a-copy",
        "SourceImageId": aws.base,
        "SourceRegion": REGION,
        "DryRun": True,
    }
    refuses("DryRunOperation", aws.ec2.copy_image, **asked)
    assert names(aws, Owners=["self"]) == []
    assert own_snapshots(aws) == []


@answers(
    "CopyImage",
    "to an Outpost or a Local Zone, or within a given time",
    "a copy",
    source=API,
    ours="UnsupportedOperation that names the parameter",
)
@pytest.mark.parametrize(
    "extra",
    [
        {"DestinationAvailabilityZone": "us-east-1-bos-1a"},
        {"SnapshotCopyCompletionDurationMinutes": 30},
    ],
)
def test_what_has_no_effect_here_is_refused_by_name(
    aws: Aws, refuses: Refuses, extra: dict[str, Any]
) -> None:
    asked: dict[str, Any] = {
        "Name": "a-copy",
        "SourceImageId": aws.base,
        "SourceRegion": REGION,
        **extra,
    }
    message = refuses("UnsupportedOperation", aws.ec2.copy_image, **asked)
    assert next(iter(extra)) in message


@answers(
    "CopySnapshot",
    "to another region, encrypted, with tags",
    "a snapshot there, pending, with its tags in the answer",
    source=SNAPSHOT,
)
def test_a_snapshot_can_be_copied(start: Start) -> None:
    aws = start()
    source = snapshot_of(aws, aws.image())
    there = in_region(aws, ELSEWHERE)
    asked: dict[str, Any] = {"SourceSnapshotId": source, "SourceRegion": REGION}
    asked |= {"Description": "the same", "TagSpecifications": tagged("snapshot", a="1")}
    done = there.ec2.copy_snapshot(**asked, Encrypted=True)
    assert tags_of(dict(done)) == {"a": "1"}
    made = completed(there, done["SnapshotId"])
    for now in also_restarted(aws, start):
        found = snapshot(in_region(now, ELSEWHERE), made)
        assert (found["Encrypted"], found["Description"]) == (True, "the same")
        assert tags_of(found) == {"a": "1"}
        assert found["VolumeSize"] == 2


@answers(
    "CopySnapshot",
    "a source that is not there, or pending",
    "InvalidSnapshot.NotFound, IncorrectState",
    source=CODES,
)
def test_only_a_completed_snapshot_is_copied(start: Start, refuses: Refuses) -> None:
    aws = start(latency="image=60")
    slow = aws.ec2.create_image(InstanceId=aws.stopped(), Name="slow")["ImageId"]
    asked: dict[str, Any] = {"SourceSnapshotId": snapshot_of(aws, slow), "SourceRegion": REGION}
    refuses("IncorrectState", aws.ec2.copy_snapshot, **asked)
    asked["SourceSnapshotId"] = MISSING_SNAPSHOT
    refuses("InvalidSnapshot.NotFound", aws.ec2.copy_snapshot, **asked)


def test_a_copy_that_is_cut_off_leaves_nothing(start: Start) -> None:
    aws = start(latency="image=60")
    aws.ec2.copy_image(Name="half-made", SourceImageId=aws.base, SourceRegion=REGION)
    again = start()
    assert names(again, Owners=["self"]) == []
    assert own_snapshots(again) == []
