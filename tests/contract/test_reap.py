"""What reap removes, over regions, and above all what it leaves: with driver none."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from amibuild.errors import CommandFailed
from amibuild.journal import BakeStarted, Journal, ResourceKind, journal_path
from amibuild.names import Tag, expiry, new_bake_id
from amibuild.project import Project
from amibuild.reap import reap
from amibuild.reaped import Elsewhere, Thing
from amibuild.scope import OnError
from tests.contract import builder
from tests.contract.account import account
from tests.contract.builder import Answers, changed, new_project
from tests.contract.conftest import Aws, Start
from tests.contract.imaged import copied, in_region
from tests.contract.place import Place

HERE, THERE = "us-east-1", "eu-west-1"
NOW = datetime(2026, 11, 22, 10, 15, tzinfo=UTC)
PAST, FUTURE = (expiry(NOW, timedelta(hours=hours)) for hours in (-1, 1))
BAKE = "20261122-081500-a1b2c3"
OURS = {Tag.IMAGE: "game-host", Tag.BAKE_ID: BAKE, Tag.EXPIRES: PAST, Tag.TOKEN: f"{BAKE}-one"}


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return changed(new_project(tmp_path / "project"), publish={"regions": []})


def volume(aws: Aws, **tags: str) -> str:
    made = aws.ec2.create_volume(AvailabilityZone=f"{aws.region}a", Size=1)["VolumeId"]
    mark(aws, tags, made)
    return made


def mark(aws: Aws, tags: Mapping[str, str], *ids: str) -> None:
    if tags:
        aws.ec2.create_tags(Resources=ids, Tags=[{"Key": k, "Value": v} for k, v in tags.items()])


def keep_a_failed_one(aws: Aws, project: Project, region: str) -> None:
    there = changed(project, aws={"region": region})
    with pytest.raises(CommandFailed):
        builder.run(there, aws.cloud.in_region(region), on_error=OnError.KEEP)


@pytest.mark.parametrize("lost", ["kept", "bake-started"])
def test_a_proven_image_stays_whatever_its_journal_lost(
    start: Start, project: Project, lost: str
) -> None:
    aws = start(script=Answers())
    made = builder.run(project, aws.cloud)
    (path,) = (project.state_dir / "journals").glob("*.jsonl")
    lines = path.read_text().splitlines(keepends=True)
    wanted = [line for line in lines if f'"{lost}"' not in line and '"kept"' not in line]
    assert len(wanted) < len(lines)
    path.write_text("".join(wanted))
    for dry_run in (True, False):
        report = reap(aws.cloud, project.state_dir, target="local", dry_run=dry_run)
        assert (report.removed, report.would_remove) == ([], [])
    assert aws.cloud.images.image(made.image_id).state == "available"


def test_a_dead_bake_is_reaped_in_the_region_that_its_journal_names(
    start: Start, project: Project
) -> None:
    aws = start(script=Answers(exit_codes={"os": 3}))
    accounts = [in_region(aws, region) for region in (HERE, THERE)]
    before = [account(one) for one in accounts]
    for region in (HERE, THERE):
        keep_a_failed_one(aws, project, region)
    dry = reap(aws.cloud, project.state_dir, target="local", dry_run=True, kept=True)
    report = reap(aws.cloud, project.state_dir, target="local", dry_run=False, kept=True)
    assert report.regions == [HERE, THERE]
    assert (report.left, report.elsewhere, report.unreached) == ([], [], [])
    assert sorted(report.removed) == sorted(dry.would_remove)
    for region in (HERE, THERE):
        kinds = {thing.kind for thing in report.removed if thing.region == region}
        assert kinds == {ResourceKind.INSTANCE, ResourceKind.SECURITY_GROUP}
    assert [account(one) for one in accounts] == before


def test_a_region_that_was_not_asked_for_is_left_alone(start: Start, project: Project) -> None:
    aws = start(script=Answers(exit_codes={"os": 3}))
    keep_a_failed_one(aws, project, THERE)
    there = account(in_region(aws, THERE))
    (journal,) = (project.state_dir / "journals").iterdir()
    report = reap(
        aws.cloud, project.state_dir, target="local", dry_run=False, kept=True, regions=[HERE]
    )
    assert (report.regions, report.removed) == ([HERE], [])
    assert report.elsewhere == [Elsewhere(journal.stem, "local", THERE)]
    assert account(in_region(aws, THERE)) == there


def test_an_image_that_another_machines_dead_bake_left_in_another_region_goes(
    start: Start, project: Project, tmp_path: Path
) -> None:
    """No journal of it is here: all that tells of it is its tags."""
    aws = start(script=Answers(exit_codes={"hygiene": 3}))
    there = in_region(aws, THERE)
    before = account(there)
    keep_a_failed_one(aws, project, THERE)
    for state_dir, later, removed in (
        (tmp_path / "elsewhere", timedelta(), False),
        (tmp_path / "elsewhere", timedelta(days=2), True),
    ):
        now = datetime.now(UTC) + later
        report = reap(
            aws.cloud, state_dir, target="local", dry_run=False, regions=[HERE, THERE], now=now
        )
        assert bool(report.removed) is removed
    assert ResourceKind.IMAGE in {thing.kind for thing in report.removed}
    assert account(there) == before


def test_a_region_that_refuses_does_not_stop_the_others(start: Start, tmp_path: Path) -> None:
    aws = start("DescribeVolumes:1=UnauthorizedOperation")
    left = volume(in_region(aws, THERE), **OURS)
    report = reap(
        aws.cloud, tmp_path, target="local", dry_run=False, regions=[HERE, THERE], now=NOW
    )
    assert report.removed == [Thing(ResourceKind.VOLUME, left, THERE)]
    (refused,) = report.unreached
    assert refused.region == HERE
    assert "UnauthorizedOperation" in refused.reason
    assert refused.hint is not None


def test_nothing_that_only_looks_like_ours_is_reaped(start: Start, tmp_path: Path) -> None:
    """And of what is ours: nothing that is not past its end, is proven, or is a live bake's."""
    aws = start()
    live = str(new_bake_id())
    without_bake = {key: value for key, value in OURS.items() if key != Tag.BAKE_ID}
    without_end = {key: value for key, value in OURS.items() if key != Tag.EXPIRES}
    foreign = {key.replace("amibuild:", "notamibuild:"): value for key, value in OURS.items()}
    without_zone = PAST.removesuffix("Z")
    marks: list[dict[str, str]] = [
        {},
        {"Name": f"amibuild-{BAKE}-build"},
        foreign,
        without_bake,
        {Tag.BAKE_ID: BAKE, Tag.IMAGE: "game-host"},
        *(
            {**OURS, Tag.EXPIRES: value}
            for value in (
                *("", "soon", "1577836800", "2020-01-01", without_zone, f"{without_zone}+00:00"),
                FUTURE,
            )
        ),
        {**without_end, Tag.VERIFIED: "passed"},
        {**OURS, Tag.EXPIRES: FUTURE, Tag.VERIFIED: "passed"},
        {**OURS, Tag.BAKE_ID: live},
    ]
    source = volume(aws)
    for number, tags in enumerate(marks):
        group = aws.ec2.create_security_group(
            GroupName=f"look-alike-{number}", Description="a look-alike"
        )["GroupId"]
        snapshot = aws.ec2.create_snapshot(VolumeId=source)["SnapshotId"]
        mark(aws, tags, aws.launch(), volume(aws), snapshot, group)
    image = aws.image()
    for number, tags in enumerate(marks):
        mark(aws, tags, copied(aws, image, Name=f"look-alike-{number}"))
    before = account(aws)
    ours = volume(aws, **OURS)
    with Journal(journal_path(tmp_path, live)) as journal:
        journal.write(
            BakeStarted(
                bake_id=live, image="game-host", digest="0" * 64, target="local", region=HERE,
                source_ami=aws.base, recipe="amibuild.toml", pid=1, version="1",
            )
        )  # fmt: skip
        report = reap(aws.cloud, tmp_path, target="local", dry_run=False, kept=True, now=NOW)
    assert report.removed == [Thing(ResourceKind.VOLUME, ours, HERE)]
    assert report.live == [live]
    assert account(aws) == before
    # What has a date that is still to come is told, once each.
    ahead = [one for one in report.leased if one.bake_id == BAKE]
    assert ahead == report.leased
    assert sorted(one.thing.kind for one in ahead) == sorted(
        2
        * (
            ResourceKind.INSTANCE,
            ResourceKind.VOLUME,
            ResourceKind.SNAPSHOT,
            ResourceKind.SECURITY_GROUP,
            ResourceKind.IMAGE,
        )
    )
    assert {one.until for one in ahead} == {NOW + timedelta(hours=1)}


def test_an_image_whose_bake_died_before_its_end_went_is_nobodys_when_that_is_past(
    start: Start, tmp_path: Path
) -> None:
    """It is marked as verified, and nobody takes it for a result: see ImageFacts.proven."""
    aws = start()
    made = aws.image()
    snapshots = aws.cloud.images.image(made).snapshots
    mark(aws, {**OURS, Tag.EXPIRES: FUTURE, Tag.VERIFIED: "passed"}, made, *snapshots)
    assert reap(aws.cloud, tmp_path, target="local", dry_run=False, now=NOW).removed == []
    mark(aws, {Tag.EXPIRES: PAST}, made, *snapshots)
    report = reap(aws.cloud, tmp_path, target="local", dry_run=False, now=NOW)
    assert Thing(ResourceKind.IMAGE, made, HERE) in report.removed
    there = account(aws)
    assert made not in there["images"]
    assert not there["snapshots"] & set(snapshots)


def test_what_a_bake_of_another_machine_still_has_is_told_and_not_called_nothing(
    here: Place,
) -> None:
    here.run("local", "up", "--machine", "none")
    bake_id = new_bake_id()
    until = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=7)
    lease = expiry(until, timedelta())
    instance = here.launch(**{**OURS, Tag.BAKE_ID: str(bake_id), Tag.EXPIRES: lease})
    done = here.run("reap", "--json")
    assert json.loads(done.stdout)["leased"] == [
        {
            "kind": "instance",
            "id": instance,
            "region": HERE,
            "bake_id": bake_id,
            "until": until.isoformat(),
        }
    ]
    said = done.stderr.decode()
    assert f"instance {instance} in us-east-1 is left alone until {until:%Y-%m-%dT%H:%M}" in said
    assert "nothing was left behind" not in said


def test_the_command_line_tells_regions_and_those_that_refuse(here: Place) -> None:
    fault = "DescribeVolumes:1=UnauthorizedOperation"
    here.run("local", "up", "--machine", "none", "--fault", fault)
    done = here.run("reap", "--region", HERE, "--region", THERE, "--json", check=False)
    said = json.loads(done.stdout)
    assert said["regions"] == [HERE, THERE]
    assert [one["region"] for one in said["unreached"]] == [HERE]
    assert done.exit_code == 1
    assert b"us-east-1: DescribeVolumes in us-east-1: UnauthorizedOperation" in done.stderr
    everywhere = here.ask("reap", "--all-regions")
    assert {HERE, THERE} < set(everywhere["regions"])


@pytest.mark.parametrize("wrong", [["--region", "Ireland"], ["--region", HERE, "--all-regions"]])
def test_what_names_no_region_is_refused_before_anything_starts(
    here: Place, wrong: list[str]
) -> None:
    done = here.run("reap", *wrong, check=False)
    assert done.exit_code == 2
    assert b"--region" in done.stderr
    assert not (here.folder / "data").exists()
