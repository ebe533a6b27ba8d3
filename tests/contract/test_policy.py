"""What bakes and reap really ask for, as the endpoint wrote it down, is in the policy of each."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from amibuild.errors import AmibuildError, Denied
from amibuild.policy import Flow, statements
from amibuild.project import Project
from amibuild.reap import reap
from amibuild.recipe.model import Recipe
from amibuild.scope import OnError
from tests.contract import builder
from tests.contract.builder import Answers, changed, new_project
from tests.contract.conftest import Start

BUCKET, KEY = "a-bucket-of-ours", "arn:aws:kms:us-east-1:123456789012:key/1234abcd"
HINT = "`amibuild policy bake` prints all that it needs"
# IAM calls these by another name.
ACTIONS = {"s3:HeadBucket": "s3:ListBucket", "s3:ListObjectsV2": "s3:ListBucket"}
FAILURES = {"it ends well": "", "a step fails": "os", "the look at the disk fails": "hygiene"}


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return changed(
        new_project(tmp_path / "project"),
        aws={"bucket": BUCKET, "kms_key": KEY},
        publish={"accounts": ["444455556666"]},
    )


def made(log: Path) -> set[str]:
    """The actions behind the calls so far, without those of the test itself."""
    calls = [json.loads(line) for line in log.read_text().splitlines()]
    asked = {f"{call['service']}:{call['operation']}" for call in calls}
    return {ACTIONS.get(action, action) for action in asked} - {"s3:CreateBucket"}


def allowed(recipe: Recipe, flow: Flow) -> set[str]:
    return {action for one in statements(recipe, flow) for action in one.actions}


@pytest.mark.parametrize("how", FAILURES)
def test_a_bake_asks_for_nothing_else(
    start: Start, project: Project, tmp_path: Path, how: str
) -> None:
    failing = {FAILURES[how]: 9} if FAILURES[how] else {}
    aws = start(script=Answers(exit_codes=failing), call_log=tmp_path / "calls")
    aws.s3.create_bucket(Bucket=BUCKET)
    try:
        builder.run(project, aws.cloud)
    except AmibuildError:
        assert how != "it ends well"
    asked = made(tmp_path / "calls")
    assert {"ec2:RunInstances", "ssm:SendCommand"} <= asked
    assert how == "a step fails" or "s3:PutObject" in asked
    assert asked - allowed(project.recipe, Flow.BAKE) == set()


def test_reap_asks_for_nothing_else(start: Start, project: Project, tmp_path: Path) -> None:
    aws = start(script=Answers(exit_codes={"os": 9}), call_log=tmp_path / "calls")
    aws.s3.create_bucket(Bucket=BUCKET)
    with pytest.raises(AmibuildError):
        builder.run(project, aws.cloud, on_error=OnError.KEEP)
    before = len((tmp_path / "calls").read_text().splitlines())
    later = datetime.now(UTC) + timedelta(days=30)
    report = reap(aws.cloud, project.state_dir, target="local", dry_run=False, now=later)
    assert report.removed
    lines = (tmp_path / "calls").read_text().splitlines()[before:]
    (tmp_path / "reaps").write_text("\n".join(lines))
    asked = made(tmp_path / "reaps")
    assert "ec2:TerminateInstances" in asked
    assert asked - allowed(project.recipe, Flow.REAP) == set()


@pytest.mark.parametrize(
    ("fault", "missing"),
    [
        ("RunInstances:1=UnauthorizedOperation", "ec2:RunInstances"),
        ("SendCommand:1=AccessDeniedException", "ssm:SendCommand"),
    ],
)
def test_a_denied_call_names_what_the_role_needs(
    start: Start, project: Project, fault: str, missing: str
) -> None:
    aws = start(fault, script=Answers())
    aws.s3.create_bucket(Bucket=BUCKET)
    with pytest.raises(Denied) as denied:
        builder.run(project, aws.cloud)
    assert denied.value.hint == f"the role needs {missing}; {HINT}"
