"""What `amibuild reap --json` says."""

from __future__ import annotations

from dataclasses import fields

from amibuild.cli.reap import report_json, report_text
from amibuild.errors import Leftover
from amibuild.journal import ResourceKind
from amibuild.reaped import Elsewhere, ReapReport, Thing


def test_what_only_another_call_can_clean_is_in_the_json() -> None:
    said = report_json(ReapReport(elsewhere=[Elsewhere("20261122-1", "aws", "eu-west-1")]))
    told = {"bake_id": "20261122-1", "target": "aws", "region": "eu-west-1", "account": ""}
    assert said["elsewhere"] == [told]


def test_the_json_leaves_out_nothing_of_the_report() -> None:
    assert report_json(ReapReport()).keys() == {field.name for field in fields(ReapReport)}


def test_each_thing_is_told_with_its_region_in_text_and_json() -> None:
    here = Thing(ResourceKind.INSTANCE, "i-1", "us-east-1")
    there = Thing(ResourceKind.IMAGE, "ami-1", "eu-west-1")
    stuck = Leftover("volume", "vol-1", "eu-west-1", "in use", "aws ec2 delete-volume")
    report = ReapReport(removed=[here], would_remove=[there], kept=[there], left=[stuck])
    assert report_text(report).splitlines() == [
        "removed instance i-1 in us-east-1",
        "would remove image ami-1 in eu-west-1",
        "left volume vol-1 in eu-west-1: in use",
    ]
    said = report_json(report)
    assert said["removed"] == [{"kind": "instance", "id": "i-1", "region": "us-east-1"}]
    assert said["kept"] == [{"kind": "image", "id": "ami-1", "region": "eu-west-1"}]
    assert said["left"][0]["region"] == "eu-west-1"
