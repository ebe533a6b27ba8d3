"""DescribeImages: filters, owners, users and pages, as amibuild, Terraform and Packer use them."""

from __future__ import annotations

from typing import Any

from amibuild.local import debian
from tests.contract.answers import answers
from tests.contract.conftest import Aws, Refuses, Start
from tests.contract.imaged import (
    MISSING_IMAGE,
    STRANGER,
    copied,
    image,
    names,
    snapshot_of,
    tagged,
)

API = "EC2 API reference, DescribeImages"
CODES = "EC2 API reference, Error codes"


@answers(
    "DescribeImages",
    "filters",
    "those that match every one of them",
    source=f"{API}, Filter",
)
def test_images_are_found_by_what_they_say(aws: Aws) -> None:
    wanted = aws.image("game [1]", Description="chess", TagSpecifications=tagged(game="chess"))
    copied(aws, aws.base, Name="other", Encrypted=True)
    found = image(aws, wanted)

    def matches(name: str, *values: str) -> list[str]:
        filters = [{"Name": name, "Values": list(values)}]
        return sorted(names(aws, Owners=["self"], Filters=filters))

    both = ["game [1]", "other"]
    for name, values, expected in (
        ("name", ["game*"], both[:1]),
        ("name", ["gam? [?]"], both[:1]),
        ("name", ["GAME*"], []),
        ("name", [r"game\*"], []),
        ("name", ["nothing", "other"], both[1:]),
        ("image-id", [wanted], both[:1]),
        ("description", ["che*"], both[:1]),
        ("tag:game", ["chess"], both[:1]),
        ("tag:game", ["go"], []),
        ("tag-key", ["game"], both[:1]),
        ("state", ["available"], both),
        ("state", ["pending"], []),
        ("architecture", ["x86_64"], both),
        ("architecture", ["arm64"], []),
        ("root-device-type", ["ebs"], both),
        ("root-device-name", ["/dev/xvda"], both),
        ("virtualization-type", ["hvm"], both),
        ("hypervisor", ["xen"], both),
        ("ena-support", ["true"], both),
        ("boot-mode", ["uefi"], both),
        ("image-type", ["machine"], both),
        ("is-public", ["false"], both),
        ("is-public", ["true"], []),
        ("owner-id", [found["OwnerId"]], both),
        ("owner-alias", ["amazon"], []),
        ("creation-date", [found["CreationDate"][:10] + "T*"], both),
        ("creation-date", ["2019-*"], []),
        ("source-instance-id", [found["SourceInstanceId"]], both[:1]),
        ("source-image-id", [aws.base], both),
        ("block-device-mapping.snapshot-id", [snapshot_of(aws, wanted)], both[:1]),
        ("block-device-mapping.volume-size", ["2"], both),
        ("block-device-mapping.encrypted", ["true"], both[1:]),
        ("block-device-mapping.device-name", ["/dev/xvda"], both),
    ):
        assert matches(name, *values) == expected, (name, values)


@answers(
    "DescribeImages",
    "several filters",
    "what passes all of them",
    source="EC2 User Guide, Filtering: filters are joined by AND, values by OR",
)
def test_filters_are_joined(aws: Aws) -> None:
    aws.image("one", TagSpecifications=tagged(a="1"))
    aws.image("two", TagSpecifications=tagged(a="2"))
    filters = [{"Name": "tag:a", "Values": ["1", "2"]}, {"Name": "name", "Values": ["t*"]}]
    assert names(aws, Filters=filters) == ["two"]


@answers("DescribeImages", "a filter that is none", "InvalidParameterValue", source=CODES)
@answers("DescribeImages", "more than 200 filter values", "FilterLimitExceeded", source=CODES)
@answers("DescribeImages", "an owner or user that is none", "InvalidUserID.Malformed", source=CODES)
@answers(
    "DescribeImages",
    "ids that are unknown, or none",
    "InvalidAMIID.NotFound, InvalidAMIID.Malformed",
    source=CODES,
)
def test_a_question_that_makes_no_sense_is_refused(aws: Aws, refuses: Refuses) -> None:
    ask = aws.ec2.describe_images
    refuses("InvalidParameterValue", ask, Filters=[{"Name": "colour", "Values": ["red"]}])
    many = [str(number) for number in range(201)]
    refuses("FilterLimitExceeded", ask, Filters=[{"Name": "name", "Values": many}])
    refuses("InvalidUserID.Malformed", ask, Owners=["me"])
    refuses("InvalidUserID.Malformed", ask, ExecutableUsers=["me"])
    refuses("InvalidAMIID.NotFound", ask, ImageIds=[aws.base, MISSING_IMAGE])
    refuses("InvalidAMIID.Malformed", ask, ImageIds=["ami-none"])
    refuses("DryRunOperation", ask, DryRun=True)


@answers(
    "DescribeImages",
    "Owners",
    "self, account ids, and aliases such as amazon, together",
    source=f"{API}, Owner",
)
def test_owners_are_accounts_or_their_aliases(aws: Aws) -> None:
    aws.image("mine")
    base = image(aws, aws.base)["Name"]
    assert names(aws, Owners=["self"]) == ["mine"]
    assert names(aws, Owners=[image(aws, aws.base)["OwnerId"]]) == [base]
    assert sorted(names(aws, Owners=["self", debian.OWNER])) == sorted(["mine", base])
    assert names(aws, Owners=["amazon"]) == []
    assert names(aws, Owners=[STRANGER]) == []


@answers(
    "DescribeImages",
    "ExecutableUsers",
    "what is shared with the account by name; `all`: what is public",
    source=f"{API}, ExecutableBy",
)
def test_images_are_found_by_who_may_launch_them(aws: Aws) -> None:
    aws.image("private")
    shared = aws.image("shared")
    permission: Any = {"Add": [{"UserId": STRANGER}]}
    aws.ec2.modify_image_attribute(ImageId=shared, LaunchPermission=permission)
    assert names(aws, ExecutableUsers=[STRANGER]) == ["shared"]
    assert names(aws, ExecutableUsers=["self"]) == []
    assert names(aws, ExecutableUsers=["all"]) == [image(aws, aws.base)["Name"]]


@answers("DescribeImages", "MaxResults", "pages with a NextToken", source=f"{API}, MaxResults")
@answers("DescribeImages", "a NextToken that is none", "InvalidNextToken", source=CODES)
def test_many_images_come_in_pages(aws: Aws, refuses: Refuses) -> None:
    wanted = {copied(aws, aws.base, Name=f"image-{number}") for number in range(5)}
    pages = aws.ec2.get_paginator("describe_images").paginate(
        Owners=["self"], PaginationConfig={"PageSize": 2}
    )
    sizes, seen = [], []
    for page in pages:
        sizes.append(len(page["Images"]))
        seen += [found["ImageId"] for found in page["Images"]]
    assert (sizes, set(seen), len(seen)) == ([2, 2, 1], wanted, 5)
    refuses("InvalidNextToken", aws.ec2.describe_images, MaxResults=2, NextToken="?")


@answers(
    "DescribeImages",
    "an image made by CreateImage",
    "the instance and the image that it came from",
    source="EC2 API reference, Image, sourceInstanceId, sourceImageId",
)
def test_an_image_says_where_it_came_from(start: Start) -> None:
    aws = start()
    instance = aws.stopped()
    found = image(aws, aws.image(InstanceId=instance))
    assert (found["SourceInstanceId"], found["SourceImageId"]) == (instance, aws.base)
    assert found["SourceImageRegion"] == aws.region
    assert image(start(), found["ImageId"]) == found
