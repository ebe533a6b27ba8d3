"""A bake on a spot builder: asked for first, and once more on demand when EC2 takes it back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from moto.ec2.models import ec2_backends
from typer.testing import CliRunner

from amibuild.cli.main import app
from amibuild.errors import (
    AmibuildError,
    CommandFailed,
    ResourceFailed,
    StepFailed,
    TakenBack,
    UsageError,
)
from amibuild.journal import Noted, Removed, Shown, StepStarted, journal_path, read
from amibuild.local.overlay.desk import ACCOUNT, Desk
from amibuild.local.overlay.spot import TAKEN_BACK
from amibuild.project import Project
from amibuild.scope import OnError
from tests.contract import builder
from tests.contract.account import Account, account
from tests.contract.builder import Answers, changed, new_project
from tests.contract.conftest import REGION, Aws, Start

NO_ROOM = "Server.InsufficientInstanceCapacity"
ZONES = 6  # us-east-1's, as moto knows them


@pytest.fixture
def project(tmp_path: Path) -> Project:
    project = new_project(tmp_path / "project", ("provision.services=[]",))
    return changed(project, builder={"spot": True, "spot_max_price": "0.05"})


class Taken:
    """Takes the builder back when a stage begins, the first `times` times."""

    def __init__(self, stage: str, times: int = 1) -> None:
        self.stage = stage
        self.times = times
        self.ids: list[str] = []

    def __call__(self, shown: Shown) -> None:
        if not isinstance(shown, StepStarted) or shown.step != self.stage:
            return
        with Desk.current.lock:
            backend = ec2_backends[ACCOUNT][REGION]
            for instance in backend.all_instances():
                if instance.state == "running" and len(self.ids) < self.times:
                    self.ids.append(instance.id)
                    backend.terminate_instance(instance, TAKEN_BACK)


def launches_of(log: Path) -> list[str]:
    """What each RunInstances was answered."""
    calls = (json.loads(line) for line in log.read_text().splitlines())
    return [call["error"] or "made" for call in calls if call["operation"] == "RunInstances"]


def bake_of(project: Project) -> str:
    (path,) = (project.state_dir / "journals").glob("*.jsonl")
    return path.stem


def journal_of(project: Project) -> Iterator[object]:
    yield from read(journal_path(project.state_dir, bake_of(project)))


def notes(project: Project) -> list[str]:
    return [event.text for event in journal_of(project) if isinstance(event, Noted)]


def only_the_image(before: Account, after: Account, image_id: str) -> None:
    assert after["images"] - before["images"] == {image_id}
    assert len(after["snapshots"] - before["snapshots"]) == 1
    for kind in ("instances", "volumes", "groups"):
        assert after[kind] == before[kind]


def lifecycles(aws: Aws) -> list[str]:
    """Of each machine that was made, those that are gone too, in the order of their making."""
    found = [i for r in aws.ec2.describe_instances()["Reservations"] for i in r["Instances"]]
    found.sort(key=lambda one: one["LaunchTime"])
    return [one.get("InstanceLifecycle", "on demand") for one in found]


def test_the_builder_is_a_spot_machine_and_the_other_is_not(start: Start, project: Project) -> None:
    aws = start(script=Answers())
    before = account(aws)
    result = builder.run(project, aws.cloud)
    only_the_image(before, account(aws), result.image_id)
    assert sorted(lifecycles(aws)) == ["on demand", "spot"]
    (request,) = aws.ec2.describe_spot_instance_requests()["SpotInstanceRequests"]
    assert (request["SpotPrice"], request["State"]) == ("0.05", "closed")
    assert {t["Key"] for t in request["Tags"]} >= {"amibuild:bake-id", "amibuild:expires"}
    assert "shutdown" not in result.seconds_by_step, "it can't be stopped"


@pytest.mark.parametrize("stage", ["connect", "os", "capture"])
def test_one_that_is_taken_back_is_followed_by_one_on_demand(
    start: Start, project: Project, stage: str
) -> None:
    aws, taken = start(script=Answers()), Taken(stage)
    before = account(aws)
    result = builder.run(project, aws.cloud, taken)
    only_the_image(before, account(aws), result.image_id)
    assert f"EC2 took {taken.ids[0]} back: once more, on demand" in notes(project)
    events = list(journal_of(project))
    (gone,) = (e for e in events if isinstance(e, Removed) and e.id == taken.ids[0])
    launches = [e for e in events if isinstance(e, StepStarted) and e.step == "launch"]
    assert events.index(gone) < events.index(launches[1])
    assert lifecycles(aws).count("spot") == 1
    assert "shutdown" in result.seconds_by_step
    assert result.manifest is not None
    steps = [one["name"] for one in json.loads(result.manifest.read_text())["steps"]]
    assert len(steps) == len(set(steps)), "only the second try is told of"


def test_one_that_is_taken_back_at_once_is_seen_while_it_is_waited_for(
    start: Start, project: Project
) -> None:
    """By the endpoint's own fault. One that was not seen to run is followed by the next, too."""
    aws = start("spot:*=0", script=Answers())
    before = account(aws)
    result = builder.run(project, aws.cloud)
    only_the_image(before, account(aws), result.image_id)
    first, *others = lifecycles(aws)
    assert first == "spot"
    assert others[-2:] == ["on demand", "on demand"]


def test_where_spot_machines_do_not_come_to_run_it_is_on_demand(
    start: Start, project: Project
) -> None:
    aws = start(f"boot:1-{ZONES}={NO_ROOM}: none left", script=Answers())
    before = account(aws)
    one_type = changed(project, builder={"instance_types": ["c7i.large"]})
    result = builder.run(one_type, aws.cloud)
    only_the_image(before, account(aws), result.image_id)
    assert lifecycles(aws) == ["spot"] * ZONES + ["on demand"] * 2
    (note,) = (note for note in notes(one_type) if "on demand" in note)
    assert note.startswith(f"{NO_ROOM}: no spot machine is to be had")


class Counting(Answers):
    """Each job says which time it is."""

    def says(self, job: str) -> str:
        return f"{job}: {self.jobs.count(job)}"


def test_the_logs_are_those_of_the_machine_that_the_bake_went_on_with(
    start: Start, project: Project
) -> None:
    aws, taken = start(script=Counting()), Taken("hardening")
    builder.run(project, aws.cloud, taken)
    bake_id, recipe = bake_of(project), str(project.path)
    told = {
        step: CliRunner().invoke(app, ["logs", bake_id, "--step", step, "--recipe", recipe]).stdout
        for step in ("os", "hardening")
    }
    assert told == {"os": "os: 2\n", "hardening": "hardening: 1\n"}
    lost = project.state_dir / "logs" / bake_id / taken.ids[0]
    assert (lost / "os.log").read_text() == "os: 1\n"
    assert not (lost / "hardening.log").exists()


def test_an_image_that_its_builders_loss_spoilt_is_removed(start: Start, project: Project) -> None:
    """It went after the call that captures it, and before its disk was at rest."""
    aws = start(script=Answers())
    before, taken = account(aws), Taken("capture")

    def look(shown: Shown) -> None:
        if isinstance(shown, Noted) and " will be " in shown.text:
            taken(StepStarted(step="capture", what=""))

    result = builder.run(project, aws.cloud, look)
    only_the_image(before, account(aws), result.image_id)


def test_the_second_one_is_on_demand_and_its_end_is_an_error(
    start: Start, project: Project
) -> None:
    aws = start(script=Answers())
    before = account(aws)
    with pytest.raises(AmibuildError) as lost:
        builder.run(project, aws.cloud, Taken("os", times=2))
    assert not isinstance(lost.value, TakenBack)
    assert account(aws) == before


def test_what_failed_by_itself_is_not_tried_again(start: Start, project: Project) -> None:
    answers = Answers(exit_codes={"os": 3})
    aws = start(script=answers)
    before = account(aws)
    with pytest.raises(CommandFailed, match="os"):
        builder.run(project, aws.cloud)
    assert answers.jobs.count("os") == 1
    assert account(aws) == before


def test_without_spot_capacity_anywhere_it_is_on_demand(
    start: Start, project: Project, tmp_path: Path
) -> None:
    log = tmp_path / "calls"
    refused = 2 * ZONES
    aws = start(
        f"RunInstances:1-{refused}=MaxSpotInstanceCountExceeded", script=Answers(), call_log=log
    )
    builder.run(project, aws.cloud)
    assert launches_of(log)[: refused + 1] == ["MaxSpotInstanceCountExceeded"] * refused + ["made"]
    assert lifecycles(aws) == ["on demand", "on demand"]
    (note,) = (note for note in notes(project) if "on demand" in note)
    assert note.startswith("MaxSpotInstanceCountExceeded: no spot machine is to be had")


def test_a_price_that_is_too_low_makes_it_on_demand(start: Start, project: Project) -> None:
    aws = start(script=Answers())
    low = changed(project, builder={"spot_max_price": "0.002"})
    builder.run(low, aws.cloud)
    assert lifecycles(aws) == ["on demand", "on demand"]
    assert any(note.startswith("SpotMaxPriceTooLow: ") for note in notes(low))


def test_one_on_spot_is_gone_on_with_and_is_captured_as_such(
    start: Start, project: Project
) -> None:
    answers = Answers(exit_codes={"os": 7})
    aws = start(script=answers)
    with pytest.raises(StepFailed):
        builder.run(project, aws.cloud, on_error=OnError.KEEP)
    answers.exit_codes = {}
    on_demand = changed(project, builder={"spot": False, "spot_max_price": None})
    result = builder.run(on_demand, aws.cloud, resume=bake_of(project))
    assert "shutdown" not in result.seconds_by_step
    assert sorted(lifecycles(aws)) == ["on demand", "spot"]


def test_one_on_spot_that_booted_after_its_seal_is_not_gone_on_with(
    start: Start, project: Project
) -> None:
    aws = start("capture:1=disk full", script=Answers())
    with pytest.raises(ResourceFailed, match="disk full"):
        builder.run(project, aws.cloud, on_error=OnError.KEEP)
    with pytest.raises(UsageError, match="may have booted again since it was sealed"):
        builder.run(project, aws.cloud, resume=bake_of(project))
