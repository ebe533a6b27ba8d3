"""Tags: on what they may be, and what they may be."""

from __future__ import annotations

from typing import Any

import pytest

from tests.contract.answers import answers
from tests.contract.conftest import Aws, Refuses

RESTRICTIONS = "EC2 user guide, Tag restrictions"
ERROR_CODES = "EC2 API reference, Error codes"
NOBODY = "i-0123456789abcdef0"


def on(kind: str, *tags: tuple[str, str]) -> list[dict[str, Any]]:
    return [{"ResourceType": kind, "Tags": [{"Key": k, "Value": v} for k, v in tags]}]


@answers(
    "RunInstances",
    "tags for instance, volume and network-interface",
    "each has its own from the beginning",
    source="EC2 API reference, RunInstances: TagSpecifications",
)
def test_tags_of_a_launch_are_on_instance_volume_and_interface(aws: Aws) -> None:
    kinds = ("instance", "volume", "network-interface")
    tagged = [tags for k in kinds for tags in on(k, ("for", k))]
    instance = aws.launch(TagSpecifications=tagged)
    found = aws.ec2.describe_tags(Filters=[{"Name": "key", "Values": ["for"]}])["Tags"]
    assert {t["ResourceType"]: t["Value"] for t in found} == {k: k for k in kinds}
    assert {"Key": "for", "Value": "instance"} in aws.instance(instance)["Tags"]


@answers(
    "RunInstances, CreateKeyPair, CreateSecurityGroup, …",
    "tags for something that the call does not make",
    "InvalidParameterValue: not a valid taggable resource type for this operation",
    source="EC2 API reference, RunInstances: TagSpecifications",
)
def test_a_call_tags_only_what_it_makes(aws: Aws, refuses: Refuses) -> None:
    tags = on("image", ("a", "b"))
    message = refuses("InvalidParameterValue", aws.launch, TagSpecifications=tags)
    assert message == "'image' is not a valid taggable resource type for this operation."
    # The second one too, which moto never looks at.
    both = [*on("key-pair", ("a", "b")), *tags]
    refuses("InvalidParameterValue", aws.ec2.create_key_pair, KeyName="k", TagSpecifications=both)
    assert aws.ec2.describe_instances()["Reservations"] == []


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("k" * 129, "v", "Tag key exceeds the maximum length of 128 characters"),
        ("k", "v" * 257, "Tag value exceeds the maximum length of 256 characters"),
        ("aws:mine", "v", "Tag keys starting with 'aws:' are reserved for internal use"),
        ("", "v", "Tag key cannot be null or empty"),
    ],
    ids=["long key", "long value", "reserved", "empty"],
)
@answers(
    "CreateTags and every TagSpecifications",
    "a key over 128 characters, a value over 256, a key that begins with aws:, an empty key",
    "InvalidParameterValue",
    source=RESTRICTIONS,
)
def test_tags_have_their_limits(
    aws: Aws, refuses: Refuses, key: str, value: str, told: str
) -> None:
    tags = on("instance", (key, value))
    assert refuses("InvalidParameterValue", aws.launch, TagSpecifications=tags) == told
    instance = aws.launch()
    asked = {"Resources": [instance], "Tags": tags[0]["Tags"]}
    assert refuses("InvalidParameterValue", aws.ec2.create_tags, **asked) == told


def test_tags_as_long_as_they_may_be_are_kept(aws: Aws) -> None:
    tags = on("instance", ("k" * 128, "v" * 256))
    assert tags[0]["Tags"] == aws.instance(aws.launch(TagSpecifications=tags))["Tags"]


@answers(
    "CreateTags and every TagSpecifications",
    "the same key twice in one request",
    "InvalidParameterValue",
    source=f"{RESTRICTIONS}: each tag key must be unique",
)
def test_a_key_is_named_once(aws: Aws, refuses: Refuses) -> None:
    tags = on("instance", ("a", "1"), ("a", "2"))
    refuses("InvalidParameterValue", aws.launch, TagSpecifications=tags)


@answers(
    "CreateTags and every TagSpecifications",
    "more than 50 tags, counting those that are there",
    "TagLimitExceeded",
    source=f"{RESTRICTIONS}; Error codes",
)
def test_a_resource_has_fifty_tags(aws: Aws, refuses: Refuses) -> None:
    many = [(f"k{n}", "v") for n in range(51)]
    refuses("TagLimitExceeded", aws.launch, TagSpecifications=on("instance", *many))
    instance = aws.launch(TagSpecifications=on("instance", *many[:50]))
    more = [{"Key": "one-more", "Value": "v"}]
    refuses("TagLimitExceeded", aws.ec2.create_tags, Resources=[instance], Tags=more)
    aws.ec2.create_tags(Resources=[instance], Tags=[{"Key": "k1", "Value": "other"}])


@answers(
    "CreateTags",
    "the instance does not exist",
    "InvalidInstanceID.NotFound",
    source=ERROR_CODES,
)
def test_an_instance_that_is_not_there_gets_no_tags(aws: Aws, refuses: Refuses) -> None:
    asked = {"Resources": [NOBODY], "Tags": [{"Key": "a", "Value": "b"}]}
    refuses("InvalidInstanceID.NotFound", aws.ec2.create_tags, **asked)
