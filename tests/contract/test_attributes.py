"""What an instance is told to be after its launch, and how it says that it is well."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from tests.contract.answers import answers
from tests.contract.conftest import Aws, Refuses, Start
from tests.contract.test_metadata import Inside

ERROR_CODES = "EC2 API reference, Error codes"
MODIFY = "EC2 API reference, ModifyInstanceAttribute"
NOBODY = "i-0123456789abcdef0"


@answers(
    "TerminateInstances",
    "DisableApiTermination is on for one of them",
    "OperationNotPermitted, and none is terminated",
    source=f"{ERROR_CODES}; EC2 API reference, TerminateInstances",
)
def test_a_protected_instance_is_not_terminated(aws: Aws, refuses: Refuses) -> None:
    other, instance = aws.running(), aws.running(DisableApiTermination=True)
    asked = {"InstanceIds": [other, instance]}
    refuses("OperationNotPermitted", aws.ec2.terminate_instances, **asked)
    assert [aws.state(i) for i in (other, instance)] == ["running", "running"]
    aws.ec2.modify_instance_attribute(InstanceId=instance, DisableApiTermination={"Value": False})
    aws.ec2.terminate_instances(**asked)  # type: ignore[arg-type]
    aws.until_state(instance, "terminated")


@answers(
    "StopInstances",
    "DisableApiStop is on",
    "OperationNotPermitted",
    source=f"{ERROR_CODES}; EC2 API reference, RunInstances: DisableApiStop",
)
def test_a_protected_instance_is_not_stopped(aws: Aws, refuses: Refuses) -> None:
    instance = aws.running()
    aws.ec2.modify_instance_attribute(InstanceId=instance, DisableApiStop={"Value": True})
    refuses("OperationNotPermitted", aws.ec2.stop_instances, InstanceIds=[instance])
    assert aws.state(instance) == "running"


@answers(
    "ModifyInstanceAttribute",
    "type or user data of an instance that is not stopped",
    "IncorrectInstanceState",
    source=f"{MODIFY}: to modify some attributes the instance must be stopped",
)
def test_a_running_instance_keeps_type_and_user_data(aws: Aws, refuses: Refuses) -> None:
    instance = aws.running()
    for change in (
        {"InstanceType": {"Value": "c7i.xlarge"}},
        {"UserData": {"Value": b"#!/bin/sh\n"}},
        {"EbsOptimized": {"Value": True}},
    ):
        refuses(
            "IncorrectInstanceState",
            aws.ec2.modify_instance_attribute,
            InstanceId=instance,
            **change,
        )


def test_the_next_start_has_the_new_user_data_and_type(aws: Aws) -> None:
    instance = aws.stopped(UserData="old", InstanceType="c7i.large")
    script = b"#!/bin/sh\necho new\n"
    aws.ec2.modify_instance_attribute(InstanceId=instance, UserData={"Value": script})
    aws.ec2.modify_instance_attribute(InstanceId=instance, InstanceType={"Value": "c7i.xlarge"})
    aws.ec2.start_instances(InstanceIds=[instance])
    aws.until_state(instance, "running")
    assert aws.machine(instance).spec.user_data == script
    assert Inside(aws, instance).get("user-data").body == script
    assert aws.instance(instance)["InstanceType"] == "c7i.xlarge"
    kept = aws.ec2.describe_instance_attribute(InstanceId=instance, Attribute="userData")
    assert base64.b64decode(kept["UserData"]["Value"]) == script


@answers(
    "ModifyInstanceAttribute",
    "user data over 16,384 bytes",
    "InvalidParameterValue",
    source="EC2 user guide, Run commands at launch: 16 KB in raw form",
)
def test_changed_user_data_has_the_same_limit(aws: Aws, refuses: Refuses) -> None:
    instance = aws.stopped()
    refuses(
        "InvalidParameterValue",
        aws.ec2.modify_instance_attribute,
        InstanceId=instance,
        UserData={"Value": b"x" * 16_385},
    )


@pytest.mark.parametrize(
    ("code", "change"),
    [
        (
            "InvalidParameterCombination",
            {"DisableApiStop": {"Value": True}, "SourceDestCheck": {"Value": True}},
        ),
        ("InvalidParameterCombination", {}),
        ("InvalidParameterValue", {"InstanceInitiatedShutdownBehavior": {"Value": "explode"}}),
        ("InvalidParameterValue", {"Attribute": "colour", "Value": "red"}),
        ("InvalidGroup.NotFound", {"Groups": ["sg-0123456789abcdef0"]}),
        (
            "InvalidInstanceAttributeValue",
            {"BlockDeviceMappings": [{"DeviceName": "/dev/xvdz", "Ebs": {}}]},
        ),
        ("UnsupportedOperation", {"Kernel": {"Value": "aki-0123456789abcdef0"}}),
    ],
    ids=["two", "none", "behaviour", "unknown", "no group", "no device", "kernel"],
)
@answers(
    "ModifyInstanceAttribute",
    "two attributes at once, or none; a value or an attribute that does not exist",
    "InvalidParameterCombination; InvalidParameterValue",
    source=f"{MODIFY}; {ERROR_CODES}",
    ours="UnsupportedOperation for kernel, RAM disk, ENA and SR-IOV",
)
def test_a_change_is_one_attribute_that_exists(
    aws: Aws, refuses: Refuses, code: str, change: dict[str, Any]
) -> None:
    asked = {"InstanceId": aws.running(), **change}
    refuses(code, aws.ec2.modify_instance_attribute, **asked)


def test_other_groups_are_in_use_from_then_on(aws: Aws, refuses: Refuses) -> None:
    old, new = (
        aws.ec2.create_security_group(GroupName=n, Description=n)["GroupId"] for n in ("old", "new")
    )
    instance = aws.running(SecurityGroupIds=[old])
    aws.ec2.modify_instance_attribute(InstanceId=instance, Groups=[new])
    assert [g["GroupId"] for g in aws.instance(instance)["SecurityGroups"]] == [new]
    aws.ec2.delete_security_group(GroupId=old)
    refuses("DependencyViolation", aws.ec2.delete_security_group, GroupId=new)


def test_an_attribute_may_be_named_by_word(aws: Aws) -> None:
    """The older of the two ways, which Terraform and the AWS CLI still use."""
    instance = aws.running()
    aws.ec2.modify_instance_attribute(
        InstanceId=instance, Attribute="instanceInitiatedShutdownBehavior", Value="terminate"
    )
    kept = aws.ec2.describe_instance_attribute(
        InstanceId=instance, Attribute="instanceInitiatedShutdownBehavior"
    )
    assert kept["InstanceInitiatedShutdownBehavior"] == {"Value": "terminate"}
    aws.machine(instance).power_off()
    aws.until_state(instance, "terminated")


def test_a_volume_that_shall_stay_stays(aws: Aws) -> None:
    instance = aws.running()
    root = [{"DeviceName": "/dev/xvda", "Ebs": {"DeleteOnTermination": False}}]
    aws.ec2.modify_instance_attribute(InstanceId=instance, BlockDeviceMappings=root)  # type: ignore[arg-type]
    aws.ec2.terminate_instances(InstanceIds=[instance])
    aws.until_state(instance, "terminated")
    assert [v["State"] for v in aws.ec2.describe_volumes()["Volumes"]] == ["available"]


@answers(
    "ModifyInstanceAttribute, ModifyInstanceMetadataOptions",
    "the instance is terminated",
    "IncorrectInstanceState",
    source=ERROR_CODES,
)
def test_a_terminated_instance_does_not_change(aws: Aws, refuses: Refuses) -> None:
    instance = aws.running()
    aws.ec2.terminate_instances(InstanceIds=[instance])
    aws.until_state(instance, "terminated")
    asked = {"InstanceId": instance, "SourceDestCheck": {"Value": False}}
    refuses("IncorrectInstanceState", aws.ec2.modify_instance_attribute, **asked)
    tokens = {"InstanceId": instance, "HttpTokens": "required"}
    refuses("IncorrectInstanceState", aws.ec2.modify_instance_metadata_options, **tokens)


IMDS: list[dict[str, Any]] = [
    {"HttpTokens": "sometimes"},
    {"HttpEndpoint": "on"},
    {"InstanceMetadataTags": "yes"},
    {"HttpPutResponseHopLimit": 0},
    {"HttpPutResponseHopLimit": 65},
]


@pytest.mark.parametrize("options", IMDS, ids=[f"{v}" for o in IMDS for v in o.values()])
@answers(
    "RunInstances, ModifyInstanceMetadataOptions",
    "a value that the metadata options do not have, or a hop limit outside 1 to 64",
    "InvalidParameterValue",
    source="EC2 API reference, InstanceMetadataOptionsRequest",
)
def test_metadata_options_have_their_values(
    aws: Aws, refuses: Refuses, options: dict[str, Any]
) -> None:
    refuses("InvalidParameterValue", aws.launch, MetadataOptions=options)
    asked = {"InstanceId": aws.launch(), **options}
    refuses("InvalidParameterValue", aws.ec2.modify_instance_metadata_options, **asked)


@answers(
    "ModifyInstanceMetadataOptions",
    "some options are named",
    "they change at once, the others stay",
    source="EC2 API reference, ModifyInstanceMetadataOptions: existing preferences are maintained",
)
def test_a_change_of_metadata_options_leaves_the_others(aws: Aws) -> None:
    instance = aws.running(MetadataOptions={"HttpPutResponseHopLimit": 3})
    inside = Inside(aws, instance)
    assert inside.ask("GET", "/latest/meta-data/", {}).status == 401
    changed = aws.ec2.modify_instance_metadata_options(InstanceId=instance, HttpTokens="optional")
    assert changed["InstanceMetadataOptions"]["HttpPutResponseHopLimit"] == 3
    assert inside.ask("GET", "/latest/meta-data/", {}).status == 200
    aws.ec2.modify_instance_metadata_options(InstanceId=instance, HttpEndpoint="disabled")
    assert inside.ask("GET", "/latest/meta-data/", {}).status == 403


@answers(
    "RunInstances, ModifyInstanceMetadataOptions, CreateTags",
    "tags shall be shown, and a key can't be a path (a/b, a space, _index)",
    "InvalidParameterValue",
    source="EC2 user guide, View tags using instance metadata",
)
def test_only_keys_that_can_be_paths_are_shown(aws: Aws, refuses: Refuses) -> None:
    tags = [{"ResourceType": "instance", "Tags": [{"Key": "a/b", "Value": "c"}]}]
    shown = {"InstanceMetadataTags": "enabled"}
    refuses("InvalidParameterValue", aws.launch, TagSpecifications=tags, MetadataOptions=shown)
    asked = {"InstanceId": aws.launch(TagSpecifications=tags), **shown}
    refuses("InvalidParameterValue", aws.ec2.modify_instance_metadata_options, **asked)
    later = {"Resources": [aws.launch(MetadataOptions=shown)], "Tags": tags[0]["Tags"]}
    refuses("InvalidParameterValue", aws.ec2.create_tags, **later)


@answers(
    "DescribeInstanceStatus",
    "an instance runs and its system is not up yet",
    "initializing, then ok; what does not run is listed with IncludeAllInstances only",
    source="EC2 API reference, DescribeInstanceStatus",
)
def test_status_is_ok_once_the_system_is_up(start: Start) -> None:
    aws = start(latency="ready=1.5")
    instance, off = aws.launch(), aws.stopped()
    aws.until(lambda: status(aws, instance), "ok")
    assert [s["InstanceId"] for s in aws.ec2.describe_instance_status()["InstanceStatuses"]] == [
        instance
    ]
    every = aws.ec2.describe_instance_status(IncludeAllInstances=True)["InstanceStatuses"]
    assert {s["InstanceId"]: s["InstanceStatus"]["Status"] for s in every} == {
        instance: "ok",
        off: "not-applicable",
    }


def test_status_is_initializing_while_nothing_answers(start: Start) -> None:
    aws = start("agent:1=never")
    instance = aws.launch()
    aws.until_state(instance, "running")
    assert status(aws, instance) == "initializing"


def status(aws: Aws, instance: str) -> str:
    found = aws.ec2.describe_instance_status(InstanceIds=[instance])["InstanceStatuses"]
    return found[0]["InstanceStatus"]["Status"] if found else "not running"


def test_boto3s_own_waiters_see_it_through(aws: Aws) -> None:
    instance = aws.launch()
    for name in ("instance_running", "instance_status_ok"):
        aws.ec2.get_waiter(name).wait(
            InstanceIds=[instance], WaiterConfig={"Delay": 0, "MaxAttempts": 10_000}
        )


@answers(
    "DescribeInstanceStatus, DescribeInstanceAttribute, ModifyInstanceAttribute, RebootInstances, "
    "GetConsoleOutput, ModifyInstanceMetadataOptions, MonitorInstances",
    "the instance does not exist; its id is none",
    "InvalidInstanceID.NotFound; InvalidInstanceID.Malformed",
    source=ERROR_CODES,
)
def test_every_call_knows_unknown_and_malformed_instances(aws: Aws, refuses: Refuses) -> None:
    one: list[tuple[Any, dict[str, Any]]] = [
        (aws.ec2.describe_instance_attribute, {"Attribute": "userData"}),
        (aws.ec2.modify_instance_attribute, {"DisableApiStop": {"Value": True}}),
        (aws.ec2.modify_instance_metadata_options, {"HttpTokens": "required"}),
        (aws.ec2.get_console_output, {}),
    ]
    several = (
        aws.ec2.describe_instance_status,
        aws.ec2.reboot_instances,
        aws.ec2.monitor_instances,
        aws.ec2.unmonitor_instances,
    )
    for code, id_ in (
        ("InvalidInstanceID.NotFound", NOBODY),
        ("InvalidInstanceID.Malformed", "i-am-none"),
    ):
        for call, asked in one:
            refuses(code, call, InstanceId=id_, **asked)
        for many in several:
            refuses(code, many, InstanceIds=[id_])


@answers(
    "DescribeInstances, DescribeInstanceStatus",
    "MaxResults under 5 or over 1,000, or together with ids; a token that is none",
    "InvalidParameterValue; InvalidParameterCombination; InvalidNextToken",
    source=f"EC2 API reference, DescribeInstances; {ERROR_CODES}",
)
def test_pages_have_their_limits(aws: Aws, refuses: Refuses) -> None:
    instance = aws.launch()
    for call in (aws.ec2.describe_instances, aws.ec2.describe_instance_status):
        refuses("InvalidParameterValue", call, MaxResults=4)
        refuses("InvalidParameterValue", call, MaxResults=1001)
        refuses("InvalidParameterCombination", call, MaxResults=5, InstanceIds=[instance])
        refuses("InvalidNextToken", call, NextToken="none")


def test_lists_come_in_pages(aws: Aws) -> None:
    made = {aws.launch() for _ in range(7)}
    pages = list(
        aws.ec2.get_paginator("describe_instances").paginate(PaginationConfig={"PageSize": 5})
    )
    found = [[i["InstanceId"] for r in p["Reservations"] for i in r["Instances"]] for p in pages]
    assert [len(ids) for ids in found] == [5, 2]
    assert {id_ for ids in found for id_ in ids} == made


@answers(
    "every call that changes something",
    "DryRun",
    "DryRunOperation, and nothing changes",
    source=ERROR_CODES,
)
def test_a_dry_run_changes_nothing(aws: Aws, refuses: Refuses) -> None:
    instance = aws.running()
    ids = {"InstanceIds": [instance]}
    calls: list[tuple[Any, dict[str, Any]]] = [
        *((getattr(aws.ec2, f"{v}_instances"), ids) for v in ("stop", "reboot", "terminate")),
        (
            aws.ec2.modify_instance_attribute,
            {"InstanceId": instance, "Attribute": "disableApiStop", "Value": "true"},
        ),
        (
            aws.ec2.modify_instance_metadata_options,
            {"InstanceId": instance, "HttpTokens": "optional"},
        ),
        (aws.ec2.create_tags, {"Resources": [instance], "Tags": [{"Key": "a", "Value": "b"}]}),
        (aws.ec2.create_security_group, {"GroupName": "a", "Description": "b"}),
        (aws.ec2.create_key_pair, {"KeyName": "a"}),
        (aws.ec2.delete_key_pair, {"KeyName": "a"}),
        (aws.ec2.create_launch_template, {"LaunchTemplateName": "abc", "LaunchTemplateData": {}}),
        (aws.ec2.create_vpc, {"CidrBlock": "10.0.0.0/16"}),
        (
            aws.ec2.update_security_group_rule_descriptions_ingress,
            {"GroupId": "sg-0123456789abcdef0"},
        ),
    ]
    before = aws.instance(instance)
    for call, asked in calls:
        refuses("DryRunOperation", call, DryRun=True, **asked)
    assert aws.instance(instance) == before
    assert aws.ec2.describe_key_pairs()["KeyPairs"] == []
