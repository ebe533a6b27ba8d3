"""The least that a role needs: an IAM policy for each flow, from the calls that it can make.

Pure. Each call that amibuild/aws can make is in it, and none that it can't: a test holds that, and
another compares it with what the local endpoint was asked.
Sources: Service Authorization Reference (EC2, Systems Manager, S3, IAM, KMS): resource types and
condition keys of each action.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from amibuild.library.artifact import bucket_and_key
from amibuild.library.step import BuildStep
from amibuild.names import Partition, Tag
from amibuild.recipe.model import Communicator, Recipe

VERSION = "2012-10-17"
RUN_SHELL = "AWS-RunShellScript"
# What IAM does not take as it stands, and what HCL does not.
WILD = re.compile(r"[$*?]")
SPECIAL = re.compile(r'[\\"\n\r\t]|[$%]\{')
ESCAPES = {
    "\\": r"\\", '"': r"\"", "\n": r"\n", "\r": r"\r", "\t": r"\t", "${": "$${", "%{": "%%{"
}  # fmt: skip
HOST_MANAGEMENT = "ssm/managed-instance/default-ec2-instance-management-role"


class Flow(StrEnum):
    BAKE = "bake"
    REAP = "reap"


@dataclass(frozen=True)
class Wanted:
    """What a policy is for: a recipe, what it compiles to, and the part of AWS that it bakes in."""

    recipe: Recipe
    steps: Sequence[BuildStep]
    partition: Partition

    def arn(self, service: str, resource: str, *, region: str = "", account: str = "") -> str:
        return f"arn:{self.partition.name}:{service}:{region}:{account}:{resource}"

    def host(self, name: str) -> str | list[str]:
        """What a condition has as the name of a service. Elsewhere than in `aws` some have the
        suffix of their partition and some have not, so both are meant."""
        names = dict.fromkeys(f"{name}.{end}" for end in ("amazonaws.com", self.partition.suffix))
        first, *others = names
        return [first, *others] if others else first


@dataclass(frozen=True)
class Statement:
    """One of a policy. `condition` maps an operator to its keys and values."""

    sid: str
    actions: tuple[str, ...]
    resources: tuple[str, ...]
    condition: Mapping[str, Mapping[str, Any]]

    def as_json(self) -> dict[str, Any]:
        told: dict[str, Any] = {
            "Sid": self.sid,
            "Effect": "Allow",
            "Action": sorted(self.actions),
            "Resource": list(self.resources),
        }
        return {**told, "Condition": self.condition} if self.condition else told


# What is only looked at. None of these can be narrowed to a resource.
LOOKS = (
    "ec2:DescribeImages",
    "ec2:DescribeInstances",
    "ec2:DescribeSecurityGroups",
    "ec2:DescribeSnapshots",
    "ec2:DescribeVolumes",
)
BAKE_LOOKS = (
    *LOOKS,
    "ec2:DescribeSubnets",
    "ssm:CancelCommand",
    "ssm:DescribeInstanceInformation",
    "ssm:GetCommandInvocation",
)
# Of what carries the image's tag, and nothing else: no other machine or image of the account.
REMOVES = (
    "ec2:DeleteSecurityGroup",
    "ec2:DeleteSnapshot",
    "ec2:DeleteVolume",
    "ec2:DeregisterImage",
    "ec2:TerminateInstances",
)
BAKE_USES = (
    *REMOVES,
    "ec2:AttachVolume",
    "ec2:CreateImage",
    "ec2:CreateTags",
    "ec2:DeleteTags",
    "ec2:GetConsoleOutput",
    "ec2:StopInstances",
)
SHARES = ("ec2:ModifyImageAttribute", "ec2:ModifySnapshotAttribute")
OPENS = ("ec2:AuthorizeSecurityGroupIngress",)
LOCK_LOOKS = ("ssm:GetParametersByPath",)
LOCK_USES = ("ssm:DeleteParameters", "ssm:PutParameter")
CREATING = ("CreateImage", "CreateSecurityGroup", "CreateVolume", "RunInstances")


def statements(wanted: Wanted, flow: Flow) -> tuple[Statement, ...]:
    """What the flow may do with this recipe, in its region."""
    made = tuple(_bake(wanted) if flow is Flow.BAKE else _reap(wanted))
    return tuple(one for one in made if one.resources)


def document(wanted: Wanted, flow: Flow) -> dict[str, Any]:
    """An IAM policy, as JSON has it."""
    return {"Version": VERSION, "Statement": [one.as_json() for one in statements(wanted, flow)]}


def _reap(wanted: Wanted) -> Iterator[Statement]:
    # Of whatever region: there may be journals of others, and --all-regions looks into all.
    yield Statement("Look", (*LOOKS, "ec2:DescribeRegions"), ("*",), {})
    yield Statement("RemoveWhatIsOurs", REMOVES, _ec2(wanted, "*"), _temporary())
    locks = _locks(wanted, "*", region="*")
    yield Statement("LookAtLocks", LOCK_LOOKS, locks, {})
    # A lock is released by a last word, not removed.
    yield Statement("ReleaseLocks", ("ssm:PutParameter",), locks[1:], {})
    if bucket := wanted.recipe.aws.bucket:
        find = (wanted.arn("s3", literal(bucket)),)
        yield Statement("FindUploads", ("s3:ListBucket",), find, {})
        uploads = _objects(wanted, "payloads/*", "artifacts/*")
        yield Statement("RemoveUploads", ("s3:DeleteObject",), uploads, {})


def _bake(wanted: Wanted) -> Iterator[Statement]:
    recipe, here = wanted.recipe, wanted.recipe.aws.region
    ours, new = _resource_tag(recipe), _request_tag(recipe)
    region = _region(recipe)
    yield Statement("Look", BAKE_LOOKS, ("*",), region)
    if recipe.source.ssm:
        # AWS's own have no account in their ARN.
        name = literal(recipe.source.ssm.lstrip("/"))
        parameter = wanted.arn("ssm", f"parameter/{name}", region=here, account="*")
        yield Statement("FindTheSource", ("ssm:GetParameter",), (parameter,), {})
    setting = wanted.arn("ssm", f"servicesetting/{HOST_MANAGEMENT}", region=here, account="*")
    yield Statement("AskForHostManagement", ("ssm:GetServiceSetting",), (setting,), {})
    yield from _profile(wanted)
    found = _ec2(wanted, "image", "snapshot", "subnet")
    yield Statement("StartFrom", ("ec2:RunInstances",), found, region)
    group, snapshot = _ec2(wanted, "security-group"), _ec2(wanted, "snapshot")
    yield Statement("StartBehind", ("ec2:RunInstances",), group, {**ours, **region})
    yield Statement("MakeGroupsIn", ("ec2:CreateSecurityGroup",), _ec2(wanted, "vpc"), region)
    yield Statement("CopyDisksFrom", ("ec2:CreateVolume",), snapshot, {**ours, **region})
    spot = ("spot-instances-request",) if recipe.builder.spot else ()
    born = _ec2(wanted, "instance", "volume", "network-interface", *spot)
    yield Statement(
        "StartAsOurs", ("ec2:RunInstances",), born, {**new, **region, **_with_profile(wanted)}
    )
    yield Statement(
        "MakeAsOurs",
        ("ec2:CreateSecurityGroup", "ec2:CreateVolume"),
        _ec2(wanted, "security-group", "volume"),
        {**new, **region},
    )
    captured = _ec2(wanted, "image", "snapshot")
    yield Statement("CaptureAsOurs", ("ec2:CreateImage",), captured, new)
    yield Statement(
        "TagWhatIsMade",
        ("ec2:CreateTags",),
        _ec2(wanted, "*"),
        {"StringEquals": {"ec2:CreateAction": list(CREATING)}},
    )
    shares = SHARES if recipe.publish.accounts else ()
    opens = OPENS if recipe.builder.communicator is Communicator.SSH else ()
    used = (*BAKE_USES, *shares, *opens)
    yield Statement("UseWhatIsOurs", used, _ec2(wanted, "*"), {**ours, **region})
    yield Statement(
        "RunStepsOnOurs",
        ("ssm:SendCommand",),
        (wanted.arn("ec2", "instance/*", region=here, account="*"),),
        {"StringEquals": {f"ssm:resourceTag/{Tag.IMAGE}": recipe.image.name}},
    )
    yield Statement(
        "RunThemByShell",
        ("ssm:SendCommand",),
        (wanted.arn("ssm", f"document/{RUN_SHELL}", region=here),),
        {},
    )
    yield from _spot(wanted)
    yield from _secrets(wanted)
    locks = _locks(wanted, literal(recipe.image.name), region=here)
    yield Statement("LookAtTheLock", LOCK_LOOKS, locks, {})
    yield Statement("TakeTheLock", LOCK_USES, locks[1:], {})
    yield from _bucket(wanted)
    yield from _artifacts(wanted)
    yield from _key(wanted)


def _profile(wanted: Wanted) -> Iterator[Statement]:
    """IAM names the role of a profile nowhere in its ARN, so that may be any that EC2 is given."""
    profile = wanted.recipe.aws.instance_profile
    if profile is None:
        return
    yield Statement(
        "LookAtTheProfile",
        ("iam:GetInstanceProfile",),
        (_profile_arn(wanted, profile),),
        {},
    )
    looks = ("iam:ListAttachedRolePolicies", "iam:ListRolePolicies")
    roles = (wanted.arn("iam", "role/*", account="*"),)
    yield Statement("LookAtItsRole", looks, roles, {})
    to_ec2 = {"StringEquals": {"iam:PassedToService": wanted.host("ec2")}}
    yield Statement("GiveItsRole", ("iam:PassRole",), roles, to_ec2)


def _spot(wanted: Wanted) -> Iterator[Statement]:
    """The account's first spot instance makes a role for EC2, as whoever asked for it (EC2 user
    guide, "Service-linked role for Spot Instance requests")."""
    if not wanted.recipe.builder.spot:
        return
    host = "spot.amazonaws.com"
    role = wanted.arn("iam", f"role/aws-service-role/{host}/*", account="*")
    named = {"StringEquals": {"iam:AWSServiceName": host}}
    yield Statement("LetEc2UseSpot", ("iam:CreateServiceLinkedRole",), (role,), named)


def _with_profile(wanted: Wanted) -> dict[str, dict[str, Any]]:
    """Else whoever may pass roles to EC2 could start a machine with any of the account's."""
    profile = wanted.recipe.aws.instance_profile
    if profile is None:
        return {}
    return {"ArnLikeIfExists": {"ec2:InstanceProfile": _profile_arn(wanted, profile)}}


def _secrets(wanted: Wanted) -> Iterator[Statement]:
    """Under a KMS key of one's own, that key's policy must let the role decrypt too."""
    sources = wanted.recipe.secrets.values()
    parameters = [one.ssm for one in sources if one.ssm is not None]
    names = [one.secretsmanager for one in sources if one.secretsmanager is not None]
    resources = tuple(_parameter(wanted, name) for name in parameters)
    yield Statement("ReadSecureParameters", ("ssm:GetParameter",), resources, {})
    resources = tuple(_secret(wanted, name) for name in names)
    yield Statement("ReadSecrets", ("secretsmanager:GetSecretValue",), resources, {})


def _parameter(wanted: Wanted, name: str) -> str:
    """Without the version or label that a name may end in."""
    if name.startswith("arn:"):
        return literal(":".join(name.split(":")[:6]))
    path = literal(name.partition(":")[0].lstrip("/"))
    return wanted.arn("ssm", f"parameter/{path}", region=wanted.recipe.aws.region, account="*")


def _secret(wanted: Wanted, name: str) -> str:
    """An ARN ends in six characters that nobody chooses, and may be given without them."""
    if name.startswith("arn:"):
        return f"{literal(name)}*"
    region = wanted.recipe.aws.region
    path = f"secret:{literal(name)}-??????"
    return wanted.arn("secretsmanager", path, region=region, account="*")


def _profile_arn(wanted: Wanted, profile: str) -> str:
    return wanted.arn("iam", f"instance-profile/{literal(profile)}", account="*")


def _bucket(wanted: Wanted) -> Iterator[Statement]:
    bucket = wanted.recipe.aws.bucket
    if bucket is None:
        return
    yield Statement("FindTheBucket", ("s3:ListBucket",), (wanted.arn("s3", literal(bucket)),), {})
    actions = ("s3:AbortMultipartUpload", "s3:DeleteObject", "s3:GetObject", "s3:PutObject")
    yield Statement("UseItsObjects", actions, _objects(wanted, "*"), {})


def _artifacts(wanted: Wanted) -> Iterator[Statement]:
    """What is read where it is: looked for before a bake, and fetched by an address that this
    role signs. Of the mirror all, since what is in it is called by checksums."""
    places = [bucket_and_key(source.url) for step in wanted.steps for source in step.sources]
    read = {(bucket, literal(key)) for bucket, key in filter(None, places)}
    mirror = wanted.recipe.artifacts.mirror or ""
    if mirror.startswith("s3://"):
        bucket, _, prefix = mirror.removeprefix("s3://").partition("/")
        read.add((bucket, f"{literal(prefix.strip('/'))}/*".lstrip("/")))
    objects = [wanted.arn("s3", f"{literal(bucket)}/{key}") for bucket, key in sorted(read)]
    yield Statement("ReadItsArtifacts", ("s3:GetObject",), tuple(objects), {})
    buckets = sorted({wanted.arn("s3", literal(bucket)) for bucket, _ in read})
    keys = {"StringLike": {"s3:prefix": sorted({key for _, key in read})}}
    yield Statement("FindItsArtifacts", ("s3:ListBucket",), tuple(buckets), keys)


def _key(wanted: Wanted) -> Iterator[Statement]:
    """What EC2 does with the key on the caller's behalf (EBS user guide, required permissions)."""
    key = wanted.recipe.aws.kms_key
    if key is None:
        return
    resource = literal(key) if key.startswith("arn:") else "*"
    via = {"StringEquals": {"kms:ViaService": wanted.host(f"ec2.{wanted.recipe.aws.region}")}}
    actions = (
        "kms:CreateGrant",
        "kms:Decrypt",
        "kms:DescribeKey",
        "kms:GenerateDataKeyWithoutPlaintext",
        "kms:ReEncryptFrom",
        "kms:ReEncryptTo",
    )
    yield Statement("UseTheKey", actions, (resource,), via)


def _objects(wanted: Wanted, *patterns: str) -> tuple[str, ...]:
    """All that amibuild puts into the recipe's bucket has the same beginning."""
    bucket = literal(wanted.recipe.aws.bucket or "")
    return tuple(wanted.arn("s3", f"{bucket}/amibuild/{pattern}") for pattern in patterns)


def _ec2(wanted: Wanted, *kinds: str) -> tuple[str, ...]:
    """Images and snapshots of AWS itself have no account in their ARN."""
    named = (kind if kind == "*" else f"{kind}/*" for kind in kinds)
    return tuple(wanted.arn("ec2", one, region="*", account="*") for one in named)


def literal(text: str) -> str:
    """For where IAM takes wildcards and variables (IAM user guide, policy variables)."""
    return WILD.sub(lambda found: f"${{{found[0]}}}", text)


def _locks(wanted: Wanted, image: str, *, region: str) -> tuple[str, ...]:
    """The folder of an image's lock, and what is in it."""
    folder = f"parameter/amibuild/{image}/lock"
    return tuple(
        wanted.arn("ssm", name, region=region, account="*") for name in (folder, f"{folder}/*")
    )


def _region(recipe: Recipe) -> dict[str, dict[str, Any]]:
    return {"StringEqualsIfExists": {"aws:RequestedRegion": recipe.aws.region}}


def _resource_tag(recipe: Recipe) -> dict[str, dict[str, Any]]:
    return {"StringEquals": {f"aws:ResourceTag/{Tag.IMAGE}": recipe.image.name}}


def _request_tag(recipe: Recipe) -> dict[str, dict[str, Any]]:
    return {"StringEquals": {f"aws:RequestTag/{Tag.IMAGE}": recipe.image.name}}


def _temporary() -> dict[str, dict[str, Any]]:
    """Of whatever image: reap removes what any bake of the account left. What is proven has no end
    any longer. Whether the end is past is a date in a tag, which no condition compares."""
    ends = {f"aws:ResourceTag/{Tag.EXPIRES}": "false"}
    return {"StringLike": {f"aws:ResourceTag/{Tag.BAKE_ID}": "*"}, "Null": ends}


def as_hcl(wanted: Wanted, flow: Flow) -> str:
    """The same as a data source for Terraform's AWS provider."""
    lines = [f'data "aws_iam_policy_document" "amibuild_{flow}" {{']
    for one in statements(wanted, flow):
        lines += ["  statement {", f'    sid       = "{one.sid}"']
        lines.append(f"    actions   = {_list(sorted(one.actions))}")
        lines.append(f"    resources = {_list(one.resources)}")
        for test, keys in one.condition.items():
            for key, values in keys.items():
                lines += ["    condition {", f'      test     = "{test}"']
                lines.append(f"      variable = {_text(key)}")
                listed = values if isinstance(values, list) else [values]
                lines += [f"      values   = {_list(listed)}", "    }"]
        lines.append("  }")
    return "\n".join([*lines, "}", ""])


def _list(values: Sequence[str]) -> str:
    return "[" + ", ".join(map(_text, values)) + "]"


def _text(value: str) -> str:
    """Quoted, as HCL reads it back (HCL native syntax, quoted templates)."""
    return '"' + SPECIAL.sub(lambda found: ESCAPES[found[0]], value) + '"'
