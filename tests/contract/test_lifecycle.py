"""What becomes of an image: deregistered, disabled, deprecated, protected from deregistration."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.contract.answers import answers
from tests.contract.conftest import Aws, Refuses, Start
from tests.contract.imaged import (
    MISSING_IMAGE,
    STRANGER,
    also_restarted,
    as_account,
    change_on_disk,
    copied,
    image,
    names,
    snapshot_of,
)

API = "EC2 API reference, {}"
GUIDE = "EC2 User Guide, {}"
CODES = "EC2 API reference, Error codes"
PROTECT = GUIDE.format("Protect an AMI from deregistration")
DISABLE = GUIDE.format("Disable an AMI")
DEPRECATE = GUIDE.format("Deprecate an AMI")
# The guide says that it can't be deregistered, not by which code.
PROTECTED = "OperationNotPermitted"
CODE_BY_ANALOGY = f"{PROTECT}; the code is that of termination protection in {CODES}"


def share(aws: Aws, id_: str, account: str = STRANGER) -> None:
    permission: Any = {"Add": [{"UserId": account}]}
    aws.ec2.modify_image_attribute(ImageId=id_, LaunchPermission=permission)


def in_days(days: float) -> datetime:
    return datetime.now(UTC) + timedelta(days=days)


@answers(
    "DeregisterImage",
    "DeleteAssociatedSnapshots, a snapshot being that of another image too",
    "the image goes, its snapshot stays and is `skipped`",
    source=API.format("DeregisterImage, DeleteAssociatedSnapshots"),
)
def test_a_snapshot_of_two_images_stays_with_the_other(aws: Aws) -> None:
    first = aws.image()
    shared = snapshot_of(aws, first)
    second = aws.ec2.register_image(
        Name="second",
        RootDeviceName="/dev/xvda",
        BlockDeviceMappings=[{"DeviceName": "/dev/xvda", "Ebs": {"SnapshotId": shared}}],
    )["ImageId"]

    def outcome(id_: str) -> str:
        done = aws.ec2.deregister_image(ImageId=id_, DeleteAssociatedSnapshots=True)
        (result,) = done["DeleteSnapshotResults"]
        assert result["SnapshotId"] == shared
        return result["ReturnCode"]

    assert [outcome(first), outcome(second)] == ["skipped", "success"]
    assert aws.ec2.describe_snapshots(OwnerIds=["self"])["Snapshots"] == []


@answers(
    "DeregisterImage",
    "an image that has been deregistered",
    "InvalidAMIID.Unavailable",
    source=CODES,
)
@answers("DeregisterImage", "an image that never was", "InvalidAMIID.NotFound", source=CODES)
@answers(
    "DeregisterImage",
    "DryRun",
    "DryRunOperation; the image stays",
    source=API.format("DeregisterImage"),
)
def test_an_image_goes_once(aws: Aws, refuses: Refuses) -> None:
    made = aws.image()
    refuses("DryRunOperation", aws.ec2.deregister_image, ImageId=made, DryRun=True)
    aws.ec2.deregister_image(ImageId=made)
    refuses("InvalidAMIID.Unavailable", aws.ec2.deregister_image, ImageId=made)
    refuses("InvalidAMIID.NotFound", aws.ec2.deregister_image, ImageId=MISSING_IMAGE)
    refuses("InvalidAMIID.Malformed", aws.ec2.deregister_image, ImageId="ami-none")


# -- disabled ------------------------------------------------------------------------------------


@answers(
    "DisableImage",
    "an image of one's own",
    "state `disabled`, its launch permissions are gone; EnableImage does not bring them back",
    source=DISABLE,
)
def test_a_disabled_image_loses_its_permissions(start: Start) -> None:
    aws = start()
    made = aws.image()
    share(aws, made)
    assert aws.ec2.disable_image(ImageId=made)["Return"] is True
    for now in also_restarted(aws, start):
        assert now.image_state(made) == "disabled"
        asked: Any = {"ImageId": made, "Attribute": "launchPermission"}
        assert now.ec2.describe_image_attribute(**asked)["LaunchPermissions"] == []
    now.ec2.enable_image(ImageId=made)
    assert now.image_state(made) == "available"
    assert now.ec2.describe_image_attribute(**asked)["LaunchPermissions"] == []
    assert start().image_state(made) == "available"


@answers(
    "RunInstances",
    "a disabled image",
    "InvalidAMIID.Unavailable",
    source=f"{DISABLE}; {CODES}: not in a state from which you can launch an instance",
)
@answers("CopyImage", "a disabled image", "InvalidAMIID.Unavailable", source=f"{DISABLE}; {CODES}")
@answers(
    "ModifyImageAttribute",
    "sharing a disabled image",
    "InvalidAMIID.Unavailable",
    source=f"{DISABLE}; {CODES}",
)
@answers("DeleteSnapshot", "a disabled image's snapshot", "InvalidSnapshot.InUse", source=DISABLE)
def test_a_disabled_image_is_of_no_use(aws: Aws, refuses: Refuses) -> None:
    made = aws.image()
    aws.ec2.disable_image(ImageId=made)
    refuses("InvalidAMIID.Unavailable", aws.launch, ImageId=made)
    asked = {"Name": "a-copy", "SourceImageId": made, "SourceRegion": aws.region}
    refuses("InvalidAMIID.Unavailable", aws.ec2.copy_image, **asked)
    permission = {"Add": [{"UserId": STRANGER}]}
    refuses(
        "InvalidAMIID.Unavailable",
        aws.ec2.modify_image_attribute,
        ImageId=made,
        LaunchPermission=permission,
    )
    ids = {"SnapshotId": snapshot_of(aws, made)}
    refuses("InvalidSnapshot.InUse", aws.ec2.delete_snapshot, **ids)
    aws.ec2.enable_image(ImageId=made)
    aws.running(ImageId=made)


@answers(
    "DescribeImages",
    "without IncludeDisabled",
    "no disabled image, unless its id is named",
    source=DISABLE,
)
def test_a_disabled_image_is_listed_where_asked(aws: Aws) -> None:
    made = aws.image("old")
    aws.image("new")
    aws.ec2.disable_image(ImageId=made)
    assert names(aws, Owners=["self"]) == ["new"]
    assert names(aws, Owners=["self"], IncludeDisabled=True) == ["old", "new"]
    assert names(aws, ImageIds=[made]) == ["old"]
    filters = [{"Name": "state", "Values": ["disabled"]}]
    assert names(aws, IncludeDisabled=True, Filters=filters) == ["old"]


@answers("DisableImage", "another account's image", "AuthFailure", source=DISABLE)
@answers("DisableImage", "a pending image", "InvalidAMIID.Unavailable", source=CODES)
def test_only_an_available_image_of_ones_own_is_disabled(start: Start, refuses: Refuses) -> None:
    aws = start(latency="image=60")
    slow = aws.ec2.create_image(InstanceId=aws.stopped(), Name="slow")["ImageId"]
    for change in (aws.ec2.disable_image, aws.ec2.enable_image):
        refuses("AuthFailure", change, ImageId=aws.base)
        refuses("InvalidAMIID.Unavailable", change, ImageId=slow)
        refuses("InvalidAMIID.NotFound", change, ImageId=MISSING_IMAGE)


# -- deprecated ----------------------------------------------------------------------------------


@answers(
    "EnableImageDeprecation",
    "a date ahead",
    "DeprecationTime, to the nearest minute",
    source=API.format("EnableImageDeprecation, DeprecateAt"),
)
def test_a_deprecation_is_rounded_and_lasts(start: Start) -> None:
    aws = start()
    made = aws.image()
    moment = in_days(30).replace(hour=10, minute=15, second=40, microsecond=0)
    assert aws.ec2.enable_image_deprecation(ImageId=made, DeprecateAt=moment)["Return"] is True
    rounded = f"{moment:%Y-%m-%d}T10:16:00.000Z"
    for now in also_restarted(aws, start):
        assert image(now, made)["DeprecationTime"] == rounded
    now.ec2.disable_image_deprecation(ImageId=made)
    assert "DeprecationTime" not in image(now, made)
    assert "DeprecationTime" not in image(start(), made)


@answers(
    "EnableImageDeprecation",
    "a date in the past, or more than 10 years ahead",
    "an error",
    source=API.format("EnableImageDeprecation, DeprecateAt; the code is not written anywhere"),
    ours="InvalidParameterValue",
)
@pytest.mark.parametrize("days", [-1, 3660])
def test_a_deprecation_has_its_limits(aws: Aws, refuses: Refuses, days: int) -> None:
    asked = {"ImageId": aws.image(), "DeprecateAt": in_days(days)}
    refuses("InvalidParameterValue", aws.ec2.enable_image_deprecation, **asked)


@answers(
    "DescribeImages",
    "a deprecated image, its owner asking",
    "it is listed",
    source=API.format("DescribeImages, IncludeDeprecated"),
)
@answers(
    "DescribeImages",
    "a deprecated image, another account asking",
    "it is listed with IncludeDeprecated or by its id only",
    source=DEPRECATE,
)
@answers("RunInstances", "a deprecated image", "a machine", source=DEPRECATE)
def test_others_have_to_ask_for_a_deprecated_image(start: Start, tmp_path: Path) -> None:
    aws = start()
    made = aws.image()
    share(aws, made)
    change_on_disk(aws, tmp_path, made, deprecation=in_days(-1))
    aws = start()
    friend = as_account(aws, STRANGER)
    owner = image(aws, made)["OwnerId"]
    assert names(aws, Owners=["self"]) == ["an-image"]
    assert names(friend, Owners=[owner]) == []
    assert names(friend, Owners=[owner], IncludeDeprecated=True) == ["an-image"]
    assert names(friend, ImageIds=[made]) == ["an-image"]
    friend.running(ImageId=made)


@answers("EnableImageDeprecation", "another account's image", "AuthFailure", source=DEPRECATE)
def test_only_its_owner_deprecates_an_image(aws: Aws, refuses: Refuses) -> None:
    asked = {"ImageId": aws.base, "DeprecateAt": in_days(1)}
    refuses("AuthFailure", aws.ec2.enable_image_deprecation, **asked)
    refuses("AuthFailure", aws.ec2.disable_image_deprecation, ImageId=aws.base)


# -- protected -----------------------------------------------------------------------------------


@answers(
    "EnableImageDeregistrationProtection",
    "without and with cooldown",
    "`enabled-without-cooldown`, `enabled-with-cooldown`",
    source="AWS CLI reference, enable-image-deregistration-protection, Examples",
)
@answers("DeregisterImage", "a protected image", PROTECTED, source=CODE_BY_ANALOGY)
@pytest.mark.parametrize(
    ("cooldown", "said"), [(False, "enabled-without-cooldown"), (True, "enabled-with-cooldown")]
)
def test_a_protected_image_stays(start: Start, refuses: Refuses, cooldown: bool, said: str) -> None:
    aws = start()
    made = aws.image()
    assert image(aws, made)["DeregistrationProtection"] == "disabled"
    protect = aws.ec2.enable_image_deregistration_protection
    assert protect(ImageId=made, WithCooldown=cooldown)["Return"] == said
    for now in also_restarted(aws, start):
        assert image(now, made)["DeregistrationProtection"] == said
        refuses(PROTECTED, now.ec2.deregister_image, ImageId=made)
    assert image(now, made)["State"] == "available"


@answers(
    "DisableImageDeregistrationProtection",
    "protection without cooldown",
    "`disabled`; the image can go at once",
    source=f"{PROTECT}; AWS CLI reference, disable-image-deregistration-protection, Examples",
)
def test_without_cooldown_an_image_can_go_at_once(aws: Aws) -> None:
    made = aws.image()
    aws.ec2.enable_image_deregistration_protection(ImageId=made)
    done = aws.ec2.disable_image_deregistration_protection(ImageId=made)
    assert done["Return"] == "disabled"
    aws.ec2.deregister_image(ImageId=made)


@answers(
    "DeregisterImage",
    "within 24 hours after protection with cooldown was turned off",
    PROTECTED,
    source=CODE_BY_ANALOGY,
)
def test_with_cooldown_an_image_can_go_a_day_later(
    start: Start, refuses: Refuses, tmp_path: Path
) -> None:
    aws = start()
    made = aws.image()
    aws.ec2.enable_image_deregistration_protection(ImageId=made, WithCooldown=True)
    aws.ec2.disable_image_deregistration_protection(ImageId=made)
    for now in also_restarted(aws, start):
        message = refuses(PROTECTED, now.ec2.deregister_image, ImageId=made)
        assert f"until {in_days(1):%Y-%m-%d}" in message
    change_on_disk(now, tmp_path, made, protected_until=in_days(-0.01))
    start().ec2.deregister_image(ImageId=made)


@answers(
    "EnableImageDeregistrationProtection",
    "another account's image",
    "AuthFailure",
    source=CODES,
)
def test_only_its_owner_protects_an_image(aws: Aws, refuses: Refuses) -> None:
    refuses("AuthFailure", aws.ec2.enable_image_deregistration_protection, ImageId=aws.base)
    refuses("AuthFailure", aws.ec2.disable_image_deregistration_protection, ImageId=aws.base)


@answers(
    "DisableImage, EnableImage, EnableImageDeprecation, DisableImageDeprecation, "
    "EnableImageDeregistrationProtection, DisableImageDeregistrationProtection",
    "DryRun",
    "DryRunOperation; nothing changes",
    source=API.format("DryRun of each"),
)
def test_a_dry_run_changes_nothing(aws: Aws, refuses: Refuses) -> None:
    made = copied(aws, aws.base)
    before = image(aws, made)
    ec2, asked = aws.ec2, {"ImageId": made, "DryRun": True}
    refuses("DryRunOperation", ec2.disable_image, **asked)
    refuses("DryRunOperation", ec2.enable_image, **asked)
    refuses("DryRunOperation", ec2.enable_image_deprecation, **asked, DeprecateAt=in_days(1))
    refuses("DryRunOperation", ec2.disable_image_deprecation, **asked)
    refuses("DryRunOperation", ec2.enable_image_deregistration_protection, **asked)
    refuses("DryRunOperation", ec2.disable_image_deregistration_protection, **asked)
    assert image(aws, made) == before
