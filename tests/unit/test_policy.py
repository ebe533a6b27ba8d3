"""The policies name every call that the code can make, narrow what can be narrowed, and are HCL."""

from __future__ import annotations

import ast
import json
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import hcl2
import pytest

import amibuild
from amibuild import proc
from amibuild.aws.partition import partition_of
from amibuild.errors import PlanError, RecipeError, UsageError
from amibuild.library.step import Source
from amibuild.names import Partition
from amibuild.outputs.policy_hcl import as_hcl
from amibuild.permission import Statement, Wanted
from amibuild.policy import Flow, document, statements
from amibuild.project import load_project
from amibuild.recipe.model import Recipe
from amibuild.steps.preflight import refuse
from tests.iam import Asked, allows
from tests.unit.samples import build_step

# What else a call needs: the tags in a creating call, the role of EC2's own for spot machines, the
# role that a machine is given, a bucket that is looked for, an upload in parts, and the key of a
# disk.
BESIDES = {
    "ec2:CreateTags",
    "iam:CreateServiceLinkedRole",
    "iam:PassRole",
    "s3:AbortMultipartUpload",
    "kms:CreateGrant",
    "kms:Decrypt",
    "kms:DescribeKey",
    "kms:GenerateDataKeyWithoutPlaintext",
    "kms:ReEncrypt*",
}
# Only reap looks beyond the recipe's region.
OF_REAP = {"ec2:DescribeRegions"}
# Only what moves channels and revokes images.
OF_PROMOTE = {
    *("ec2:DisableImage", "ec2:EnableImageDeprecation"),
    "ssm:GetParameterHistory",
}
# Only what looks for old images that nothing uses.
OF_PRUNE = {"ec2:DescribeImageReferences"}
# IAM calls these by another name.
ACTIONS = {"HeadBucket": "s3:ListBucket", "ListObjectsV2": "s3:ListBucket"}
SERVICES = {
    "ec2.py": "ec2",
    "images.py": "ec2",
    "ssm.py": "ssm",
    "s3.py": "s3",
    "iam.py": "iam",
    "secrets_manager.py": "secretsmanager",
}
AWS = Partition("aws", "amazonaws.com")


def wanted(values: dict[str, Any], *urls: str, partition: Partition = AWS) -> Wanted:
    """The recipe, with a step whose artifacts come from these addresses."""
    sources = tuple(Source(url, "file", "5e" * 32) for url in urls)
    step = replace(build_step(), sources=sources)
    recipe = Recipe.model_validate({"image": {"name": "game-host"}, **values})
    return Wanted(recipe, (step,), partition)


FULL = wanted(
    {
        "aws": {
            "region": "eu-west-1",
            "instance_profile": "builder",
            "bucket": "bake-files",
            "kms_key": "arn:aws:kms:eu-west-1:111122223333:key/1234abcd",
        },
        "builder": {"spot": True, "communicator": "ssh"},
        "artifacts": {"mirror": "s3://mirror-of-ours/files/"},
        "publish": {"accounts": ["444455556666"]},
        "secrets": {
            "token": {"ssm": "/game/token"},
            "licence": {"secretsmanager": "game/licence"},
            "other": {"env": "OTHER"},
        },
    },
    "s3://titles/server/1.2.tar.gz",
)
PLAIN = wanted({}, "https://example.org/a.tar.gz")


def calls() -> set[str]:
    """The actions behind each `calling("Operation", ...)` of the code."""
    found = set()
    for path in (Path(amibuild.__file__).parent / "aws").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if (
                isinstance(node, ast.Call)
                and getattr(node.func, "id", "") == "calling"
                and isinstance(node.args[0], ast.Constant)
            ):
                operation = str(node.args[0].value)
                found.add(ACTIONS.get(operation, f"{SERVICES[path.name]}:{operation}"))
    return found


def actions(wanted: Wanted, flow: Flow) -> set[str]:
    return {action for one in statements(wanted, flow) for action in one.actions}


def test_a_bake_may_make_every_call_that_the_code_can_make_and_no_other() -> None:
    assert actions(FULL, Flow.BAKE) - BESIDES == calls() - BESIDES - OF_REAP - OF_PROMOTE - OF_PRUNE
    assert actions(FULL, Flow.BAKE) >= BESIDES


def test_what_the_recipe_does_not_name_is_not_allowed() -> None:
    missing = actions(FULL, Flow.BAKE) - actions(PLAIN, Flow.BAKE)
    services = {action.partition(":")[0] for action in missing}
    assert services == {"ec2", "iam", "kms", "s3", "secretsmanager"}
    assert {a for a in missing if a.startswith("ec2")} == {
        "ec2:AuthorizeSecurityGroupIngress",
        "ec2:ModifyImageAttribute",
        "ec2:ModifySnapshotAttribute",
        "ec2:RevokeSecurityGroupIngress",
    }


def of(wanted: Wanted, flow: Flow, sid: str) -> Statement:
    (found,) = (one for one in statements(wanted, flow) if one.sid == sid)
    return found


def test_a_spot_request_is_ours_like_what_it_starts() -> None:
    request = "arn:aws:ec2:eu-west-1:*:spot-instances-request/*"
    assert request in of(FULL, Flow.BAKE, "StartAsOurs").resources
    assert "spot" not in str(of(PLAIN, Flow.BAKE, "StartAsOurs").resources)
    role = of(FULL, Flow.BAKE, "LetEc2UseSpot")
    assert role.resources == ("arn:aws:iam::*:role/aws-service-role/spot.amazonaws.com/*",)
    assert role.condition == {"StringEquals": {"iam:AWSServiceName": "spot.amazonaws.com"}}


def test_reap_removes_only_what_has_an_end() -> None:
    removes = of(PLAIN, Flow.REAP, "RemoveWhatIsOurs")
    assert removes.condition["StringLike"] == {"aws:ResourceTag/amibuild:bake-id": "*"}
    assert removes.condition["Null"] == {"aws:ResourceTag/amibuild:expires": "false"}


def test_prune_removes_only_images_of_the_recipe_and_looks_for_uses_by_ec2_alone() -> None:
    removes = of(PLAIN, Flow.PRUNE, "RemoveWhatIsOurs")
    assert set(removes.actions) == {"ec2:DeregisterImage", "ec2:DeleteSnapshot"}
    assert removes.condition["StringEquals"] == {"aws:ResourceTag/amibuild:image": "game-host"}
    looks = of(PLAIN, Flow.PRUNE, "LookForUses")
    called = {"aws:CalledVia": "ec2-images.amazonaws.com"}
    assert looks.condition == {"ForAnyValue:StringEquals": called}
    locks = of(PLAIN, Flow.PRUNE, "TakeLocks")
    assert locks == of(PLAIN, Flow.PROMOTE, "TakeLocks")
    assert of(PLAIN, Flow.PRUNE, "LookAtLocks") == of(PLAIN, Flow.PROMOTE, "LookAtLocks")
    changing = actions(FULL, Flow.PRUNE) - {*looks.actions, *removes.actions, *locks.actions}
    changing.remove("ssm:GetParametersByPath")
    assert changing <= OF_PRUNE | OF_PROMOTE | {"ec2:DescribeImages", "ec2:DescribeSnapshots"}


def test_reap_leaves_the_manifests_and_what_others_put_into_the_bucket() -> None:
    assert of(FULL, Flow.REAP, "RemoveUploads").resources == (
        "arn:aws:s3:::bake-files/amibuild/payloads/*",
        "arn:aws:s3:::bake-files/amibuild/artifacts/*",
    )


def test_artifacts_in_s3_are_read_where_they_are_and_nothing_beside_them() -> None:
    read = of(FULL, Flow.BAKE, "ReadItsArtifacts")
    assert read.actions == ("s3:GetObject",)
    assert read.resources == (
        "arn:aws:s3:::mirror-of-ours/files/*",
        "arn:aws:s3:::titles/server/1.2.tar.gz",
    )
    found = of(FULL, Flow.BAKE, "FindItsArtifacts")
    assert found.resources == ("arn:aws:s3:::mirror-of-ours", "arn:aws:s3:::titles")
    prefixes = ["files/*", "server/1.2.tar.gz"]
    assert found.condition == {"StringLike": {"s3:prefix": prefixes}}


@pytest.mark.parametrize(
    ("mirror", "resource"),
    [
        ("s3://all", "arn:aws:s3:::all/*"),
        ("s3://all/a/b", "arn:aws:s3:::all/a/b/*"),
        ("s3://all/a*", "arn:aws:s3:::all/a${*}/*"),
    ],
)
def test_of_a_mirror_what_is_below_its_prefix_is_read(mirror: str, resource: str) -> None:
    mirrored = wanted({"artifacts": {"mirror": mirror}})
    assert of(mirrored, Flow.BAKE, "ReadItsArtifacts").resources == (resource,)


def test_a_mirror_in_a_folder_needs_nothing() -> None:
    local = wanted({"artifacts": {"mirror": "files"}}, "file:///a.tar.gz")
    assert statements(local, Flow.BAKE) == statements(PLAIN, Flow.BAKE)


@pytest.mark.parametrize(
    ("region", "name", "hosts"),
    [
        ("cn-north-1", "aws-cn", ["ec2.amazonaws.com", "ec2.amazonaws.com.cn"]),
        ("us-gov-west-1", "aws-us-gov", "ec2.amazonaws.com"),
    ],
)
@pytest.mark.parametrize("flow", list(Flow))
def test_everything_is_of_the_regions_part_of_aws(
    flow: Flow, region: str, name: str, hosts: object
) -> None:
    aws = {"region": region, "instance_profile": "builder", "bucket": "bake-files"}
    there = wanted({"aws": aws}, "s3://titles/a.zip", partition=partition_of(region))
    text = str(document(there, flow))
    assert set(re.findall(r"arn:([a-z-]+):", text)) == {name}
    if flow is Flow.BAKE:
        given = of(there, flow, "GiveItsRole").condition["StringEquals"]
        assert given == {"iam:PassedToService": hosts}


@pytest.mark.parametrize(
    ("region", "found"),
    [
        ("eu-west-1", AWS),
        ("eu-newest-9", AWS),
        ("cn-northwest-1", Partition("aws-cn", "amazonaws.com.cn")),
        ("us-gov-east-1", Partition("aws-us-gov", "amazonaws.com")),
    ],
)
def test_the_part_of_aws_is_known_by_the_region(region: str, found: Partition) -> None:
    assert partition_of(region) == found


def test_a_region_like_no_other_is_a_mistake_of_the_recipe() -> None:
    with pytest.raises(UsageError, match=r"aws\.region: no part of AWS has regions like xx-a-1"):
        partition_of("xx-a-1")


def test_what_iam_or_hcl_would_read_as_something_else_stands_for_itself() -> None:
    bucket = 'a${b}%{c}"d\\e*'
    strange = wanted({"aws": {"bucket": bucket}})
    find = of(strange, Flow.REAP, "FindUploads")
    assert find.resources == ('arn:aws:s3:::a${$}{b}%{c}"d\\e${*}',)
    assert r'resources = ["arn:aws:s3:::a$${$}{b}%%{c}\"d\\e$${*}"]' in as_hcl(strange, Flow.REAP)


RECIPE = '[image]\nname = "game-host"\n[provision]\nsteps = ["os"]\n'


def printed(tmp_path: Path, more: str, *arguments: str, flow: str = "bake") -> proc.Finished:
    recipe = tmp_path / "amibuild.toml"
    recipe.write_text(RECIPE + more)
    command = [sys.executable, "-m", "amibuild.cli.main", "policy", flow, str(recipe), *arguments]
    return proc.run(command, check=False)


def test_it_is_printed_for_a_recipe_of_another_part_of_aws(tmp_path: Path) -> None:
    done = printed(tmp_path, '[aws]\nregion = "cn-north-1"\n')
    assert done.exit_code == 0
    assert set(re.findall(r"arn:([a-z-]+):", done.text)) == {"aws-cn"}
    assert json.loads(done.text)["Version"] == "2012-10-17"


def test_two_ways_to_print_it_are_a_mistake(tmp_path: Path) -> None:
    done = printed(tmp_path, "", "--hcl", "--json")
    assert done.exit_code == 2
    assert "--hcl and --json are two ways" in json.loads(done.text)["error"]["message"]


def test_one_that_iam_would_not_take_as_a_managed_policy_says_so(tmp_path: Path) -> None:
    order = json.dumps([f"a-channel-of-many-{number}" for number in range(60)])
    done = printed(tmp_path, f"[channels]\norder = {order}\n", flow="promote")
    size = len("".join(done.text.split()))
    assert size > 6144
    assert f"note: it has {size} characters" in done.stderr.decode()
    usual = printed(tmp_path, "", flow="promote")
    assert "note:" not in usual.stderr.decode()


def test_a_recipe_that_plan_refuses_is_refused_in_the_same_words(tmp_path: Path) -> None:
    more = '[publish]\nregions = ["eu-west-1"]\naccounts = ["444455556666"]\n'
    done = printed(tmp_path, more, "--json")
    assert done.exit_code == 2
    with pytest.raises(PlanError) as refused:
        refuse(load_project(tmp_path / "amibuild.toml").recipe)
    assert json.loads(done.text)["error"]["message"] == refused.value.message


def test_a_step_that_is_not_there_is_told_as_plan_tells_it(tmp_path: Path) -> None:
    done = printed(tmp_path, "[provision.params.nothing]\nx = 1\n")
    assert done.exit_code == 2
    with pytest.raises(RecipeError) as refused:
        load_project(tmp_path / "amibuild.toml")
    assert refused.value.message in done.stderr.decode()


def test_moving_channels_changes_nothing_else() -> None:
    more = actions(FULL, Flow.PROMOTE) - actions(FULL, Flow.BAKE)
    assert more == OF_PROMOTE | {"ssm:AddTagsToResource"}
    changes = {a for a in actions(FULL, Flow.PROMOTE) if not a.partition(":")[2].startswith(LOOKS)}
    assert changes == {
        *("ec2:CreateTags", "ec2:DisableImage", "ec2:EnableImageDeprecation"),
        *("ssm:AddTagsToResource", "ssm:DeleteParameters", "ssm:PutParameter"),
    }


def test_who_looks_at_a_move_may_change_nothing() -> None:
    assert all(a.partition(":")[2].startswith(LOOKS) for a in actions(FULL, Flow.LOOK))
    assert all(one in statements(FULL, Flow.PROMOTE) for one in statements(FULL, Flow.LOOK))


def test_channels_are_bound_to_their_parameters() -> None:
    own = wanted({"channels": {"order": ["nightly", "live"], "parameter": "/{image}/a*/{channel}"}})
    moves = of(own, Flow.PROMOTE, "MoveChannels")
    path = "arn:aws:ssm:us-east-1:*:parameter/game-host/a${*}"
    assert moves.resources == (f"{path}/nightly", f"{path}/live")
    locks = of(own, Flow.PROMOTE, "TakeLocks").resources
    folder = "arn:aws:ssm:us-east-1:*:parameter/amibuild/game-host"
    assert locks == (f"{folder}/nightly/lock/*", f"{folder}/live/lock/*")


def test_a_role_may_move_one_channel_alone_and_revoke_nothing() -> None:
    made = {one.sid: one for one in statements(FULL, Flow.PROMOTE, ["production"])}
    path = "arn:aws:ssm:eu-west-1:*:parameter/amibuild/game-host"
    assert made["MoveChannels"].resources == (f"{path}/production/ami-id",)
    assert made["TakeLocks"].resources == (f"{path}/production/lock/*",)
    assert len(made["LookAtChannels"].resources) == 3, "the rank of the one before counts"
    assert {a for one in made.values() for a in one.actions if a.startswith("ec2:")} == {
        "ec2:DescribeImages"
    }


def test_who_revokes_marks_nothing_else() -> None:
    """Or it could say of an image that it is proven, or that `reap` may have it."""
    marks = of(FULL, Flow.PROMOTE, "MarkAsRevoked")
    assert marks.actions == ("ec2:CreateTags",)
    assert marks.condition["ForAllValues:StringEquals"] == {"aws:TagKeys": "amibuild:revoked"}


@pytest.mark.parametrize(
    ("flow", "channel", "told"),
    [
        ("promote", "weekly", "has no channel weekly"),
        ("bake", "nightly", "--channel is of `policy promote`"),
    ],
)
def test_a_channel_is_one_of_the_recipes_and_of_promote(
    tmp_path: Path, flow: str, channel: str, told: str
) -> None:
    done = printed(tmp_path, "", "--channel", channel, flow=flow)
    assert (done.exit_code, done.stdout) == (2, b"")
    assert told in done.stderr.decode()


def test_channels_are_looked_at_in_every_region_and_moved_in_one() -> None:
    wide = wanted({"publish": {"regions": ["us-east-1", "eu-west-1"]}})
    looked = of(wide, Flow.PROMOTE, "LookAtChannels").resources
    assert {arn.split(":")[3] for arn in looked} == {"us-east-1", "eu-west-1"}
    moved = of(wide, Flow.PROMOTE, "MoveChannels").resources
    assert {arn.split(":")[3] for arn in moved} == {"us-east-1"}


def test_reap_makes_nothing() -> None:
    assert actions(FULL, Flow.REAP) - actions(FULL, Flow.BAKE) == OF_REAP
    verbs = {action.partition(":")[2] for action in actions(FULL, Flow.REAP)}
    assert all(verb.startswith(REMOVAL) for verb in verbs - {"GetParametersByPath", "PutParameter"})
    (put,) = (s for s in statements(FULL, Flow.REAP) if "ssm:PutParameter" in s.actions)
    assert put.resources == ("arn:aws:ssm:*:*:parameter/amibuild/*/lock/*",)


@pytest.mark.parametrize("flow", list(Flow))
@pytest.mark.parametrize("wanted", [FULL, PLAIN])
def test_whatever_changes_something_is_bound_to_a_tag_or_to_a_name(
    wanted: Wanted, flow: Flow
) -> None:
    for one in statements(wanted, flow):
        changes = [a for a in one.actions if not a.partition(":")[2].startswith(LOOKS)]
        if changes and any(resource.endswith("*") for resource in one.resources):
            assert "amibuild:" in str(one.condition) or one.sid in UNBOUND, one.sid


REMOVAL = ("Describe", "List", "Delete", "Deregister", "Terminate")
LOOKS = ("Describe", "Get", "List", "CancelCommand")
# What is used and stays as it is; what can be tagged only while amibuild makes it; and what the
# names of a profile, a service, a document, a bucket, a secret and an image bind.
UNBOUND = {
    "DecryptParameters",
    "DecryptSecrets",
    "LetEc2UseSpot",
    "LookAndRunByName",
    "StartFrom",
    "TagWhatIsMade",
    "GiveItsRole",
    "UseItsObjects",
    "RemoveUploads",
    "TakeTheLock",
    "ReleaseLocks",
    "TakeLocks",
}


def test_what_is_named_is_read_and_nothing_of_it_is_changed_or_run_but_shell_commands() -> None:
    named = of(FULL, Flow.BAKE, "LookAndRunByName")
    assert {a for a in named.actions if not a.partition(":")[2].startswith(LOOKS)} == {
        "ssm:SendCommand"
    }
    documents = [arn for arn in named.resources if ":document/" in arn]
    assert documents == ["arn:aws:ssm:eu-west-1::document/AWS-RunShellScript"]
    assert not any(arn.startswith("arn:aws:ec2:") or arn == "*" for arn in named.resources)


BAKES = document(FULL, Flow.BAKE)
PARAMETERS = "arn:aws:ssm:eu-west-1:111122223333:parameter"


def may(action: str, resource: str) -> bool:
    return allows(BAKES, Asked(action, resource))


def test_a_bake_reaches_no_other_images_lock() -> None:
    for image, its in (("game-host", True), ("other", False)):
        lock = f"{PARAMETERS}/amibuild/{image}/lock"
        assert may("ssm:GetParametersByPath", lock) is its
        assert may("ssm:PutParameter", f"{lock}/7") is its
        assert may("ssm:DeleteParameters", f"{lock}/7") is its
        assert may("ssm:GetParameters", f"{PARAMETERS}/amibuild/{image}/nightly/ami-id") is its
    assert not may("ssm:PutParameter", f"{PARAMETERS}/amibuild/game-host/nightly/ami-id")


SNAPSHOT = "arn:aws:ec2:eu-west-1::snapshot/snap-1"
OURS = {"aws:ResourceTag/amibuild:image": "game-host"}
UNPROVEN = {**OURS, "aws:ResourceTag/amibuild:expires": "2026-11-22T16:15:00Z"}


@pytest.mark.parametrize(
    ("action", "keys", "unproven", "proven"),
    [
        ("ec2:CreateTags", ["amibuild:expires"], True, False),
        ("ec2:CreateTags", ["amibuild:verified"], True, True),
        ("ec2:CreateTags", ["amibuild:expires", "amibuild:verified"], False, False),
        ("ec2:CreateTags", ["amibuild:image"], False, False),
        ("ec2:DeleteTags", ["amibuild:expires"], True, False),
        ("ec2:DeleteTags", ["amibuild:verified"], False, False),
        ("ec2:DeleteTags", [], False, False),
        ("ec2:DeleteSnapshot", [], True, False),
        ("ec2:ModifySnapshotAttribute", [], True, True),
    ],
)
def test_who_bakes_changes_what_is_unproven_and_only_marks_or_shares_what_is_proven(
    action: str, keys: list[str], unproven: bool, proven: bool
) -> None:
    """DeleteTags without a key takes all of them."""
    given = {"aws:TagKeys": keys} if keys else {}
    assert allows(BAKES, Asked(action, SNAPSHOT, {**UNPROVEN, **given})) is unproven
    assert allows(BAKES, Asked(action, SNAPSHOT, {**OURS, **given})) is proven
    others = {key: value.replace("game-host", "other") for key, value in UNPROVEN.items()}
    assert not allows(BAKES, Asked(action, SNAPSHOT, {**others, **given}))


def test_nothing_of_another_region_is_touched() -> None:
    there = SNAPSHOT.replace("eu-west-1", "us-east-1")
    assert allows(BAKES, Asked("ec2:DeleteSnapshot", SNAPSHOT, UNPROVEN))
    assert not allows(BAKES, Asked("ec2:DeleteSnapshot", there, UNPROVEN))


def test_machines_get_the_recipes_profile_and_no_other() -> None:
    started = of(FULL, Flow.BAKE, "StartAsOurs")
    profile = "arn:aws:iam::*:instance-profile/builder"
    assert started.condition["ArnLikeIfExists"] == {"ec2:InstanceProfile": profile}


@pytest.mark.parametrize("flow", list(Flow))
def test_each_statement_has_a_name_of_its_own(flow: Flow) -> None:
    sids = [one.sid for one in statements(FULL, flow)]
    assert len(sids) == len(set(sids))
    assert all(sid.isalnum() for sid in sids)


@pytest.mark.parametrize(
    "key",
    [
        "arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab",
        "arn:aws:kms:eu-west-1:111122223333:alias/disks-of-games",
        "alias/disks-of-games",
    ],
)
@pytest.mark.parametrize("flow", list(Flow))
def test_a_recipe_that_has_everything_is_within_iams_limit(flow: Flow, key: str) -> None:
    """6,144 characters without white space, of a managed policy (IAM user guide, quotas)."""
    told = str(document(under(key), flow))
    assert len(told.replace(" ", "")) <= 6144


@pytest.mark.parametrize("flow", list(Flow))
def test_the_data_source_says_the_same(flow: Flow) -> None:
    (source,) = hcl2.loads(as_hcl(FULL, flow))["data"]
    body: dict[str, Any] = strip(source)["aws_iam_policy_document"][f"amibuild_{flow}"]
    told = [
        {
            "Sid": one["sid"],
            "Effect": "Allow",
            "Action": alone(one["actions"]),
            "Resource": alone(one["resources"]),
            **({"Condition": conditions(one)} if "condition" in one else {}),
        }
        for one in body["statement"]
    ]
    assert told == document(FULL, flow)["Statement"]


def conditions(statement: dict[str, Any]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for one in statement["condition"]:
        found.setdefault(one["test"], {})[one["variable"]] = alone(one["values"])
    return found


def alone(values: list[str]) -> str | list[str]:
    return values if len(values) > 1 else values[0]


def strip(value: Any) -> Any:
    """python-hcl2 keeps the quotes of names and texts."""
    if isinstance(value, dict):
        return {strip(k): strip(v) for k, v in value.items() if not k.startswith("__")}
    if isinstance(value, list):
        return [strip(one) for one in value]
    return value.strip('"') if isinstance(value, str) else value


SECRETS = "arn:aws:secretsmanager:eu-west-1:111122223333:secret"
ANY_KEY = "arn:aws:kms:eu-west-1:111122223333:key/of-somebody"


def test_only_the_secrets_of_the_recipe_may_be_read() -> None:
    assert may("ssm:GetParameter", f"{PARAMETERS}/game/token")
    assert not may("ssm:GetParameter", f"{PARAMETERS}/game/token-of-others")
    assert may("secretsmanager:GetSecretValue", f"{SECRETS}:game/licence-AbCd12")
    assert not may("secretsmanager:GetSecretValue", f"{SECRETS}:game/licence-of-others-AbCd12")
    for action in ("ssm:GetParameter", "secretsmanager:GetSecretValue", "kms:Decrypt"):
        assert action not in actions(FULL, Flow.REAP)


@pytest.mark.parametrize(
    ("context", "value", "its"),
    [
        ("PARAMETER_ARN", f"{PARAMETERS}/game/token", True),
        ("PARAMETER_ARN", f"{PARAMETERS}/game/other", False),
        ("SecretARN", f"{SECRETS}:game/licence-AbCd12", True),
        ("SecretARN", f"{SECRETS}:game/other-AbCd12", False),
    ],
)
def test_a_key_decrypts_the_recipes_secrets_and_nothing_else(
    context: str, value: str, its: bool
) -> None:
    """By whichever key they are encrypted."""
    given = {f"kms:EncryptionContext:{context}": value}
    assert allows(BAKES, Asked("kms:Decrypt", ANY_KEY, given)) is its
    assert not allows(BAKES, Asked("kms:Decrypt", ANY_KEY))
    assert not allows(document(PLAIN, Flow.BAKE), Asked("kms:Decrypt", ANY_KEY, given))


def under(key: str) -> Wanted:
    aws = FULL.recipe.aws.model_copy(update={"kms_key": key})
    return replace(FULL, recipe=FULL.recipe.model_copy(update={"aws": aws}))


KEYS = "arn:aws:kms:eu-west-1:111122223333:key"
BY_EC2 = {"kms:ViaService": "ec2.eu-west-1.amazonaws.com"}
ALIASED = {**BY_EC2, "kms:ResourceAliases": ["alias/older", "alias/disks"]}
OF_ANOTHER_ALIAS = {**BY_EC2, "kms:ResourceAliases": ["alias/other"]}


@pytest.mark.parametrize(
    ("key", "used", "context", "its"),
    [
        (f"{KEYS}/1234", f"{KEYS}/1234", BY_EC2, True),
        (f"{KEYS}/1234", f"{KEYS}/5678", BY_EC2, False),
        (f"{KEYS}/1234", f"{KEYS}/1234", {}, False),
        ("1234", f"{KEYS}/1234", BY_EC2, True),
        ("1234", f"{KEYS}/5678", BY_EC2, False),
        ("alias/disks", f"{KEYS}/1234", ALIASED, True),
        ("alias/disks", f"{KEYS}/1234", OF_ANOTHER_ALIAS, False),
        ("alias/disks", f"{KEYS}/1234", BY_EC2, False),
        ("arn:aws:kms:eu-west-1:111122223333:alias/disks", f"{KEYS}/1234", ALIASED, True),
        ("arn:aws:kms:eu-west-1:111122223333:alias/disks", f"{KEYS}/1", OF_ANOTHER_ALIAS, False),
        ("arn:aws:kms:eu-west-1:444455556666:alias/disks", f"{KEYS}/1234", ALIASED, False),
    ],
)
def test_disks_are_under_the_key_of_the_recipe_however_it_is_named(
    key: str, used: str, context: dict[str, str | list[str]], its: bool
) -> None:
    """IAM takes neither an id nor an alias for a key."""
    for action in ("kms:CreateGrant", "kms:DescribeKey", "kms:ReEncryptFrom"):
        assert allows(document(under(key), Flow.BAKE), Asked(action, used, context)) is its
