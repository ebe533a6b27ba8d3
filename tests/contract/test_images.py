"""Images and snapshots: made, listed, tagged, removed, and there again after a restart."""

from __future__ import annotations

from typing import Any

import pytest

from amibuild.local import debian
from tests.contract.answers import answers
from tests.contract.conftest import Aws, Refuses, Start
from tests.contract.imaged import names, snapshot_of, tagged

CREATE = "EC2 API reference, CreateImage"
DEREGISTER = "EC2 API reference, DeregisterImage"
CODES = "EC2 API reference, Error codes"


@answers(
    "CreateImage",
    "a name that breaks the rule",
    "InvalidAMIName.Malformed",
    source=f"{CREATE}, Name; {CODES}",
)
@pytest.mark.parametrize("name", ["a" * 129, "what?", "tab\there"])
def test_a_name_that_breaks_the_rule_is_refused(aws: Aws, refuses: Refuses, name: str) -> None:
    """CreateImage, Name: 3 to 128 letters, digits, spaces and ()[]./-'@_.

    botocore refuses shorter ones itself.
    """
    asked = {"InstanceId": aws.stopped(), "Name": name}
    refuses("InvalidAMIName.Malformed", aws.ec2.create_image, **asked)


def test_a_name_may_have_all_that_the_rule_allows(aws: Aws) -> None:
    assert aws.image_state(aws.image("A1 ()[]./-'@_")) == "available"


@answers("CreateImage", "a name that is taken", "InvalidAMIName.Duplicate", source=CODES)
def test_a_name_is_taken_once(aws: Aws, refuses: Refuses) -> None:
    """EC2 API reference, Error codes: InvalidAMIName.Duplicate."""
    image = aws.image("once")
    instance = aws.stopped()
    message = refuses(
        "InvalidAMIName.Duplicate", aws.ec2.create_image, InstanceId=instance, Name="once"
    )
    assert message == f"AMI name once is already in use by AMI {image}"


def test_a_pending_image_has_its_name_already(start: Start, refuses: Refuses) -> None:
    aws = start(latency="image=60")
    instance = aws.stopped()
    aws.ec2.create_image(InstanceId=instance, Name="once")
    refuses("InvalidAMIName.Duplicate", aws.ec2.create_image, InstanceId=instance, Name="once")


@answers(
    "CreateImage",
    "tags in the call",
    "they are on the image and its snapshots",
    source=f"{CREATE}, TagSpecification",
)
def test_tags_of_the_call_are_on_image_and_snapshot(aws: Aws) -> None:
    """CreateImage, TagSpecifications: image and snapshot."""
    image = aws.image(TagSpecifications=tagged(a="1"))
    snapshot = snapshot_of(aws, image)
    wanted = [{"Key": "a", "Value": "1"}]
    assert aws.ec2.describe_images(ImageIds=[image])["Images"][0]["Tags"] == wanted
    assert aws.ec2.describe_snapshots(SnapshotIds=[snapshot])["Snapshots"][0]["Tags"] == wanted


@answers(
    "CreateImage",
    "tags for other things",
    "InvalidParameterValue",
    source=f"{CREATE}, TagSpecification",
)
def test_other_things_cannot_be_tagged_by_it(aws: Aws, refuses: Refuses) -> None:
    message = refuses(
        "InvalidParameterValue",
        aws.ec2.create_image,
        InstanceId=aws.stopped(),
        Name="an-image",
        TagSpecifications=[{"ResourceType": "instance", "Tags": [{"Key": "a", "Value": "1"}]}],
    )
    assert "'instance' is not a valid taggable resource type" in message


@answers(
    "CreateImage",
    "at first",
    "pending, and so are its snapshots",
    source="EC2 API reference, DescribeImages, State",
)
def test_an_image_is_pending_until_its_disk_is_read(start: Start) -> None:
    """DescribeImages, State; DescribeSnapshots, State."""
    aws = start(latency="image=1.5")
    image = aws.ec2.create_image(InstanceId=aws.stopped(), Name="slow")["ImageId"]
    assert aws.image_state(image) == "pending"
    snapshot = snapshot_of(aws, image)
    state = aws.ec2.describe_snapshots(SnapshotIds=[snapshot])["Snapshots"][0]["State"]
    assert state == "pending"
    aws.until(lambda: aws.image_state(image), "available")
    found = aws.ec2.describe_snapshots(SnapshotIds=[snapshot])["Snapshots"][0]
    assert (found["State"], found["Progress"]) == ("completed", "100%")


@answers(
    "CreateImage",
    "and it fails",
    "state `failed` with a StateReason",
    source="EC2 API reference, Image",
)
def test_a_capture_that_fails_says_why(start: Start) -> None:
    """DescribeImages: State failed, with a StateReason."""
    aws = start("capture:1=the disk is full")
    image = aws.ec2.create_image(InstanceId=aws.stopped(), Name="broken")["ImageId"]
    aws.until(lambda: aws.image_state(image), "failed")
    found = aws.ec2.describe_images(ImageIds=[image])["Images"][0]
    assert found["StateReason"]["Message"] == "the disk is full"
    snapshots = aws.ec2.describe_snapshots(OwnerIds=["self"])["Snapshots"]
    assert [s["State"] for s in snapshots] == ["error"]


def test_the_image_says_what_it_was_made_from(aws: Aws) -> None:
    instance = aws.stopped()
    image = aws.ec2.create_image(InstanceId=instance, Name="made", Description="of parts")
    aws.until(lambda: aws.image_state(image["ImageId"]), "available")
    found = aws.ec2.describe_images(ImageIds=[image["ImageId"]])["Images"][0]
    keys = ("SourceInstanceId", "Description", "RootDeviceName", "BootMode", "Architecture")
    seen = [found[key] for key in keys]  # type: ignore[literal-required]
    assert seen == [instance, "of parts", "/dev/xvda", "uefi", "x86_64"]


@answers("CreateImage", "and then RunInstances", "a machine from the same disk", source=CREATE)
def test_what_was_on_the_disk_is_on_the_next_machines_disk(aws: Aws) -> None:
    instance = aws.stopped()
    with aws.machine(instance).spec.disk.open("r+b") as disk:
        disk.write(b"baked in")
    image = aws.ec2.create_image(InstanceId=instance, Name="baked")["ImageId"]
    aws.until(lambda: aws.image_state(image), "available")
    with aws.machine(aws.running(ImageId=image)).spec.disk.open("rb") as disk:
        assert disk.read(8) == b"baked in"


@answers(
    "CreateImage",
    "a running instance",
    "it is shut down, captured and started again",
    source=f"{CREATE}, NoReboot",
)
def test_a_running_instance_is_shut_down_for_it_and_started_again(aws: Aws) -> None:
    """CreateImage, NoReboot: without it, EC2 shuts the instance down, captures, and starts it."""
    instance = aws.running()
    before = aws.machine(instance)
    image = aws.ec2.create_image(InstanceId=instance, Name="rebooted")["ImageId"]
    aws.until(lambda: aws.image_state(image), "available")
    aws.until(lambda: aws.ping(instance), "Online")
    assert aws.state(instance) == "running"
    assert before.exited()
    assert aws.machine(instance) is not before


def test_without_a_reboot_the_instance_runs_on(aws: Aws) -> None:
    """CreateImage, NoReboot. What is in such an image is for tests/local: here nothing runs."""
    instance = aws.running()
    machine = aws.machine(instance)
    with machine.spec.disk.open("r+b") as disk:
        disk.write(b"before")
    image = aws.ec2.create_image(InstanceId=instance, Name="torn", NoReboot=True)["ImageId"]
    aws.until(lambda: aws.image_state(image), "available")
    with machine.spec.disk.open("r+b") as disk:
        disk.write(b"after!")
    assert aws.machine(instance) is machine
    assert aws.state(instance) == "running"
    with aws.machine(aws.running(ImageId=image)).spec.disk.open("rb") as disk:
        assert disk.read(6) == b"before"


@answers("CreateImage", "a terminated instance", "IncorrectInstanceState", source=CODES)
def test_a_terminated_instance_has_no_disk_to_read(aws: Aws, refuses: Refuses) -> None:
    instance = aws.running()
    aws.ec2.terminate_instances(InstanceIds=[instance])
    aws.until_state(instance, "terminated")
    refuses("IncorrectInstanceState", aws.ec2.create_image, InstanceId=instance, Name="late")


@answers(
    "CreateImage",
    "and the instance is terminated meanwhile",
    "the image is made all the same",
    source="EBS user guide, Snapshots: a snapshot holds the volume as it was when it was asked for",
)
def test_terminating_the_builder_does_not_disturb_the_capture(start: Start) -> None:
    """A snapshot holds the volume as it was when it was asked for (EBS user guide)."""
    aws = start(latency="image=1.3")
    instance = aws.stopped()
    image = aws.ec2.create_image(InstanceId=instance, Name="going")["ImageId"]
    aws.ec2.terminate_instances(InstanceIds=[instance])
    aws.until_state(instance, "terminated")
    aws.until(lambda: aws.image_state(image), "available")


def test_a_machine_does_not_start_while_its_disk_is_read(start: Start) -> None:
    aws = start(latency="image=1.4")
    instance = aws.stopped()
    image = aws.ec2.create_image(InstanceId=instance, Name="reading")["ImageId"]
    aws.ec2.start_instances(InstanceIds=[instance])
    assert (aws.state(instance), aws.image_state(image)) == ("pending", "pending")
    aws.until_state(instance, "running")
    assert aws.image_state(image) == "available"


@answers(
    "DeregisterImage",
    "by default",
    "its snapshots stay; DescribeImages by its id is empty at first",
    source=f"{DEREGISTER}; EC2 API reference, DescribeImages",
)
def test_deregistering_leaves_the_snapshot(aws: Aws) -> None:
    """DeregisterImage: snapshots stay unless DeleteAssociatedSnapshots is set."""
    image = aws.image()
    snapshot = snapshot_of(aws, image)
    aws.ec2.deregister_image(ImageId=image)
    assert aws.ec2.describe_images(ImageIds=[image])["Images"] == []
    assert len(aws.ec2.describe_snapshots(SnapshotIds=[snapshot])["Snapshots"]) == 1
    aws.ec2.delete_snapshot(SnapshotId=snapshot)


@answers(
    "DeregisterImage",
    "DeleteAssociatedSnapshots",
    "they go, and are told",
    source=f"{DEREGISTER}, DeleteAssociatedSnapshots",
)
def test_deregistering_takes_the_snapshot_along_where_asked(aws: Aws, refuses: Refuses) -> None:
    image = aws.image()
    snapshot = snapshot_of(aws, image)
    done = aws.ec2.deregister_image(ImageId=image, DeleteAssociatedSnapshots=True)
    assert done["DeleteSnapshotResults"] == [{"SnapshotId": snapshot, "ReturnCode": "success"}]
    refuses("InvalidSnapshot.NotFound", aws.ec2.describe_snapshots, SnapshotIds=[snapshot])


@answers(
    "DeregisterImage", "a pending image", "it is gone, its snapshot is completed", source=DEREGISTER
)
def test_a_pending_image_can_be_deregistered_and_stays_away(start: Start) -> None:
    aws = start(latency="image=1.3")
    image = aws.ec2.create_image(InstanceId=aws.stopped(), Name="regretted")["ImageId"]
    snapshot = snapshot_of(aws, image)
    aws.ec2.deregister_image(ImageId=image)
    aws.until(
        lambda: aws.ec2.describe_snapshots(SnapshotIds=[snapshot])["Snapshots"][0]["State"],
        "completed",
    )
    assert names(aws, Owners=["self"]) == []
    assert names(start(), Owners=["self"]) == []


@answers(
    "DeleteSnapshot",
    "a snapshot behind an image",
    "InvalidSnapshot.InUse",
    source="EC2 API reference, DeleteSnapshot",
)
def test_a_snapshot_behind_an_image_cannot_be_deleted(aws: Aws, refuses: Refuses) -> None:
    """DeleteSnapshot: InvalidSnapshot.InUse."""
    snapshot = snapshot_of(aws, aws.image())
    refuses("InvalidSnapshot.InUse", aws.ec2.delete_snapshot, SnapshotId=snapshot)


@answers(
    "DeleteSnapshot",
    "a snapshot that is not there, an id that is none",
    "InvalidSnapshot.NotFound, InvalidSnapshotID.Malformed",
    source=CODES,
)
def test_a_snapshot_that_is_not_there_is_not_found(aws: Aws, refuses: Refuses) -> None:
    missing = "snap-0123456789abcdef0"
    refuses("InvalidSnapshot.NotFound", aws.ec2.delete_snapshot, SnapshotId=missing)
    refuses("InvalidSnapshotID.Malformed", aws.ec2.delete_snapshot, SnapshotId="snap-none")


@answers("DeregisterImage", "another account's image", "AuthFailure", source=CODES)
def test_another_accounts_image_cannot_be_removed(aws: Aws, refuses: Refuses) -> None:
    """Error codes: AuthFailure. The base image is Debian's, here as on EC2."""
    refuses("AuthFailure", aws.ec2.deregister_image, ImageId=aws.base)


def test_an_image_that_is_not_there_is_not_found(aws: Aws, refuses: Refuses) -> None:
    missing = "ami-0123456789abcdef0"
    refuses("InvalidAMIID.NotFound", aws.ec2.describe_images, ImageIds=[missing])
    refuses("InvalidAMIID.NotFound", aws.ec2.deregister_image, ImageId=missing)
    refuses("InvalidAMIID.Malformed", aws.ec2.describe_images, ImageIds=["ami-none"])


def test_self_is_the_account_and_debian_is_another(aws: Aws) -> None:
    """DescribeImages, Owners: account ids, or `self`."""
    aws.image("mine")
    assert names(aws, Owners=["self"]) == ["mine"]
    (base,) = aws.ec2.describe_images(Owners=[debian.OWNER])["Images"]
    assert (base["ImageId"], base["Public"]) == (aws.base, True)
    assert [s["Description"] for s in _snapshots(aws, debian.OWNER)] == ["nothing"]
    assert len(_snapshots(aws, "self")) == 1


def _snapshots(aws: Aws, owner: str) -> list[Any]:
    return list(aws.ec2.describe_snapshots(OwnerIds=[owner])["Snapshots"])


def test_images_are_found_by_name_tag_and_state(aws: Aws) -> None:
    """DescribeImages, Filters: name with wildcards, tag:<key>, tag-key, state."""
    aws.image("game-host-1", TagSpecifications=tagged(image="game-host"))
    aws.image("other")

    def found(name: str, *values: str) -> list[str]:
        return names(aws, Owners=["self"], Filters=[{"Name": name, "Values": list(values)}])

    assert found("name", "game-*") == ["game-host-1"]
    assert found("tag:image", "game-host") == ["game-host-1"]
    assert found("tag-key", "image") == ["game-host-1"]
    assert sorted(found("state", "available")) == ["game-host-1", "other"]
    assert found("state", "pending") == []


@answers(
    "DescribeImages, DescribeSnapshots",
    "after a restart",
    "all as before",
    source="EC2 API reference, Image and Snapshot",
)
def test_images_snapshots_and_tags_outlive_the_endpoint(start: Start) -> None:
    aws = start()
    image = aws.image(TagSpecifications=tagged(a="1", b="2"))
    snapshot = snapshot_of(aws, image)
    aws.ec2.create_tags(Resources=[image], Tags=[{"Key": "verified", "Value": "yes"}])
    aws.ec2.delete_tags(Resources=[image, snapshot], Tags=[{"Key": "b"}])
    before = aws.ec2.describe_images(ImageIds=[image])["Images"][0]
    base = aws.base
    again = start()
    after = again.ec2.describe_images(ImageIds=[image])["Images"][0]
    assert after == before
    assert {t["Key"]: t["Value"] for t in after["Tags"]} == {"a": "1", "verified": "yes"}
    found = again.ec2.describe_snapshots(SnapshotIds=[snapshot])["Snapshots"][0]
    assert found["Tags"] == [{"Key": "a", "Value": "1"}]
    assert again.base == base
    again.running(ImageId=image)


def test_what_was_removed_stays_away(start: Start, refuses: Refuses) -> None:
    aws = start()
    image = aws.image()
    aws.ec2.deregister_image(ImageId=image, DeleteAssociatedSnapshots=True)
    again = start()
    refuses("InvalidAMIID.NotFound", again.ec2.describe_images, ImageIds=[image])
    assert again.ec2.describe_snapshots(OwnerIds=["self"])["Snapshots"] == []


def test_a_pending_image_does_not_outlive_the_endpoint(start: Start) -> None:
    aws = start(latency="image=60")
    aws.ec2.create_image(InstanceId=aws.stopped(), Name="half-made")
    assert names(start(), Owners=["self"]) == []


@answers(
    "DescribeImages",
    "in another region",
    "the image is not there",
    source="EC2 User Guide, Regions: AMIs are regional",
)
def test_images_stay_in_their_region(start: Start) -> None:
    aws = start()
    image = aws.image()
    for restarted in (False, True):
        now = start() if restarted else aws
        elsewhere = Aws(now.service, now.session, region="eu-west-1")
        assert names(elsewhere, Owners=["self"]) == []
        assert elsewhere.base == now.base
        assert now.image_state(image) == "available"


def test_who_may_launch_an_image_is_kept(start: Start) -> None:
    """ModifyImageAttribute, LaunchPermission."""
    aws = start()
    image = aws.image()
    friend = [{"UserId": "111122223333"}]
    aws.ec2.modify_image_attribute(ImageId=image, LaunchPermission={"Add": friend})  # type: ignore[typeddict-item]
    again = start()
    kept = again.ec2.describe_image_attribute(ImageId=image, Attribute="launchPermission")
    assert kept["LaunchPermissions"] == friend
