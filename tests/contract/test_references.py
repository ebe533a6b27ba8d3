"""DescribeImageReferences: what names an image."""

from __future__ import annotations

from typing import Any

import pytest

from tests.contract.answers import answers
from tests.contract.conftest import Aws, Refuses
from tests.contract.imaged import MISSING_IMAGE

API = "EC2 API reference, DescribeImageReferences"
OPTION = "EC2 API reference, ResourceTypeOption"


def references(aws: Aws, *images: str, **asked: Any) -> list[tuple[str, str]]:
    request: dict[str, Any] = asked or {"IncludeAllResourceTypes": True}
    found = aws.ec2.describe_image_references(ImageIds=list(images), **request)
    return [(r["ResourceType"], r["Arn"].rpartition(":")[2]) for r in found["ImageReferences"]]


def only(kind: str, option: str = "", *values: str) -> dict[str, Any]:
    options = [{"OptionName": option, "OptionValues": list(values)}] if option else []
    return {"ResourceTypes": [{"ResourceType": kind, "ResourceTypeOptions": options}]}


@answers(
    "DescribeImageReferences",
    "IncludeAllResourceTypes",
    "instances, launch templates and parameters of data type aws:ec2:image that name the image",
    source=API,
)
def test_all_that_names_an_image_is_found(aws: Aws) -> None:
    made = aws.image()
    assert references(aws, made) == []
    instance = aws.running(ImageId=made)
    template = aws.ec2.create_launch_template(
        LaunchTemplateName="hosts", LaunchTemplateData={"ImageId": made}
    )["LaunchTemplate"]["LaunchTemplateId"]
    aws.ssm.put_parameter(Name="/a/b", Value=made, Type="String", DataType="aws:ec2:image")
    aws.ssm.put_parameter(Name="/text", Value=made, Type="String")
    aws.until(lambda: str(len(references(aws, made))), "3")  # a parameter is checked first
    assert references(aws, made) == [
        ("ec2:Instance", f"instance/{instance}"),
        ("ec2:LaunchTemplate", f"launch-template/{template}"),
        ("ssm:Parameter", "parameter/a/b"),
    ]
    found = aws.ec2.describe_image_references(ImageIds=[made], IncludeAllResourceTypes=True)
    owner = aws.ec2.describe_images(ImageIds=[made])["Images"][0]["OwnerId"]
    arn = f"arn:aws:ec2:{aws.region}:{owner}:instance/{instance}"
    assert found["ImageReferences"][0]["Arn"] == arn


@answers(
    "DescribeImageReferences",
    "an image that is gone",
    "what still names it",
    source="EC2 User Guide, Identify your resources referencing specified AMIs",
)
def test_what_names_a_lost_image_is_found(aws: Aws) -> None:
    made = aws.image()
    instance = aws.running(ImageId=made)
    aws.ec2.deregister_image(ImageId=made)
    assert references(aws, made, MISSING_IMAGE) == [("ec2:Instance", f"instance/{instance}")]


@answers(
    "DescribeImageReferences",
    "instances, by state-name",
    "those in these states; all states without it",
    source=f"{OPTION}, OptionValues",
)
def test_instances_can_be_picked_by_their_state(aws: Aws) -> None:
    instance = aws.stopped()
    base = aws.base
    stopped = [("ec2:Instance", f"instance/{instance}")]
    assert references(aws, base, **only("ec2:Instance")) == stopped
    assert references(aws, base, **only("ec2:Instance", "state-name", "stopped")) == stopped
    assert references(aws, base, **only("ec2:Instance", "state-name", "running")) == []


@answers(
    "DescribeImageReferences",
    "launch templates, by version-depth",
    "only the latest versions are looked at; 10 without it",
    source=f"{OPTION}, OptionValues",
)
def test_only_the_latest_versions_of_a_template_count(aws: Aws) -> None:
    made = aws.image()
    name = "hosts"
    template = aws.ec2.create_launch_template(
        LaunchTemplateName=name, LaunchTemplateData={"ImageId": made}
    )["LaunchTemplate"]["LaunchTemplateId"]
    for _ in range(10):
        aws.ec2.create_launch_template_version(
            LaunchTemplateName=name, LaunchTemplateData={"ImageId": aws.base}
        )
    assert references(aws, made, **only("ec2:LaunchTemplate")) == []
    deep = only("ec2:LaunchTemplate", "version-depth", "11")
    assert references(aws, made, **deep) == [("ec2:LaunchTemplate", f"launch-template/{template}")]


def test_a_public_parameter_is_not_the_accounts(aws: Aws) -> None:
    """DescribeImageReferences lists the caller's own resources."""
    assert references(aws, aws.base) == []


@answers(
    "DescribeImageReferences",
    "neither IncludeAllResourceTypes nor ResourceTypes",
    "an error",
    source=f"{API}; the code is not written anywhere",
    ours="MissingParameter",
)
@answers(
    "DescribeImageReferences",
    "a resource type, state or depth that is none",
    "InvalidParameterValue",
    source="EC2 API reference, Error codes",
)
def test_a_question_that_makes_no_sense_is_refused(aws: Aws, refuses: Refuses) -> None:
    ask = aws.ec2.describe_image_references
    refuses("MissingParameter", ask, ImageIds=[aws.base])
    for wrong in (
        only("ec2:Volume"),
        only("ec2:Instance", "version-depth", "1"),
        only("ec2:Instance", "state-name", "asleep"),
        only("ec2:LaunchTemplate", "version-depth", "0"),
    ):
        refuses("InvalidParameterValue", ask, ImageIds=[aws.base], **wrong)


@answers(
    "DescribeImageReferences",
    "an image id that is none; more than 10",
    "InvalidAMIID.Malformed; InvalidParameterValue",
    source=API,
)
@pytest.mark.parametrize(
    ("images", "code"),
    [(["ami-none"], "InvalidAMIID.Malformed"), ([MISSING_IMAGE] * 11, "InvalidParameterValue")],
)
def test_a_few_images_can_be_asked_about(
    aws: Aws, refuses: Refuses, images: list[str], code: str
) -> None:
    asked = {"ImageIds": images, "IncludeAllResourceTypes": True}
    refuses(code, aws.ec2.describe_image_references, **asked)


@answers("DescribeImageReferences", "MaxResults", "pages with a NextToken", source=API)
def test_many_references_come_in_pages(aws: Aws) -> None:
    for _ in range(7):
        aws.launch()
    pages = aws.ec2.get_paginator("describe_image_references").paginate(
        ImageIds=[aws.base], IncludeAllResourceTypes=True, PaginationConfig={"PageSize": 5}
    )
    assert [len(page["ImageReferences"]) for page in pages] == [5, 2]
