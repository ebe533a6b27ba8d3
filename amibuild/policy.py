"""The least that a role needs: an IAM policy for each flow, from the calls that it can make.

Pure. Each call that amibuild/aws can make is in it, and none that it can't: a test holds that, and
another compares it with what the local endpoint was asked.
Sources: Service Authorization Reference (EC2, Systems Manager, S3, IAM, KMS): resource types and
condition keys of each action.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from enum import StrEnum
from functools import partial
from typing import Any

from amibuild.library.artifact import bucket_and_key
from amibuild.names import Tag, channel_parameter
from amibuild.permission import (
    Statement,
    Wanted,
    in_region,
    literal,
    lock_arns,
    object_arns,
    on_ec2,
    tagged_as_ours,
)
from amibuild.recipe.model import Communicator, Recipe

VERSION = "2012-10-17"
RUN_SHELL = "AWS-RunShellScript"
HOST_MANAGEMENT = "ssm/managed-instance/default-ec2-instance-management-role"


class Flow(StrEnum):
    BAKE = "bake"
    PROMOTE = "promote"
    LOOK = "look"
    PRUNE = "prune"
    REAP = "reap"


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
OPENS = ("ec2:AuthorizeSecurityGroupIngress", "ec2:RevokeSecurityGroupIngress")
LOCK_LOOKS = ("ssm:GetParametersByPath",)
LOCK_USES = ("ssm:DeleteParameters", "ssm:PutParameter")
CHANNEL_READS = ("ssm:GetParameters",)
CHANNEL_LOOKS = ("ssm:GetParameterHistory", *CHANNEL_READS)
# The first write of a parameter gives it its tags.
CHANNEL_USES = ("ssm:AddTagsToResource", "ssm:PutParameter")
REVOKES = ("ec2:DisableImage", "ec2:EnableImageDeprecation")
MARKS = ("ec2:CreateTags",)
# What DescribeImageReferences looks at in the caller's name, and by what name of its own (EC2 user
# guide, "Identify your resources referencing specified AMIs").
REFERENCE_LOOKS = (
    "ec2:DescribeInstances",
    "ec2:DescribeLaunchTemplateVersions",
    "ec2:DescribeLaunchTemplates",
    "imagebuilder:GetContainerRecipe",
    "imagebuilder:ListContainerRecipes",
    "imagebuilder:ListImageRecipes",
    "ssm:DescribeParameters",
    "ssm:GetParameters",
)
REFERENCE_CHECK = "ec2-images.amazonaws.com"
PRUNE_LOOKS = ("ec2:DescribeImageReferences", "ec2:DescribeImages", "ec2:DescribeSnapshots")
UPLOADS_FOUND = ("s3:ListBucket", "s3:ListBucketMultipartUploads")
UPLOADS_END = ("s3:AbortMultipartUpload", "s3:DeleteObject")
CREATING = ("CreateImage", "CreateSecurityGroup", "CreateVolume", "RunInstances")


def statements(wanted: Wanted, flow: Flow, channels: Sequence[str] = ()) -> tuple[Statement, ...]:
    """What the flow may do with this recipe, in its region. With `channels` promote may move those
    alone, and revoke nothing."""
    flows: dict[Flow, Callable[[Wanted], Iterator[Statement]]] = {
        Flow.BAKE: _bake,
        Flow.PROMOTE: partial(_promote, alone=channels),
        Flow.LOOK: _look,
        Flow.PRUNE: _prune,
        Flow.REAP: _reap,
    }
    made = tuple(flows[flow](wanted))
    return tuple(one for one in made if one.resources)


def document(wanted: Wanted, flow: Flow, channels: Sequence[str] = ()) -> dict[str, Any]:
    """An IAM policy, as JSON has it."""
    made = statements(wanted, flow, channels)
    return {"Version": VERSION, "Statement": [one.as_json() for one in made]}


def _reap(wanted: Wanted) -> Iterator[Statement]:
    # Of whatever region: there may be journals of others, and --all-regions looks into all.
    yield Statement("Look", (*LOOKS, "ec2:DescribeRegions"), ("*",), {})
    yield Statement("RemoveWhatIsOurs", REMOVES, on_ec2(wanted, "*"), _temporary())
    locks = lock_arns(wanted, "*", region="*")
    yield Statement("LookAtLocks", LOCK_LOOKS, locks, {})
    # A lock is released by a last word, not removed.
    yield Statement("ReleaseLocks", ("ssm:PutParameter",), locks[1:], {})
    if bucket := wanted.recipe.aws.bucket:
        find = (wanted.arn("s3", literal(bucket)),)
        yield Statement("FindUploads", UPLOADS_FOUND, find, {})
        uploads = object_arns(wanted, "payloads/*", "artifacts/*")
        yield Statement("RemoveUploads", UPLOADS_END, uploads, {})


def _look(wanted: Wanted) -> Iterator[Statement]:
    """Of promote and rollback with --dry-run, of channels, images and show."""
    recipe = wanted.recipe
    order, regions = recipe.channels.order, (recipe.aws.region, *recipe.publish.regions)
    first, *others = dict.fromkeys(regions)
    there = {"StringEquals": {"aws:RequestedRegion": [first, *others] if others else first}}
    yield Statement("Look", ("ec2:DescribeImages",), ("*",), there)
    yield Statement("LookAtChannels", CHANNEL_LOOKS, _channels(wanted, regions, order), {})
    if recipe.aws.bucket:
        bucket = (wanted.arn("s3", literal(recipe.aws.bucket)),)
        only = {"StringLike": {"s3:prefix": "amibuild/manifests/*"}}
        yield Statement("FindManifests", ("s3:ListBucket",), bucket, only)
        yield Statement("ReadManifests", ("s3:GetObject",), object_arns(wanted, "manifests/*"), {})


def _promote(wanted: Wanted, alone: Sequence[str]) -> Iterator[Statement]:
    """Of promote, rollback, channels and revoke. The service looks at the image on the caller's
    behalf before it saves a parameter (Systems Manager user guide, AMI ids)."""
    recipe, region = wanted.recipe, wanted.recipe.aws.region
    moved = alone or recipe.channels.order
    yield from _look(wanted)
    yield Statement("MoveChannels", CHANNEL_USES, _channels(wanted, (region,), moved), {})
    yield from _channel_locks(wanted, moved)
    if not alone:
        ours = {**tagged_as_ours(recipe), **in_region(recipe)}
        yield Statement("Revoke", REVOKES, on_ec2(wanted, "image"), ours)
        # No other mark: who moves a channel does not say that an image is proven.
        one_key = {"ForAllValues:StringEquals": {"aws:TagKeys": str(Tag.REVOKED)}}
        yield Statement("MarkAsRevoked", MARKS, on_ec2(wanted, "image"), {**ours, **one_key})


def _channels(wanted: Wanted, regions: Sequence[str], channels: Sequence[str]) -> tuple[str, ...]:
    """The parameters of these channels in these regions."""
    pattern, image = wanted.recipe.channels.parameter, wanted.recipe.image.name
    names = [literal(channel_parameter(pattern, image, channel)) for channel in channels]
    return tuple(
        wanted.arn("ssm", f"parameter/{name.lstrip('/')}", region=region, account="*")
        for region in dict.fromkeys(regions)
        for name in names
    )


def _channel_locks(wanted: Wanted, channels: Sequence[str]) -> Iterator[Statement]:
    """Of these channels, where they are moved."""
    image, region = literal(wanted.recipe.image.name), wanted.recipe.aws.region
    locks = [lock_arns(wanted, f"{image}/{channel}", region=region) for channel in channels]
    yield Statement("LookAtLocks", LOCK_LOOKS, tuple(one for both in locks for one in both), {})
    yield Statement("TakeLocks", LOCK_USES, tuple(within for _, within in locks), {})


def _prune(wanted: Wanted) -> Iterator[Statement]:
    """A flow of its own: what it removes has no end, and so nothing that `reap` may remove."""
    recipe = wanted.recipe
    region = in_region(recipe)
    yield Statement("Look", PRUNE_LOOKS, ("*",), region)
    called = {"ForAnyValue:StringEquals": {"aws:CalledVia": REFERENCE_CHECK}}
    yield Statement("LookForUses", REFERENCE_LOOKS, ("*",), called)
    here = _channels(wanted, (recipe.aws.region,), recipe.channels.order)
    yield Statement("LookAtChannels", CHANNEL_LOOKS, here, {})
    yield from _channel_locks(wanted, recipe.channels.order)
    ours = {**tagged_as_ours(recipe), **region}
    removes = ("ec2:DeleteSnapshot", "ec2:DeregisterImage")
    yield Statement("RemoveWhatIsOurs", removes, on_ec2(wanted, "image", "snapshot"), ours)


def _bake(wanted: Wanted) -> Iterator[Statement]:
    recipe, here = wanted.recipe, wanted.recipe.aws.region
    ours, new = tagged_as_ours(recipe), _request_tag(recipe)
    region = in_region(recipe)
    yield Statement("Look", BAKE_LOOKS, ("*",), region)
    if recipe.source.ssm:
        # AWS's own have no account in their ARN.
        name = literal(recipe.source.ssm.lstrip("/"))
        parameter = wanted.arn("ssm", f"parameter/{name}", region=here, account="*")
        yield Statement("FindTheSource", ("ssm:GetParameter",), (parameter,), {})
    setting = wanted.arn("ssm", f"servicesetting/{HOST_MANAGEMENT}", region=here, account="*")
    yield Statement("AskForHostManagement", ("ssm:GetServiceSetting",), (setting,), {})
    yield from _profile(wanted)
    found = on_ec2(wanted, "image", "snapshot", "subnet")
    yield Statement("StartFrom", ("ec2:RunInstances",), found, region)
    # In one, for a policy has an end: a volume has no group, and any snapshot may be started from.
    yield Statement(
        "StartBehindAndCopyOurs",
        ("ec2:CreateVolume", "ec2:RunInstances"),
        on_ec2(wanted, "security-group", "snapshot"),
        {**ours, **region},
    )
    yield Statement("MakeGroupsIn", ("ec2:CreateSecurityGroup",), on_ec2(wanted, "vpc"), region)
    spot = ("spot-instances-request",) if recipe.builder.spot else ()
    born = on_ec2(wanted, "instance", "volume", "network-interface", *spot)
    yield Statement(
        "StartAsOurs", ("ec2:RunInstances",), born, {**new, **region, **_with_profile(wanted)}
    )
    yield Statement(
        "MakeAsOurs",
        ("ec2:CreateSecurityGroup", "ec2:CreateVolume"),
        on_ec2(wanted, "security-group", "volume"),
        {**new, **region},
    )
    captured = on_ec2(wanted, "image", "snapshot")
    yield Statement("CaptureAsOurs", ("ec2:CreateImage",), captured, new)
    yield Statement(
        "TagWhatIsMade",
        ("ec2:CreateTags",),
        on_ec2(wanted, "*"),
        {"StringEquals": {"ec2:CreateAction": list(CREATING)}},
    )
    shares = SHARES if recipe.publish.accounts else ()
    opens = OPENS if recipe.builder.communicator is Communicator.SSH else ()
    used = (*BAKE_USES, *shares, *opens)
    yield Statement("UseWhatIsOurs", used, on_ec2(wanted, "*"), {**ours, **region})
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
    locks = lock_arns(wanted, literal(recipe.image.name), region=here)
    # `verify @CHANNEL` proves the image that one has. By one name for all of them: a policy has an
    # end, and they are only read.
    pattern, image = recipe.channels.parameter.lstrip("/"), recipe.image.name
    each = "*".join(map(literal, channel_parameter(pattern, image, "\0").split("\0")))
    channels = wanted.arn("ssm", f"parameter/{each}", region=here, account="*")
    looks = (*LOCK_LOOKS, *CHANNEL_READS)
    yield Statement("LookAtLockAndChannels", looks, (*locks, channels), {})
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
    yield Statement("FindTheBucket", UPLOADS_FOUND, (wanted.arn("s3", literal(bucket)),), {})
    actions = ("s3:AbortMultipartUpload", "s3:DeleteObject", "s3:GetObject", "s3:PutObject")
    yield Statement("UseItsObjects", actions, object_arns(wanted, "*"), {})


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


def _request_tag(recipe: Recipe) -> dict[str, dict[str, Any]]:
    return {"StringEquals": {f"aws:RequestTag/{Tag.IMAGE}": recipe.image.name}}


def _temporary() -> dict[str, dict[str, Any]]:
    """Of whatever image: reap removes what any bake of the account left. What is proven has no end
    any longer. Whether the end is past is a date in a tag, which no condition compares."""
    ends = {f"aws:ResourceTag/{Tag.EXPIRES}": "false"}
    return {"StringLike": {f"aws:ResourceTag/{Tag.BAKE_ID}": "*"}, "Null": ends}
