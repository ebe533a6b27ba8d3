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
    has_an_end,
    in_region,
    literal,
    lock_arns,
    object_arns,
    on_ec2,
    tagged_as_ours,
)
from amibuild.policy_keys import key_of_disks, keys_of_secrets, named_secrets, secure_parameters
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
# Of what carries the image's tag and has an end, and nothing else: no other machine or image of the
# account, and none that is proven.
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
    "ec2:GetConsoleOutput",
    "ec2:StopInstances",
)
# A volume from any snapshot too, which may be started from as well.
MAKES = ("ec2:CreateImage", "ec2:CreateSecurityGroup", "ec2:CreateVolume")
SHARES = ("ec2:ModifyImageAttribute", "ec2:ModifySnapshotAttribute")
OPENS = ("ec2:AuthorizeSecurityGroupIngress", "ec2:RevokeSecurityGroupIngress")
LOCK_LOOKS = ("ssm:GetParametersByPath",)
LOCK_USES = ("ssm:DeleteParameters", "ssm:PutParameter")
CHANNEL_READS = ("ssm:GetParameters",)
PARAMETER_READS = ("ssm:GetParameter", *CHANNEL_READS, *LOCK_LOOKS)
PROFILE_LOOKS = (
    "iam:GetInstanceProfile",
    "iam:ListAttachedRolePolicies",
    "iam:ListRolePolicies",
)
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
    yield Statement("RemoveWhatIsOurs", REMOVES, on_ec2(wanted, "*", region="*"), _temporary())
    locks = lock_arns(wanted, "*", region="*")
    yield Statement("LookAtLocks", LOCK_LOOKS, locks, {})
    # A lock is released by a last word, not removed.
    yield Statement("ReleaseLocks", ("ssm:PutParameter",), locks[1:], {})
    if bucket := wanted.recipe.aws.bucket:
        find = (wanted.arn("s3", literal(bucket)),)
        yield Statement("FindUploads", ("s3:ListBucket",), find, {})
        uploads = object_arns(wanted, "payloads/*", "artifacts/*")
        yield Statement("RemoveUploads", ("s3:DeleteObject",), uploads, {})


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
        ours = tagged_as_ours(recipe)
        yield Statement("Revoke", REVOKES, on_ec2(wanted, "image"), ours)
        # No other mark: who moves a channel does not say that an image is proven.
        marked = {**ours, **_only(Tag.REVOKED)}
        yield Statement("MarkAsRevoked", MARKS, on_ec2(wanted, "image"), marked)


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
    yield Statement("Look", PRUNE_LOOKS, ("*",), in_region(recipe))
    called = {"ForAnyValue:StringEquals": {"aws:CalledVia": REFERENCE_CHECK}}
    yield Statement("LookForUses", REFERENCE_LOOKS, ("*",), called)
    here = _channels(wanted, (recipe.aws.region,), recipe.channels.order)
    yield Statement("LookAtChannels", CHANNEL_LOOKS, here, {})
    yield from _channel_locks(wanted, recipe.channels.order)
    ours = tagged_as_ours(recipe)
    removes = ("ec2:DeleteSnapshot", "ec2:DeregisterImage")
    yield Statement("RemoveWhatIsOurs", removes, on_ec2(wanted, "image", "snapshot"), ours)


def _bake(wanted: Wanted) -> Iterator[Statement]:
    recipe, here = wanted.recipe, wanted.recipe.aws.region
    ours, new = tagged_as_ours(recipe), _request_tag(recipe)
    yield Statement("Look", BAKE_LOOKS, ("*",), in_region(recipe))
    yield _by_name(wanted)
    yield from _profile(wanted)
    found = on_ec2(wanted, "image", "snapshot", "subnet", "vpc")
    yield Statement("StartFrom", ("ec2:CreateSecurityGroup", "ec2:RunInstances"), found, {})
    # In one, for a policy has an end: a volume has no group, and any snapshot may be started from.
    yield Statement(
        "StartBehindAndCopyOurs",
        ("ec2:CreateVolume", "ec2:RunInstances"),
        on_ec2(wanted, "security-group", "snapshot"),
        ours,
    )
    spot = ("spot-instances-request",) if recipe.builder.spot else ()
    born = on_ec2(wanted, "instance", "volume", "network-interface", *spot)
    yield Statement("StartAsOurs", ("ec2:RunInstances",), born, {**new, **_with_profile(wanted)})
    made = on_ec2(wanted, "image", "security-group", "snapshot", "volume")
    yield Statement("MakeAsOurs", MAKES, made, new)
    # Only in the call that makes it, and what a role may make is above.
    creating = {"Null": {"ec2:CreateAction": "false"}}
    yield Statement("TagWhatIsMade", MARKS, on_ec2(wanted, "*"), creating)
    yield from _use(wanted)
    yield from _spot(wanted)
    yield from keys_of_secrets(wanted)
    locks = lock_arns(wanted, literal(recipe.image.name), region=here)
    yield Statement("TakeTheLock", LOCK_USES, locks[1:], {})
    yield from _bucket(wanted)
    yield from _artifacts(wanted)
    yield from key_of_disks(wanted)


def _by_name(wanted: Wanted) -> Statement:
    """What is read, and run, by its name. In one, for a policy has an end: the actions are of
    different types of resources, and those of parameters all read them."""
    recipe, here = wanted.recipe, wanted.recipe.aws.region
    source, profile = recipe.source.ssm, recipe.aws.instance_profile
    names = [literal(source.lstrip("/"))] if source else []
    # `verify @CHANNEL` proves the image that one has. By one name for all of them.
    pattern, image = recipe.channels.parameter.lstrip("/"), recipe.image.name
    names.append("*".join(map(literal, channel_parameter(pattern, image, "\0").split("\0"))))
    # AWS's own have no account in their ARN.
    parameters = (
        *(wanted.arn("ssm", f"parameter/{name}", region=here, account="*") for name in names),
        *lock_arns(wanted, literal(image), region=here),
        *secure_parameters(wanted),
    )
    setting = wanted.arn("ssm", f"servicesetting/{HOST_MANAGEMENT}", region=here, account="*")
    shell = wanted.arn("ssm", f"document/{RUN_SHELL}", region=here)
    # IAM names the role of a profile nowhere in its ARN.
    roles = (_profile_arn(wanted, profile), _any_role(wanted)) if profile else ()
    parts = {
        PARAMETER_READS: parameters,
        ("ssm:GetServiceSetting", "ssm:SendCommand"): (setting, shell),
        ("secretsmanager:GetSecretValue",): named_secrets(wanted),
        PROFILE_LOOKS: roles,
    }
    actions = tuple(action for one, resources in parts.items() if resources for action in one)
    resources = dict.fromkeys(arn for some in parts.values() for arn in some)
    return Statement("LookAndRunByName", actions, tuple(resources), {})


def _use(wanted: Wanted) -> Iterator[Statement]:
    """All that a bake makes has an end until it is proven, and only while it has one may it be
    changed or removed, or its end be moved. Nothing gets one later, so nobody can remove a proven
    image this way: that may only be marked and shared."""
    recipe, ours = wanted.recipe, tagged_as_ours(wanted.recipe)
    opens = OPENS if recipe.builder.communicator is Communicator.SSH else ()
    temporary = {**ours, "Null": has_an_end()}
    yield Statement("UseOurs", (*BAKE_USES, *opens), on_ec2(wanted, "*"), temporary)
    yield Statement(
        "RunStepsOnOurs",
        ("ssm:SendCommand",),
        (wanted.arn("ec2", "instance/*", region=recipe.aws.region, account="*"),),
        {
            "StringEquals": {f"ssm:resourceTag/{Tag.IMAGE}": recipe.image.name},
            "Null": has_an_end(f"ssm:resourceTag/{Tag.EXPIRES}"),
        },
    )
    # DeleteTags without a key takes them all, and then no key is there to compare.
    yield Statement(
        "MoveOrTakeTheEnd",
        ("ec2:CreateTags", "ec2:DeleteTags"),
        on_ec2(wanted, "*"),
        {
            **ours,
            **_only(Tag.EXPIRES),
            "Null": {**has_an_end(), "aws:TagKeys": "false"},
        },
    )
    # To share is no matter of keys, and "all of none" is true.
    shares = SHARES if recipe.publish.accounts else ()
    yield Statement(
        "MarkOurs",
        (*MARKS, *shares),
        on_ec2(wanted, "*"),
        {**ours, **_only(Tag.VERIFIED)},
    )


def _profile(wanted: Wanted) -> Iterator[Statement]:
    """That may be any role that EC2 is given."""
    if wanted.recipe.aws.instance_profile is None:
        return
    to_ec2 = {"StringEquals": {"iam:PassedToService": wanted.host("ec2")}}
    yield Statement("GiveItsRole", ("iam:PassRole",), (_any_role(wanted),), to_ec2)


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


def _profile_arn(wanted: Wanted, profile: str) -> str:
    return wanted.arn("iam", f"instance-profile/{literal(profile)}", account="*")


def _any_role(wanted: Wanted) -> str:
    return wanted.arn("iam", "role/*", account="*")


def _bucket(wanted: Wanted) -> Iterator[Statement]:
    bucket = wanted.recipe.aws.bucket
    if bucket is None:
        return
    yield Statement("FindTheBucket", ("s3:ListBucket",), (wanted.arn("s3", literal(bucket)),), {})
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


def _request_tag(recipe: Recipe) -> dict[str, dict[str, Any]]:
    return {"StringEquals": {f"aws:RequestTag/{Tag.IMAGE}": recipe.image.name}}


def _only(tag: str) -> dict[str, dict[str, Any]]:
    """Of the keys that a call sets or removes."""
    return {"ForAllValues:StringEquals": {"aws:TagKeys": tag}}


def _temporary() -> dict[str, dict[str, Any]]:
    """Of whatever image: reap removes what any bake of the account left. What is proven has no end
    any longer. Whether the end is past is a date in a tag, which no condition compares."""
    return {"StringLike": {f"aws:ResourceTag/{Tag.BAKE_ID}": "*"}, "Null": has_an_end()}
