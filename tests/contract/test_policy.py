"""What bakes and reap really ask for, as the endpoint wrote it down, is in the policy of each."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from amibuild import revoke
from amibuild.aws.partition import partition_of
from amibuild.change import change_between, manifest_key
from amibuild.channels import find, survey
from amibuild.errors import AmibuildError, Denied
from amibuild.names import Tag
from amibuild.outputs.manifest import to_json
from amibuild.permission import Wanted
from amibuild.policy import Flow, statements
from amibuild.project import Project
from amibuild.promote import Allowed, plan_promotion, plan_rollback
from amibuild.reap import reap
from amibuild.registry import list_images
from amibuild.scope import OnError
from tests.contract import builder
from tests.contract.builder import Answers, changed, new_project
from tests.contract.conftest import Aws, Start
from tests.contract.promoted import Stage
from tests.unit.samples import manifest

if TYPE_CHECKING:
    from mypy_boto3_ec2.type_defs import TagDescriptionTypeDef

BUCKET, KEY = "a-bucket-of-ours", "arn:aws:kms:us-east-1:123456789012:key/1234abcd"
HINT = (
    "`amibuild policy bake` prints all that a bake needs, `amibuild policy reap` all that reap does"
)
# IAM calls these by another name.
ACTIONS = {
    "s3:HeadBucket": "s3:ListBucket",
    "s3:HeadObject": "s3:GetObject",
    "s3:ListObjectsV2": "s3:ListBucket",
    "s3:ListMultipartUploads": "s3:ListBucketMultipartUploads",
}
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
    asked -= {"s3:CreateBucket", "sts:GetCallerIdentity"}  # the last needs no permission
    return {ACTIONS.get(action, action) for action in asked}


def allowed(project: Project, flow: Flow) -> set[str]:
    wanted = Wanted(project.recipe, project.steps, partition_of(project.recipe.aws.region))
    return {action for one in statements(wanted, flow) for action in one.actions}


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
    assert asked - allowed(project, Flow.BAKE) == set()


def test_a_channels_image_is_found_by_whoever_may_bake(
    start: Start, project: Project, tmp_path: Path
) -> None:
    """What `verify @CHANNEL` begins with."""
    aws = start(call_log=tmp_path / "calls")
    stage = Stage(aws, tmp_path / project.recipe.image.name)
    stage.promote(image := stage.image("2026.11.21.1"))
    before = len((tmp_path / "calls").read_text().splitlines())
    assert find(aws.cloud, stage.recipe, "@nightly").id == image
    lines = (tmp_path / "calls").read_text().splitlines()[before:]
    (tmp_path / "looks").write_text("\n".join(lines))
    asked = made(tmp_path / "looks")
    assert asked == {"ec2:DescribeImages", "ssm:GetParameters"}
    assert asked - allowed(project, Flow.BAKE) == set()


def test_reap_asks_for_nothing_else(start: Start, project: Project, tmp_path: Path) -> None:
    aws = start(script=Answers(exit_codes={"os": 9}), call_log=tmp_path / "calls")
    aws.s3.create_bucket(Bucket=BUCKET)
    with pytest.raises(AmibuildError):
        builder.run(project, aws.cloud, on_error=OnError.KEEP)
    before = len((tmp_path / "calls").read_text().splitlines())
    later = datetime.now(UTC) + timedelta(days=30)
    near = [name for name in aws.cloud.ec2.enabled_regions() if name.startswith("us-east-")]
    report = reap(
        aws.cloud, project.state_dir, target="local", dry_run=False, now=later, regions=near
    )
    assert report.removed
    lines = (tmp_path / "calls").read_text().splitlines()[before:]
    (tmp_path / "reaps").write_text("\n".join(lines))
    asked = made(tmp_path / "reaps")
    assert {"ec2:TerminateInstances", "ec2:DescribeRegions"} <= asked
    assert asked - allowed(project, Flow.REAP) == set()


def test_moving_channels_asks_for_nothing_else(start: Start, tmp_path: Path) -> None:
    """What promote, rollback, channels and revoke do, with manifests only in the bucket."""
    aws = start(call_log=tmp_path / "calls")
    aws.s3.create_bucket(Bucket=BUCKET)
    stage = Stage(aws, tmp_path / "game-host", f'[aws]\nbucket = "{BUCKET}"\n')
    old, new = stage.image("2026.11.21.1"), stage.image("2026.11.22.1")
    before = len((tmp_path / "calls").read_text().splitlines())
    stage.promote(old)
    stage.promote(new)
    stage.promote(old, "staging")
    known = {one.id: one for one in list_images(aws.cloud, "game-host")}
    for image, version in ((old, "2026.11.21.1"), (new, "2026.11.22.1")):
        text = to_json(manifest(version, image_id=image))
        aws.cloud.s3.put(BUCKET, manifest_key(known[image].name), text.encode())
    state_dir = tmp_path / "game-host" / ".amibuild"
    change = change_between(aws.cloud, state_dir, BUCKET, known[old], known[new])
    assert change.difference is not None and change.notes == ()
    survey(aws.cloud, stage.recipe)
    plan = revoke.plan_revocation(aws.cloud, stage.recipe, new)
    revoke.carry_out(
        aws.cloud, stage.path, plan, target="local", reason="it is slow", subscribers=()
    )
    stage.roll_back()
    lines = (tmp_path / "calls").read_text().splitlines()[before:]
    (tmp_path / "moves").write_text("\n".join(lines))
    asked = made(tmp_path / "moves") - {"s3:PutObject"}
    wanted = Wanted(stage.recipe, (), partition_of(stage.recipe.aws.region))
    may = {a for one in statements(wanted, Flow.PROMOTE) for a in one.actions}
    assert asked - may == set()
    # The first write of a parameter brings its tags, and a lock is tidied up after its tenth.
    assert may - asked == {"ssm:AddTagsToResource", "ssm:DeleteParameters"}


def test_a_look_at_a_move_asks_for_nothing_else(start: Start, tmp_path: Path) -> None:
    aws = start(call_log=tmp_path / "calls")
    aws.s3.create_bucket(Bucket=BUCKET)
    stage = Stage(aws, tmp_path / "game-host", f'[aws]\nbucket = "{BUCKET}"\n')
    image = stage.image("2026.11.21.1")
    stage.promote(image)
    text = to_json(manifest("2026.11.21.1", image_id=image))
    aws.cloud.s3.put(BUCKET, manifest_key("game-host-2026.11.21.1"), text.encode())
    before = len((tmp_path / "calls").read_text().splitlines())
    move = plan_promotion(aws.cloud, stage.recipe, "@nightly", "staging", Allowed())
    change_between(aws.cloud, tmp_path / "game-host", BUCKET, move.before, move.image)
    plan_rollback(aws.cloud, stage.recipe, "nightly", image)
    lines = (tmp_path / "calls").read_text().splitlines()[before:]
    (tmp_path / "looks").write_text("\n".join(lines))
    wanted = Wanted(stage.recipe, (), partition_of(stage.recipe.aws.region))
    may = {a for one in statements(wanted, Flow.LOOK) for a in one.actions}
    assert made(tmp_path / "looks") == may


ENDING = (Tag.BAKE_ID, Tag.EXPIRES)


def tagged(aws: Aws, key: str) -> Sequence[TagDescriptionTypeDef]:
    return aws.ec2.describe_tags(Filters=[{"Name": "key", "Values": [key]}])["Tags"]


def test_all_that_reap_has_to_remove_has_an_end(start: Start, project: Project) -> None:
    """The policy of reap goes by that tag."""
    aws = start(script=Answers(exit_codes={"hygiene": 9}))
    aws.s3.create_bucket(Bucket=BUCKET)
    with pytest.raises(AmibuildError):
        builder.run(project, aws.cloud, on_error=OnError.KEEP)
    ours, ending = ({one["ResourceId"] for one in tagged(aws, key)} for key in ENDING)
    kinds = {one["ResourceType"] for one in tagged(aws, Tag.BAKE_ID)}
    assert kinds >= {"image", "instance", "security-group", "snapshot", "volume"}
    assert ours - ending == set()


def test_a_proven_image_has_no_end(start: Start, project: Project) -> None:
    aws = start(script=Answers())
    aws.s3.create_bucket(Bucket=BUCKET)
    proven = builder.run(project, aws.cloud)
    image = aws.cloud.images.image(proven.image_id)
    ours, ending = ({one["ResourceId"] for one in tagged(aws, key)} for key in ENDING)
    assert {image.id, *image.snapshots} <= ours - ending


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
