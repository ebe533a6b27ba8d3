"""IAM's side of a policy: what a call asks for, and whether a document allows it.

Sources: IAM user guide, "Policy evaluation logic" and "Condition operators"; Service Authorization
Reference, the types of resources and the condition keys of each action.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

ACCOUNT, REGION = "123456789012", "us-east-1"
KINDS = {
    "ami": "image",
    "i": "instance",
    "sg": "security-group",
    "snap": "snapshot",
    "subnet": "subnet",
    "vol": "volume",
    "vpc": "vpc",
}
ID = re.compile(rf"({'|'.join(KINDS)})-[0-9a-f]{{8,}}")
# These ask for an action by another name.
ACTIONS = {
    "HeadBucket": "ListBucket",
    "HeadObject": "GetObject",
    "ListObjectsV2": "ListBucket",
    "ListMultipartUploads": "ListBucketMultipartUploads",
}
# These are of no resource.
OF_ALL = re.compile(r"Describe\w+|CancelCommand|GetCommandInvocation")

Context = Mapping[str, str | Sequence[str]]
TagsOf = Callable[[str], Mapping[str, str]]


@dataclass(frozen=True)
class Asked:
    """One of what a call is checked for: a key of `context` that is not there is null."""

    action: str
    resource: str
    context: Context = field(default_factory=dict)


def allows(document: Mapping[str, Any], asked: Asked) -> bool:
    return any(_fits(one, asked) for one in document["Statement"])


def _fits(statement: Mapping[str, Any], asked: Asked) -> bool:
    return (
        statement["Effect"] == "Allow"
        and any(_like(action, asked.action) for action in _listed(statement["Action"]))
        and any(_like(arn, asked.resource) for arn in _listed(statement["Resource"]))
        and all(
            _holds(operator, _listed(values), asked.context.get(key))
            for operator, keys in statement.get("Condition", {}).items()
            for key, values in keys.items()
        )
    )


def _holds(operator: str, wanted: Sequence[str], given: str | Sequence[str] | None) -> bool:
    if operator == "Null":
        return (given is None) == (wanted[0] == "true")
    each, _, plain = operator.rpartition(":")
    if plain.endswith("IfExists"):
        if given is None:
            return True
        plain = plain.removesuffix("IfExists")
    compare = {"StringEquals": _equal, "StringLike": _like, "ArnLike": _like}[plain]
    found = [any(compare(one, value) for one in wanted) for value in _listed(given or [])]
    match each:
        case "":
            return bool(found) and isinstance(given, str) and found[0]
        case "ForAllValues":
            return all(found)
        case "ForAnyValue":
            return any(found)
    raise ValueError(operator)


def _equal(pattern: str, value: str) -> bool:
    return re.sub(r"\$\{([$*?])\}", r"\1", pattern) == value


def _like(pattern: str, value: str) -> bool:
    parts = re.split(r"(\$\{[$*?]\}|[*?])", pattern)
    wild = {"*": ".*", "?": "."}
    parts = [wild.get(one, re.escape(one[2] if one.startswith("${") else one)) for one in parts]
    return re.fullmatch("".join(parts), value, re.DOTALL) is not None


def _listed(values: str | Sequence[str]) -> Sequence[str]:
    return [values] if isinstance(values, str) else values


def asked_by(
    service: str, operation: str, given: Mapping[str, Any], tags_of: TagsOf
) -> Iterator[Asked]:
    """All that a call is checked for. `tags_of` are the tags that something has as it is made."""
    action = f"{service}:{ACTIONS.get(operation, operation)}"
    here = {"aws:RequestedRegion": REGION}
    if OF_ALL.fullmatch(operation):
        yield Asked(action, "*", here)
        return
    match service:
        case "ec2":
            yield from _of_ec2(action, given, tags_of)
        case "ssm":
            yield from _of_ssm(action, given, tags_of)
        case "s3":
            yield _of_s3(action, given)
        case "iam" if "RoleName" in given:
            yield Asked(action, f"arn:aws:iam::{ACCOUNT}:role/{given['RoleName']}")
        case "iam":
            profile = given["InstanceProfileName"]
            yield Asked(action, f"arn:aws:iam::{ACCOUNT}:instance-profile/{profile}")
        case "sts":
            return  # whose key it is anybody may ask
        case _:
            raise ValueError(f"what {action} asks for is not written down")


def _of_ec2(action: str, given: Mapping[str, Any], tags_of: TagsOf) -> Iterator[Asked]:
    made = {one["ResourceType"]: _tags(one["Tags"]) for one in given.get("TagSpecifications", [])}
    changed = _tags(given.get("Tags", []))
    keys = {*changed, *(key for tags in made.values() for key in tags)}
    common: dict[str, str | Sequence[str]] = {"aws:RequestedRegion": REGION}
    if keys:
        common["aws:TagKeys"] = sorted(keys)
    ids = sorted(set(_ids({k: v for k, v in given.items() if k != "TagSpecifications"})))
    for id_ in ids:
        context = {**common, **_named("aws:RequestTag", changed)}
        yield Asked(action, _arn(id_), {**context, **_named("aws:ResourceTag", tags_of(id_))})
    if action == "ec2:RunInstances":
        yield Asked(action, f"arn:aws:ec2:{REGION}::snapshot/snap-of-the-image", common)
    profile = given.get("IamInstanceProfile", {}).get("Name")
    for kind, tags in made.items():
        context = {**common, **_named("aws:RequestTag", tags)}
        arn = f"arn:aws:ec2:{REGION}:{ACCOUNT}:{kind}/*"
        creating = {"ec2:CreateAction": action.partition(":")[2]}
        yield Asked("ec2:CreateTags", arn, {**context, **creating})
        if profile and kind == "instance":
            context["ec2:InstanceProfile"] = f"arn:aws:iam::{ACCOUNT}:instance-profile/{profile}"
        yield Asked(action, arn, context)
    if profile:
        to_ec2 = {"iam:PassedToService": "ec2.amazonaws.com"}
        yield Asked("iam:PassRole", f"arn:aws:iam::{ACCOUNT}:role/of-{profile}", to_ec2)


def _of_ssm(action: str, given: Mapping[str, Any], tags_of: TagsOf) -> Iterator[Asked]:
    arn = f"arn:aws:ssm:{REGION}:{ACCOUNT}:"
    for id_ in given.get("InstanceIds", []):
        yield Asked(action, _arn(id_), _named("ssm:resourceTag", tags_of(id_)))
    if document := given.get("DocumentName"):
        yield Asked(action, f"arn:aws:ssm:{REGION}::document/{document}")
    if setting := given.get("SettingId"):
        yield Asked(action, f"{arn}servicesetting/{setting.lstrip('/')}")
    names = [*given.get("Names", []), *(given[key] for key in ("Name", "Path") if key in given)]
    for name in names:
        yield Asked(action, f"{arn}parameter/{name.lstrip('/')}")


def _of_s3(action: str, given: Mapping[str, Any]) -> Asked:
    if action in {"s3:ListBucket", "s3:ListBucketMultipartUploads"}:
        prefix = {"s3:prefix": given["Prefix"]} if "Prefix" in given else {}
        return Asked(action, f"arn:aws:s3:::{given['Bucket']}", prefix)
    return Asked(action, f"arn:aws:s3:::{given['Bucket']}/{given['Key']}")


def _arn(id_: str) -> str:
    kind = KINDS[id_.partition("-")[0]]
    owner = "" if kind in {"image", "snapshot"} else ACCOUNT
    return f"arn:aws:ec2:{REGION}:{owner}:{kind}/{id_}"


def _ids(given: Any) -> Iterator[str]:
    match given:
        case str() if ID.fullmatch(given):
            yield given
        case Mapping():
            for value in given.values():
                yield from _ids(value)
        case list() | tuple():
            for value in given:
                yield from _ids(value)


def _tags(given: Sequence[Mapping[str, str]]) -> dict[str, str]:
    return {one["Key"]: one.get("Value", "") for one in given}


def _named(key: str, tags: Mapping[str, str]) -> dict[str, str | Sequence[str]]:
    return {f"{key}/{name}": value for name, value in tags.items()}
