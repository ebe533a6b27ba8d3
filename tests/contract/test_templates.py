"""Launch templates: what one adds to a launch."""

from __future__ import annotations

import base64
from typing import Any

from tests.contract.answers import answers
from tests.contract.conftest import Aws, Refuses

ERROR_CODES = "EC2 API reference, Error codes"


def template(aws: Aws, **data: Any) -> str:
    said: Any = {"InstanceType": "c7i.large", **data}
    made = aws.ec2.create_launch_template(LaunchTemplateName="game", LaunchTemplateData=said)
    return made["LaunchTemplate"]["LaunchTemplateId"]


def from_template(aws: Aws, **asked: Any) -> str:
    made = aws.ec2.run_instances(MinCount=1, MaxCount=1, **asked)
    return made["Instances"][0]["InstanceId"]


def test_all_that_it_says_is_in_the_launch(aws: Aws) -> None:
    aws.ec2.create_key_pair(KeyName="mine", KeyType="ed25519")
    group = aws.ec2.create_security_group(GroupName="mine", Description="mine")["GroupId"]
    aws.iam.create_instance_profile(InstanceProfileName="game")
    made = template(
        aws,
        ImageId=aws.base,
        KeyName="mine",
        SecurityGroupIds=[group],
        IamInstanceProfile={"Name": "game"},
        UserData=base64.b64encode(b"#!/bin/sh\n").decode(),
        DisableApiTermination=True,
        InstanceInitiatedShutdownBehavior="terminate",
        MetadataOptions={"HttpPutResponseHopLimit": 5},
        TagSpecifications=[
            {"ResourceType": "instance", "Tags": [{"Key": "a", "Value": "template"}]},
            {"ResourceType": "volume", "Tags": [{"Key": "b", "Value": "template"}]},
        ],
    )
    instance = from_template(
        aws,
        LaunchTemplate={"LaunchTemplateId": made},
        TagSpecifications=[
            {"ResourceType": "instance", "Tags": [{"Key": "a", "Value": "request"}]}
        ],
    )
    aws.until_state(instance, "running")
    seen = aws.instance(instance)
    assert (seen["ImageId"], seen["InstanceType"], seen["KeyName"]) == (
        aws.base,
        "c7i.large",
        "mine",
    )
    assert [g["GroupId"] for g in seen["SecurityGroups"]] == [group]
    assert seen["IamInstanceProfile"]["Arn"].endswith("/game")
    assert seen["MetadataOptions"]["HttpPutResponseHopLimit"] == 5
    tags = {t["Key"]: t["Value"] for t in seen["Tags"]}
    assert tags == {
        "a": "request",
        "aws:ec2launchtemplate:id": made,
        "aws:ec2launchtemplate:version": "1",
    }
    (volume,) = aws.ec2.describe_volumes()["Volumes"]
    assert volume["Tags"] == [{"Key": "b", "Value": "template"}]
    spec = aws.machine(instance).spec
    assert (spec.user_data, (spec.public_key or "").split()[0]) == (b"#!/bin/sh\n", "ssh-ed25519")
    protected = aws.ec2.describe_instance_attribute(
        InstanceId=instance, Attribute="disableApiTermination"
    )
    assert protected["DisableApiTermination"] == {"Value": True}


@answers(
    "RunInstances",
    "request and launch template name the same parameter",
    "the request's is taken",
    source="EC2 API reference, RunInstances: LaunchTemplate",
)
def test_the_request_wins_over_its_template(aws: Aws) -> None:
    made = template(aws, ImageId="ami-0123456789abcdef0")
    asked = {"LaunchTemplate": {"LaunchTemplateId": made}, "InstanceType": "c7i.xlarge"}
    seen = aws.instance(from_template(aws, ImageId=aws.base, **asked))
    assert (seen["ImageId"], seen["InstanceType"]) == (aws.base, "c7i.xlarge")


@answers(
    "RunInstances",
    "a launch template's version is $Latest, $Default or a number",
    "that version",
    source="EC2 API reference, LaunchTemplateSpecification",
)
def test_a_version_is_named(aws: Aws) -> None:
    made = template(aws, ImageId=aws.base)
    aws.ec2.create_launch_template_version(
        LaunchTemplateId=made,
        LaunchTemplateData={"ImageId": aws.base, "InstanceType": "c7i.xlarge"},
    )
    found = {}
    for version in ("$Default", "$Latest", "2"):
        named = {"LaunchTemplateName": "game", "Version": version}
        found[version] = aws.instance(from_template(aws, LaunchTemplate=named))["InstanceType"]
    assert found == {"$Default": "c7i.large", "$Latest": "c7i.xlarge", "2": "c7i.xlarge"}


@answers(
    "RunInstances",
    "the launch template, its name or its version does not exist",
    "InvalidLaunchTemplateId.NotFound, InvalidLaunchTemplateName.NotFoundException, "
    "InvalidLaunchTemplateId.VersionNotFound",
    source=ERROR_CODES,
)
def test_an_unknown_template_is_told(aws: Aws, refuses: Refuses) -> None:
    made = template(aws, ImageId=aws.base)
    for code, named in (
        ("InvalidLaunchTemplateId.NotFound", {"LaunchTemplateId": "lt-0123456789abcdef0"}),
        ("InvalidLaunchTemplateName.NotFoundException", {"LaunchTemplateName": "nobody"}),
        (
            "InvalidLaunchTemplateId.VersionNotFound",
            {"LaunchTemplateId": made, "Version": "7"},
        ),
    ):
        refuses(code, from_template, aws=aws, LaunchTemplate=named)


@answers(
    "CreateLaunchTemplate",
    "there is a template of that name",
    "InvalidLaunchTemplateName.AlreadyExistsException",
    source=ERROR_CODES,
)
def test_a_templates_name_is_given_once(aws: Aws, refuses: Refuses) -> None:
    template(aws)
    refuses("InvalidLaunchTemplateName.AlreadyExistsException", template, aws=aws)
