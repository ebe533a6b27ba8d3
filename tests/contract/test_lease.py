"""The lease of a bake: its machines end with it, and what it has is its own while it lives.

Machines are scripted here; tests/local/test_lease.py has one that powers itself off.
"""

from __future__ import annotations

import base64
import logging
import signal
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from amibuild.bake import BakeResult, bake
from amibuild.journal import Shown, StepStarted, Subscriber
from amibuild.lease import Lease
from amibuild.library.bootstrap import lease_user_data
from amibuild.names import Tag, new_bake_id, parse_expiry
from amibuild.project import Project
from amibuild.reap import reap
from amibuild.reaped import ReapReport
from amibuild.scope import OnError
from amibuild.verify.boot import verify
from amibuild.wait import SystemClock, Waiting
from tests.contract import builder
from tests.contract.account import account
from tests.contract.builder import Answers, new_project
from tests.contract.conftest import Aws, Start


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return new_project(tmp_path / "project")


@dataclass
class Leaping(SystemClock):
    """The day's time leaps; waits go on as they were."""

    ahead: timedelta = field(default_factory=timedelta)

    def now(self) -> datetime:
        return super().now() + self.ahead


@dataclass
class Elsewhere:
    """Reaps from a machine that has no journal, whenever a stage begins and while jobs run."""

    aws: Aws
    clock: Leaping
    folder: Path
    reports: list[ReapReport] = field(default_factory=list)

    def __call__(self, shown: Shown) -> None:
        if isinstance(shown, StepStarted) or getattr(shown, "what", "") in {"seal", "checks"}:
            self.reports.append(
                reap(
                    self.aws.cloud, self.folder, target="local", dry_run=False, now=self.clock.now()
                )
            )


def at(stage: str, leap: timedelta, clock: Leaping) -> Subscriber:
    def hear(shown: Shown) -> None:
        if isinstance(shown, StepStarted) and shown.step == stage:
            clock.ahead = leap

    return hear


def run(project: Project, aws: Aws, clock: Leaping, *subscribers: Subscriber) -> BakeResult:
    return bake(
        project,
        aws.cloud,
        target="local",
        if_changed=False,
        on_error=OnError.CLEAN,
        subscribers=subscribers,
        on_result=lambda _: None,
        clock=clock,
    )


def ends(aws: Aws) -> dict[str, datetime]:
    """Resource id -> its end, of all that has one by a tag."""
    named = {"Filters": [{"Name": "key", "Values": [Tag.EXPIRES]}]}
    found = aws.ec2.describe_tags(**named)["Tags"]  # type: ignore[arg-type]
    return {
        tag["ResourceId"]: parse_expiry(tag["Value"])
        for tag in found
        if not tag["ResourceId"].startswith("eni-")
    }


def test_both_machines_of_a_bake_and_that_of_verify_are_gone_once_they_are_off(
    start: Start, project: Project
) -> None:
    aws = start(script=Answers())
    seen: dict[str, str] = {}
    told: dict[str, str] = {}

    def look(shown: Shown) -> None:
        if not isinstance(shown, Waiting) or shown.what not in {"first-boot", "checks"}:
            return
        for found in aws.ec2.describe_instances()["Reservations"]:
            for instance in found["Instances"]:
                if instance["State"]["Name"] == "running":
                    id_ = instance["InstanceId"]
                    wanted = aws.ec2.describe_instance_attribute(
                        InstanceId=id_, Attribute="instanceInitiatedShutdownBehavior"
                    )
                    seen[id_] = wanted["InstanceInitiatedShutdownBehavior"]["Value"]
                    given = aws.ec2.describe_instance_attribute(
                        InstanceId=id_, Attribute="userData"
                    )
                    told[id_] = base64.b64decode(given["UserData"]["Value"]).decode()

    made = builder.run(project, aws.cloud, look)
    assert list(seen.values()) == ["terminate", "terminate"]
    verify(project, aws.cloud, made.image_id, target="local", subscribers=(look,))
    assert list(seen.values()) == ["terminate"] * 3
    begins = lease_user_data(project.lease).decode()
    assert [text.startswith(begins) for text in told.values()] == [True] * 3


def test_a_machine_whose_bake_is_dead_ends_by_itself_and_reap_takes_the_rest(
    start: Start, tmp_path: Path
) -> None:
    aws = start(script=Answers())
    before = account(aws)
    folder = tmp_path / "project"
    assert builder.killed_at("os", aws.service.url, folder) == -signal.SIGKILL
    (machine,) = account(aws)["instances"]
    aws.machine(machine).power_off()
    aws.until_state(machine, "terminated")
    report = reap(aws.cloud, folder / ".amibuild", target="local", dry_run=False)
    assert report.left == []
    assert account(aws) == before


def test_a_bake_that_outlives_its_lease_loses_nothing_to_reap(
    start: Start, project: Project, tmp_path: Path
) -> None:
    aws, clock = start(script=Answers()), Leaping()
    elsewhere = Elsewhere(aws, clock, tmp_path / "elsewhere")
    leaps = {"os": 0.9, "seal": 1.7, "verify": 2.5, "distribute": 3.3}
    leaping = [at(stage, project.lease * share, clock) for stage, share in leaps.items()]
    result = run(project, aws, clock, *leaping, elsewhere)
    assert result.verified
    assert len(elsewhere.reports) > len(leaps)
    assert [report.removed for report in elsewhere.reports if report.removed] == []
    image = aws.cloud.images.image(result.image_id)
    assert not {image.id, *image.snapshots} & ends(aws).keys(), "a result has no end"


def test_an_end_that_goes_is_not_moved_on_by_who_still_sees_it(start: Start) -> None:
    """And before that also what was marked as verified by an earlier run of the same bake."""
    aws, clock, bake_id = start(), Leaping(), new_bake_id()
    lease = Lease(aws.cloud, bake_id, {}, timedelta(hours=6), clock)
    image = aws.image()
    group = aws.ec2.create_security_group(GroupName="g", Description="of a bake")["GroupId"]
    tags = {Tag.BAKE_ID: str(bake_id), Tag.EXPIRES: lease[Tag.EXPIRES], Tag.VERIFIED: "passed"}
    aws.cloud.images.tag([image, group], tags)
    seen = []
    for stage in ("verify", "distribute", "record"):
        clock.ahead += timedelta(hours=5)
        lease.hear(StepStarted(step=stage, what="goes on"))
        seen.append((ends(aws)[image], ends(aws)[group]))
    verify, distribute, record = seen
    assert verify[0] == verify[1] < distribute[0] == distribute[1] == record[0] < record[1]


def test_what_is_made_after_the_end_was_moved_on_has_the_later_one(
    start: Start, project: Project
) -> None:
    aws, clock = start(script=Answers()), Leaping()
    seen: dict[str, dict[str, datetime]] = {}

    def look(shown: Shown) -> None:
        if isinstance(shown, Waiting) and shown.what in {"os", "checks"}:
            seen[shown.what] = ends(aws)

    leap = project.lease * 0.8
    began = datetime.now(UTC)
    run(project, aws, clock, at("os", leap, clock), look)
    # Group, machine and its disk; then image, snapshot, the second machine and two disks besides.
    assert (len(seen["os"]), len(seen["checks"])) == (3, 8)
    for end in (*seen["os"].values(), *seen["checks"].values()):
        assert end >= began + leap + project.lease - timedelta(seconds=1)


def test_an_end_that_could_not_be_moved_on_is_told_and_tried_again(
    start: Start, project: Project, caplog: pytest.LogCaptureFixture
) -> None:
    aws, clock = start("CreateTags:1=UnauthorizedOperation", script=Answers()), Leaping()
    leap = project.lease * 0.8
    seen: dict[str, set[datetime]] = {}

    def look(shown: Shown) -> None:
        if isinstance(shown, Waiting) and shown.what in {"os", "logging"}:
            seen[shown.what] = set(ends(aws).values())

    began = datetime.now(UTC)
    with caplog.at_level(logging.WARNING, "amibuild"):
        result = run(
            project,
            aws,
            clock,
            at("os", leap, clock),
            at("logging", leap + timedelta(minutes=2), clock),
            look,
        )
    assert result.verified
    assert "can't be given a later end yet: CreateTags" in caplog.text
    assert max(seen["os"]) < began + project.lease + timedelta(minutes=1)
    assert min(seen["logging"]) > began + leap + project.lease
