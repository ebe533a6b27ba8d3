"""The least that a role needs: an IAM policy for each flow, from the calls that it can make.

Pure. Each call that amibuild/aws can make is in it, and none that it can't: a test holds that, and
another compares it with what the local endpoint was asked.
Sources: Service Authorization Reference (EC2, Systems Manager, S3, IAM, KMS): resource types and
condition keys of each action.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from amibuild.names import Tag
from amibuild.recipe.model import Recipe

VERSION = "2012-10-17"
RUN_SHELL = "AWS-RunShellScript"
HOST_MANAGEMENT = "ssm/managed-instance/default-ec2-instance-management-role"


class Flow(StrEnum):
    BAKE = "bake"
    REAP = "reap"


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
CREATING = ("CreateImage", "CreateSecurityGroup", "CreateVolume", "RunInstances")


def statements(recipe: Recipe, flow: Flow) -> tuple[Statement, ...]:
    """What the flow may do with this recipe, in its region."""
    made = tuple(_bake(recipe) if flow is Flow.BAKE else _reap(recipe))
    return tuple(one for one in made if one.resources)


def document(recipe: Recipe, flow: Flow) -> dict[str, Any]:
    """An IAM policy, as JSON has it."""
    return {"Version": VERSION, "Statement": [one.as_json() for one in statements(recipe, flow)]}


def _reap(recipe: Recipe) -> Iterator[Statement]:
    # Of whatever region: there may be journals of others, and --all-regions looks into all.
    yield Statement("Look", (*LOOKS, "ec2:DescribeRegions"), ("*",), {})
    yield Statement("RemoveWhatIsOurs", REMOVES, _ec2("*"), _having_tag())
    if recipe.aws.bucket:
        bucket = (f"arn:aws:s3:::{recipe.aws.bucket}",)
        yield Statement("FindUploads", ("s3:ListBucket",), bucket, {})
        yield Statement("RemoveUploads", ("s3:DeleteObject",), _objects(recipe), {})


def _bake(recipe: Recipe) -> Iterator[Statement]:
    ours, new = _resource_tag(recipe), _request_tag(recipe)
    region = _region(recipe)
    yield Statement("Look", BAKE_LOOKS, ("*",), region)
    if recipe.source.ssm:
        # AWS's own have no account in their ARN.
        parameter = f"arn:aws:ssm:{recipe.aws.region}:*:parameter/{recipe.source.ssm.lstrip('/')}"
        yield Statement("FindTheSource", ("ssm:GetParameter",), (parameter,), {})
    setting = f"arn:aws:ssm:{recipe.aws.region}:*:servicesetting/{HOST_MANAGEMENT}"
    yield Statement("AskForHostManagement", ("ssm:GetServiceSetting",), (setting,), {})
    yield from _profile(recipe)
    yield Statement("StartFrom", ("ec2:RunInstances",), _ec2("image", "snapshot", "subnet"), region)
    yield Statement(
        "StartBehind", ("ec2:RunInstances",), _ec2("security-group"), {**ours, **region}
    )
    yield Statement("MakeGroupsIn", ("ec2:CreateSecurityGroup",), _ec2("vpc"), region)
    yield Statement("CopyDisksFrom", ("ec2:CreateVolume",), _ec2("snapshot"), {**ours, **region})
    born = _ec2("instance", "volume", "network-interface")
    yield Statement(
        "StartAsOurs", ("ec2:RunInstances",), born, {**new, **region, **_with_profile(recipe)}
    )
    yield Statement(
        "MakeAsOurs",
        ("ec2:CreateSecurityGroup", "ec2:CreateVolume"),
        _ec2("security-group", "volume"),
        {**new, **region},
    )
    yield Statement("CaptureAsOurs", ("ec2:CreateImage",), _ec2("image", "snapshot"), new)
    yield Statement(
        "TagWhatIsMade",
        ("ec2:CreateTags",),
        _ec2("*"),
        {"StringEquals": {"ec2:CreateAction": list(CREATING)}},
    )
    shares = SHARES if recipe.publish.accounts else ()
    yield Statement("UseWhatIsOurs", (*BAKE_USES, *shares), _ec2("*"), {**ours, **region})
    yield Statement(
        "RunStepsOnOurs",
        ("ssm:SendCommand",),
        (f"arn:aws:ec2:{recipe.aws.region}:*:instance/*",),
        {"StringEquals": {f"ssm:resourceTag/{Tag.IMAGE}": recipe.image.name}},
    )
    yield Statement(
        "RunThemByShell",
        ("ssm:SendCommand",),
        (f"arn:aws:ssm:{recipe.aws.region}::document/{RUN_SHELL}",),
        {},
    )
    yield from _secrets(recipe)
    yield from _bucket(recipe)
    yield from _key(recipe)


def _profile(recipe: Recipe) -> Iterator[Statement]:
    """IAM names the role of a profile nowhere in its ARN, so that may be any that EC2 is given."""
    profile = recipe.aws.instance_profile
    if profile is None:
        return
    yield Statement(
        "LookAtTheProfile",
        ("iam:GetInstanceProfile",),
        (f"arn:aws:iam::*:instance-profile/{profile}",),
        {},
    )
    looks = ("iam:ListAttachedRolePolicies", "iam:ListRolePolicies")
    yield Statement("LookAtItsRole", looks, ("arn:aws:iam::*:role/*",), {})
    to_ec2 = {"StringEquals": {"iam:PassedToService": "ec2.amazonaws.com"}}
    yield Statement("GiveItsRole", ("iam:PassRole",), ("arn:aws:iam::*:role/*",), to_ec2)


def _with_profile(recipe: Recipe) -> dict[str, dict[str, Any]]:
    """Else whoever may pass roles to EC2 could start a machine with any of the account's."""
    profile = recipe.aws.instance_profile
    arn = f"arn:aws:iam::*:instance-profile/{profile}"
    return {"ArnLikeIfExists": {"ec2:InstanceProfile": arn}} if profile else {}


def _secrets(recipe: Recipe) -> Iterator[Statement]:
    """Under a KMS key of one's own, that key's policy must let the role decrypt too."""
    parameters = [one.ssm for one in recipe.secrets.values() if one.ssm is not None]
    names = [
        one.secretsmanager for one in recipe.secrets.values() if one.secretsmanager is not None
    ]
    region = recipe.aws.region
    yield Statement(
        "ReadSecureParameters",
        ("ssm:GetParameter",),
        tuple(f"arn:aws:ssm:{region}:*:parameter/{name.lstrip('/')}" for name in parameters),
        {},
    )
    yield Statement(
        "ReadSecrets",
        ("secretsmanager:GetSecretValue",),
        # An ARN ends in six characters that nobody chooses.
        tuple(
            name
            if name.startswith("arn:")
            else f"arn:aws:secretsmanager:{region}:*:secret:{name}-??????"
            for name in names
        ),
        {},
    )


def _bucket(recipe: Recipe) -> Iterator[Statement]:
    bucket = recipe.aws.bucket
    if bucket is None:
        return
    yield Statement("FindTheBucket", ("s3:ListBucket",), (f"arn:aws:s3:::{bucket}",), {})
    actions = ("s3:AbortMultipartUpload", "s3:DeleteObject", "s3:GetObject", "s3:PutObject")
    yield Statement("UseItsObjects", actions, _objects(recipe), {})


def _key(recipe: Recipe) -> Iterator[Statement]:
    """What EC2 does with the key on the caller's behalf (EBS user guide, required permissions)."""
    key = recipe.aws.kms_key
    if key is None:
        return
    resource = key if key.startswith("arn:") else "*"
    via = {"StringEquals": {"kms:ViaService": f"ec2.{recipe.aws.region}.amazonaws.com"}}
    actions = (
        "kms:CreateGrant",
        "kms:Decrypt",
        "kms:DescribeKey",
        "kms:GenerateDataKeyWithoutPlaintext",
        "kms:ReEncryptFrom",
        "kms:ReEncryptTo",
    )
    yield Statement("UseTheKey", actions, (resource,), via)


def _objects(recipe: Recipe) -> tuple[str, ...]:
    return (f"arn:aws:s3:::{recipe.aws.bucket}/*",)


def _ec2(*kinds: str) -> tuple[str, ...]:
    """Images and snapshots of AWS itself have no account in their ARN."""
    return tuple(f"arn:aws:ec2:*:*:{kind}{'' if kind == '*' else '/*'}" for kind in kinds)


def _region(recipe: Recipe) -> dict[str, dict[str, Any]]:
    return {"StringEqualsIfExists": {"aws:RequestedRegion": recipe.aws.region}}


def _resource_tag(recipe: Recipe) -> dict[str, dict[str, Any]]:
    return {"StringEquals": {f"aws:ResourceTag/{Tag.IMAGE}": recipe.image.name}}


def _request_tag(recipe: Recipe) -> dict[str, dict[str, Any]]:
    return {"StringEquals": {f"aws:RequestTag/{Tag.IMAGE}": recipe.image.name}}


def _having_tag() -> dict[str, dict[str, Any]]:
    """Of whatever image: reap removes what any bake of the account left."""
    return {"StringLike": {f"aws:ResourceTag/{Tag.BAKE_ID}": "*"}}


def as_hcl(recipe: Recipe, flow: Flow) -> str:
    """The same as a data source for Terraform's AWS provider."""
    lines = [f'data "aws_iam_policy_document" "amibuild_{flow}" {{']
    for one in statements(recipe, flow):
        lines += ["  statement {", f'    sid       = "{one.sid}"']
        lines.append(f"    actions   = {_list(sorted(one.actions))}")
        lines.append(f"    resources = {_list(one.resources)}")
        for test, keys in one.condition.items():
            for key, values in keys.items():
                lines += ["    condition {", f'      test     = "{test}"']
                lines.append(f'      variable = "{key}"')
                listed = values if isinstance(values, list) else [values]
                lines += [f"      values   = {_list(listed)}", "    }"]
        lines.append("  }")
    return "\n".join([*lines, "}", ""])


def _list(values: Sequence[str]) -> str:
    return "[" + ", ".join(f'"{value}"' for value in values) + "]"
