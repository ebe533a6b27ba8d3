"""Security groups and key pairs: names, rules, and what is in use."""

from __future__ import annotations

import subprocess
from typing import Any

import pytest

from tests.contract.answers import answers
from tests.contract.conftest import Aws, Refuses, Start

ERROR_CODES = "EC2 API reference, Error codes"
SSH = {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "IpRanges": [{"CidrIp": "192.0.2.7/32"}]}
NOBODY = "sg-0123456789abcdef0"


def group(aws: Aws, name: str = "mine") -> str:
    return aws.ec2.create_security_group(GroupName=name, Description=name)["GroupId"]


def rules(aws: Aws, group_id: str) -> list[Any]:
    found = aws.ec2.describe_security_groups(GroupIds=[group_id])["SecurityGroups"]
    return list(found[0]["IpPermissions"])


@answers(
    "DeleteSecurityGroup",
    "an instance that is not terminated is in it",
    "DependencyViolation",
    source="EC2 API reference, DeleteSecurityGroup",
)
def test_a_group_in_use_cannot_be_deleted(start: Start, refuses: Refuses) -> None:
    aws = start(latency="terminate=1.5")
    mine = group(aws)
    instance = aws.running(NetworkInterfaces=[{"DeviceIndex": 0, "Groups": [mine]}])
    refuses("DependencyViolation", aws.ec2.delete_security_group, GroupId=mine)
    aws.ec2.terminate_instances(InstanceIds=[instance])
    refuses("DependencyViolation", aws.ec2.delete_security_group, GroupId=mine)
    aws.until_state(instance, "terminated")
    aws.ec2.delete_security_group(GroupId=mine)


@answers(
    "DeleteSecurityGroup",
    "another group's rule names it",
    "DependencyViolation",
    source="EC2 API reference, DeleteSecurityGroup",
)
def test_a_group_that_another_names_cannot_be_deleted(aws: Aws, refuses: Refuses) -> None:
    named, naming = group(aws, "a"), group(aws, "b")
    pair = {"UserIdGroupPairs": [{"GroupId": named}]}
    rule: Any = {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, **pair}
    aws.ec2.authorize_security_group_ingress(GroupId=naming, IpPermissions=[rule])
    refuses("DependencyViolation", aws.ec2.delete_security_group, GroupId=named)
    aws.ec2.delete_security_group(GroupId=naming)
    aws.ec2.delete_security_group(GroupId=named)


@answers(
    "DeleteSecurityGroup",
    "it is a VPC's default group",
    "CannotDelete",
    source=ERROR_CODES,
)
def test_the_default_group_cannot_be_deleted(aws: Aws, refuses: Refuses) -> None:
    groups = aws.ec2.describe_security_groups(GroupNames=["default"])["SecurityGroups"]
    refuses("CannotDelete", aws.ec2.delete_security_group, GroupId=groups[0]["GroupId"])


@answers(
    "CreateSecurityGroup",
    "the VPC has a group of that name",
    "InvalidGroup.Duplicate",
    source=ERROR_CODES,
)
def test_a_name_is_given_once(aws: Aws, refuses: Refuses) -> None:
    group(aws)
    asked = {"GroupName": "mine", "Description": "again"}
    refuses("InvalidGroup.Duplicate", aws.ec2.create_security_group, **asked)


@pytest.mark.parametrize(
    ("code", "asked"),
    [
        ("InvalidGroup.Reserved", {"GroupName": "default"}),
        ("InvalidParameterValue", {"GroupName": "sg-mine"}),
        ("InvalidParameterValue", {"GroupName": "x" * 256}),
        ("InvalidParameterValue", {"Description": "für uns"}),
        ("InvalidVpcID.NotFound", {"VpcId": "vpc-0123456789abcdef0"}),
    ],
    ids=["default", "sg-", "long", "not ascii", "no vpc"],
)
@answers(
    "CreateSecurityGroup",
    "named default; named sg-…; over 255 characters or beyond ASCII; in a VPC that is not there",
    "InvalidGroup.Reserved; InvalidParameterValue; InvalidParameterValue; InvalidVpcID.NotFound",
    source=f"EC2 API reference, CreateSecurityGroup; {ERROR_CODES}",
)
def test_what_a_group_may_be_called(
    aws: Aws, refuses: Refuses, code: str, asked: dict[str, Any]
) -> None:
    named = {"GroupName": "mine", "Description": "mine", **asked}
    refuses(code, aws.ec2.create_security_group, **named)


@answers(
    "AuthorizeSecurityGroupIngress",
    "the group has that rule",
    "InvalidPermission.Duplicate, and none of the request's rules is added",
    source=ERROR_CODES,
)
def test_a_rule_is_given_once(aws: Aws, refuses: Refuses) -> None:
    mine = group(aws)
    authorize = aws.ec2.authorize_security_group_ingress
    authorize(GroupId=mine, IpPermissions=[SSH])  # type: ignore[list-item]
    before = rules(aws, mine)
    http = {**SSH, "FromPort": 80, "ToPort": 80}
    asked = {"GroupId": mine, "IpPermissions": [http, SSH]}
    refuses("InvalidPermission.Duplicate", authorize, **asked)
    assert rules(aws, mine) == before


@answers(
    "AuthorizeSecurityGroupIngress",
    "the request names one permission twice",
    "InvalidParameterValue: The same permission must not appear multiple times",
    source="reported by clients, such as hashicorp/terraform-provider-aws issues",
)
def test_a_request_names_a_rule_once(aws: Aws, refuses: Refuses) -> None:
    asked = {"GroupId": group(aws), "IpPermissions": [SSH, SSH]}
    refuses("InvalidParameterValue", aws.ec2.authorize_security_group_ingress, **asked)


@pytest.mark.parametrize(
    "change",
    [
        {"IpRanges": [{"CidrIp": "everywhere"}]},
        {"IpRanges": [{"CidrIp": "192.0.2.0/33"}]},
        {"FromPort": 80, "ToPort": 22},
        {"FromPort": 0, "ToPort": 65_536},
    ],
    ids=["no block", "long prefix", "backwards", "high port"],
)
@answers(
    "AuthorizeSecurityGroupIngress",
    "the block of addresses, or the range of ports, is none",
    "InvalidParameterValue",
    source=ERROR_CODES,
)
def test_what_a_rule_may_say(aws: Aws, refuses: Refuses, change: dict[str, Any]) -> None:
    asked = {"GroupId": group(aws), "IpPermissions": [{**SSH, **change}]}
    refuses("InvalidParameterValue", aws.ec2.authorize_security_group_ingress, **asked)


@answers(
    "RevokeSecurityGroupIngress",
    "the group has no such rule",
    "InvalidPermission.NotFound",
    source=ERROR_CODES,
)
def test_a_rule_that_is_not_there_cannot_be_revoked(aws: Aws, refuses: Refuses) -> None:
    asked = {"GroupId": group(aws), "IpPermissions": [SSH]}
    refuses("InvalidPermission.NotFound", aws.ec2.revoke_security_group_ingress, **asked)


@answers(
    "DescribeSecurityGroups, DeleteSecurityGroup, AuthorizeSecurityGroupIngress, RunInstances",
    "the group does not exist; its id is none",
    "InvalidGroup.NotFound; InvalidGroupId.Malformed",
    source=ERROR_CODES,
)
def test_unknown_and_malformed_groups_have_errors_of_their_own(aws: Aws, refuses: Refuses) -> None:
    calls: list[tuple[Any, dict[str, Any]]] = [
        (aws.ec2.delete_security_group, {"GroupId": NOBODY}),
        (aws.ec2.describe_security_groups, {"GroupIds": [NOBODY]}),
        (aws.ec2.authorize_security_group_ingress, {"GroupId": NOBODY, "IpPermissions": [SSH]}),
        (aws.launch, {"SecurityGroupIds": [NOBODY]}),
    ]
    for call, asked in calls:
        refuses("InvalidGroup.NotFound", call, **asked)
    asked = {"GroupIds": ["sg-mine"]}
    refuses("InvalidGroupId.Malformed", aws.ec2.describe_security_groups, **asked)


@answers(
    "CreateKeyPair, ImportKeyPair",
    "there is a key pair of that name",
    "InvalidKeyPair.Duplicate",
    source=ERROR_CODES,
)
def test_a_key_pairs_name_is_given_once(aws: Aws, refuses: Refuses) -> None:
    made = aws.ec2.create_key_pair(KeyName="mine", KeyType="ed25519")
    refuses("InvalidKeyPair.Duplicate", aws.ec2.create_key_pair, KeyName="mine")
    public = aws.ec2.describe_key_pairs(IncludePublicKey=True)["KeyPairs"][0]["PublicKey"]
    asked = {"KeyName": "mine", "PublicKeyMaterial": public}
    refuses("InvalidKeyPair.Duplicate", aws.ec2.import_key_pair, **asked)
    aws.ec2.delete_key_pair(KeyName="mine")
    assert aws.ec2.import_key_pair(**asked)["KeyFingerprint"] == made["KeyFingerprint"]  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["rsa", "ed25519"])
@answers(
    "CreateKeyPair",
    "of type rsa or ed25519",
    "a private key that OpenSSH takes, and its public key",
    source="EC2 API reference, CreateKeyPair: KeyType",
)
def test_a_new_key_pair_fits_together(aws: Aws, tmp_path: Any, kind: Any) -> None:
    made = aws.ec2.create_key_pair(KeyName="mine", KeyType=kind)
    file = tmp_path / "key"
    file.touch(mode=0o600)
    file.write_text(made["KeyMaterial"])
    told = subprocess.run(["ssh-keygen", "-y", "-f", file], capture_output=True, check=True)
    (kept,) = aws.ec2.describe_key_pairs(KeyNames=["mine"], IncludePublicKey=True)["KeyPairs"]
    assert kept["PublicKey"].split()[:2] == told.stdout.decode().split()[:2]
    assert kept["KeyType"] == kind


@answers(
    "CreateKeyPair",
    "no type is named",
    "rsa",
    source="EC2 API reference, CreateKeyPair: KeyType",
)
def test_a_key_pair_is_rsa_where_nothing_is_said(aws: Aws) -> None:
    aws.ec2.create_key_pair(KeyName="mine")
    assert aws.ec2.describe_key_pairs()["KeyPairs"][0]["KeyType"] == "rsa"


@answers(
    "ImportKeyPair",
    "the material is no public key",
    "InvalidKey.Format",
    source=ERROR_CODES,
)
def test_what_is_no_key_is_not_imported(aws: Aws, refuses: Refuses) -> None:
    asked = {"KeyName": "mine", "PublicKeyMaterial": b"ssh-rsa nothing"}
    refuses("InvalidKey.Format", aws.ec2.import_key_pair, **asked)


@answers(
    "DescribeKeyPairs, RunInstances",
    "there is no key pair of that name",
    "InvalidKeyPair.NotFound",
    source=ERROR_CODES,
)
def test_an_unknown_key_pair_is_told(aws: Aws, refuses: Refuses) -> None:
    refuses("InvalidKeyPair.NotFound", aws.ec2.describe_key_pairs, KeyNames=["nobody"])
    refuses("InvalidKeyPair.NotFound", aws.launch, KeyName="nobody")


@answers(
    "DeleteKeyPair",
    "there is no key pair of that name",
    "success",
    source="EC2 API reference, DeleteKeyPair",
)
def test_deleting_an_unknown_key_pair_is_no_error(aws: Aws) -> None:
    aws.ec2.delete_key_pair(KeyName="nobody")
