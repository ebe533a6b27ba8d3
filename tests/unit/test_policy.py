"""The policies name every call that the code can make, narrow what can be narrowed, and are HCL."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import hcl2
import pytest

import amibuild
from amibuild.policy import Flow, as_hcl, document, statements
from amibuild.recipe.model import Recipe

# What else a call needs: the tags in a creating call, the role that a machine is given, a bucket
# that is looked for, an upload in parts, and the key of a disk.
BESIDES = {
    "ec2:CreateTags",
    "iam:PassRole",
    "s3:AbortMultipartUpload",
    "kms:CreateGrant",
    "kms:Decrypt",
    "kms:DescribeKey",
    "kms:GenerateDataKeyWithoutPlaintext",
    "kms:ReEncryptFrom",
    "kms:ReEncryptTo",
}
# Only reap looks beyond the recipe's region.
OF_REAP = {"ec2:DescribeRegions"}
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
FULL = Recipe.model_validate(
    {
        "image": {"name": "game-host"},
        "aws": {
            "region": "eu-west-1",
            "instance_profile": "builder",
            "bucket": "bake-files",
            "kms_key": "arn:aws:kms:eu-west-1:111122223333:key/1234abcd",
        },
        "publish": {"accounts": ["444455556666"]},
        "secrets": {
            "token": {"ssm": "/game/token"},
            "licence": {"secretsmanager": "game/licence"},
            "other": {"env": "OTHER"},
        },
    }
)
PLAIN = Recipe.model_validate({"image": {"name": "game-host"}})


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


def actions(recipe: Recipe, flow: Flow) -> set[str]:
    return {action for one in statements(recipe, flow) for action in one.actions}


def test_a_bake_may_make_every_call_that_the_code_can_make_and_no_other() -> None:
    assert actions(FULL, Flow.BAKE) - BESIDES == calls() - BESIDES - OF_REAP
    assert actions(FULL, Flow.BAKE) >= BESIDES


def test_what_the_recipe_does_not_name_is_not_allowed() -> None:
    missing = actions(FULL, Flow.BAKE) - actions(PLAIN, Flow.BAKE)
    services = {action.partition(":")[0] for action in missing}
    assert services == {"ec2", "iam", "kms", "s3", "secretsmanager"}
    assert {a for a in missing if a.startswith("ec2")} == {
        "ec2:ModifyImageAttribute",
        "ec2:ModifySnapshotAttribute",
    }


def test_reap_makes_nothing() -> None:
    assert actions(FULL, Flow.REAP) - actions(FULL, Flow.BAKE) == OF_REAP
    verbs = {action.partition(":")[2] for action in actions(FULL, Flow.REAP)}
    assert all(verb.startswith(REMOVAL) for verb in verbs)


@pytest.mark.parametrize("flow", list(Flow))
@pytest.mark.parametrize("recipe", [FULL, PLAIN])
def test_whatever_changes_something_is_bound_to_a_tag_or_to_a_name(
    recipe: Recipe, flow: Flow
) -> None:
    for one in statements(recipe, flow):
        changes = [a for a in one.actions if not a.partition(":")[2].startswith(LOOKS)]
        if changes and any(resource.endswith("*") for resource in one.resources):
            assert "amibuild:" in str(one.condition) or one.sid in UNBOUND, one.sid


REMOVAL = ("Describe", "List", "Delete", "Deregister", "Terminate")
LOOKS = ("Describe", "Get", "List", "CancelCommand")
# What is used and stays as it is; what can be tagged only while amibuild makes it; and what the
# names of a profile and a bucket bind.
UNBOUND = {
    "StartFrom",
    "MakeGroupsIn",
    "TagWhatIsMade",
    "GiveItsRole",
    "UseItsObjects",
    "RemoveUploads",
}


def test_machines_get_the_recipes_profile_and_no_other() -> None:
    (started,) = (one for one in statements(FULL, Flow.BAKE) if one.sid == "StartAsOurs")
    profile = "arn:aws:iam::*:instance-profile/builder"
    assert started.condition["ArnLikeIfExists"] == {"ec2:InstanceProfile": profile}


@pytest.mark.parametrize("flow", list(Flow))
def test_each_statement_has_a_name_of_its_own_and_is_within_iams_limit(flow: Flow) -> None:
    sids = [one.sid for one in statements(FULL, flow)]
    assert len(sids) == len(set(sids))
    assert all(sid.isalnum() for sid in sids)
    # 6,144 characters without white space, of a managed policy (IAM user guide, quotas).
    assert len(str(document(FULL, flow)).replace(" ", "")) <= 6144


@pytest.mark.parametrize("flow", list(Flow))
def test_the_data_source_says_the_same(flow: Flow) -> None:
    (source,) = hcl2.loads(as_hcl(FULL, flow))["data"]
    body: dict[str, Any] = strip(source)["aws_iam_policy_document"][f"amibuild_{flow}"]
    told = [
        {
            "Sid": one["sid"],
            "Effect": "Allow",
            "Action": one["actions"],
            "Resource": one["resources"],
            **({"Condition": conditions(one)} if "condition" in one else {}),
        }
        for one in body["statement"]
    ]
    assert told == document(FULL, flow)["Statement"]


def conditions(statement: dict[str, Any]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for one in statement["condition"]:
        values = one["values"] if len(one["values"]) > 1 else one["values"][0]
        found.setdefault(one["test"], {})[one["variable"]] = values
    return found


def strip(value: Any) -> Any:
    """python-hcl2 keeps the quotes of names and texts."""
    if isinstance(value, dict):
        return {strip(k): strip(v) for k, v in value.items() if not k.startswith("__")}
    if isinstance(value, list):
        return [strip(one) for one in value]
    return value.strip('"') if isinstance(value, str) else value


def test_only_the_secrets_of_the_recipe_may_be_read() -> None:
    by_sid = {one.sid: one for one in statements(FULL, Flow.BAKE)}
    assert by_sid["ReadSecureParameters"].resources == (
        "arn:aws:ssm:eu-west-1:*:parameter/game/token",
    )
    assert by_sid["ReadSecrets"].resources == (
        "arn:aws:secretsmanager:eu-west-1:*:secret:game/licence-??????",
    )
    assert {"ReadSecureParameters", "ReadSecrets"}.isdisjoint(
        one.sid for one in statements(FULL, Flow.REAP)
    )
