"""Services in a bake against the endpoint with driver none: what is told of them, and one that
can't be installed. tests/contract/test_bake.py has all else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from amibuild.errors import CommandFailed, NotFound, StepFailed, VerifyFailed
from amibuild.journal import StepFailed as StepFailedEvent
from amibuild.journal import StepStarted, read
from amibuild.project import Project
from amibuild.reap import reap
from amibuild.scope import OnError
from tests.contract import builder
from tests.contract.account import account
from tests.contract.builder import Answers, checks, new_project
from tests.contract.conftest import Start

TWO = ('provision.services=["minetest", "bzflag"]',)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return new_project(tmp_path / "project", TWO)


def answers_of_a_machine() -> Answers:
    """With what its checks measure, and what the installation of one service tells."""
    answers = Answers()
    measured = {"exposure": 1.1, "memory_used_mib": 33.4, "answers.game": True}
    answers.results["checks"] = builder.checks(measures=measured)
    answers.results["minetest"] = {"installed_bytes": 36_000_000}
    return answers


def test_what_was_measured_of_a_service_is_in_its_manifest_and_runbook(
    start: Start, project: Project
) -> None:
    result = builder.run(project, start(script=answers_of_a_machine()).cloud)
    assert result.manifest and result.runbook
    services = json.loads(result.manifest.read_text())["services"]
    minetest = services["minetest"]
    assert (minetest["exposure"], minetest["memory_used_mib"]) == (1.1, 33.4)
    assert minetest["installed_bytes"] == 36_000_000
    assert [port["seen"] for port in minetest["ports"]] == ["answers"]
    assert services["bzflag"]["exposure"] is None, "its checks told nothing"
    row = "| `minetest` | `svc-minetest` | 1.1 | game 30000/udp answers | 33 of 1024 MiB | 36 MB |"
    assert row in result.runbook.read_text()


def test_a_service_that_fails_stops_no_other_and_fails_the_bake_by_its_name(
    start: Start, project: Project
) -> None:
    answers = Answers(exit_codes={"minetest": 100})
    aws = start(script=answers)
    before = account(aws)
    with pytest.raises(VerifyFailed) as caught:
        builder.run(project, aws.cloud)
    assert caught.value.exit_code == 3
    assert "could not be given minetest" in caught.value.message
    (failure,) = caught.value.failures
    told, *said = failure.splitlines()
    assert told.startswith("minetest was not installed: it ended with exit code 100; its log is /")
    assert said == ["    minetest says hello"]
    assert answers.jobs[:-2] == [
        *("first-boot", "ssm-agent", "os", "logging", "hardening", "idle-stop"),
        *("minetest", "bzflag", "inventory", "audit", "seal"),
    ]
    assert set(answers.jobs[-2:]) == {"checks", "hygiene"}
    assert account(aws) == before, "no image stays that is not proven"


def test_what_every_service_that_failed_said_is_in_its_log_and_in_the_journal(
    start: Start, project: Project
) -> None:
    aws = start(script=Answers(exit_codes={"minetest": 100, "bzflag": 1}))
    with pytest.raises(VerifyFailed, match="could not be given minetest, bzflag"):
        builder.run(project, aws.cloud)
    (path,) = (project.state_dir / "journals").iterdir()
    failed = [event.step for event in read(path) if isinstance(event, StepFailedEvent)]
    assert failed == ["minetest", "bzflag", "verify"]
    (logs,) = (project.state_dir / "logs").iterdir()
    assert (logs / "minetest.log").read_text() == "minetest says hello\n"
    assert (logs / "bzflag.log").read_text() == "bzflag says hello\n"


def test_an_image_without_a_service_is_told_to_nobody(start: Start, project: Project) -> None:
    answers = Answers()
    aws = start(script=answers)
    builder.run(project, aws.cloud)
    book = (project.directory / "RUNBOOK.md").read_text()
    tfvars = (project.directory / "terraform" / "amibuild.auto.tfvars.json").read_text()
    answers.exit_codes = {"bzflag": 100}
    with pytest.raises(VerifyFailed):
        builder.run(project, aws.cloud)
    assert (project.directory / "RUNBOOK.md").read_text() == book
    assert (project.directory / "terraform" / "amibuild.auto.tfvars.json").read_text() == tfvars
    assert len(list((project.state_dir / "manifests").iterdir())) == 1


def test_with_keep_the_builder_stays_as_it_is_before_the_seal(
    start: Start, project: Project
) -> None:
    answers = Answers(exit_codes={"minetest": 100, "bzflag": 1})
    aws = start(script=answers)
    with pytest.raises(StepFailed, match="minetest: ended with exit code 100") as caught:
        builder.run(project, aws.cloud, on_error=OnError.KEEP)
    (note,) = [note for note in caught.value.__notes__ if note.startswith("bzflag")]
    assert "ended with exit code 1; its log is /" in note
    assert answers.jobs[-2:] == ["minetest", "bzflag"]
    assert aws.ec2.describe_images(Owners=["self"])["Images"] == []


def test_an_image_that_is_kept_for_a_look_is_marked_as_failed_and_goes_with_reap(
    start: Start, project: Project
) -> None:
    answers = Answers()
    aws = start(script=answers)
    before = account(aws)
    answers.results["checks"] = checks("failed", "no answer")
    with pytest.raises(VerifyFailed):
        builder.run(project, aws.cloud, on_error=OnError.KEEP)
    (image,) = aws.ec2.describe_images(Owners=["self"])["Images"]
    tags = {tag["Key"]: tag["Value"] for tag in image["Tags"]}
    assert tags["amibuild:verified"] == "failed"
    assert "amibuild:expires" in tags
    answers.results["checks"] = checks()
    again = builder.run(project, aws.cloud, if_changed=True)
    assert again.reused is False
    reap(aws.cloud, project.state_dir, target="local", dry_run=False, kept=True)
    after = account(aws)
    assert after["images"] - before["images"] == {again.image_id}


def test_a_step_that_is_no_service_ends_the_bake_at_once(start: Start, project: Project) -> None:
    answers = Answers(exit_codes={"os": 1})
    with pytest.raises(StepFailed):
        builder.run(project, start(script=answers).cloud)
    assert "minetest" not in answers.jobs


def test_a_service_whose_machine_is_lost_ends_the_bake_at_once(
    start: Start, project: Project
) -> None:
    """Nothing more can be done on it: this is no failure of the service alone."""
    aws = start(script=Answers())
    before = account(aws)

    def lose(shown: object) -> None:
        if isinstance(shown, StepStarted) and shown.step == "minetest":
            instances = aws.ec2.describe_instances()["Reservations"]
            ids = [i["InstanceId"] for r in instances for i in r["Instances"]]
            aws.ec2.terminate_instances(InstanceIds=ids)

    # The one when it is gone before the command is sent, the other when just after.
    with pytest.raises((NotFound, CommandFailed), match=r"SendCommand|Undeliverable"):
        builder.run(project, aws.cloud, lose)
    assert account(aws) == before
