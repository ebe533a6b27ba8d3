"""The flows with nothing but the policy that is printed for them, conditions included."""

from __future__ import annotations

import os
import signal
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from amibuild import revoke, signals
from amibuild.aws.errors import calling
from amibuild.aws.images import Image
from amibuild.aws.partition import partition_of
from amibuild.aws.session import Cloud
from amibuild.bake import BakeResult, bake
from amibuild.channels import find
from amibuild.errors import AmibuildError, Denied, Interrupted
from amibuild.names import Tag
from amibuild.permission import Wanted
from amibuild.policy import Flow, document
from amibuild.project import Project
from amibuild.reap import reap
from amibuild.retention import Rule
from amibuild.scope import OnError
from amibuild.verify.boot import verify
from tests.contract import builder
from tests.contract.account import account
from tests.contract.builder import Answers, changed, checks, new_project
from tests.contract.conftest import Aws, Start
from tests.contract.fault_runs import POLICY
from tests.contract.imaged import snapshot_of
from tests.contract.policed import Guard, actions, guarded
from tests.contract.promoted import Stage
from tests.contract.shelf import Shelf
from tests.contract.test_lease import Leaping, at

BUCKET, KEY = "a-bucket-of-ours", "arn:aws:kms:us-east-1:123456789012:key/1234abcd"
FAILURES = {"it ends well": "", "a step fails": "os", "the look at the disk fails": "hygiene"}


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return changed(
        new_project(tmp_path / "project"),
        aws={"bucket": BUCKET, "kms_key": KEY},
        publish={"accounts": ["444455556666"]},
    )


def begin(start: Start, *faults: str, **answers: Any) -> Aws:
    aws = start(*faults, script=Answers(**answers))
    aws.s3.create_bucket(Bucket=BUCKET)
    return aws


def results(checks_of_it: object) -> dict[str, object]:
    return {**Answers().results, "checks": checks_of_it}


@pytest.mark.parametrize("on_error", [OnError.CLEAN, OnError.KEEP])
@pytest.mark.parametrize("how", FAILURES)
def test_a_bake_is_refused_nothing(
    start: Start, project: Project, how: str, on_error: OnError
) -> None:
    aws = begin(start, exit_codes={FAILURES[how]: 9} if FAILURES[how] else {})
    before = account(aws)
    cloud, guard = guarded(aws, project)
    try:
        builder.run(project, cloud, on_error=on_error)
    except AmibuildError as error:
        assert how != "it ends well"
        assert bool(error.leftovers) is False
    assert guard.refused == []
    assert {"ec2:RunInstances", "ec2:CreateTags", "ssm:SendCommand"} <= actions(guard.asked)
    if how != "it ends well" and on_error is OnError.CLEAN:
        assert account(aws) == before


def test_a_bake_on_spot_with_a_profile_is_refused_nothing(start: Start, project: Project) -> None:
    aws = begin(start)
    aws.iam.create_role(RoleName="of-builder", AssumeRolePolicyDocument="{}")
    aws.iam.put_role_policy(RoleName="of-builder", PolicyName="own", PolicyDocument=POLICY)
    aws.iam.create_instance_profile(InstanceProfileName="builder")
    aws.iam.add_role_to_instance_profile(InstanceProfileName="builder", RoleName="of-builder")
    ours = changed(project, builder={"spot": True}, aws={"instance_profile": "builder"})
    cloud, guard = guarded(aws, ours)
    assert builder.run(ours, cloud).verified
    assert guard.refused == []
    assert {"iam:PassRole", "iam:GetInstanceProfile"} <= actions(guard.asked)
    assert "spot-instances-request" in str([one.resource for one in guard.asked])


def test_a_bake_that_is_resumed_is_refused_nothing(start: Start, project: Project) -> None:
    answers = Answers(exit_codes={"os": 9})
    aws = start(script=answers)
    aws.s3.create_bucket(Bucket=BUCKET)
    cloud, guard = guarded(aws, project)
    with pytest.raises(AmibuildError):
        builder.run(project, cloud, on_error=OnError.KEEP)
    answers.exit_codes = {}
    (journal,) = (project.state_dir / "journals").glob("*.jsonl")
    assert builder.run(project, cloud, resume=journal.stem).verified
    assert guard.refused == []
    assert set(account(aws)["instances"]) == set()


def test_a_bake_that_outlives_its_lease_is_refused_nothing(start: Start, project: Project) -> None:
    aws, clock = begin(start), Leaping()
    cloud, guard = guarded(aws, project)
    leaps = [at(stage, project.lease * share, clock) for stage, share in LEAPS.items()]
    told: list[BakeResult] = []
    bake(
        project, cloud, target="local", if_changed=False, on_error=OnError.CLEAN,
        subscribers=leaps, on_result=told.append, clock=clock,
    )  # fmt: skip
    assert guard.refused == []
    moved = [one for one in guard.asked if one.context.get("aws:TagKeys") == [Tag.EXPIRES]]
    assert {one.action for one in moved} == {"ec2:CreateTags", "ec2:DeleteTags"}
    assert {one.resource.split(":")[5].partition("/")[0] for one in moved} == {
        *("image", "instance", "security-group", "snapshot", "volume")
    }


LEAPS = {"os": 0.9, "seal": 1.7, "verify": 2.5}


@pytest.mark.parametrize("outcome", ["passed", "failed"])
def test_a_later_proof_of_an_image_is_refused_nothing(
    start: Start, project: Project, outcome: str
) -> None:
    answers = Answers()
    aws = start(script=answers)
    aws.s3.create_bucket(Bucket=BUCKET)
    proven = builder.run(project, aws.cloud)
    answers.results["checks"] = checks(outcome)
    cloud, guard = guarded(aws, project)
    verify(project, cloud, proven.image_id, target="local", subscribers=())
    assert guard.refused == []
    assert aws.cloud.images.image(proven.image_id).tags[Tag.VERIFIED] == outcome


def test_an_image_that_is_used_again_is_shared_without_being_refused(
    start: Start, project: Project
) -> None:
    aws = begin(start)
    first = builder.run(project, aws.cloud)
    cloud, guard = guarded(aws, project)
    again = builder.run(project, cloud, if_changed=True)
    assert (again.reused, again.image_id) == (True, first.image_id)
    assert "ec2:ModifySnapshotAttribute" in actions(guard.asked)
    assert guard.refused == []


def test_reap_is_refused_nothing(start: Start, project: Project) -> None:
    aws = begin(start, exit_codes={"hygiene": 9})
    before = account(aws)
    with pytest.raises(AmibuildError):
        builder.run(project, aws.cloud, on_error=OnError.KEEP)
    cloud, guard = guarded(aws, project, Flow.REAP)
    later = datetime.now(UTC) + timedelta(days=30)
    report = reap(cloud, project.state_dir, target="local", dry_run=False, now=later)
    assert report.removed
    assert (report.left, guard.refused) == ([], [])
    assert account(aws) == before


def test_a_revocation_is_refused_nothing(start: Start, project: Project) -> None:
    aws = begin(start)
    proven = builder.run(project, aws.cloud)
    cloud, guard = guarded(aws, project, Flow.PROMOTE)
    plan = revoke.plan_revocation(cloud, project.recipe, proven.image_id)
    revoke.carry_out(cloud, project.path, plan, target="local", reason="it is slow", subscribers=())
    assert guard.refused == []
    assert find(cloud, project.recipe, proven.image_id).revoked is not None


def test_moving_channels_is_refused_nothing(aws: Aws, tmp_path: Path) -> None:
    stage = Stage(aws, tmp_path / "game-host")
    old, new = stage.image("2026.11.21.1"), stage.image("2026.11.22.1")
    guard = over(stage, Flow.PROMOTE)
    stage.promote(old)
    stage.promote(new)
    stage.promote(old, "staging")
    stage.roll_back()
    assert guard.refused == []
    assert (stage.points_at("nightly"), stage.points_at("staging")) == (old, old)


def test_prune_is_refused_nothing(aws: Aws, tmp_path: Path) -> None:
    shelf = Shelf(aws, tmp_path / "game-host", snapshot_of(aws, aws.image()))
    images = shelf.images(3)
    guard = over(shelf, Flow.PRUNE)
    report = shelf.carry_out(shelf.plan(Rule(keep=1, days=0)))
    assert guard.refused == []
    assert (report.left, shelf.there()) == ([], {images[2]})
    assert len(shelf.snapshots()) == 1


def over(stage: Stage, flow: Flow) -> Guard:
    wanted = Wanted(stage.recipe, (), partition_of(stage.recipe.aws.region))
    guard = Guard(stage.aws, document(wanted, flow))
    guard.over(stage.aws.cloud)
    return guard


def deregistered(cloud: Cloud, image: Image) -> None:
    cloud.images.deregister(image.id)


def snapshot_deleted(cloud: Cloud, image: Image) -> None:
    cloud.images.delete_snapshot(image.root_snapshot)


def given_an_end(cloud: Cloud, image: Image) -> None:
    cloud.images.tag([image.id, *image.snapshots], {Tag.EXPIRES: "2026-11-22T16:15:00Z"})


def given_an_end_beside_its_mark(cloud: Cloud, image: Image) -> None:
    cloud.images.tag([image.id], {Tag.VERIFIED: "passed", Tag.EXPIRES: "2026-11-22T16:15:00Z"})


def given_to_another_image(cloud: Cloud, image: Image) -> None:
    cloud.images.tag([image.id], {Tag.IMAGE: "other"})


def its_mark_taken(cloud: Cloud, image: Image) -> None:
    cloud.images.untag([image.id], Tag.VERIFIED)


def all_its_tags_taken(cloud: Cloud, image: Image) -> None:
    with calling("DeleteTags", "us-east-1"):
        cloud._ec2.delete_tags(Resources=[image.id])


ATTACKS = (
    *(deregistered, snapshot_deleted, given_an_end, given_an_end_beside_its_mark),
    *(given_to_another_image, its_mark_taken, all_its_tags_taken),
)


def test_who_bakes_can_not_remove_a_proven_image(start: Start, project: Project) -> None:
    """Nor give it an end first, nor take from it what makes it a result."""
    aws = begin(start)
    image = aws.cloud.images.image(builder.run(project, aws.cloud).image_id)
    cloud, _ = guarded(aws, project)
    for attack in ATTACKS:
        with pytest.raises(Denied):
            attack(cloud, image)
        assert aws.cloud.images.image(image.id) == image, attack.__name__


def test_who_bakes_can_not_touch_a_machine_that_only_has_the_images_tag(
    aws: Aws, project: Project
) -> None:
    """As one that Terraform has started from it, with the image's name among its tags."""
    tags = [{"Key": Tag.IMAGE, "Value": project.recipe.image.name}]
    serving = aws.running(TagSpecifications=[{"ResourceType": "instance", "Tags": tags}])
    cloud, _ = guarded(aws, project)
    with pytest.raises(Denied):
        cloud.ec2.terminate_instance(serving)
    with pytest.raises(Denied):
        cloud.ec2.stop_instance(serving)
    with pytest.raises(Denied):
        cloud.ssm.send(serving, "id", comment="", timeout_s=60)
    assert aws.state(serving) == "running"


def test_an_end_that_was_taken_by_a_call_without_an_answer_is_no_failure(
    start: Start, project: Project
) -> None:
    """botocore tries again, and then there is none that the role may take."""
    aws = begin(start, "DeleteTags:1=InternalError:after", "DeleteTags:2=UnauthorizedOperation")
    image = aws.cloud.images.image(builder.run(project, aws.cloud).image_id)
    assert (image.tags[Tag.VERIFIED], Tag.EXPIRES in image.tags) == ("passed", False)


def test_an_interrupt_while_the_end_is_taken_leaves_the_result(
    start: Start, project: Project
) -> None:
    aws = begin(start)
    cloud, guard = guarded(aws, project)
    told: list[BakeResult] = []

    def interrupt(**_: object) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    cloud._session.events.register("after-call.ec2.DeleteTags", interrupt)
    with signals.catch(), pytest.raises(Interrupted) as interrupted:
        bake(
            project, cloud, target="local", if_changed=False, on_error=OnError.CLEAN,
            subscribers=(), on_result=told.append,
        )  # fmt: skip
    assert interrupted.value.leftovers == ()
    assert guard.refused == []
    assert [one.image_id for one in told] == list(account(aws)["images"])
