"""Capacity that is short: the next type and zone, in the recipe's order, and no try twice."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from amibuild.errors import NoCapacity
from amibuild.journal import Created, Noted, Removed, ResourceKind, read
from amibuild.names import Tag
from tests.contract import builder
from tests.contract.account import account
from tests.contract.builder import Answers, changed, new_project
from tests.contract.conftest import Aws, Start

if TYPE_CHECKING:
    from mypy_boto3_ec2.type_defs import InstanceTypeDef

NO_ROOM = "Server.InsufficientInstanceCapacity"


def machines(aws: Aws) -> list[InstanceTypeDef]:
    """All that were launched, in their order, those that are gone too."""
    found = [i for r in aws.ec2.describe_instances()["Reservations"] for i in r["Instances"]]
    return sorted(found, key=lambda one: one["LaunchTime"])


def test_the_next_type_is_asked_for_once_no_zone_has_the_first(
    start: Start, tmp_path: Path
) -> None:
    log = tmp_path / "calls.jsonl"
    aws = start(
        "RunInstances[c7i.large]:*=InsufficientInstanceCapacity", script=Answers(), call_log=log
    )
    zones = aws.ec2.describe_subnets(Filters=[{"Name": "default-for-az", "Values": ["true"]}])
    result = builder.run(new_project(tmp_path / "project"), aws.cloud)
    assert result.verified
    calls = [json.loads(line) for line in log.read_text().splitlines()]
    launches = [call for call in calls if call.get("operation") == "RunInstances"]
    refused = 2 * len(zones["Subnets"])
    assert len(launches) == refused + 2, "for the builder and for the proof, each zone once"
    assert {one["InstanceType"] for one in machines(aws)} == {"c6i.large"}


@pytest.mark.parametrize("which", [1, 2], ids=["builder", "proof"])
def test_one_that_there_is_no_room_for_after_its_call_was_answered_is_followed_by_the_next(
    start: Start, tmp_path: Path, which: int
) -> None:
    aws = start(f"boot:{which}={NO_ROOM}: none left", script=Answers())
    project = new_project(tmp_path / "project")
    before = account(aws)
    result = builder.run(project, aws.cloud)
    assert account(aws)["images"] - before["images"] == {result.image_id}
    assert account(aws)["instances"] == before["instances"]
    dead, following = machines(aws)[which - 1 : which + 1]
    wishes = [(m["InstanceType"], m["Placement"]["AvailabilityZone"]) for m in (dead, following)]
    assert wishes == [("c7i.large", "us-east-1a"), ("c7i.large", "us-east-1b")]
    tokens = [t["Value"] for m in (dead, following) for t in m["Tags"] if t["Key"] == Tag.TOKEN]
    assert len(set(tokens)) == 2, "EC2 knows each token by its first use"
    (journal,) = (project.state_dir / "journals").glob("*.jsonl")
    told = [
        event
        for event in read(journal)
        if isinstance(event, Noted | Created | Removed) and dead["InstanceId"] in str(event)
    ]
    assert [event.event for event in told] == ["created", "noted", "removed"]
    assert isinstance(told[1], Noted)
    assert told[1].text.endswith(f"did not come to run: {NO_ROOM}")
    removed = next(e for e in read(journal) if isinstance(e, Removed))
    assert removed.kind is ResourceKind.INSTANCE, "before the next is asked for"


def test_without_room_anywhere_it_ends_as_where_each_call_is_refused(
    start: Start, tmp_path: Path
) -> None:
    aws = start(f"boot:*={NO_ROOM}: none left", script=Answers())
    project = changed(new_project(tmp_path / "project"), builder={"instance_types": ["c7i.large"]})
    before = account(aws)
    with pytest.raises(NoCapacity, match=f"{NO_ROOM}: none left") as none:
        builder.run(project, aws.cloud)
    assert none.value.hint == "name more instance types in builder.instance_types"
    assert account(aws) == before
    zones = [one["Placement"]["AvailabilityZone"] for one in machines(aws)]
    assert zones == sorted(set(zones)), "each zone once"
    assert len(zones) > 1
