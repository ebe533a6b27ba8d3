"""A bake that somebody watches, and its machine afterwards: asked, mended, looked at, kept."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from amibuild import bake_machine
from amibuild.bakes import State, bakes
from amibuild.channels import find
from amibuild.errors import AmibuildError, ResourceFailed, StepFailed, UsageError, VerifyFailed
from amibuild.journal import ResourceKind
from amibuild.names import Tag
from amibuild.project import Project
from amibuild.reap import reap
from amibuild.scope import OnError
from amibuild.steps.launch import Purpose
from tests.contract import builder
from tests.contract.account import account
from tests.contract.builder import Answers, checks, new_project
from tests.contract.conftest import Start


class Watching:
    """Does something when it is asked, and types that line then."""

    def __init__(self, typed: str, then: Callable[[str], None] = lambda _: None) -> None:
        self.typed = typed
        self.then = then
        self.asked: list[str] = []

    def ask(self, text: str, error: AmibuildError | None = None) -> None:
        self.asked.append(text)
        self.then(text)

    def line(self) -> str | None:
        return self.typed


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return new_project(tmp_path / "project")


def test_a_failed_step_is_run_again_on_the_same_builder(start: Start, project: Project) -> None:
    answers = Answers(exit_codes={"hardening": 7, "minetest": 7})
    aws = start(script=answers)
    before = account(aws)

    def mend(text: str) -> None:
        answers.exit_codes = {"minetest": 7} if "hardening" in text else {}

    person = Watching("r\n", mend)
    result = builder.run(project, aws.cloud, on_error=OnError.ASK, person=person)
    assert result.verified
    assert answers.jobs.count("first-boot") == 1
    assert [job for job in answers.jobs if job in {"hardening", "minetest"}] == [
        "hardening", "hardening", "minetest", "minetest",
    ]  # fmt: skip
    left = {kind for kind, found in account(aws).items() if found - before[kind]}
    assert left == {"images", "snapshots"}
    (facts,) = bakes(project.state_dir)
    assert (facts.state, facts.left) == (State.DONE, ())


def test_what_one_wants_to_look_at_stays_and_takes_commands(start: Start, project: Project) -> None:
    answers = Answers(exit_codes={"minetest": 7})
    aws = start(script=answers)
    before = account(aws)
    person = Watching("k\n")
    with pytest.raises(StepFailed):
        builder.run(project, aws.cloud, on_error=OnError.ASK, person=person)
    (text,) = person.asked
    (facts,) = bakes(project.state_dir)
    assert facts.state is State.KEPT
    assert dict(facts.left).keys() == {ResourceKind.INSTANCE, ResourceKind.SECURITY_GROUP}
    command = shlex.split(text.split("`")[1])
    assert command == ["amibuild", "shell", facts.id, "--recipe", str(project.path)]
    machine = bake_machine.find(aws.cloud.in_region("eu-west-1"), project.state_dir, facts.id, None)
    assert machine.id == dict(facts.left)[ResourceKind.INSTANCE]
    ran = machine.run(b"id -u\n", timeout_s=60)
    assert ran.exit_code == 0
    assert b"says hello" in ran.stderr
    with pytest.raises(UsageError, match="no verify machine that lives"):
        bake_machine.find(aws.cloud, project.state_dir, facts.id, Purpose.VERIFY)
    aws.ec2.stop_instances(InstanceIds=[machine.id])
    with pytest.raises(ResourceFailed, match="it has to run"):
        bake_machine.find(aws.cloud, project.state_dir, facts.id, None)
    reap(aws.cloud, project.state_dir, target="local", dry_run=False, kept=True)
    assert account(aws) == before
    with pytest.raises(UsageError, match="no machine that lives"):
        bake_machine.find(aws.cloud, project.state_dir, facts.id, None)


def test_before_a_step_the_builder_stands_there_for_a_look(start: Start, project: Project) -> None:
    answers = Answers()
    aws = start(script=answers)
    seen: list[str] = []

    def look(text: str) -> None:
        (facts,) = bakes(project.state_dir)
        machine = bake_machine.find(aws.cloud, project.state_dir, facts.id, None)
        machine.run(b"true\n", timeout_s=60)
        seen.extend((facts.state, *answers.jobs))
        assert machine.id in text

    person = Watching("\n", look)
    builder.run(project, aws.cloud, person=person, pause_before="hardening")
    assert seen[:-1] == ["running", "first-boot", "ssm-agent", "os", "logging"]
    assert seen[-1].startswith("run-")
    assert len(person.asked) == 1


def test_an_image_that_is_not_proven_is_asked_about_too(start: Start, project: Project) -> None:
    answers = Answers()
    answers.results["checks"] = checks("failed", "it does not listen")
    aws = start(script=answers)
    before = account(aws)
    person = Watching("k\n")
    with pytest.raises(VerifyFailed):
        builder.run(project, aws.cloud, on_error=OnError.ASK, person=person)
    assert len(person.asked) == 1
    (image,) = account(aws)["images"] - before["images"]
    machines = account(aws)["instances"] - before["instances"]
    assert len(machines) == 2
    assert find(aws.cloud, project.recipe, image).tags[Tag.VERIFIED] == "failed"
