"""The instance metadata service, asked as from inside a machine.

Source, where a test names none: EC2 user guide, "Instance metadata categories" and "Use IMDSv2".
"""

from __future__ import annotations

import json
from typing import Any

import boto3
import pytest

from amibuild.local.machines.base import MetadataHandler, MetadataRequest, MetadataResponse
from tests.contract.answers import answers
from tests.contract.conftest import Aws

TTL = "x-aws-ec2-metadata-token-ttl-seconds"
TOKEN = "x-aws-ec2-metadata-token"


class Inside:
    """Requests from one machine, with a token that is fetched first."""

    def __init__(self, aws: Aws, instance: str) -> None:
        self.handler: MetadataHandler = aws.service.scripted.metadata[instance]
        self.token = self.ask("PUT", "/latest/api/token", {TTL: "60"}).body.decode()

    def ask(self, method: str, path: str, headers: dict[str, str]) -> MetadataResponse:
        return self.handler(MetadataRequest(method, path, headers))

    def get(self, path: str) -> MetadataResponse:
        return self.ask("GET", f"/latest/{path}", {TOKEN: self.token})

    def text(self, path: str) -> str:
        answer = self.get(path)
        assert answer.status == 200, path
        return answer.body.decode()


def inside(aws: Aws, **asked: Any) -> tuple[str, Inside]:
    instance = aws.running(**asked)
    return instance, Inside(aws, instance)


@answers(
    "GET /latest/meta-data/…",
    "HttpTokens is required, and no token or a wrong one is sent",
    "401",
    source="EC2 user guide, Use IMDSv2",
)
def test_without_a_token_nothing_is_told(aws: Aws) -> None:
    """HttpTokens required: 401."""
    _, here = inside(aws)
    assert here.ask("GET", "/latest/meta-data/instance-id", {}).status == 401
    assert here.ask("GET", "/latest/meta-data/instance-id", {TOKEN: "guessed"}).status == 401


@answers(
    "GET /latest/meta-data/…",
    "HttpTokens is optional, and no token is sent",
    "it is told",
    source="EC2 user guide, Use IMDSv2",
)
def test_without_a_token_it_tells_where_tokens_are_optional(aws: Aws) -> None:
    instance, here = inside(aws, MetadataOptions={"HttpTokens": "optional"})
    answer = here.ask("GET", "/latest/meta-data/instance-id", {})
    assert (answer.status, answer.body.decode()) == (200, instance)


@pytest.mark.parametrize(
    ("method", "headers", "status"),
    [
        ("PUT", {}, 400),
        ("PUT", {TTL: "0"}, 400),
        ("PUT", {TTL: "21601"}, 400),
        ("PUT", {TTL: "60", "x-forwarded-for": "192.0.2.7"}, 403),
        ("GET", {TTL: "60"}, 405),
    ],
)
@answers(
    "PUT /latest/api/token",
    "no lifetime, or one outside 1 to 21,600 s; through a proxy; with GET",
    "400; 403; 405",
    source="EC2 user guide, Use IMDSv2",
)
def test_a_token_is_given_by_the_rules_only(
    aws: Aws, method: str, headers: dict[str, str], status: int
) -> None:
    """PUT; 1 to 21,600 s; not through a proxy."""
    _, here = inside(aws)
    assert here.ask(method, "/latest/api/token", headers).status == status


def test_a_token_of_another_machine_is_worth_nothing(aws: Aws) -> None:
    _, first = inside(aws)
    _, second = inside(aws)
    second.token = first.token
    assert second.get("meta-data/instance-id").status == 401


@answers(
    "GET /latest/…",
    "HttpEndpoint is disabled",
    "403",
    source="EC2 user guide, Configure the instance metadata options",
)
def test_a_disabled_service_answers_403(aws: Aws) -> None:
    """HttpEndpoint disabled."""
    _, here = inside(aws, MetadataOptions={"HttpEndpoint": "disabled"})
    assert here.get("meta-data/instance-id").status == 403


def test_it_says_who_and_where_the_machine_is(aws: Aws) -> None:
    instance, here = inside(aws)
    seen = aws.instance(instance)
    expected = {
        "instance-id": instance,
        "ami-id": aws.base,
        "instance-type": "c7i.large",
        "placement/region": "us-east-1",
        "placement/availability-zone": "us-east-1a",
        "local-ipv4": seen["PrivateIpAddress"],
        "public-ipv4": seen["PublicIpAddress"],
        "security-groups": "default",
    }
    assert {path: here.text(f"meta-data/{path}") for path in expected} == expected
    assert here.text("meta-data/hostname").endswith(".ec2.internal")


@answers(
    "GET /latest/meta-data/",
    "a folder",
    "its names, folders with a slash behind",
    source="EC2 user guide, Instance metadata categories",
)
def test_folders_are_listed_with_a_slash(aws: Aws) -> None:
    _, here = inside(aws)
    listed = here.text("meta-data/").splitlines()
    assert {"instance-id", "placement/"} <= set(listed)
    assert here.text("meta-data/placement").splitlines() == [
        "availability-zone",
        "availability-zone-id",
        "region",
    ]
    assert here.text("").splitlines() == ["dynamic/", "meta-data/"]


def test_the_public_key_is_there(aws: Aws) -> None:
    aws.ec2.create_key_pair(KeyName="mine", KeyType="ed25519")
    _, here = inside(aws, KeyName="mine")
    assert here.text("meta-data/public-keys/") == "0=mine"
    assert here.text("meta-data/public-keys/0/openssh-key").startswith("ssh-ed25519 ")


@answers(
    "GET /latest/user-data",
    "user data of any bytes",
    "as it was given",
    source="EC2 user guide, Instance metadata categories",
)
def test_user_data_is_there_as_it_was_given(aws: Aws) -> None:
    _, here = inside(aws, UserData=b"\x1f\x8b\x00 not text")
    assert here.get("user-data").body == b"\x1f\x8b\x00 not text"


@answers(
    "GET /latest/user-data",
    "no user data",
    "404",
    source="EC2 user guide, Instance metadata categories",
)
def test_without_user_data_there_is_none(aws: Aws) -> None:
    _, here = inside(aws)
    assert here.get("user-data").status == 404


@answers(
    "GET /latest/meta-data/tags/instance",
    "InstanceMetadataTags is not enabled",
    "404",
    source="EC2 user guide, View tags using instance metadata",
)
def test_tags_are_told_only_where_that_was_asked(aws: Aws) -> None:
    """InstanceMetadataTags."""
    tags = [{"ResourceType": "instance", "Tags": [{"Key": "role", "Value": "game"}]}]
    _, silent = inside(aws, TagSpecifications=tags)
    assert silent.get("meta-data/tags/instance/role").status == 404
    options = {"InstanceMetadataTags": "enabled", "HttpTokens": "required"}
    _, here = inside(aws, TagSpecifications=tags, MetadataOptions=options)
    assert here.text("meta-data/tags/instance") == "role"
    assert here.text("meta-data/tags/instance/role") == "game"


@answers(
    "GET /latest/meta-data/iam/security-credentials/ROLE",
    "the instance has a profile with a role",
    "credentials of that role",
    source="EC2 user guide, Instance metadata categories",
)
def test_a_profile_brings_credentials_of_its_role(aws: Aws) -> None:
    """iam/info, iam/security-credentials/<role>."""
    aws.iam.create_role(RoleName="game-role", AssumeRolePolicyDocument="{}")
    aws.iam.create_instance_profile(InstanceProfileName="game")
    aws.iam.add_role_to_instance_profile(InstanceProfileName="game", RoleName="game-role")
    instance, here = inside(aws, IamInstanceProfile={"Name": "game"})
    info = json.loads(here.text("meta-data/iam/info"))
    assert info["InstanceProfileArn"] == aws.instance(instance)["IamInstanceProfile"]["Arn"]
    assert here.text("meta-data/iam/security-credentials/") == "game-role"
    given = json.loads(here.text("meta-data/iam/security-credentials/game-role"))
    assert given["Code"] == "Success"
    assert given["AccessKeyId"].startswith("ASIA")
    assert {"SecretAccessKey", "Token", "Expiration"} <= set(given)
    again = json.loads(here.text("meta-data/iam/security-credentials/game-role"))
    assert again["AccessKeyId"] == given["AccessKeyId"]
    session = boto3.Session(given["AccessKeyId"], given["SecretAccessKey"], given["Token"])
    assert Aws(aws.service, session).state(instance) == "running"


def test_without_a_profile_there_are_none(aws: Aws) -> None:
    _, here = inside(aws)
    assert here.get("meta-data/iam/info").status == 404


def test_the_identity_document_says_the_same(aws: Aws) -> None:
    """dynamic/instance-identity/document."""
    instance, here = inside(aws)
    document = json.loads(here.text("dynamic/instance-identity/document"))
    keys = ("instanceId", "imageId", "region", "accountId", "architecture")
    assert [document[k] for k in keys] == [
        instance,
        aws.base,
        "us-east-1",
        "123456789012",
        "x86_64",
    ]


def test_what_is_not_there_is_not_found(aws: Aws) -> None:
    _, here = inside(aws)
    for path in ("meta-data/nothing", "meta-data/instance-id/more", "nowhere"):
        assert here.get(path).status == 404
    assert here.ask("GET", "/tomorrow/meta-data", {TOKEN: here.token}).status == 404
