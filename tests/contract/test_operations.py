"""Every operation that AWS has, asked with made-up values: what we don't have is refused by name.

moto answers many operations that it only pretends to do, and others with a page of HTML. Here each
operation of botocore's models is called once, with the fewest parameters that botocore lets pass.
"""

from __future__ import annotations

import re
from typing import Any

import pytest
from botocore.exceptions import ClientError
from botocore.model import OperationModel, Shape

from amibuild.local.overlay import operations
from tests.contract.answers import answers
from tests.contract.conftest import Aws

ERROR_CODES = "EC2 API reference, Error codes"
# What is behind these is a machine, a disk or a file in our store. An answer from moto alone would
# be a lie.
HELD = re.compile(r"Image|Instances?$|Instance[A-Z]|Snapshot|Volume|Fleet|Spot|Host|Command|Bundle")
CHANGES = re.compile(
    r"(Attach|Bundle|Cancel|Copy|Create|Delete|Deregister|Detach|Disable|Enable|Export|Import|Lock"
    r"|Modify|Monitor|Move|Put|Reboot|Register|Report|Request|Reset|Restore|Run|Send|Start|Stop"
    r"|Terminate|Unlock|Unmonitor)[A-Z]"
)
# moto's answer, over books of ours that do it: with the place where they do.
OUR_BOOKS = {
    "DeleteVolume": "VolumeBooks.delete_volume",
}
# Their names look like it, but what they change is moto's own.
ELSEWHERE = re.compile(r"IamInstanceProfile|HostManagement")
NAMES = {"InstanceId": "i-0123456789abcdef0", "InstanceIds": "i-0123456789abcdef0"}


def made_up(shape: Shape, name: str = "") -> Any:
    """The smallest value that botocore takes for it: what is required, and nothing else."""
    found: Any = shape
    kind = shape.type_name
    if kind == "structure" and found.is_tagged_union:
        name, member = next(iter(found.members.items()))
        return {name: made_up(member, name)}
    if kind == "structure":
        return {n: made_up(found.members[n], n) for n in found.required_members}
    if kind == "list":
        return [made_up(found.member, name)] * max(found.metadata.get("min", 1), 1)
    if kind == "map":
        return {made_up(found.key): made_up(found.value)}
    if kind == "string":
        if found.enum:
            return found.enum[0]
        text = NAMES.get(name, "made-up-value")
        return text.ljust(found.metadata.get("min", 0), "x")[: found.metadata.get("max", 4096)]
    values = {
        "boolean": False,
        "blob": b"made-up",
        "float": 1.0,
        "double": 1.0,
        "timestamp": "2026-01-01T00:00:00Z",
    }
    return values.get(kind, max(found.metadata.get("min", 1), 1))


def ask(client: Any, name: str) -> tuple[int, str, str]:
    """Status, code and message of the answer. Fails on one that botocore can't read, as HTML."""
    model: OperationModel = client.meta.service_model.operation_model(name)
    given = made_up(model.input_shape) if model.input_shape is not None else {}
    try:
        answer = client._make_api_call(name, given)
    except ClientError as error:
        told = error.response["Error"]
        return error.response["ResponseMetadata"]["HTTPStatusCode"], told["Code"], told["Message"]
    return answer["ResponseMetadata"]["HTTPStatusCode"], "", ""


def everything(client: Any) -> dict[str, tuple[int, str, str]]:
    """By operation. One whose host has a prefix of its own cannot be sent to an address."""
    model = client.meta.service_model
    hosted = {n for n in model.operation_names if model.operation_model(n).endpoint}
    return {name: ask(client, name) for name in model.operation_names if name not in hosted}


@answers(
    "every operation of EC2 and SSM",
    "it is not carried out here",
    "carries it out",
    source=ERROR_CODES,
    ours="UnsupportedOperation, with the operation's name",
)
@pytest.mark.parametrize("service", ["ec2", "ssm"])
def test_what_we_do_not_have_is_refused_by_its_name(aws: Aws, service: str) -> None:
    found = everything(aws._client(service))
    assert len(found) > 100
    wrong = {}
    for name, (status, code, message) in found.items():
        refused = code == "UnsupportedOperation" and name in message
        if status >= 500 or refused is (name in operations.supported(service)):
            wrong[name] = (status, code, message)
    assert wrong == {}


@pytest.mark.parametrize("service", ["sts", "iam", "s3", "secretsmanager"])
def test_the_services_beside_answer_in_their_own_words(aws: Aws, service: str) -> None:
    found = everything(aws._client(service))
    assert {n: a for n, a in found.items() if a[0] >= 500} == {}


@pytest.mark.parametrize("service", ["ec2", "ssm"])
def test_no_answer_about_what_we_hold_is_motos_alone(service: str) -> None:
    kept = operations.supported(service) - operations.own(service)
    pretended = {n for n in kept if CHANGES.match(n) and HELD.search(n) and not ELSEWHERE.search(n)}
    assert pretended <= set(OUR_BOOKS)


@pytest.mark.parametrize("service", ["ec2", "ssm"])
def test_what_is_our_own_is_not_listed_as_motos(service: str) -> None:
    assert operations.KEPT[service] & operations.own(service) == set()


@pytest.mark.parametrize("service", ["ec2", "ssm"])
def test_only_genuine_operations_are_listed(service: str) -> None:
    assert operations.KEPT[service] <= operations.genuine(service)
