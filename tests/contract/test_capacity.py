"""Capacity that is short: the next type and zone, in the recipe's order, and no try twice."""

from __future__ import annotations

import json
from pathlib import Path

from tests.contract import builder
from tests.contract.builder import Answers, new_project
from tests.contract.conftest import Start


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
    found = aws.ec2.describe_instances()["Reservations"]
    assert {i["InstanceType"] for r in found for i in r["Instances"]} == {"c6i.large"}
