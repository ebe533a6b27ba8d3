"""A bake that ended early is gone on with: what ended well on its builder is not done again."""

from __future__ import annotations

import json
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from amibuild.errors import (
    AmibuildError,
    PlanError,
    StepFailed,
    UsageError,
    VerifyFailed,
    WaitTimeout,
)
from amibuild.journal import Journal, JournalBusy, Remains
from amibuild.project import Project
from amibuild.reap import reap
from amibuild.resume import journal_of, take_up
from amibuild.scope import OnError
from tests.contract import builder
from tests.contract.account import Account, account, await_ends
from tests.contract.builder import Answers, changed, checks, new_project
from tests.contract.conftest import Aws, Start
from tests.contract.swift import swift


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return new_project(tmp_path / "project")


def only_bake(project: Project) -> str:
    (path,) = (project.state_dir / "journals").glob("*.jsonl")
    return path.stem


def kept_after(project: Project, aws: Aws, answers: Answers, step: str) -> str:
    """The id of a bake that failed in that step, with all kept."""
    answers.exit_codes = {step: 7}
    with pytest.raises(StepFailed):
        builder.run(project, aws.cloud, on_error=OnError.KEEP)
    answers.exit_codes = {}
    answers.jobs.clear()
    return only_bake(project)


def new(aws: Aws, before: Account) -> dict[str, int]:
    """How many things of each kind there are more; none of those before may be missing."""
    after = account(aws)
    assert all(before[kind] <= after[kind] for kind in before)
    return {kind: len(after[kind] - before[kind]) for kind in after if after[kind] - before[kind]}


def test_it_goes_on_from_the_step_that_failed(start: Start, project: Project) -> None:
    answers = Answers()
    aws = start(script=answers)
    before = account(aws)
    bake_id = kept_after(project, aws, answers, "hardening")
    result = builder.run(project, aws.cloud, resume=bake_id)
    assert answers.jobs[:4] == ["first-boot", "hardening", "idle-stop", "minetest"]
    assert new(aws, before) == {"images": 1, "snapshots": 1}
    manifest = json.loads((result.manifest or Path()).read_text())
    assert [step["name"] for step in manifest["steps"]][:4] == [
        "ssm-agent", "os", "logging", "hardening",
    ]  # fmt: skip
    assert manifest["bake"]["id"] == bake_id
    assert manifest["digest"] == result.digest
    assert {"os", "hardening", "verify"} <= manifest["seconds"]["steps"].keys()
    remains = Remains(project.state_dir / "journals" / f"{bake_id}.jsonl")
    assert [id_ for id_ in remains.resources if id_ not in remains.kept] == []


def test_the_step_that_failed_may_have_been_mended(start: Start, project: Project) -> None:
    answers = Answers()
    aws = start(script=answers)
    bake_id = kept_after(project, aws, answers, "minetest")
    mended = tuple(
        replace(step, script=step.script + "\n# mended\n") if step.name == "minetest" else step
        for step in project.steps
    )
    result = builder.run(replace(project, steps=mended), aws.cloud, resume=bake_id)
    assert answers.jobs[:3] == ["first-boot", "minetest", "inventory"]
    assert result.verified


def test_a_service_that_failed_is_tried_again_and_the_others_are_not(
    start: Start, tmp_path: Path
) -> None:
    answers = Answers()
    aws = start(script=answers)
    project = new_project(tmp_path / "two", ['provision.services=["minetest", "mumble"]'])
    answers.exit_codes = {"minetest": 7}
    with pytest.raises(StepFailed):
        builder.run(project, aws.cloud, on_error=OnError.KEEP)
    answers.exit_codes = {}
    answers.jobs.clear()
    builder.run(project, aws.cloud, resume=only_bake(project))
    assert answers.jobs[:3] == ["first-boot", "minetest", "inventory"]


# Between them each sort of thing is there, or may be, and each sort of work is done.
MOMENTS = (
    *("created:3", "connect", "os", "step-ran:2", "inventory", "seal", "shutdown", "capture"),
    *("intended:4", "created:4", "verify", "created:5"),
)


@pytest.mark.parametrize(
    "moment",
    [
        pytest.param(moment, marks=[pytest.mark.soak] if at % 2 else [])
        for at, moment in enumerate(MOMENTS)
    ],
)
def test_after_kill_9_it_goes_on_and_leaves_the_image_alone(
    start: Start, tmp_path: Path, moment: str
) -> None:
    aws = start(script=Answers())
    before = account(aws)
    folder = tmp_path / "project"
    ended = builder.killed_at(moment, aws.service.url, folder)
    assert ended == -signal.SIGKILL, (folder / "said").read_text()
    project = new_project(folder)
    with swift():  # for half a minute EC2 may hide what the killed one asked for
        result = builder.run(project, aws.cloud, resume=only_bake(project))
    await_ends(aws)
    assert new(aws, before) == {"images": 1, "snapshots": 1}
    assert account(aws)["images"] - before["images"] == {result.image_id}
    assert reap(aws.cloud, project.state_dir, target="local", dry_run=False).removed == []


def test_an_image_that_comes_late_is_waited_for_again_and_not_made_again(
    start: Start, project: Project, tmp_path: Path
) -> None:
    log = tmp_path / "calls.jsonl"
    aws = start(script=Answers(), call_log=log, latency="image=12")
    before = account(aws)
    hasty = changed(project, builder={"capture_timeout_s": 60})
    with swift(), pytest.raises(WaitTimeout) as caught:
        builder.run(hasty, aws.cloud)
    bake_id = only_bake(project)
    assert caught.value.hint is not None and f"--resume {bake_id}" in caught.value.hint
    assert {one.kind for one in caught.value.leftovers} == {"instance", "image", "security-group"}
    (pending,) = account(aws)["images"] - before["images"]
    report = reap(aws.cloud, project.state_dir, target="local", dry_run=False)
    assert report.removed == []
    assert pending in {one.id for one in report.kept}
    result = builder.run(project, aws.cloud, resume=bake_id)
    assert result.image_id == pending
    calls = [json.loads(line).get("operation") for line in log.read_text().splitlines()]
    assert calls.count("CreateImage") == 1
    await_ends(aws)
    assert new(aws, before) == {"images": 1, "snapshots": 1}


def test_an_image_that_failed_its_checks_is_proven_again(start: Start, project: Project) -> None:
    answers = Answers()
    aws = start(script=answers)
    before = account(aws)
    answers.results["checks"] = checks("failed", "no answer")
    with pytest.raises(VerifyFailed):
        builder.run(project, aws.cloud, on_error=OnError.KEEP)
    answers.results["checks"] = checks()
    answers.jobs.clear()
    result = builder.run(project, aws.cloud, resume=only_bake(project))
    assert sorted(answers.jobs) == ["checks", "hygiene"]
    tags = aws.ec2.describe_images(ImageIds=[result.image_id])["Images"][0]["Tags"]
    assert {"Key": "amibuild:verified", "Value": "passed"} in tags
    await_ends(aws)
    assert new(aws, before) == {"images": 1, "snapshots": 1}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("os", "os has changed since it ran there"),
        ("volume", "builder.volume_gib was 8 when it was launched, and is 9"),
        ("fewer", "logging ran on it, and is no longer among the steps"),
        ("renamed", "hardening began there, and is no longer among the steps"),
        ("order", "there the order was ssm-agent, os, logging"),
        ("between", "something has not ended well there, and logging has run already"),
    ],
)
def test_a_plan_that_is_not_the_one_that_was_begun_is_refused_and_nothing_is_lost(
    start: Start, project: Project, change: str, said: str
) -> None:
    answers = Answers()
    aws = start(script=answers)
    bake_id = kept_after(project, aws, answers, "hardening")
    there, steps = account(aws), list(project.steps)
    names = [step.name for step in steps]
    match change:
        case "os":
            at = names.index("os")
            steps[at] = replace(steps[at], script="true")
        case "fewer":
            del steps[names.index("logging")]
        case "renamed":
            at = names.index("hardening")
            steps[at] = replace(steps[at], name="hard")
        case "order":
            one, other = names.index("os"), names.index("logging")
            steps[one], steps[other] = steps[other], steps[one]
        case "between":
            at = names.index("logging")
            steps.insert(at, replace(steps[at], name="something"))
        case _:
            project = changed(project, builder={"volume_gib": 9})
    with pytest.raises(PlanError, match=f"bake {bake_id} can't go on with i-.*: {said}"):
        builder.run(replace(project, steps=tuple(steps)), aws.cloud, resume=bake_id)
    assert account(aws) == there
    assert answers.jobs == []


def test_one_whose_builder_is_gone_is_refused(start: Start, project: Project) -> None:
    answers = Answers(exit_codes={"os": 7})
    aws = start(script=answers)
    with pytest.raises(StepFailed):
        builder.run(project, aws.cloud)
    with pytest.raises(UsageError, match="has left no builder to go on with"):
        builder.run(project, aws.cloud, resume=only_bake(project))


def test_one_that_ended_well_one_that_is_unknown_and_another_images_are_refused(
    start: Start, project: Project
) -> None:
    aws = start(script=Answers())
    builder.run(project, aws.cloud)
    bake_id = only_bake(project)
    with pytest.raises(UsageError, match="has ended well"):
        builder.run(project, aws.cloud, resume=bake_id)
    other = changed(project, image={"name": "other-host"})
    with pytest.raises(UsageError, match="has the image game-host, and this one other-host"):
        builder.run(other, aws.cloud, resume=bake_id)
    with pytest.raises(UsageError, match="there is no bake") as caught:
        builder.run(project, aws.cloud, resume="20261122-101500-a1b2c3")
    assert caught.value.hint == f"the newest is {bake_id}"
    with pytest.raises(UsageError, match="is no bake's id"):
        builder.run(project, aws.cloud, resume=f"../journals/{bake_id}")


def test_a_resumed_bake_that_fails_again_leaves_nothing(start: Start, project: Project) -> None:
    answers = Answers()
    aws = start(script=answers)
    before = account(aws)
    bake_id = kept_after(project, aws, answers, "hardening")
    answers.exit_codes = {"hardening": 7}
    with swift(), pytest.raises(StepFailed):
        builder.run(project, aws.cloud, resume=bake_id)
    assert new(aws, before) == {}


def test_an_image_that_is_proven_is_a_result_and_stays_one(start: Start, tmp_path: Path) -> None:
    """Who died after that may have told its id, and somebody may use it."""
    aws = start(script=Answers())
    folder = tmp_path / "project"
    assert builder.killed_at("record", aws.service.url, folder) == -signal.SIGKILL
    project = new_project(folder)
    there = account(aws)["images"]
    with pytest.raises(UsageError, match=r"has made ami-\w+, which is proven") as caught:
        builder.run(project, aws.cloud, resume=only_bake(project))
    assert caught.value.hint is not None
    assert "bake --if-changed" in caught.value.hint
    assert account(aws)["images"] == there


def test_what_preflight_refuses_costs_nothing_of_what_was_kept(
    start: Start, project: Project
) -> None:
    answers = Answers()
    aws = start(script=answers)
    bake_id = kept_after(project, aws, answers, "hardening")
    there = account(aws)
    elsewhere = changed(project, aws={"subnet": "subnet-0123456789abcdef0"})
    with pytest.raises(AmibuildError, match="subnet-0123456789abcdef0"):
        builder.run(elsewhere, aws.cloud, resume=bake_id)
    assert account(aws) == there
    assert builder.run(project, aws.cloud, resume=bake_id).verified


def test_a_builder_that_was_stopped_is_refused_and_stays(start: Start, project: Project) -> None:
    answers = Answers()
    aws = start(script=answers)
    bake_id = kept_after(project, aws, answers, "hardening")
    (instance,) = account(aws)["instances"]
    aws.ec2.stop_instances(InstanceIds=[instance])
    aws.until_state(instance, "stopped")
    with pytest.raises(UsageError, match="is stopped, and has steps to run") as caught:
        builder.run(project, aws.cloud, resume=bake_id)
    assert caught.value.hint is not None
    assert f"start-instances --instance-ids {instance}" in caught.value.hint
    assert account(aws)["instances"] == {instance}


def test_one_that_another_process_has_is_refused(start: Start, project: Project) -> None:
    answers = Answers()
    aws = start(script=answers)
    bake_id = kept_after(project, aws, answers, "hardening")
    with (
        Journal(project.state_dir / "journals" / f"{bake_id}.jsonl"),
        pytest.raises(JournalBusy, match="is another process's at the moment"),
    ):
        builder.run(project, aws.cloud, resume=bake_id)


def test_what_went_on_since_it_was_read_is_not_gone_on_with_twice(
    start: Start, project: Project
) -> None:
    answers = Answers()
    aws = start(script=answers)
    bake_id = kept_after(project, aws, answers, "hardening")
    earlier = take_up(project, aws.cloud, "local", bake_id)
    reap(aws.cloud, project.state_dir, target="local", dry_run=False, kept=True)
    with pytest.raises(JournalBusy):
        journal_of(project.state_dir / "journals" / f"{bake_id}.jsonl", (), earlier)
